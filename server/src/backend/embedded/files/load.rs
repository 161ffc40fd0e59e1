//! Reads back what is in the files: the newest sound snapshot, then the journals.
//!
//! A record that was being written when the process or the machine stopped was not acknowledged, and is cut off; how it is
//! told from damage is said in `remains.rs`. It is the last thing written: no later journal has a record then. Anything else
//! is damage, and refused.

use std::path::{Path, PathBuf};

use super::{
    decode::{self, Decoder, SnapshotLine},
    layer::FileLayer,
    line::Header,
    lines::Lines,
    names::{Kind, Name, PROBE},
    remains::Remains,
};
use crate::backend::{
    Key, Revision,
    embedded::{
        hand_over::{HandOver, beside},
        journal::{LoadError, NamespaceState, Record, Restore, Version},
    },
};

const JOURNAL_ADVICE: &str = "put back a copy of the directory; or give up what was committed from there on by \
    `holdfastd repair`: a journal that is merely cut would give revisions out again";
const SNAPSHOT_ADVICE: &str =
    "put back a copy of the directory, or begin an empty one with a copy from `backup_dir`";
const MISSING_ADVICE: &str = "put back a copy of the whole directory";

/// What was found, and what is to be done before anything is written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The journal that is to be continued, and its length; none: a new one is to be made.
    pub current: Option<(u64, u64)>,
    /// The journals that were read.
    pub journals: Vec<u64>,
    /// The number of a journal that is to be made.
    pub next: u64,
    /// Ends of journals that are to be cut off.
    pub torn: Vec<Torn>,
    /// Files of no use any more.
    pub stale: Vec<String>,
    /// Bytes of journals, which the next snapshot will replace.
    pub journal_bytes: u64,
}

/// The end of a journal that was not written whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    pub number: u64,
    /// The first line that is not whole.
    pub line: u64,
    /// How long the sound part is.
    pub length: u64,
    /// How much is to be cut off.
    pub bytes: u64,
}

/// Reads the files of a directory.
pub fn load(
    layer: &dyn FileLayer,
    directory: &Path,
    restore: &mut dyn Restore,
) -> Result<Found, LoadError> {
    let files = Files::find(layer, directory)?;
    let base = match files.choose_snapshot()? {
        None => 1,
        Some(number) => {
            let header = files.snapshot(number, restore)?;
            if header.copy {
                return files.begin_copy(number);
            }
            number
        }
    };
    let mut found = files.journals(base, restore)?;
    let is_stale = |name: &&Name| name.number < base || name.kind == Kind::Temporary;
    found.stale = files.names.iter().filter(is_stale).map(ToString::to_string).collect();
    found.stale.extend(files.probe.then(|| PROBE.to_owned()));
    Ok(found)
}

/// Reads the files of a directory up to damage in a journal; answers the number of the first journal, and what and where the
/// damage is.
pub fn load_sound(
    layer: &dyn FileLayer,
    directory: &Path,
    restore: &mut dyn Restore,
) -> Result<(u64, Option<String>), LoadError> {
    let files = Files::find(layer, directory)?;
    let snapshot = files.choose_snapshot()?;
    if let Some(number) = snapshot
        && files.snapshot(number, restore)?.copy
    {
        files.begin_copy(number)?;
        return Ok((number, None));
    }
    let first = snapshot.unwrap_or(1);
    match files.journals(first, restore) {
        Ok(_) => Ok((first, None)),
        Err(LoadError::Damaged { place, problem, .. }) => {
            Ok((first, Some(format!("{place} is damaged: {problem}"))))
        }
        Err(error) => Err(error),
    }
}

/// What journals have, line by line.
#[derive(Debug, Default)]
pub struct Surveyed {
    /// How many commits are sound by themselves.
    pub commits: u64,
    /// When the last of them was made.
    pub last_ms: Option<i64>,
    /// How many lines are not sound.
    pub unsound_lines: u64,
}

