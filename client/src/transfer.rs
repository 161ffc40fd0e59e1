//! Whole namespaces, taken out of a server and put into one.

use std::{io, path::PathBuf};

use futures::{TryStreamExt as _, stream};
use holdfast_proto::{
    lines,
    v1::{self, transfer_part::Part},
    whole_file::WholeFile,
};
use tokio::{
    fs::File,
    io::{
        AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
        BufWriter,
    },
    sync::mpsc,
    task::spawn_blocking,
};

use crate::{
    Client, Error, Lineage, Revision, Timestamp,
    retry::{Attempts, Effect},
    transport::deadline_after,
};

/// The longest line that is read. No server takes values beyond 16 MiB, of which each byte may stand as six, such as
/// `\u0000`; what is beside the value has room in the rest.
const LONGEST_LINE: usize = 8 * (16 << 20);

/// How far an export or import has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransferProgress {
    /// The namespace at hand.
    pub namespace: String,
    /// How many entries of it have gone through.
    pub entries: u64,
    /// About how many it has; 0 where that is not known.
    pub expected_entries: u64,
    /// What has gone through altogether.
    pub total: Transferred,
}

/// How much was exported or imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transferred {
    /// How many namespaces are complete.
    pub namespaces: u64,
    /// How many entries.
    pub entries: u64,
    /// How many leases.
    pub leases: u64,
    /// How many locks that are held.
    pub locks: u64,
}

/// A namespace that was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportedNamespace {
    /// Its name.
    pub name: String,
    /// Its last revision now.
    pub revision: Revision,
    /// When it was imported.
    pub time: Timestamp,
    /// Its history, which begins with the import.
    pub lineage: Lineage,
}

/// What an import came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// How much it was.
    pub total: Transferred,
    /// The namespaces in the order in which they came, at most the first 10,000.
    pub namespaces: Vec<ImportedNamespace>,
}

/// Told how far a transfer has come.
type Watcher = Box<dyn FnMut(&TransferProgress) + Send>;

impl Client {
    /// Exports namespaces, all unless some are named: settings, leases, locks with their holds, and entries; each
    /// namespace as of one revision of its own. End it with [`write_to`](Export::write_to) or
    /// [`write_to_file`](Export::write_to_file).
    pub fn export(&self) -> Export {
        Export { client: self.clone(), namespaces: Vec::new(), progress: None }
    }

    /// Imports what an export has written. End it with [`read_from`](Import::read_from).
    pub fn import(&self) -> Import {
        Import { client: self.clone(), replace: false, progress: None }
    }
}

/// An export; made by [`Client::export`].
#[must_use = "an export does nothing until it is written"]
pub struct Export {
    client: Client,
    namespaces: Vec<String>,
    progress: Option<Watcher>,
}

