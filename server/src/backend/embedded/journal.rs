//! What makes the image of an embedded backend durable: the seam between the engine and what keeps its commits.
//!
//! The engine checks a commit against the image, makes a [`Record`] of it, and hands that to the [`Journal`]. Only what
//! the journal has kept is applied to the image, where others see it. One thread calls a journal, so it may block. A
//! *snapshot* is the whole image written anew, so that older records can go; a journal that keeps its state up to date in
//! place needs one only to be mended after a failure.

use super::super::{
    Change, ChangeKind, Entry, GroupStamp, Groups, Key, Lineage, NamespaceName, Position, Revision,
    Staging, Write, is_logged,
};
use super::kept_clock::ClockFile;

/// A commit, with all that has to be known to apply it once more.
#[derive(Clone, Debug)]
pub struct Record {
    /// The namespace.
    pub namespace: NamespaceName,
    /// The position that it takes: one more than that of the commit before.
    pub position: Position,
    /// The last revision before it.
    pub before: Revision,
    /// When it was committed.
    pub time_ms: i64,
    /// The lineage that begins with it, where it makes or replaces the namespace.
    pub lineage: Option<Lineage>,
    /// Up to where the log had been forgotten, where that moved since the record before. To be forgotten before the commit
    /// is applied.
    pub compacted: Option<Revision>,
    /// What it does.
    pub action: Action,
}

impl Record {
    /// About how many bytes it writes.
    pub fn bytes(&self) -> usize {
        match &self.action {
            Action::Write(Groups { writes, .. }) | Action::Clear(writes) => {
                let drafts = writes.iter().filter_map(|write| write.op.draft());
                drafts.map(|draft| draft.value.len()).sum()
            }
            Action::Stage(entries) => entries.iter().map(|(_, entry)| entry.value.len()).sum(),
            Action::Delete | Action::Replace(..) => 0,
        }
    }
}

/// What a commit does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Groups of writes; one with a logged write takes the next revision.
    Write(Groups),
    /// Removes all user keys and notes at the next revision, then writes these without a revision.
    Clear(Vec<Write>),
    /// Removes everything but the name, the last revision and the position.
    Delete,
    /// Puts entries as they are, without a revision. The namespace is one that is staged, see [`is_staged`]; it has no
    /// lineage.
    Stage(Vec<(Key, Entry)>),
    /// Puts what was staged under this name, if anything was, in the place of the namespace, which then stands at
    /// this revision. With it ends the one that was staged.
    Replace(Option<NamespaceName>, Revision),
}

impl Action {
    /// The namespace that was staged and is put in place.
    pub fn staged(&self) -> Option<&NamespaceName> {
        match self {
            Self::Replace(staged, _) => staged.as_ref(),
            Self::Write(_) | Self::Clear(_) | Self::Delete | Self::Stage(_) => None,
        }
    }
}

/// Whether a namespace is one that is being staged to take the place of another. Such ones sort before all others, and
/// so come first in a snapshot: what is put in place while one is written is found either here or there. After a start
/// they are of no use any more.
pub fn is_staged(namespace: &NamespaceName) -> bool {
    namespace.as_str().starts_with(STAGED)
}

/// The name of the namespace that is being staged under an id.
pub fn staged_name(staging: &Staging) -> NamespaceName {
    NamespaceName::new(&format!("{STAGED}{}", staging.id))
}

/// Less than all that names of namespaces can begin with.
const STAGED: &str = "!";

impl Record {
    /// The stamps of the groups of its writes, or the only one of what else it does; none of a delete.
    pub fn stamps(&self) -> Vec<GroupStamp> {
        let mut stamp = GroupStamp { revision: self.before, time_ms: self.time_ms };
        match &self.action {
            Action::Write(groups) => {
                let mut start = 0;
                let group_stamp = |end: &usize| {
                    if is_logged(&groups.writes[start..*end]) {
                        stamp.revision = stamp.revision.next();
                    }
                    start = *end;
                    stamp
                };
                groups.ends.iter().map(group_stamp).collect()
            }
            Action::Clear(_) => {
                stamp.revision = stamp.revision.next();
                vec![stamp]
            }
            Action::Delete => Vec::new(),
            Action::Stage(_) => vec![stamp],
            Action::Replace(_, revision) => {
                stamp.revision = *revision;
                vec![stamp]
            }
        }
    }
}

