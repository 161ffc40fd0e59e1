//! A file system in memory that fails when told to, and forgets what was not synced when the power goes.

use std::{
    any::Any,
    collections::BTreeMap,
    io::{self, Cursor, Read},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use parking_lot::{Condvar, Mutex};

use super::super::layer::{FileLayer, Output};

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does nothing.
    Error,
    /// A write is done in part, another operation not at all.
    Short,
    /// It is done, but reported as failed; what a sync was to make durable is lost.
    Lost,
    /// The power goes: it and all after it fail.
    Power,
    /// The thread ends.
    Panic,
}

/// What of unsynced bytes is there after the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Nothing,
    /// The first half.
    Early,
    /// The second half: a disk writes in any order.
    Late,
    All,
}

impl Kept {
    pub const EVERY: [Self; 4] = [Self::Nothing, Self::Early, Self::Late, Self::All];

    /// What is there of a file, given what is durable of it and what was to become so.
    fn of(self, durable: &[u8], written: &[u8]) -> Vec<u8> {
        let Some((start, end)) = difference(durable, written) else {
            return written.to_vec();
        };
        let half = start + (end - start) / 2;
        let sector = half - half % SECTOR_BYTES;
        match self {
            Self::Nothing => durable.to_vec(),
            // The file may end anywhere, but of what is there already a sector is written whole.
            Self::Early if half >= durable.len() => written[..half.min(written.len())].to_vec(),
            Self::Early if written.len() >= durable.len() => {
                [&written[..sector], &durable[sector..]].concat()
            }
            Self::Late if written.len() >= durable.len() => {
                let mut bytes = durable.to_vec();
                bytes.resize(written.len(), 0);
                bytes[sector..].copy_from_slice(&written[sector..]);
                bytes
            }
            Self::Early | Self::Late | Self::All => written.to_vec(),
        }
    }
}

/// From where to where two contents differ.
fn difference(one: &[u8], other: &[u8]) -> Option<(usize, usize)> {
    let length = one.len().max(other.len());
    let differ = |at: &usize| one.get(*at) != other.get(*at);
    Some(((0..length).find(differ)?, (0..length).rfind(differ)? + 1))
}

const SECTOR_BYTES: usize = 512;

#[derive(Default)]
pub struct Disk {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    /// What a running process sees.
    names: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    /// What is in directories after the power went.
    durable: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    operations: usize,
    fault: Option<(usize, Fault)>,
    /// Everything fails.
    failing: bool,
    /// Everything takes until this ends.
    held: bool,
    /// What all files may hold together.
    capacity: Option<usize>,
    lock: Weak<()>,
    log: Vec<String>,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Where a failed sync has lost what was written, and what is there instead: it is read, but never written.
    lost: Vec<(usize, Vec<u8>)>,
}

impl Content {
    /// Bytes that are written again are no longer lost.
    fn rewrite(&mut self, start: usize, end: usize) {
        let mut lost = Vec::new();
        for (at, instead) in self.lost.drain(..) {
            let stop = at + instead.len();
            if at < start {
                lost.push((at, instead[..start.min(stop) - at].to_vec()));
            }
            if stop > end {
                let from = end.max(at);
                lost.push((from, instead[from - at..].to_vec()));
            }
        }
        self.lost = lost;
    }
}

struct File {
    disk: Arc<Disk>,
    path: PathBuf,
    content: Arc<Mutex<Content>>,
    /// Where it is written to next.
    at: usize,
}

impl Disk {
    /// The operation with this number from now on, counted from 0, fails.
    pub fn fail_at(&self, operation: usize, fault: Fault) {
        let mut state = self.state.lock();
        state.fault = Some((state.operations + operation, fault));
    }

    /// Everything that changes something fails, or no longer.
    pub fn set_failing(&self, failing: bool) {
        self.state.lock().failing = failing;
    }

    /// Everything that changes something takes until this is said to be over.
    pub fn set_held(&self, held: bool) {
        self.state.lock().held = held;
        self.released.notify_all();
    }

