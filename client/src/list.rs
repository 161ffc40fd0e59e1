//! Entries in the order of their keys: lists in pages, and scans.

use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{
    Stream, StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use holdfast_proto::v1;
use tokio::time::{Instant, sleep};

use crate::{
    Codec, Cursor, Entry, Error, Header, Lineage, Namespace, Revision, Selector,
    call::{Pending, call_options},
    error::{Cause, Failure},
    retry::{Attempts, Effect},
    transport::{Opened, Transport, deadline_after},
    wire::{self, Reader},
};

/// Lists entries; made by [`Namespace::list`]. End it with [`stream`](Self::stream), [`page`](Self::page)
/// or [`all`](Self::all).
#[must_use = "a list does nothing until it is read"]
pub struct List<C, T> {
    call: Pending<v1::ListRequest>,
    reader: Reader<C, T>,
}

impl<C: Codec, T: 'static> List<C, T> {
    pub(crate) fn new(
        namespace: &Namespace<C>,
        selector: Selector,
        keys_only: bool,
        reader: Reader<C, T>,
    ) -> Self {
        Self {
            call: namespace.pending(v1::ListRequest {
                namespace: namespace.namespace(),
                selector: Some(wire::selector(selector)),
                keys_only,
                ..Default::default()
            }),
            reader,
        }
    }

    /// From the last key to the first.
    pub fn reverse(mut self) -> Self {
        self.call.request.reverse = true;
        self
    }

    /// How many entries a page has at the most, up to 10,000; 1,000 unless set.
    pub fn page_size(mut self, entries: u32) -> Self {
        self.call.request.page_size = entries;
        self
    }

    /// Begins after the page that this token came with. Everything else must be as it was then.
    pub fn page_token(mut self, token: PageToken) -> Self {
        self.call.request.page_token = token.0;
        self
    }

    /// Lists what this revision held, without regard to the clock.
    pub fn at_revision(mut self, revision: impl Into<Revision>) -> Self {
        self.call.request.at_revision = Some(revision.into().get());
        self
    }

    /// Only entries changed at this revision or later.
    pub fn min_mod_revision(mut self, revision: impl Into<Revision>) -> Self {
        self.call.request.min_mod_revision = revision.into().get();
        self
    }

    call_options!();

    /// All entries, read page by page as they are needed, all as of the revision and time of the first
    /// page. See [`EntryStream`] for errors; [`Error::Compacted`] when the reader is so slow that the
    /// revision is no longer held. The timeout is that of each page.
    pub fn stream(self) -> EntryStream<T> {
        let Self { call, reader } = self;
        let chunks = stream::try_unfold(Some(call), |call| async move {
            let Some(mut call) = call else {
                return Ok(None);
            };
            let mut response = call.send_again().await?;
            call.request.page_token = mem::take(&mut response.next_page_token);
            let more = !call.request.page_token.is_empty();
            Ok(Some((Chunk::from(response), more.then_some(call))))
        });
        EntryStream::new(chunks.boxed(), reader)
    }

    /// One page.
    ///
    /// # Errors
    /// [`Error::Compacted`] for a later page whose revision is no longer held; [`Error::Codec`] or
    /// [`Error::UnexpectedContentType`] if one value of the page cannot be read.
    pub async fn page(mut self) -> Result<Page<T>, Error> {
        let response = self.call.send().await?;
        let token = response.next_page_token;
        Ok(Page {
            header: Header::new(response.revision, response.time_ms),
            lineage: Lineage::new(response.lineage),
            entries: response
                .entries
                .into_iter()
                .map(|entry| self.reader.read(entry))
                .collect::<Result<_, _>>()?,
            next: (!token.is_empty()).then_some(PageToken(token)),
        })
    }

    /// All entries at once. They had better fit into memory.
    ///
    /// # Errors
    /// The first that the stream meets.
    pub async fn all(self) -> Result<Vec<Entry<T>>, Error> {
        self.stream().try_collect().await
    }
}

/// Where the next page of a list begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken(pub(crate) Bytes);

impl PageToken {
    /// The token of these bytes, which an earlier one gave with [`as_bytes`](Self::as_bytes).
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes of the token, opaque.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The state listed: that of the first page.
    pub header: Header,
    /// The lineage of the namespace.
    pub lineage: Lineage,
    /// The entries, in order.
    pub entries: Vec<Entry<T>>,
    /// Where the next page begins; none after the last one. A page may have no entries and a next one.
    pub next: Option<PageToken>,
}

impl<T> Page<T> {
    /// The point of time that the list describes, to watch from what came after it.
    pub fn cursor(&self) -> Cursor {
        Cursor { lineage: self.lineage.clone(), revision: self.header.revision }
    }
}

/// Streams entries in a single call; made by [`Namespace::scan`]. End it with [`stream`](Self::stream).
#[must_use = "a scan does nothing until it is read"]
pub struct Scan<C, T> {
    call: Pending<v1::ScanRequest>,
    reader: Reader<C, T>,
}

