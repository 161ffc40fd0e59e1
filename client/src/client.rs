//! The client and how it is set up.

use std::{fmt, sync::Arc, time::Duration};

use holdfast_proto::v1;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::{
    Error, Namespace, Namespaces, ServerInfo, Stats,
    lease::Keeper,
    transport::{Connection, Credentials, Manner, OneTask, Server, Transport},
    watch::topic::Topics,
};

/// How much of a stream a server may send ahead; enough for many answers to come in one go.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for all streams of a connection together: as much as HTTP/2 has. With less, a few streams that are read
/// slowly would use it up, and no answer would come to anybody else.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// How much of it may come in one piece.
const FRAME_BYTES: u32 = 256 << 10;

/// A client of one Holdfast service. Cheap to clone; all clones share its connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) transport: Arc<Transport>,
    pub(crate) leases: Arc<Keeper>,
    pub(crate) topics: Arc<Topics<v1::Entry, v1::Event>>,
}

impl Client {
    /// Connects to a server with default settings: `http://127.0.0.1:4653`, or `127.0.0.1:4653` for short.
    ///
    /// # Errors
    /// [`Error::Configuration`] for a bad address, [`Error::Unavailable`] if no server answers there.
    pub async fn connect(endpoint: impl Into<String>) -> Result<Self, Error> {
        Self::builder(endpoint).connect().await
    }

    /// A client to be set up; see [`ClientBuilder`].
    pub fn builder(endpoint: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(endpoint)
    }

    /// A handle to a namespace, whether it exists or not. Values are JSON unless the handle is told
    /// otherwise with [`Namespace::with_codec`].
    pub fn namespace(&self, name: impl Into<String>) -> Namespace {
        Namespace::new(self.clone(), name.into())
    }

    /// All namespaces, in order of their names.
    pub fn namespaces(&self) -> Namespaces {
        Namespaces::new(self.clone())
    }

    /// What the server is and which limits it has.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and the other failures of any call.
    pub async fn server_info(&self) -> Result<ServerInfo, Error> {
        let response = self.transport.call(v1::GetServerInfoRequest {}, None).await?;
        Ok(ServerInfo::from_wire(response))
    }

