//! What this process knows of one namespace, and the way its scripts are called.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    Core,
    answer::{Parts, number, strange},
    commit::Contest,
    head::{FIELDS, Head},
    layout::{HEAD, INTERNALS, USERS},
    link::{Call, LinkError, Script},
    read::Asked,
    scripts::Reading,
};
use crate::backend::{BackendError, Key, LogShape, NamespaceName};

/// How many lanes are made, at least, before it is looked for those that are of no use; as many as there are, if these are more.
const MANY: usize = 1000;

/// For how long after it was added a name need not be added again.
const NAMED_MS: i64 = 60_000;

/// The lanes of all namespaces that were asked for.
#[derive(Default)]
pub(super) struct Lanes {
    by_name: HashMap<NamespaceName, Arc<Lane>>,
    /// How many were made since it was looked for those that are of no use.
    made: usize,
}

/// What this process knows of one namespace. Nothing of it is more than a help.
pub(super) struct Lane {
    pub name: NamespaceName,
    /// Whether there was such a namespace when last seen.
    exists: AtomicBool,
    /// What its messages begin with: this server, and its name.
    pub sender: Bytes,
    /// When its name was last added to those of all namespaces.
    named_ms: AtomicI64,
    /// How this server fares beside others that commit.
    pub contest: Contest,
    /// Told when it is this server's turn.
    pub turn: Notify,
    /// How large its log was when last seen.
    pub log: Mutex<LogShape>,
    /// Who waits for reads.
    pub reads: Mutex<Reads>,
    keys: Vec<Vec<u8>>,
    /// The latest time that was answered.
    floor_ms: AtomicI64,
}

/// How many reads are under way, and who waits for them.
#[derive(Default)]
pub(super) struct Reads {
    pub under_way: usize,
    pub waiting: Vec<Asked>,
}

/// What a script of a namespace answered.
pub(super) struct Answer {
    /// What came of it.
    pub verdict: Bytes,
    pub head: Head,
    /// The rest.
    pub parts: Parts,
}

impl Lane {
    pub(super) fn new(core: &Core, name: &NamespaceName) -> Self {
        Self {
            name: name.clone(),
            exists: AtomicBool::new(false),
            sender: format!("{} {}", core.server, name.as_str()).into(),
            named_ms: AtomicI64::new(i64::MIN),
            contest: Contest::default(),
            turn: Notify::new(),
            log: Mutex::default(),
            reads: Mutex::default(),
            keys: core.layout.namespace(name),
            floor_ms: AtomicI64::new(0),
        }
    }
}

impl Core {
    /// What is known of a namespace.
    pub(super) fn lane(&self, name: &NamespaceName) -> Arc<Lane> {
        if let Some(lane) = self.lanes.read().by_name.get(name) {
            return lane.clone();
        }
        let mut lanes = self.lanes.write();
        lanes.made += 1;
        if lanes.made >= MANY.max(lanes.by_name.len()) {
            lanes.made = 0;
            lanes.by_name.retain(|_, lane| lane.is_of_use());
        }
        let made = || Arc::new(Lane::new(self, name));
        lanes.by_name.entry(name.clone()).or_insert_with(made).clone()
    }

    /// Calls a script that reads.
    pub(super) async fn ask(
        &self,
        lane: &Lane,
        script: &Reading,
        args: &[Bytes],
    ) -> Result<Answer, BackendError> {
        let call = lane.call(&script.plain, lane.keys.clone(), Bytes::new(), args);
        let answer = self.link.call(call).await.map_err(read_error)?;
        match self.take(lane, answer)? {
            Some(answer) => Ok(answer),
            None => self.ask_settling(lane, script, args).await,
        }
    }