impl<C: Codec, T: 'static> Scan<C, T> {
    pub(crate) fn new(
        namespace: &Namespace<C>,
        selector: Selector,
        keys_only: bool,
        reader: Reader<C, T>,
    ) -> Self {
        Self {
            call: namespace.pending(v1::ScanRequest {
                namespace: namespace.namespace(),
                selector: Some(wire::selector(selector)),
                keys_only,
                ..Default::default()
            }),
            reader,
        }
    }

    /// From the last key to the first.
    pub fn reverse(mut self) -> Self {
        self.call.request.reverse = true;
        self
    }

    /// Scans what this revision held, without regard to the clock.
    pub fn at_revision(mut self, revision: impl Into<Revision>) -> Self {
        self.call.request.at_revision = Some(revision.into().get());
        self
    }

    /// Only entries changed at this revision or later.
    pub fn min_mod_revision(mut self, revision: impl Into<Revision>) -> Self {
        self.call.request.min_mod_revision = revision.into().get();
        self
    }

    call_options!();

    /// The entries. The timeout is that of the first answer; the scan itself may take as long as it needs.
    pub fn stream(self) -> EntryStream<T> {
        let Self { call, reader } = self;
        let chunks = stream::once(open_scan(call)).try_flatten();
        EntryStream::new(chunks.boxed(), reader)
    }
}

/// Opens a scan and waits for its first message, so that what can be tried again is.
async fn open_scan(
    call: Pending<v1::ScanRequest>,
) -> Result<impl Stream<Item = Result<Chunk, Error>> + Send, Error> {
    let transport = Arc::clone(&call.client.transport);
    let deadline = deadline_after(call.timeout.unwrap_or(transport.timeout()));
    let max_attempts = transport.max_attempts();
    let mut attempts = Attempts::new(Effect::Reads, max_attempts, Instant::now(), deadline);
    let (first, rest) = loop {
        let attempt = begin_scan(&transport, call.request.clone());
        match transport.in_time(deadline, attempt).await {
            Ok(opened) => break opened,
            Err(failure) => sleep(attempts.after(failure, Instant::now())?).await,
        }
    };
    let Opened { messages, endpoint } = rest;
    let rest = messages.map_err(move |failure| {
        transport.note(endpoint, &failure);
        failure.error
    });
    Ok(stream::iter([Ok(first)]).chain(rest).map_ok(Chunk::from))
}

async fn begin_scan(
    transport: &Transport,
    request: v1::ScanRequest,
) -> Result<(v1::ScanResponse, Opened<v1::ScanResponse>), Failure> {
    let mut opened = transport.scan(request).await?;
    let first = opened.messages.next().await.unwrap_or_else(|| {
        let error = Error::protocol("a scan ended before it began");
        Err(Failure { error, cause: Cause::Lost })
    });
    let first = first.inspect_err(|failure| transport.note(opened.endpoint, failure))?;
    Ok((first, opened))
}

/// Some entries, and the state they are of.
struct Chunk {
    header: Header,
    lineage: String,
    entries: Vec<v1::Entry>,
}

impl From<v1::ListResponse> for Chunk {
    fn from(response: v1::ListResponse) -> Self {
        Self {
            header: Header::new(response.revision, response.time_ms),
            lineage: response.lineage,
            entries: response.entries,
        }
    }
}

impl From<v1::ScanResponse> for Chunk {
    fn from(response: v1::ScanResponse) -> Self {
        Self {
            header: Header::new(response.revision, response.time_ms),
            lineage: response.lineage,
            entries: response.entries,
        }
    }
}

/// Entries as they come, in order.
///
/// A value that the codec cannot read is an error in its place, and the stream goes on after it. Any other
/// error ends the stream.
#[must_use = "a stream does nothing until it is read"]
pub struct EntryStream<T> {
    chunks: BoxStream<'static, Result<Chunk, Error>>,
    waiting: VecDeque<v1::Entry>,
    read: ReadEntry<T>,
    state: Option<(Header, Lineage)>,
}

type ReadEntry<T> = Box<dyn Fn(v1::Entry) -> Result<Entry<T>, Error> + Send + Sync>;

impl<T: 'static> EntryStream<T> {
    fn new<C: Codec>(
        chunks: BoxStream<'static, Result<Chunk, Error>>,
        reader: Reader<C, T>,
    ) -> Self {
        Self {
            chunks,
            waiting: VecDeque::new(),
            read: Box::new(move |entry| reader.read(entry)),
            state: None,
        }
    }
}

impl<T> EntryStream<T> {
    /// The revision and time that all entries are of; known once the first answer has come, which is also
    /// when the stream turns out to be empty.
    pub fn header(&self) -> Option<Header> {
        self.state.as_ref().map(|(header, _)| *header)
    }

    /// The same as a cursor, to watch from what came after it.
    pub fn cursor(&self) -> Option<Cursor> {
        self.state
            .as_ref()
            .map(|(header, lineage)| Cursor { lineage: lineage.clone(), revision: header.revision })
    }
}

impl<T> Stream for EntryStream<T> {
    type Item = Result<Entry<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(entry) = self.waiting.pop_front() {
                return Poll::Ready(Some((self.read)(entry)));
            }
            match self.chunks.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    self.state = Some((chunk.header, Lineage::new(chunk.lineage)));
                    self.waiting = chunk.entries.into();
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<T> fmt::Debug for EntryStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryStream").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
