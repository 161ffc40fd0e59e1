//! The health of a server, as `grpc.health.v1` tells it.

use tonic::{
    Request, Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel,
};
use tonic_prost::ProstCodec;

/// A request names a service, or with an empty name the server.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthRequest {
    #[prost(string, tag = "1")]
    pub service: String,
}

/// An answer has a status.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthResponse {
    #[prost(int32, tag = "1")]
    pub status: i32,
}

pub const SERVING: i32 = 1;
pub const NOT_SERVING: i32 = 2;

/// What a server says of a service.
pub async fn health(channel: Channel, service: &str) -> i32 {
    let mut client = Grpc::new(channel);
    client.ready().await.expect("the server is there");
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = ProstCodec::<HealthRequest, HealthResponse>::new();
    let request = HealthRequest { service: service.to_owned() };
    let answer = client.unary(Request::new(request), path, codec).await;
    answer.expect("answered").into_inner().status
}

/// What a server says of itself, as it changes.
pub struct HealthWatch(Streaming<HealthResponse>);

impl HealthWatch {
    pub async fn of(channel: Channel) -> Self {
        let mut client = Grpc::new(channel);
        client.ready().await.expect("the server is there");
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Watch");
        let codec = ProstCodec::<HealthRequest, HealthResponse>::new();
        let request = Request::new(HealthRequest::default());
        let answers = client.server_streaming(request, path, codec).await;
        Self(answers.expect("answered").into_inner())
    }

    /// Waits until it says this.
    pub async fn until(&mut self, status: i32) {
        loop {
            let answer = self.0.message().await.expect("the server is there");
            if answer.expect("a watch does not end by itself").status == status {
                return;
            }
        }
    }
}