    /// What the server has done since it started.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and the other failures of any call.
    pub async fn stats(&self) -> Result<Stats, Error> {
        let response = self.transport.call(v1::GetStatsRequest {}, None).await?;
        Ok(Stats::from_wire(response))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// Sets up a [`Client`].
#[derive(Clone)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    token: Option<String>,
    tls: Option<Tls>,
    connect_timeout: Duration,
    manner: Manner,
}

impl ClientBuilder {
    fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoints: vec![endpoint.into()],
            token: None,
            tls: None,
            connect_timeout: Duration::from_secs(5),
            manner: Manner { timeout: Duration::from_secs(10), max_attempts: 5, pipeline: true },
        }
    }

    /// Adds another server of the same state. One is used at a time, the next when it fails.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// Sends this token with every request, as `authorization: Bearer …`.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Uses TLS set up in this way. An `https://` address uses TLS with the system's certificates even
    /// without; an address without scheme is taken for `https://` then, and one with `http://` is refused.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How long one attempt to connect may take; 5 s unless set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take with all its attempts, unless it says otherwise itself; 10 s unless set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.manner.timeout = timeout;
        self
    }

    /// How often a call is tried at the most while trying again is safe; 5 unless set, at least 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.manner.max_attempts = attempts;
        self
    }

    /// Whether calls of all callers share streams where they can, which is several times as fast as calls of
    /// their own; so it is unless set. Where a stream does not pass on the way to the server, the client finds
    /// out by itself, and makes unary calls.
    pub fn pipeline(mut self, pipeline: bool) -> Self {
        self.manner.pipeline = pipeline;
        self
    }

    /// Makes the client and asks a server for its name, to find out whether one answers.
    ///
    /// # Errors
    /// [`Error::Configuration`] for a bad setting, [`Error::Unavailable`] if no server answers, and
    /// whatever else its answer may be.
    pub async fn connect(self) -> Result<Client, Error> {
        let client = self.connect_lazy()?;
        match client.server_info().await {
            // A server that does not want to be asked is a server nonetheless.
            Ok(_) | Err(Error::PermissionDenied { .. }) => Ok(client),
            Err(error) => Err(error),
        }
    }

    /// Makes the client without waiting for a server; connections are made when they are needed. Must be
    /// called within a Tokio runtime.
    ///
    /// # Errors
    /// [`Error::Configuration`] for a bad setting.
    pub fn connect_lazy(self) -> Result<Client, Error> {
        let credentials = match &self.token {
            Some(token) => Credentials::bearer(token)?,
            None => Credentials::default(),
        };
        let servers = self
            .endpoints
            .iter()
            .map(|address| self.server(address))
            .collect::<Result<Vec<_>, _>>()?;
        let transport = Transport::new(servers, credentials, self.manner);
        let transport = Arc::new(transport);
        let leases = Arc::new(Keeper::new(Arc::clone(&transport)));
        Ok(Client { transport, leases, topics: Arc::default() })
    }

    fn server(&self, address: &str) -> Result<Server, Error> {
        let url = url(address, self.tls.is_some());
        let bad = |error: &dyn fmt::Display| {
            Error::configuration(format!("the address {address:?} is no good: {error}"))
        };
        let mut endpoint = Endpoint::from_shared(url).map_err(|error| bad(&error))?;
        match endpoint.uri().scheme_str() {
            // Else what was meant to be secret would travel in the clear.
            Some("http") if self.tls.is_some() => {
                return Err(bad(&"TLS is set up, so it must begin with https://"));
            }
            Some("http") => {}
            Some("https") => {
                let tls = self.tls.clone().unwrap_or_default();
                endpoint = endpoint
                    .tls_config(tls.into_config()?)
                    .map_err(|error| bad(&describe(&error)))?;
            }
            _ => return Err(bad(&"it must begin with http:// or https://")),
        }
        if endpoint.uri().host().is_none_or(str::is_empty) {
            return Err(bad(&"it names no host"));
        }
        // Keep-alive finds out within seconds that the other side is gone without a word.
        let endpoint = endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        let connections = std::array::from_fn(|_| {
            let background = OneTask::default();
            let channel = endpoint.clone().executor(background.clone()).connect_lazy();
            Connection { channel, background }
        });
        Ok(Server { address: address.to_owned(), connections })
    }
}

/// Secrets stay hidden.
impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("endpoints", &self.endpoints)
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.manner.timeout)
            .field("max_attempts", &self.manner.max_attempts)
            .field("pipeline", &self.manner.pipeline)
            .finish_non_exhaustive()
    }
}

/// How every certificate in a PEM file begins.
const PEM_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// How to use TLS. By default, servers are checked against the system's certificates.
#[derive(Clone, Default)]
pub struct Tls {
    certificates: Vec<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    domain_name: Option<String>,
}

impl Tls {
    /// TLS with the system's certificates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authority of this PEM-encoded certificate instead of the system's.
    pub fn ca_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates.push(pem.into());
        self
    }

    /// Shows the server this certificate, PEM-encoded like its key.
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// Expects this name in the server's certificate instead of that of the address.
    pub fn domain_name(mut self, name: impl Into<String>) -> Self {
        self.domain_name = Some(name.into());
        self
    }

    fn into_config(self) -> Result<ClientTlsConfig, Error> {
        let is_pem =
            |pem: &Vec<u8>| pem.windows(PEM_CERTIFICATE.len()).any(|it| it == PEM_CERTIFICATE);
        // Nothing else would say so: a file without certificates is an authority that nobody has.
        if !self.certificates.iter().all(is_pem) {
            return Err(Error::configuration("the CA certificate is not PEM-encoded"));
        }
        let mut config = ClientTlsConfig::new();
        config = if self.certificates.is_empty() {
            config.with_native_roots()
        } else {
            config.ca_certificates(self.certificates.into_iter().map(Certificate::from_pem))
        };
        if let Some((certificate, key)) = self.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        if let Some(name) = self.domain_name {
            config = config.domain_name(name);
        }
        Ok(config)
    }
}

/// Keys stay hidden.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("domain_name", &self.domain_name).finish_non_exhaustive()
    }
}

fn url(address: &str, tls: bool) -> String {
    match (address.contains("://"), tls) {
        (true, _) => address.to_owned(),
        (false, true) => format!("https://{address}"),
        (false, false) => format!("http://{address}"),
    }
}

/// An error with its innermost cause.
fn describe(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests;