/// A record on its way to the journal.
#[derive(Debug)]
pub struct Pending {
    /// The commit.
    pub record: Record,
    /// What [`Journal::encoder`] made of it.
    pub encoded: Vec<u8>,
}

/// Makes of a record what is to be written. It runs on the tasks of those who commit, many at a time.
pub type Encoder = fn(&Record) -> Vec<u8>;

/// Where a namespace stands in a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamespaceState {
    /// Its name.
    pub name: NamespaceName,
    /// How many commits are in it. Records up to this position are not to be applied again.
    pub position: Position,
    /// Its last revision.
    pub revision: Revision,
    /// Its time.
    pub time_ms: i64,
    /// Its history; `None`: it has been deleted.
    pub lineage: Option<Lineage>,
    /// When it was made.
    pub created_at_ms: i64,
    /// The revision that it began after.
    pub birth: Revision,
    /// The revision of its last clear; else that it began after.
    pub cleared: Revision,
}

/// How a version of an entry stands in a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the log.
    Logged,
    /// Not in the log: written without a revision, or its record has been forgotten.
    Unlogged,
}

/// A change as a snapshot tells it.
#[derive(Clone, Debug)]
pub struct Version {
    /// The key.
    pub key: Key,
    /// Its revision and time.
    pub stamp: GroupStamp,
    /// What it was.
    pub kind: ChangeKind,
    /// The entry after it; none after a removal.
    pub entry: Option<Entry>,
    /// Whether it is in the log.
    pub place: Place,
    /// Whether the value and content type are those of the change before, whatever stands in `entry`.
    pub same_value: bool,
}

/// Takes what a journal loads. An error says what is wrong with what was handed over, in words.
///
/// First come the namespaces of a snapshot, each with its versions in order; then records. The image of a namespace
/// is made anew by *putting* its versions one after the other: a logged one is added to those of its key, an unlogged
/// one replaces the newest of its key. A [`ChangeKind::Clear`] removes all user keys and notes.
pub trait Restore: Send {
    /// What follows is a copy of former state, put back: histories are to begin anew, so that nobody takes what comes for
    /// the continuation of what was lost.
    fn is_copy(&mut self);

    /// A namespace of a snapshot begins.
    fn begin(&mut self, state: NamespaceState) -> Result<(), String>;

    /// Puts a version.
    fn put(&mut self, version: Version) -> Result<(), String>;

    /// The version of a key that was put last is to be of this revision.
    fn expect(&mut self, key: &Key, revision: Revision) -> Result<(), String>;

    /// Takes a key away, without a trace.
    fn drop_key(&mut self, key: &Key) -> Result<(), String>;

    /// The namespace ends; the log up to `compacted` has been forgotten.
    fn end(&mut self, compacted: Revision) -> Result<(), String>;

    /// Applies a record, unless the image has it already. The value of a write that changes only the deadline is that
    /// of the entry before it, whatever stands in the record.
    fn apply(&mut self, record: Record) -> Result<(), String>;
}

/// Takes the image for a snapshot, in the same order and with the same meaning as [`Restore`] wants it. After an error
/// nothing more is handed over, and what was written is to be thrown away on drop.
pub trait SnapshotWriter: Send {
    /// A namespace begins.
    fn begin(&mut self, state: &NamespaceState) -> Result<(), String>;

    /// A version. With `same_value`, its value and content type need not be written.
    fn put(&mut self, change: &Change, place: Place, same_value: bool) -> Result<(), String>;

    /// A key is not there any more.
    fn drop_key(&mut self, key: &Key) -> Result<(), String>;

    /// The namespace ends.
    fn end(&mut self, compacted: Revision) -> Result<(), String>;