impl Export {
    /// Exports this namespace, and others only if they are named, too. One that does not exist is left out.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespaces.push(name.into());
        self
    }

    /// Calls this whenever something has gone through.
    pub fn progress(mut self, told: impl FnMut(&TransferProgress) + Send + 'static) -> Self {
        self.progress = Some(Box::new(told));
        self
    }

    /// Writes lines of JSON, in memory that does not grow with what there is. What is written is complete only with its
    /// last line. The client's timeout is that of the first answer.
    ///
    /// # Errors
    /// [`Error::Compacted`] where so much was written to a namespace meanwhile that its revision is no longer held,
    /// [`Error::Io`] if the lines cannot be written, and the failures of any call.
    pub async fn write_to(self, mut out: impl AsyncWrite + Unpin) -> Result<Transferred, Error> {
        let transport = &self.client.transport;
        let request = v1::ExportRequest { namespaces: self.namespaces };
        let deadline = deadline_after(transport.timeout());
        let opened = transport.in_time(deadline, transport.export(request)).await;
        let mut messages = opened.map_err(|failure| failure.error)?.messages;
        let (mut course, mut writer) = (Course::new(self.progress), lines::Writer::new());
        let mut buffer = Vec::new();
        while let Some(message) = messages.try_next().await.map_err(|failure| failure.error)? {
            let Some(part) = message.part else { continue };
            writer.write(&part, &mut buffer);
            written(out.write_all(&buffer).await)?;
            buffer.clear();
            course.note(&part);
        }
        writer.finish(&mut buffer);
        written(out.write_all(&buffer).await)?;
        written(out.flush().await)?;
        Ok(course.progress.total)
    }

    /// Writes the lines to a file, which takes the place of one that is there once it is whole: until then, and where this
    /// fails, is given up, or finds none of the namespaces that were named, that stays as it was. What is there and is no file,
    /// such as a pipe, is written straight into.
    ///
    /// # Errors
    /// Those of [`write_to`](Export::write_to).
    pub async fn write_to_file(self, path: impl Into<PathBuf>) -> Result<Transferred, Error> {
        let path = path.into();
        // A pipe opens only once somebody reads it.
        let whole = written(blocking(|| WholeFile::create(path)).await)?;
        let file = File::from_std(written(whole.file().try_clone())?);
        let are_named = !self.namespaces.is_empty();
        let done = self.write_to(BufWriter::new(file)).await?;
        if done.namespaces > 0 || !are_named {
            written(blocking(|| whole.finish()).await)?;
        }
        Ok(done)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await?
}

/// An import; made by [`Client::import`].
#[must_use = "an import does nothing until it is read"]
pub struct Import {
    client: Client,
    replace: bool,
    progress: Option<Watcher>,
}

impl Import {
    /// Puts namespaces in the place of those that are not empty. Unless set, such ones are refused.
    pub fn replace(mut self) -> Self {
        self.replace = true;
        self
    }

    /// Calls this whenever something has been sent. It is in place only when the import is over.
    pub fn progress(mut self, told: impl FnMut(&TransferProgress) + Send + 'static) -> Self {
        self.progress = Some(Box::new(told));
        self
    }

    /// Reads the lines of an export. Each namespace is put in place in one step when its last line has come; one whose
    /// last line does not come is left as it was. It is not tried again, and may take as long as it needs.
    ///
    /// # Errors
    /// [`Error::NamespaceNotEmpty`], [`Error::Malformed`] for a line that is none or does not come, [`Error::Io`],
    /// and the failures of any write. Namespaces whose last line came before stay imported; after
    /// [`Error::OutcomeUnknown`] it is not known which did.
    pub async fn read_from(self, input: impl AsyncBufRead + Unpin) -> Result<Imported, Error> {
        let (parts, waiting) = mpsc::channel(4);
        let requests = stream::unfold(waiting, async |mut waiting: mpsc::Receiver<_>| {
            Some((waiting.recv().await?, waiting))
        });
        let call = self.client.transport.import(requests);
        let fed = feed(input, parts, self.replace, Course::new(self.progress));
        tokio::pin!(call, fed);
        let response = tokio::select! {
            // What is wrong with the lines says more than that the server misses some.
            biased;
            fed = &mut fed => {
                fed?;
                call.await
            }
            // It has ended early: there is no use in reading on.
            response = &mut call => response,
        };
        let unanswered = |failure| Attempts::only_one(Effect::WritesUnrecorded, failure);
        Ok(Imported::from_wire(response.map_err(unanswered)?))
    }
}

impl Imported {
    fn from_wire(response: v1::ImportResponse) -> Self {
        let namespace = |it: v1::import_response::Namespace| ImportedNamespace {
            name: it.namespace,
            revision: Revision::new(it.revision),
            time: Timestamp::from_millis(it.time_ms),
            lineage: Lineage::new(it.lineage),
        };
        Self {
            total: Transferred {
                namespaces: response.namespace_count,
                entries: response.entry_count,
                leases: response.lease_count,
                locks: response.lock_count,
            },
            namespaces: response.namespaces.into_iter().map(namespace).collect(),
        }
    }
}

