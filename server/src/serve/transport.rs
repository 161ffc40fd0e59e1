//! Connections: accepted, secured, and served, each by one task.

use std::{convert::Infallible, fs, io, path::Path, pin::pin, sync::Arc, time::Duration};

use futures::future::Either;
use holdfast_proto::one_task::OneTask;
use hyper::{
    HeaderMap, Request, Response, body::Incoming, server::conn::http2, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
    server::TlsStream,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, body::Body, codegen::Service as _, service::Routes};

use super::preface::Prefaced;
use crate::{
    busy_poll,
    clock::Clock,
    config::{Config, Problem},
    rpc::Caller,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How much of a stream a client may send ahead; enough for a large request to come in one go.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// The largest piece that a message comes in: as large as most messages of a pipeline.
const FRAME_BYTES: u32 = 64 << 10;

/// Streams of one connection at a time. Above it clients wait without a word, so it is far above what they need.
const MAX_CONCURRENT_STREAMS: u32 = 100_000;

/// A silent peer is asked after this time whether it is there, and has as long again to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How long a client may take to agree on TLS, and then to say that it speaks HTTP/2.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long it may take for the latter when the server stops.
const LAST_HANDSHAKE: Duration = Duration::from_millis(500);

/// How long to wait after a connection was not accepted, for lack of open files for instance: it would come again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves connections.
#[derive(Clone)]
pub(super) struct Transport {
    tls: Option<TlsAcceptor>,
}

/// What all connections have in common.
struct Shared {
    transport: Transport,
    /// Whether calls wait for nobody but clients; with a backend that is elsewhere they do.
    only_clients: bool,
    routes: Routes,
    clock: Arc<dyn Clock>,
    stopping: CancellationToken,
}

impl Transport {
    /// One with TLS if certificate and key are set.
    pub(super) fn new(config: &Config, problems: &mut Vec<Problem>) -> Option<Self> {
        let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key) else {
            return Some(Self { tls: None });
        };
        let mut read = |setting, path: &Path| {
            let error = |error| format!("{} cannot be read: {error}", path.display());
            let pem = fs::read(path).map_err(error);
            pem.map_err(|text| problems.push(config.problem(setting, text))).ok()
        };
        let (cert_pem, key_pem) = (read("tls.cert", cert), read("tls.key", key));
        match tls(&cert_pem?, &key_pem?) {
            Ok(tls) => Some(Self { tls: Some(TlsAcceptor::from(Arc::new(tls))) }),
            Err(why) => {
                let key = key.display();
                let text = format!("no PEM certificate and key in it and in {key}: {why}");
                problems.push(config.problem("tls.cert", text));
                None
            }
        }
    }

    /// Serves until `stopping` is cancelled, and then until the calls under way are done.
    pub(super) async fn serve(
        self,
        listener: TcpListener,
        only_clients: bool,
        routes: Routes,
        clock: Arc<dyn Clock>,
        stopping: CancellationToken,
    ) {
        let shared = Arc::new(Shared { transport: self, only_clients, routes, clock, stopping });
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = shared.stopping.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    if shared.only_clients {
                        busy_poll::watch(&stream);
                    }
                    let task = OneTask::default();
                    let serving = shared.clone().serve(stream, task.clone());
                    task.spawn(connections.track_future(serving));
                }
                Err(error) => {
                    tracing::warn!("a connection was not accepted: {error}");
                    shared.clock.sleep(PAUSE).await;
                }
            }
        }
        // Who comes now is to be refused at once.
        drop(listener);
        connections.close();
        connections.wait().await;
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, stream: TcpStream, task: OneTask) {
        let served = match self.secure(stream).await {
            Ok(Some(Either::Left(plain))) => self.serve_calls(plain, task).await,
            Ok(Some(Either::Right(secured))) => self.serve_calls(*secured, task).await,
            Ok(None) => return,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = served {
            tracing::debug!(error, "a connection has failed");
        }
    }

    /// Agrees on TLS where that is set up; nothing if it took too long or is no longer of use.
    async fn secure(
        &self,
        stream: TcpStream,
    ) -> io::Result<Option<Either<TcpStream, Box<TlsStream<TcpStream>>>>> {
        stream.set_nodelay(true)?;
        let Some(tls) = &self.transport.tls else {
            return Ok(Some(Either::Left(stream)));
        };
        tokio::select! {
            secured = tls.accept(stream) => Ok(Some(Either::Right(Box::new(secured?)))),
            () = self.clock.sleep(HANDSHAKE) => Ok(None),
            () = self.stopping.cancelled() => Ok(None),
        }
    }

    async fn serve_calls(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        task: OneTask,
    ) -> Result<(), BoxError> {
        let gone = CancellationToken::new();
        // Once the connection has ended, whoever ended it, the callers on it are gone.
        let _gone_on_drop = gone.clone().drop_guard();
        let (routes, caller) = (self.routes.clone(), Caller::new(gone));
        let service = service_fn(move |request| answer(routes.clone(), caller.clone(), request));
        let mut http = http2::Builder::new(task);
        http.timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE);
        let prefaced = CancellationToken::new();
        let stream = Prefaced::new(stream, prefaced.clone());
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        let stopped = async {
            self.stopping.cancelled().await;
            self.clock.sleep(LAST_HANDSHAKE).await;
        };
        tokio::select! {
            biased;
            served = connection.as_mut() => return Ok(served?),
            () = prefaced.cancelled() => {}
            () = self.clock.sleep(HANDSHAKE) => return Ok(()),
            () = stopped => return Ok(()),
        }
        tokio::select! {
            served = connection.as_mut() => return Ok(served?),
            () = self.stopping.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    }
}

/// Answers a request within the time that its caller has set.
async fn answer(
    mut routes: Routes,
    caller: Caller,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    // Every call knows its caller, with TLS and without.
    request.extensions_mut().insert(caller);
    let timeout = timeout(request.headers());
    let answer = routes.call(request.map(Body::new));
    let Some(timeout) = timeout else {
        return answer.await;
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        () = sleep(timeout) => {
            let text = format!("there was no answer within the {timeout:?} that the caller has set");
            Ok(Status::deadline_exceeded(text).into_http())
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "what a caller waits is no time of the store's")]
fn sleep(timeout: Duration) -> tokio::time::Sleep {
    tokio::time::sleep(timeout)
}

/// How long a caller waits, as [gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) has it:
/// up to eight digits and a unit. What is no such thing is ignored.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

fn tls(cert_pem: &[u8], key_pem: &[u8]) -> Result<ServerConfig, BoxError> {
    let certificates = CertificateDer::pem_slice_iter(cert_pem).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key_pem)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn timeouts_are_read_or_ignored() {
        let read = |text: &'static str| {
            timeout(&HeaderMap::from_iter([(
                "grpc-timeout".parse().unwrap(),
                HeaderValue::from_static(text),
            )]))
        };
        for (text, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("5m", Some(Duration::from_millis(5))),
            ("6u", Some(Duration::from_micros(6))),
            ("7n", Some(Duration::from_nanos(7))),
            ("123456789S", None),
            ("-1S", None),
            ("S", None),
            ("", None),
            ("5", None),
            ("5x", None),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }
}