/// Looks at each line of the journals from a number on by itself.
pub fn survey(layer: &dyn FileLayer, directory: &Path, first: u64) -> Result<Surveyed, LoadError> {
    let files = Files::find(layer, directory)?;
    let mut surveyed = Surveyed::default();
    for number in files.numbers(Kind::Journal).filter(|number| *number >= first) {
        let mut lines = Lines::open(layer, files.path(Kind::Journal, number))?;
        let mut decoder = Decoder::default();
        while lines.next_with_content()? {
            let checked = lines.check();
            if checked.is_ok() && decode::header(lines.content(), "journal").is_ok() {
                continue;
            }
            match checked.and_then(|()| decoder.journal(lines.content())) {
                Ok(record) => {
                    surveyed.commits += 1;
                    surveyed.last_ms = surveyed.last_ms.max(Some(record.time_ms));
                }
                Err(_) => surveyed.unsound_lines += 1,
            }
        }
    }
    Ok(surveyed)
}

/// Checks each line of a file by itself; answers how many there are, and calls `problem` with the number of each
/// that is not as it should be, and why.
pub fn check_lines(
    layer: &dyn FileLayer,
    directory: &Path,
    name: Name,
    mut problem: impl FnMut(u64, String),
) -> Result<u64, LoadError> {
    let path = directory.join(name.to_string());
    let mut lines = Lines::open(layer, path)?;
    let mut decoder = Decoder::default();
    let is_journal = name.kind == Kind::Journal;
    let kind = if is_journal { "journal" } else { "snapshot" };
    let mut count = 0;
    // A journal may have blank lines, where it was filled ahead; whether these are in place is seen when it is loaded.
    while if is_journal { lines.next_with_content()? } else { lines.next()? } {
        count += 1;
        let line = lines.content();
        let checked = lines.check().and_then(|()| match (lines.number, name.kind) {
            (1, _) => decode::header(line, kind).map(drop),
            (_, Kind::Journal) => decoder.journal(line).map(drop),
            _ => decoder.snapshot(line).map(drop),
        });
        if let Err(why) = checked {
            problem(lines.number, why);
        }
    }
    Ok(count)
}

/// All files of ours in a directory.
pub struct Files<'a> {
    layer: &'a dyn FileLayer,
    directory: &'a Path,
    /// In order of their numbers.
    pub names: Vec<Name>,
    probe: bool,
}

impl<'a> Files<'a> {
    /// Looks what is there.
    pub fn find(layer: &'a dyn FileLayer, directory: &'a Path) -> Result<Self, LoadError> {
        let all = layer.list(directory).map_err(|error| io_error(directory, error))?;
        let mut names: Vec<_> = all.iter().filter_map(|name| Name::parse(name)).collect();
        names.sort();
        let probe = all.iter().any(|name| name == PROBE);
        Ok(Self { layer, directory, names, probe })
    }

    fn numbers(&self, kind: Kind) -> impl DoubleEndedIterator<Item = u64> {
        self.names.iter().filter(move |name| name.kind == kind).map(|name| name.number)
    }

    fn path(&self, kind: Kind, number: u64) -> PathBuf {
        self.directory.join(Name { kind, number }.to_string())
    }

