//! Puts the parts together, serves them, and stops in good order.

mod auth;
mod health;
mod logging;
mod preface;
mod signal;
mod transport;

use std::{env, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware,
};
use futures::StreamExt as _;
use holdfast_proto::FILE_DESCRIPTOR_SET;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_reflection::server as reflection;
use uuid::Uuid;

pub use logging::start_logging;
pub use signal::Signals;

use self::{auth::Tokens, health::Health, transport::Transport};
use crate::{
    backend::{Backend, registry::Registry},
    clock::{Clock, SystemClock},
    config::{Config, NamespaceDefaults, Origin, Problem, Problems},
    rpc::{self, Limits, ServerInfo},
    store::{
        Store, StoreOptions,
        settings::{Setting, Settings},
    },
};

/// A server that has its port and its backend.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    transport: Transport,
    routes: Routes,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    health: Health,
    stopping: CancellationToken,
    drain_timeout: Duration,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Settings are wrong: all that could be found.
    #[error("{0}")]
    Settings(Problems),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error} ({origin})")]
    Listen {
        /// The address as set.
        address: String,
        /// Where the setting comes from.
        origin: Origin,
        /// What the system said.
        error: io::Error,
    },
}

/// Why a server ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Nothing would expire any more.
    #[error("the maintenance of the store failed: {0}")]
    Maintenance(String),
}

