//! What is told of the health of the server, and of each of its services.

use std::{future, iter};

use holdfast_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};
use tokio::sync::watch;
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, HealthService},
};

/// The health of the server, by the empty name, and of the services of Holdfast, by theirs: always the same for all.
///
/// It is good while the backend takes writes. Who asks is mostly a balancer or a supervisor, and there is no telling it that
/// reads are still served.
pub(super) struct Health {
    reporter: HealthReporter,
    writable: watch::Receiver<bool>,
    /// What was told last.
    told: bool,
}

impl Health {
    /// Goes by whether the backend takes writes.
    pub async fn new(writable: watch::Receiver<bool>) -> Self {
        let told = *writable.borrow();
        let health = Self { reporter: HealthReporter::new(), writable, told };
        health.set(status(told)).await;
        health
    }

    /// Answers those who ask.
    pub fn service(&self) -> HealthService {
        HealthService::from_health_reporter(self.reporter.clone())
    }

    /// Follows the backend, without end.
    pub async fn follow(&mut self) {
        while let Ok(writable) = self.writable.wait_for(|now| *now != self.told).await.map(|it| *it)
        {
            match writable {
                true => tracing::info!("the backend takes writes again: the health is SERVING"),
                false => tracing::warn!(
                    "the backend takes no writes: the health is NOT_SERVING until it does; reads are served"
                ),
            }
            self.set(status(writable)).await;
            self.told = writable;
        }
        // A backend that is gone has nothing more to tell.
        future::pending().await
    }

    /// Tells who watches the health that nothing is served any more, and ends their streams: they would hold up the
    /// stop. A status that is cleared is the end of those who watch it, after what it was last.
    pub async fn end(mut self) {
        self.set(ServingStatus::NotServing).await;
        for name in names() {
            self.reporter.clear_service_status(&name).await;
        }
    }

    async fn set(&self, status: ServingStatus) {
        for name in names() {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

fn status(writable: bool) -> ServingStatus {
    match writable {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    }
}

/// The services of Holdfast, and the empty name of the server itself.
fn names() -> Vec<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the build has encoded it");
    let named = |file: &FileDescriptorProto| {
        let name =
            |service: &ServiceDescriptorProto| format!("{}.{}", file.package(), service.name());
        file.service.iter().map(name).collect::<Vec<_>>()
    };
    iter::once(String::new()).chain(set.file.iter().flat_map(named)).collect()
}