    /// Makes the snapshot durable and puts it, in one step, in the place of the older one; then that, and the records it
    /// replaces, may go.
    fn finish(self: Box<Self>) -> Result<(), String>;
}

/// Why records were not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Surely none was, and none will come back. The journal is as before.
    #[error("{0}")]
    NotKept(String),
    /// They may have been kept or not. The journal takes nothing more until it is mended by a snapshot of the image, which
    /// does not have them.
    #[error("{0}")]
    Unknown(String),
}

/// Why a journal cannot be opened or loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Another process has it.
    #[error("{place} is in use by {owner}: one process owns it at a time")]
    InUse {
        /// The directory or file.
        place: String,
        /// Who has it, as far as is known.
        owner: String,
    },
    /// It is of a version that this program does not know.
    #[error(
        "{place} has format {found}, this program knows {known}: use the version that wrote it, or a later one"
    )]
    Format {
        /// Where that stands.
        place: String,
        /// The version found.
        found: u64,
        /// The version known.
        known: u64,
    },
    /// What was written is not what is there.
    #[error("{place} is damaged: {problem}; {advice}")]
    Damaged {
        /// File and line, or table and row.
        place: String,
        /// What is wrong.
        problem: String,
        /// What can be done.
        advice: String,
    },
    /// A copy was put back, but what begins anew with it could not be written.
    #[error("the copy cannot be made the beginning of a new history: {0}")]
    NotRestored(String),
    /// The system refused something.
    #[error("{place}: {error}")]
    Io {
        /// The directory or file.
        place: String,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Keeps commits. The engine's own thread calls all methods but for those of snapshots that it has begun.
///
/// - **Order**: records of one namespace are appended in the order of their positions.
/// - **All or none**: of one `append` all records are kept or, as long as nothing else is answered, none.
/// - **Durable**: what `append` has answered is as durable as `durability` says.
pub trait Journal: Send {
    /// The scheme of its URL.
    fn scheme(&self) -> &'static str;

    /// What an acknowledged write survives, in words.
    fn durability(&self) -> &'static str;

    /// The file beside it that tells how far the clock has come.
    fn clock_file(&self) -> ClockFile;

    /// What makes of a record the bytes that `append` gets with it. May make none, where `append` goes by the record.
    fn encoder(&self) -> Encoder;

    /// Hands all that is kept to `restore`, once, before anything else is called; then the journal can be appended to.
    ///
    /// # Errors
    /// See [`LoadError`]; nothing was changed then.
    fn load(&mut self, restore: &mut dyn Restore) -> Result<(), LoadError>;

    /// Keeps records, all together.
    ///
    /// # Errors
    /// See [`AppendError`].
    fn append(&mut self, records: &[Pending]) -> Result<(), AppendError>;

    /// Makes durable what was appended and is not yet: for journals that do not with each append, at times.
    ///
    /// # Errors
    /// As for `append`: with [`AppendError::Unknown`] it takes nothing more until mended.
    fn sync(&mut self) -> Result<(), AppendError>;

    /// Whether so much was appended that a snapshot should be made. Not again soon after one was begun.
    fn wants_snapshot(&self) -> bool;

    /// Whether anything was appended since the last snapshot was begun.
    fn has_grown(&self) -> bool;

    /// Begins a snapshot, which is then written on another thread while more is appended here. It will have all records
    /// appended before, and some of those after, which are not to be lost when it replaces what is older.
    ///
    /// # Errors
    /// What failed, in words; the journal goes on without.
    fn begin_snapshot(&mut self) -> Result<Box<dyn SnapshotWriter>, String>;

    /// Tries to get fit after a failed `append` or `sync`. `None`: records can be appended again. `Some`: once this snapshot
    /// of the image is finished; records that were not kept for sure must not come back then.
    ///
    /// # Errors
    /// Not yet possible, and why.
    fn mend(&mut self) -> Result<Option<Box<dyn SnapshotWriter>>, String>;
}
