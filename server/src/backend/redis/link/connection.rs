//! One connection to one server.

use std::{fmt, time::Duration};

use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo,
    RedisError, ServerError, Value,
    aio::MultiplexedConnection,
    io::tcp::socket2::{SockRef, TcpKeepalive},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    task::AbortHandle,
    time::timeout,
};

use super::{Call, refusal::Refusal, tls};
use crate::backend::redis::url::{Address, Login, Settings};

/// A peer that is gone without a word is noticed after about three times this.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How many commands wait to be written before their callers do.
const QUEUE: usize = 1024;

/// A connection that many share: their commands are answered in the order in which they were handed over.
pub(super) struct Connection {
    pub(super) address: Address,
    /// What Redis knows this connection as, if that could be asked.
    pub(super) client: Option<ClientId>,
    inner: MultiplexedConnection,
    /// Reads and writes; ends with this.
    driver: AbortHandle,
    /// Turns true, or loses its sender, when the connection has ended.
    ended: watch::Receiver<bool>,
}

/// What makes a connection out among all that Redis has and had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientId {
    id: String,
    /// The connection's own end as Redis sees it: ids begin again when Redis does.
    peer: String,
}

/// Why a command has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection was lost: the command may or may not have been run.
    Lost(String),
    /// Redis has refused it.
    Refused(Refusal),
}

/// What is done with what comes unasked.
pub(super) type OnPush = Box<dyn Fn(PushInfo) + Send + Sync>;

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// What went wrong, without secrets.
    pub(super) async fn open(
        settings: &Settings,
        login: &Login,
        database: i64,
        address: &Address,
        on_push: OnPush,
    ) -> Result<Self, String> {
        let (end, ended) = watch::channel(false);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    end.send_replace(true);
                }
                on_push(push);
                Ok::<_, redis::aio::SendError>(())
            });
        let connect = async {
            let (inner, driver) = start(settings, address, &info(login, database), config).await?;
            let address = address.clone();
            let mut connection = Self { address, client: None, inner, driver, ended };
            connection.client = connection.ask_client().await?;
            Ok(connection)
        };
        let limit = settings.connect_timeout;
        timeout(limit, connect).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
    }

    /// Resolves when the connection has ended.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Whether it is known to have ended: whatever is handed over then is surely not sent.
    pub(super) fn has_ended(&self) -> bool {
        *self.ended.borrow() || self.ended.has_changed().is_err()
    }

    /// Runs a script; with `asking`, also for a slot that is only on its way to the server.
    pub(super) async fn run(&self, call: &Call<'_>, asking: bool) -> Result<Value, Failure> {
        let command = evalsha(call);
        if !asking {
            return self.command(&command).await;
        }
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(redis::cmd("ASKING")).add_command(command);
        let mut answers = self.pipeline(&pipeline).await?;
        answers.pop().unwrap_or_else(|| Err(Failure::Lost("an answer is missing".into())))
    }

    /// Hands over a script to be run later.
    pub(super) async fn load(&self, source: &str) -> Result<(), Failure> {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(source);
        self.command(&command).await.map(drop)
    }

    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, Failure> {
        checked(self.inner.clone().send_packed_command(command).await)
    }

    /// Sends commands at once; each has an answer of its own.
    pub(super) async fn pipeline(
        &self,
        pipeline: &Pipeline,
    ) -> Result<Vec<Result<Value, Failure>>, Failure> {
        let mut inner = self.inner.clone();
        let answers = inner.send_packed_commands(pipeline, 0, pipeline.len()).await;
        let answers = answers.map_err(|error| failure(&error))?;
        Ok(answers.into_iter().map(|answer| checked(Ok(answer))).collect())
    }

    /// What Redis knows this connection as; nothing if it does not tell this user.
    async fn ask_client(&self) -> Result<Option<ClientId>, String> {
        let mut command = redis::cmd("CLIENT");
        command.arg("INFO");
        match self.command(&command).await {
            Ok(answer) => Ok(text(&answer).and_then(|text| ClientId::parse(&text))),
            Err(Failure::Refused(_)) => Ok(None),
            Err(Failure::Lost(problem)) => Err(problem),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ClientId {
    /// `id=3 addr=127.0.0.1:60532 laddr=…`
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.split_whitespace().find_map(|field| field.strip_prefix(name)).map(str::to_owned)
        };
        Some(Self { id: field("id=")?, peer: field("addr=")? })
    }

    /// Makes Redis close the connection: what it has not read of it by then is never run.
    pub(super) fn kill(&self) -> Cmd {
        let mut command = redis::cmd("CLIENT");
        command.arg("KILL").arg("ID").arg(&self.id).arg("ADDR").arg(&self.peer);
        command
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(problem) => f.write_str(problem),
            Self::Refused(Refusal::Script(text)) => f.write_str(text),
            Self::Refused(refusal) => super::LinkError::from(refusal.clone()).fmt(f),
        }
    }
}

/// The command that runs a script.
pub(super) fn evalsha(call: &Call<'_>) -> Cmd {
    let Call { script, keys, args } = call;
    let bytes = keys.iter().map(Vec::len).chain(args.iter().map(|arg| arg.len())).sum::<usize>();
    let mut command = Cmd::with_capacity(3 + keys.len() + args.len(), bytes + 64);
    command.arg("EVALSHA").arg(&script.sha).arg(keys.len());
    for key in keys {
        command.arg(&key[..]);
    }
    for arg in args {
        command.arg(&arg[..]);
    }
    command
}

/// The text of an answer that is one.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Okay => Some("OK".into()),
        _ => None,
    }
}

fn checked(answer: Result<Value, RedisError>) -> Result<Value, Failure> {
    match answer {
        Ok(Value::ServerError(error)) => Err(Failure::Refused(Refusal::of(&error))),
        Ok(value) => Ok(value),
        Err(error) => Err(failure(&error)),
    }
}

fn failure(error: &RedisError) -> Failure {
    match ServerError::try_from(error.clone()) {
        Ok(refused) => Failure::Refused(Refusal::of(&refused)),
        Err(_) => Failure::Lost(format!("the connection was lost: {error}")),
    }
}

/// What an error says, for people.
fn plain(error: &RedisError) -> String {
    match ServerError::try_from(error.clone()) {
        Ok(refused) => format!("{} {}", refused.code(), refused.details().unwrap_or_default()),
        Err(_) => error.to_string(),
    }
}

/// A connection over which nothing was said yet but what the network and TLS need.
async fn start(
    settings: &Settings,
    address: &Address,
    info: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, AbortHandle), String> {
    let stream = TcpStream::connect((&address.host[..], address.port)).await;
    let stream = stream.and_then(|stream| {
        let keepalive =
            TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(2);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    });
    let stream = stream.map_err(|error| error.to_string())?;
    match &settings.tls {
        None => login(stream, info, config).await,
        Some(tls) => login(tls::connect(tls, &address.host, stream).await?, info, config).await,
    }
}

async fn login<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    info: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, AbortHandle), String> {
    let connected = MultiplexedConnection::new_with_config(info, stream, config).await;
    let (connection, driver) = connected.map_err(|error| plain(&error))?;
    Ok((connection, tokio::spawn(driver).abort_handle()))
}

fn info(login: &Login, database: i64) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_db(database)
        .set_lib_name("holdfastd", env!("CARGO_PKG_VERSION"));
    if let Some(user) = &login.user {
        info = info.set_username(user);
    }
    if let Some(password) = &login.password {
        info = info.set_password(password.expose());
    }
    info
}