    /// Reads keys without a script, those of users before internal ones: where the namespace stands, and what they hold.
    /// Nothing where a script has to look, because the namespace may have to be settled, or this was refused.
    pub(super) async fn look_up(
        &self,
        lane: &Lane,
        keys: &[&Key],
        users: usize,
    ) -> Result<Option<(Head, Vec<Value>)>, BackendError> {
        let mut info = redis::cmd("INFO");
        info.arg("replication");
        let mut head = redis::cmd("HMGET");
        head.arg(&lane.keys[HEAD][..]).arg(&FIELDS[..]);
        let spaces = [(USERS, &keys[..users]), (INTERNALS, &keys[users..])];
        let entries =
            spaces.into_iter().filter(|(_, keys)| !keys.is_empty()).map(|(space, keys)| {
                let bytes = keys.iter().map(|key| key.as_bytes().len()).sum::<usize>();
                let mut command = Cmd::with_capacity(2 + keys.len(), 64 + bytes);
                command.arg("HMGET").arg(&lane.keys[space][..]);
                for key in keys {
                    command.arg(key.as_bytes());
                }
                command
            });
        let commands = [redis::cmd("TIME"), info, head].into_iter().chain(entries);
        // Taken before: while this is under way, another answer may bring a later time than that of what is read.
        let floor_ms = lane.floor_ms.load(Ordering::Relaxed);
        let answer = self.link.look(&lane.keys[HEAD], commands).await.map_err(read_error)?;
        let Some(answer) = answer else {
            return Ok(None);
        };
        let mut parts = Parts::of(Value::Array(answer))?;
        let clock = parts.list()?.iter().map(number).collect::<Result<Vec<_>, _>>()?;
        let info = parts.bytes()?;
        let (&[seconds, micros], Some(identity)) = (&clock[..], primary(&info)) else {
            return Ok(None);
        };
        let time_ms = seconds * 1000 + micros / 1000;
        let time_ms = time_ms.max(floor_ms);
        let Some(head) = Head::settled(time_ms, identity, parts.take()?)? else {
            return Ok(None);
        };
        self.see(lane, &head);
        let mut records = Vec::with_capacity(keys.len());
        while records.len() < keys.len() {
            records.append(&mut parts.list()?);
        }
        Ok(Some((head, records)))
    }

    /// Calls a script that reads for several namespaces at once.
    pub(super) async fn ask_all(
        &self,
        lanes: &[Arc<Lane>],
        script: &Reading,
        args: &[Bytes],
    ) -> Vec<Result<Answer, BackendError>> {
        let call =
            |lane: &Arc<Lane>| lane.call(&script.plain, lane.keys.clone(), Bytes::new(), args);
        let answers = self.link.call_all(lanes.iter().map(call).collect()).await;
        let mut taken = Vec::with_capacity(lanes.len());
        for (lane, answer) in lanes.iter().zip(answers) {
            taken.push(match answer.map_err(read_error).and_then(|it| self.take(lane, it)) {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => self.ask_settling(lane, script, args).await,
                Err(error) => Err(error),
            });
        }
        taken
    }

    /// Calls a script that writes. It is called once.
    pub(super) async fn tell(
        &self,
        lane: &Lane,
        script: &Script,
        args: &[Bytes],
    ) -> Result<Answer, BackendError> {
        self.tell_with(lane, script, lane.keys.clone(), args).await
    }

    /// The same, where more than the keys of the namespace is touched.
    pub(super) async fn tell_with(
        &self,
        lane: &Lane,
        script: &Script,
        keys: Vec<Vec<u8>>,
        args: &[Bytes],
    ) -> Result<Answer, BackendError> {
        let answer = self.tell_only(lane, script, keys, args).await?;
        self.take(lane, answer)?.ok_or_else(|| strange("a script that writes did not settle"))
    }

    /// The same for a script that does not tell where the namespace stands.
    pub(super) async fn tell_only(
        &self,
        lane: &Lane,
        script: &Script,
        keys: Vec<Vec<u8>>,
        args: &[Bytes],
    ) -> Result<Value, BackendError> {
        let lineage = Uuid::new_v4().to_string().into();
        let call = lane.call(script, keys, lineage, args);
        self.link.call(call).await.map_err(write_error)
    }

    async fn ask_settling(
        &self,
        lane: &Lane,
        script: &Reading,
        args: &[Bytes],
    ) -> Result<Answer, BackendError> {
        self.tell(lane, &script.settling, args).await.map_err(|error| match error {
            // Done or not, nobody has asked for more than a read.
            BackendError::OutcomeUnknown(problem) => BackendError::Unavailable(problem),
            error => error,
        })
    }