    /// The newest sound snapshot. Where there is only one, it is found out while it is loaded whether it is sound.
    fn choose_snapshot(&self) -> Result<Option<u64>, LoadError> {
        let mut snapshots = self.numbers(Kind::Snapshot).rev().peekable();
        let newest = snapshots.peek().copied();
        let mut newest_problem = None;
        while let Some(number) = snapshots.next() {
            if newest_problem.is_none() && snapshots.peek().is_none() {
                return Ok(Some(number));
            }
            match self.snapshot(number, &mut Nowhere) {
                Ok(_) => return Ok(Some(number)),
                Err(error @ LoadError::Damaged { .. }) => {
                    tracing::warn!(%error, "trying an older snapshot");
                    newest_problem.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        newest_problem.map_or(Ok(newest), Err)
    }

    /// A copy is put back into a directory of its own. Beside it there may be what a start on it has left that did not come to
    /// its end: journals without any record, and a part of the snapshot that the new history begins with.
    fn begin_copy(&self, number: u64) -> Result<Found, LoadError> {
        let own = Name { kind: Kind::Snapshot, number };
        let mut found = Found { next: number, ..Found::default() };
        for other in self.names.iter().filter(|name| **name != own) {
            let is_other_state = |_: &Header| {
                Err(damaged(
                    &self.directory.join(own.to_string()),
                    1,
                    format!("it is a copy put beside other state, {other}"),
                    "put the copy into an empty directory",
                ))
            };
            match other.kind {
                Kind::Snapshot => is_other_state(&Header::default())?,
                Kind::Journal => {
                    self.journal(other.number, true, &is_other_state, &mut Nowhere)?;
                }
                Kind::Temporary => {}
            }
            found.stale.push(other.to_string());
        }
        Ok(found)
    }

    fn snapshot(&self, number: u64, restore: &mut dyn Restore) -> Result<Header, LoadError> {
        let mut lines = Lines::open(self.layer, self.path(Kind::Snapshot, number))?;
        let short = |lines: &Lines| {
            let problem = "it ends before its last line".to_owned();
            damaged(&lines.path, lines.number + 1, problem, SNAPSHOT_ADVICE)
        };
        if !lines.next()? {
            return Err(short(&lines));
        }
        let checked = lines.check();
        checked.map_err(|why| damaged(&lines.path, 1, why, SNAPSHOT_ADVICE))?;
        let header = lines.header("snapshot", number, SNAPSHOT_ADVICE)?;
        if header.copy {
            restore.is_copy();
        }
        let path = lines.path.clone();
        let mut ended = false;
        let read = |over: &mut HandOver<_>| {
            let mut decoder = Decoder::default();
            while lines.next()? {
                let line = lines.check().and_then(|()| decoder.snapshot(lines.content()));
                let line = line.map_err(|why| lines.damaged(why, SNAPSHOT_ADVICE))?;
                over.hand((lines.number, line), lines.end - lines.start);
            }
            Ok(lines)
        };
        let put = |(number, line)| {
            let taken = match line {
                _ if ended => Err("it comes after the last line".into()),
                SnapshotLine::Namespace(state) => restore.begin(state),
                SnapshotLine::Version(version) => restore.put(version),
                SnapshotLine::Dropped(key) => restore.drop_key(&key),
                SnapshotLine::NamespaceEnd(compacted) => restore.end(compacted),
                SnapshotLine::End(lines) if lines == number - 1 => {
                    ended = true;
                    Ok(())
                }
                SnapshotLine::End(lines) => {
                    Err(format!("it says that {lines} lines are before it"))
                }
            };
            taken.map_err(|why| damaged(&path, number, why, SNAPSHOT_ADVICE))
        };
        let lines = beside(read, put)?;
        if ended { Ok(header) } else { Err(short(&lines)) }
    }

    fn journals(&self, base: u64, restore: &mut dyn Restore) -> Result<Found, LoadError> {
        let mut found = Found { next: base, ..Found::default() };
        let has_snapshot = self.names.contains(&Name { kind: Kind::Snapshot, number: base });
        let numbers: Vec<_> =
            self.numbers(Kind::Journal).filter(|number| *number >= base).collect();
        for (number, expected) in numbers.iter().copied().zip(base..) {
            if number != expected {
                let problem = "it is missing, though there are later ones".to_owned();
                let path = self.path(Kind::Journal, expected);
                return Err(damaged(&path, 1, problem, MISSING_ADVICE));
            }
            let is_last = numbers.last() == Some(&number);
            let torn = found.torn.first();
            let may_have_records = |header: &Header| {
                if let Some(torn) = torn {
                    let path = self.path(Kind::Journal, torn.number);
                    let problem =
                        "it is not whole, and others follow in a later journal".to_owned();
                    return Err(damaged(&path, torn.line, problem, JOURNAL_ADVICE));
                }
                if header.needs_snapshot && !(has_snapshot && number == base) {
                    let problem = "it goes on from a snapshot that is missing".to_owned();
                    let path = self.path(Kind::Journal, number);
                    return Err(damaged(&path, 1, problem, MISSING_ADVICE));
                }
                Ok(())
            };
            let journal = self.journal(number, is_last, &may_have_records, restore)?;
            // One without a record is made anew: whether what it has is durable, a process may have been told that was killed.
            let goes_on = journal.records > 0;
            found.current = goes_on.then_some((number, journal.length));
            found.next = if goes_on { number + 1 } else { number };
            found.journal_bytes += journal.length;
            found.torn.extend(journal.torn.filter(|_| goes_on));
        }
        found.journals.clone_from(&numbers);
        if numbers.is_empty() && has_snapshot {
            let problem = "it is missing, though its snapshot is there".to_owned();
            return Err(damaged(&self.path(Kind::Journal, base), 1, problem, MISSING_ADVICE));
        }
        Ok(found)
    }

    fn journal(
        &self,
        number: u64,
        is_last: bool,
        may_have_records: &dyn Fn(&Header) -> Result<(), LoadError>,
        restore: &mut dyn Restore,
    ) -> Result<Journal, LoadError> {
        let path = self.path(Kind::Journal, number);
        let mut lines = Lines::open(self.layer, path.clone())?;
        let mut journal = Journal::default();
        lines.next()?;
        if let Err(why) = lines.check() {
            return match lines.remains()? {
                Remains::Damage(line, why) => Err(lines.damaged_at(line, why, JOURNAL_ADVICE)),
                _ if is_last => Ok(journal),
                _ => Err(lines.damaged_at(1, why, JOURNAL_ADVICE)),
            };
        }
        journal.header = lines.header("journal", number, JOURNAL_ADVICE)?;
        let read = |over: &mut HandOver<_>| {
            let mut decoder = Decoder::default();
            while lines.next()? {
                if lines.check().is_err() {
                    journal.length = lines.start;
                    journal.torn = torn(number, &mut lines)?;
                    return Ok(journal);
                }
                if journal.records == 0 {
                    may_have_records(&journal.header)?;
                }
                let record = decoder.journal(lines.content());
                let record = record.map_err(|why| lines.damaged(why, JOURNAL_ADVICE))?;
                over.hand((lines.number, record), lines.end - lines.start);
                journal.records += 1;
            }
            journal.length = lines.end;
            Ok(journal)
        };
        let put = |(line, record)| {
            restore.apply(record).map_err(|why| damaged(&path, line, why, JOURNAL_ADVICE))
        };
        beside(read, put)
    }
}

/// What a journal ends with that is not a sound line.
fn torn(number: u64, lines: &mut Lines) -> Result<Option<Torn>, LoadError> {
    match lines.remains()? {
        Remains::Nothing => Ok(None),
        Remains::Torn(bytes) => {
            Ok(Some(Torn { number, line: lines.number, length: lines.start, bytes }))
        }
        Remains::Damage(line, why) => Err(lines.damaged_at(line, why, JOURNAL_ADVICE)),
    }
}

/// What was read of a journal.
#[derive(Default)]
struct Journal {
    header: Header,
    records: u64,
    length: u64,
    torn: Option<Torn>,
}

/// Takes a snapshot only to see whether it is sound.
struct Nowhere;

impl Restore for Nowhere {
    fn is_copy(&mut self) {}

    fn begin(&mut self, _: NamespaceState) -> Result<(), String> {
        Ok(())
    }

    fn put(&mut self, _: Version) -> Result<(), String> {
        Ok(())
    }

    fn expect(&mut self, _: &Key, _: Revision) -> Result<(), String> {
        Ok(())
    }

    fn drop_key(&mut self, _: &Key) -> Result<(), String> {
        Ok(())
    }

    fn end(&mut self, _: Revision) -> Result<(), String> {
        Ok(())
    }

    fn apply(&mut self, _: Record) -> Result<(), String> {
        Ok(())
    }
}

/// That a line of a file is damaged.
pub fn damaged(path: &Path, line: u64, problem: String, advice: &str) -> LoadError {
    let place = format!("{}, line {line}", path.display());
    LoadError::Damaged { place, problem, advice: advice.into() }
}

/// An error of the system, with the file.
pub fn io_error(path: &Path, error: std::io::Error) -> LoadError {
    LoadError::Io { place: path.display().to_string(), error }
}