    /// So much fits on it.
    pub fn set_capacity(&self, bytes: usize) {
        self.state.lock().capacity = Some(bytes);
    }

    /// How much more fits on it.
    fn room(&self) -> usize {
        let state = self.state.lock();
        let used: usize = state.names.values().map(|content| content.lock().bytes.len()).sum();
        state.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(used))
    }

    /// Whether the fault has come.
    pub fn has_failed(&self) -> bool {
        let state = self.state.lock();
        state.fault.is_some_and(|(at, _)| state.operations > at)
    }

    /// What was done, in words.
    pub fn log(&self) -> Vec<String> {
        self.state.lock().log.clone()
    }

    /// The disk after the power went and came back.
    pub fn after_power_loss(&self, kept: Kept) -> Arc<Self> {
        let state = self.state.lock();
        let restored = |(path, content): (&PathBuf, &Arc<Mutex<Content>>)| {
            let content = content.lock();
            let bytes = kept.of(&content.synced, &content.bytes);
            let content = Content { bytes: bytes.clone(), synced: bytes, lost: Vec::new() };
            (path.clone(), Arc::new(Mutex::new(content)))
        };
        let names: BTreeMap<_, _> = state.durable.iter().map(restored).collect();
        let state = State { durable: names.clone(), names, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), ..Self::default() })
    }

    /// A copy of the disk after the process was killed: what it wrote is there, and durable only as far as it was synced.
    pub fn after_kill(&self) -> Arc<Self> {
        let state = self.state.lock();
        let mut copies = BTreeMap::new();
        let mut copy = |(path, content): (&PathBuf, &Arc<Mutex<Content>>)| {
            let copied = || Arc::new(Mutex::new(content.lock().clone()));
            (path.clone(), copies.entry(Arc::as_ptr(content)).or_insert_with(copied).clone())
        };
        let names = state.names.iter().map(&mut copy).collect();
        let durable = state.durable.iter().map(&mut copy).collect();
        let state = Mutex::new(State { names, durable, ..State::default() });
        Arc::new(Self { state, ..Self::default() })
    }

    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state.lock();
        let file = |(path, content): (&PathBuf, &Arc<Mutex<Content>>)| {
            (path.file_name()?.to_str()?.to_owned(), content.lock().bytes.clone()).into()
        };
        state.names.iter().filter_map(file).collect()
    }

    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        let content = Content { bytes: bytes.clone(), synced: bytes, lost: Vec::new() };
        let content = Arc::new(Mutex::new(content));
        let mut state = self.state.lock();
        state.names.insert(path.into(), content.clone());
        state.durable.insert(path.into(), content);
    }

    pub fn delete(&self, path: &str) {
        let mut state = self.state.lock();
        state.names.remove(Path::new(path));
        state.durable.remove(Path::new(path));
    }

    fn operation(&self, what: &str, path: &Path) -> Result<(), Fault> {
        let mut state = self.state.lock();
        self.released.wait_while(&mut state, |state| state.held);
        let number = state.operations;
        state.operations += 1;
        state.log.push(format!("{number}: {what} {}", path.display()));
        match state.fault {
            Some((at, Fault::Panic)) if at == number => panic!("a fault was put in"),
            Some((at, fault)) if at == number => {
                state.failing |= fault == Fault::Power;
                Err(fault)
            }
            _ if state.failing => Err(Fault::Error),
            _ => Ok(()),
        }
    }
}

fn failure() -> io::Error {
    io::Error::other("a fault was put in")
}

/// The layer over a shared disk.
pub struct Layer(pub Arc<Disk>);

impl Layer {
    fn plain(&self, what: &str, path: &Path, work: impl FnOnce(&mut State)) -> io::Result<()> {
        match self.0.operation(what, path) {
            Ok(()) => {
                work(&mut self.0.state.lock());
                Ok(())
            }
            Err(Fault::Lost) => {
                work(&mut self.0.state.lock());
                Err(failure())
            }
            Err(_) => Err(failure()),
        }
    }