    /// Takes an answer apart; nothing if the namespace has to be settled first.
    fn take(&self, lane: &Lane, answer: Value) -> Result<Option<Answer>, BackendError> {
        let mut parts = Parts::of(answer)?;
        let verdict = parts.bytes()?;
        if verdict == "settle" {
            return Ok(None);
        }
        let time_ms = parts.number()?;
        let head = Head::parse(time_ms, parts.take()?)?;
        self.see(lane, &head);
        Ok(Some(Answer { verdict, head, parts }))
    }

    /// Takes note of where a namespace stands.
    fn see(&self, lane: &Lane, head: &Head) {
        lane.floor_ms.fetch_max(head.tip.time_ms, Ordering::Relaxed);
        *lane.log.lock() = head.log;
        lane.exists.store(head.tip.lineage.is_some(), Ordering::Relaxed);
        if head.tip.lineage.is_none() {
            lane.forget_name();
        }
        self.wake.note(&lane.name, head.tip.lineage, head.tip.revision);
    }
}

impl Lane {
    /// Whether its name is known to be among those of all namespaces. That is believed for a while only: they may be in another
    /// process than the namespace, which may lose writes of its own.
    pub(super) fn is_named(&self) -> bool {
        let now_ms = self.floor_ms.load(Ordering::Relaxed);
        now_ms < self.named_ms.load(Ordering::Relaxed).saturating_add(NAMED_MS)
    }

    pub(super) fn note_name(&self) {
        self.named_ms.store(self.floor_ms.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(super) fn forget_name(&self) {
        self.named_ms.store(i64::MIN, Ordering::Relaxed);
    }

    /// Whether something is lost by forgetting it. Names may be asked for that nobody ever writes to.
    fn is_of_use(self: &Arc<Self>) -> bool {
        self.exists.load(Ordering::Relaxed) || Arc::strong_count(self) > 1
    }

    fn call<'a>(
        &self,
        script: &'a Script,
        keys: Vec<Vec<u8>>,
        lineage: Bytes,
        args: &[Bytes],
    ) -> Call<'a> {
        let mut all = Vec::with_capacity(args.len() + 2);
        all.push(self.floor_ms.load(Ordering::Relaxed).to_string().into());
        all.push(lineage);
        all.extend_from_slice(args);
        Call { script, keys, args: all }
    }
}

/// The identity of the process that told this of itself, if it is a primary.
fn primary(info: &[u8]) -> Option<&str> {
    let info = std::str::from_utf8(info).ok()?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
    field("role:").filter(|role| *role == "master")?;
    field("master_replid:")
}

/// Why a read was not answered.
pub(super) fn read_error(error: LinkError) -> BackendError {
    match error {
        LinkError::Unavailable(problem) | LinkError::Unknown(problem) => {
            BackendError::Unavailable(problem)
        }
        LinkError::Script(problem) if is_forbidden(&problem) => BackendError::Unavailable(problem),
        LinkError::Script(problem) => script_error(problem),
    }
}

/// Why a write was not answered.
fn write_error(error: LinkError) -> BackendError {
    match error {
        LinkError::Unknown(problem) => BackendError::OutcomeUnknown(problem),
        // What came before the command in question has been done.
        LinkError::Script(problem) if is_forbidden(&problem) => {
            BackendError::OutcomeUnknown(problem)
        }
        error => read_error(error),
    }
}

/// Whether a script called what its user may not call.
fn is_forbidden(problem: &str) -> bool {
    problem.contains("The user executing the script can't") || problem.contains("NOPERM")
}

/// What scripts end with of themselves says that the data are not what they should be.
fn script_error(problem: String) -> BackendError {
    let format = problem.strip_prefix("FORMAT ").and_then(|rest| rest.split(' ').next());
    BackendError::Corrupt(match format {
        Some(format) => {
            format!("the namespace is stored in format {format}, which is not known here")
        }
        None => problem,
    })
}