impl Server {
    /// Opens the backend and the port. Calls wait until [`Server::run`].
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        Self::bind_with_clock(config, Arc::new(SystemClock::default())).await
    }

    /// The same with a clock of one's own, which embedded backends and all timers go by.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn bind_with_clock(
        config: Config,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        Self::bind_with(config, &Registry::default(), clock).await
    }

    /// The same with backends of one's own.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn bind_with(
        config: Config,
        registry: &Registry,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let mut problems = Vec::new();
        let initial_settings = initial_settings(&config, &mut problems);
        let transport = Transport::new(&config, &mut problems);
        let backend = open(&config, registry, &clock, &mut problems).await;
        let (Some(transport), Some(backend), []) = (transport, backend, &problems[..]) else {
            return Err(StartError::Settings(Problems(problems)));
        };
        let listener = TcpListener::bind(&config.listen).await;
        let (listener, address) = listener
            .and_then(|listener| listener.local_addr().map(|address| (listener, address)))
            .map_err(|error| StartError::Listen {
                address: config.listen.clone(),
                origin: config.origins.of("listen"),
                error,
            })?;
        announce(&config, address, &*backend);
        let max_lease_keys = config.limits.max_lease_keys;
        let options = StoreOptions { initial_settings, max_lease_keys };
        let health = Health::new(backend.writable()).await;
        let store = Store::new(backend, clock.clone(), options);
        let stopping = CancellationToken::new();
        let routes = routes(&config, &store, &*clock, &health, &stopping);
        Ok(Self {
            listener,
            address,
            transport,
            routes,
            store,
            clock,
            health,
            stopping,
            drain_timeout: config.shutdown.drain_timeout,
        })
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` resolves, and then until calls in flight have finished, streams and waits for locks
    /// have been ended with `UNAVAILABLE`, or the drain timeout is over.
    ///
    /// # Errors
    /// See [`ServeError`]; none of them is due to a client.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let (stop, stopped) = watch::channel(false);
        let mut maintenance = tokio::spawn(self.store.clone().maintain(stopped));
        let stopping = self.stopping.clone();
        let mut health = self.health;
        let begin_drain = async move {
            tokio::select! {
                () = shutdown => {}
                () = health.follow() => {}
            }
            tracing::info!("stopping: no new connections, waiting for calls in flight");
            health.end().await;
            stopping.cancel();
        };
        let serving = self.transport.serve(
            self.listener,
            !self.store.backend().is_remote(),
            self.routes,
            self.clock.clone(),
            self.stopping.clone(),
        );
        let overdue = async {
            self.stopping.cancelled().await;
            self.clock.sleep(self.drain_timeout).await;
        };
        tokio::select! {
            _ = futures::future::join(begin_drain, serving) => {}
            () = overdue => {
                tracing::warn!("some calls have not finished within the drain timeout and are cut off");
            }
            ended = &mut maintenance => {
                let why = ended.err().map_or("it ended".into(), |error| error.to_string());
                return Err(ServeError::Maintenance(why));
            }
        };
        stop.send_replace(true);
        maintenance.await.map_err(|error| ServeError::Maintenance(error.to_string()))?;
        tracing::info!("stopped");
        Ok(())
    }
}

async fn open(
    config: &Config,
    registry: &Registry,
    clock: &Arc<dyn Clock>,
    problems: &mut Vec<Problem>,
) -> Option<Arc<dyn Backend>> {
    match registry.open(&config.backend, clock.clone()).await {
        Ok(backend) => Some(backend),
        Err(error) => {
            problems.push(config.problem("backend", error.to_string()));
            None
        }
    }
}

fn initial_settings(config: &Config, problems: &mut Vec<Problem>) -> Settings {
    let NamespaceDefaults {
        default_ttl_ms,
        log_max_events,
        log_max_age_ms,
        log_max_bytes,
        quota_max_keys,
        quota_max_bytes,
    } = config.namespace_defaults;
    let mut settings = Settings {
        default_ttl_ms,
        log_max_events,
        log_max_age_ms,
        log_max_bytes,
        quota_max_keys,
        quota_max_bytes,
    };
    for setting in Setting::ALL {
        let (least, greatest) = setting.bounds();
        if let Some(value) = *settings.get_mut(setting)
            && !(least..=greatest).contains(&value)
        {
            let key = format!("namespace_defaults.{}", setting.name());
            let text = format!("{value} is not within {least} to {greatest}");
            problems.push(config.problem(&key, text));
        }
    }
    settings
}

fn announce(config: &Config, address: SocketAddr, backend: &dyn Backend) {
    let (version, shown) = (env!("CARGO_PKG_VERSION"), config.shown_backend());
    let survives = backend.durability();
    // What a relative path in the URL starts from; without one there is nothing to tell.
    let directory = env::current_dir().unwrap_or_default();
    let directory = directory.display();
    tracing::info!(version, %address, backend = %shown, %directory, "starting; an acknowledged write survives {survives}");
    if !address.ip().is_loopback() && (config.auth.tokens.is_empty() || config.tls.cert.is_none()) {
        tracing::warn!(
            "{address} can be reached from other machines: without tls.cert everybody on the way can read, \
             without auth.tokens everybody can call"
        );
    }
}

fn routes(
    config: &Config,
    store: &Arc<Store>,
    clock: &dyn Clock,
    health: &Health,
    stopping: &CancellationToken,
) -> Routes {
    let limits = Limits {
        max_value_bytes: config.limits.max_value_bytes,
        max_request_bytes: config.limits.max_request_bytes,
    };
    let info = ServerInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        server_id: Uuid::new_v4().to_string(),
        started_at_ms: clock.now_ms(),
    };
    let reflection = || {
        reflection::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    const DECODES: &str = "descriptor sets made by the build are well-formed";
    // A client may keep asking for ever.
    let reflection = Routes::new(reflection().build_v1().expect(DECODES))
        .add_service(reflection().build_v1alpha().expect(DECODES))
        .into_axum_router()
        .reset_fallback()
        .layer(middleware::map_request_with_state(stopping.clone(), end_input));
    let mut router = rpc::routes(store.clone(), limits, info, stopping.clone())
        .add_service(tonic_health::pb::health_server::HealthServer::new(health.service()))
        .into_axum_router()
        .merge(reflection);
    if let Some(tokens) = Tokens::new(&config.auth.tokens) {
        router = router.layer(middleware::from_fn_with_state(tokens, auth::require_token));
    }
    Routes::from(router).prepare()
}

/// Ends what a client sends once the server is to stop: a service that answers until then ends in good order.
async fn end_input(State(stopping): State<CancellationToken>, request: Request) -> Request {
    request.map(|body| {
        Body::from_stream(body.into_data_stream().take_until(stopping.cancelled_owned()))
    })
}