    fn output(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        let content = self.0.state.lock().names.get(path).cloned();
        let content = content.ok_or(io::ErrorKind::NotFound)?;
        let at = content.lock().bytes.len();
        Ok(Box::new(File { disk: self.0.clone(), path: path.to_owned(), content, at }))
    }
}

impl FileLayer for Layer {
    fn make_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let state = self.0.state.lock();
        let inside = state.names.keys().filter(|path| path.parent() == Some(directory));
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        Ok(inside.map(name).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let content = self.0.state.lock().names.get(path).cloned();
        let content = content.ok_or(io::ErrorKind::NotFound)?;
        let bytes = content.lock().bytes.clone();
        Ok(Box::new(Cursor::new(bytes)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        self.plain("create", path, |state| {
            state.names.insert(path.to_owned(), Arc::default());
        })?;
        self.output(path)
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        self.plain("append", path, |_| {})?;
        self.output(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plain("rename", to, |state| {
            if let Some(content) = state.names.remove(from) {
                state.names.insert(to.to_owned(), content);
            }
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.plain("remove", path, |state| {
            state.names.remove(path);
        })
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.plain("sync directory", directory, |state| {
            state.durable.retain(|path, _| path.parent() != Some(directory));
            let names = state.names.iter();
            let inside = names.filter(|(path, _)| path.parent() == Some(directory));
            let inside: Vec<_> = inside.map(|(path, it)| (path.clone(), it.clone())).collect();
            state.durable.extend(inside);
        })
    }

    fn lock(&self, _: &Path, _: &str) -> io::Result<Result<Box<dyn Any + Send>, String>> {
        let mut state = self.0.state.lock();
        if state.lock.upgrade().is_some() {
            return Ok(Err("1".into()));
        }
        let guard = Arc::new(());
        state.lock = Arc::downgrade(&guard);
        Ok(Ok(Box::new(guard)))
    }
}

impl Output for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut done = self.disk.operation("write", &self.path);
        let room = self.disk.room();
        let most = self.content.lock().bytes.len().saturating_add(room);
        if self.at + bytes.len() > most {
            done = done.and(Err(Fault::Short));
        }
        let mut whole = self.content.lock();
        let content = &mut whole.bytes;
        let half = (self.at + bytes.len() / 2).min(most);
        let end = match done {
            Ok(()) | Err(Fault::Lost) => self.at + bytes.len(),
            Err(Fault::Short | Fault::Power) if half >= content.len() => half,
            // Over what is there it is written by the page.
            Err(Fault::Short | Fault::Power) => self.at.max(half - half % SECTOR_BYTES),
            Err(Fault::Error | Fault::Panic) => self.at,
        };
        content.resize(content.len().max(end), 0);
        content[self.at..end].copy_from_slice(&bytes[..end - self.at]);
        whole.rewrite(self.at, end);
        drop(whole);
        self.at = end;
        done.map_err(|_| failure())
    }

    fn go_to(&mut self, offset: u64) -> io::Result<()> {
        self.at = offset as usize;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let done = self.disk.operation("sync", &self.path);
        let mut content = self.content.lock();
        let Content { bytes, synced, lost } = &mut *content;
        match done {
            Ok(()) => {
                synced.clone_from(bytes);
                for (start, instead) in lost.iter() {
                    let end = (start + instead.len()).min(synced.len());
                    if let Some(gone) = synced.get_mut(*start..end) {
                        gone.copy_from_slice(&instead[..end - start]);
                    }
                }
            }
            // What the system could not write it does not try again.
            Err(Fault::Lost) => {
                if let Some((start, end)) = difference(synced, bytes) {
                    let mut instead = synced.get(start..).unwrap_or_default().to_vec();
                    instead.resize(end - start, 0);
                    lost.push((start, instead));
                }
            }
            Err(_) => {}
        }
        done.map_err(|_| failure())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let done = self.disk.operation("truncate", &self.path);
        if matches!(done, Ok(()) | Err(Fault::Lost)) {
            let mut content = self.content.lock();
            content.bytes.truncate(length as usize);
            content.rewrite(length as usize, usize::MAX);
            drop(content);
            self.at = length as usize;
        }
        done.map_err(|_| failure())
    }
}