/// Sends what is read, until all is or nobody takes it any more.
async fn feed(
    mut input: impl AsyncBufRead + Unpin,
    parts: mpsc::Sender<v1::ImportRequest>,
    replace: bool,
    mut course: Course,
) -> Result<(), Error> {
    let mut reader = lines::Reader::new();
    let mut line = Vec::new();
    for number in 1.. {
        read_line(&mut input, &mut line, number, LONGEST_LINE).await?;
        if line.is_empty() {
            break;
        }
        for part in reader.read(&line).map_err(malformed)? {
            course.note(&part);
            if parts.send(v1::ImportRequest { part: Some(part), replace }).await.is_err() {
                // The server's answer says why.
                return Ok(());
            }
        }
    }
    reader.finish().map_err(malformed)
}

/// Reads the line of this number, with its end; nothing where there is none. What has no ends of lines, such as a device,
/// does not fill the memory.
async fn read_line(
    input: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
    number: u64,
    longest: usize,
) -> Result<(), Error> {
    line.clear();
    let mut bounded = input.take(longest as u64 + 1);
    let read = bounded.read_until(b'\n', line).await;
    read.map_err(|source| Error::Io { what: "the file cannot be read", source })?;
    if line.len() > longest {
        let problem = "it is longer than any line that `holdfast export` writes".to_owned();
        return Err(Error::Malformed { line: number, problem });
    }
    Ok(())
}

/// Follows a transfer, and tells about it.
struct Course {
    progress: TransferProgress,
    told: Option<Watcher>,
}

impl Course {
    fn new(told: Option<Watcher>) -> Self {
        Self { progress: TransferProgress::default(), told }
    }

    fn note(&mut self, part: &v1::TransferPart) {
        let progress = &mut self.progress;
        match &part.part {
            None => return,
            Some(Part::Start(start)) => {
                progress.namespace.clone_from(&start.namespace);
                (progress.entries, progress.expected_entries) = (0, start.expected_entries);
            }
            Some(Part::Items(items)) => {
                progress.entries += items.entries.len() as u64;
                progress.total.entries += items.entries.len() as u64;
                progress.total.leases += items.leases.len() as u64;
                progress.total.locks += items.locks.len() as u64;
            }
            Some(Part::End(_)) => progress.total.namespaces += 1,
        }
        if let Some(told) = &mut self.told {
            told(progress);
        }
    }
}

fn malformed(error: lines::LineError) -> Error {
    let lines::LineError { line, problem } = error;
    Error::Malformed { line, problem }
}

fn written<T>(result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::Io { what: "the file cannot be written", source })
}

#[cfg(test)]
mod tests {
    use tokio::io::{BufReader, repeat};

    use super::*;

    #[tokio::test]
    async fn lines_are_read_one_by_one_up_to_a_bound() {
        let (mut input, mut line) = (&b"ab\ncde\nfghi\n"[..], Vec::new());
        for (number, whole) in [(1, &b"ab\n"[..]), (2, b"cde\n")] {
            read_line(&mut input, &mut line, number, 4).await.expect("short enough");
            assert_eq!(line, whole);
        }
        match read_line(&mut input, &mut line, 3, 4).await {
            Err(Error::Malformed { line: 3, .. }) => {}
            other => panic!("{other:?}"),
        }
        let mut last = &b"cut"[..];
        for left in [&b"cut"[..], b""] {
            read_line(&mut last, &mut line, 1, 4).await.expect("short enough");
            assert_eq!(line, left);
        }
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_not_read_to_it() {
        let (mut endless, mut line) = (BufReader::new(repeat(b'x')), Vec::new());
        let read = read_line(&mut endless, &mut line, 1, 1 << 10).await;
        assert!(matches!(read, Err(Error::Malformed { line: 1, .. })), "{read:?}");
        assert_eq!(line.len(), (1 << 10) + 1);
    }
}
