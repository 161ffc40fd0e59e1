//! What is read in pages: lists, scans and batches of keys.

use std::sync::Arc;

use async_stream::try_stream;
use futures::Stream;
use holdfast_proto::v1::{
    BatchGetRequest, BatchGetResponse, ListRequest, ListResponse, ScanRequest, ScanResponse,
    batch_get_response::Slot,
};
use tonic::Status;

use super::{
    MESSAGE_BYTES,
    dispatch::Call,
    entry,
    page_token::{Kind, PageToken},
    path::Path,
    read::Query,
    status::Failure,
    validate,
};
use crate::{
    backend::{Key, NamespaceName, Revision, StoredEntry},
    store::{Cursor, ListQuery, Page, Store},
};

/// How many entries a page has at the most, and how many where none is said.
const PAGE_SIZE: (u32, u32) = (1000, 10_000);
/// How many entries a message of a scan has at the most, and about how many bytes. Large messages would be no
/// faster, and other calls on the connection and on the processor would wait for them.
const SCAN_ENTRIES: usize = 1000;
const SCAN_BYTES: usize = 256 << 10;
/// More than what a slot has beside its entry.
const SLOT_BYTES: usize = 16;

/// A page to read.
pub(super) struct List {
    /// What its token is bound to: the request without page size and token.
    request: ListRequest,
    query: ListQuery,
    limit: usize,
    after: Option<Cursor>,
}

/// Keys to read.
pub(super) struct BatchGet {
    /// What its token is bound to: the request without token.
    request: BatchGetRequest,
    keys: Vec<Key>,
    after: Option<PageToken>,
}

pub(super) fn list(mut request: ListRequest, name: &NamespaceName) -> Result<Call, Failure> {
    let query = ListQuery {
        selector: validate::selector(request.selector.as_ref(), Path::of("selector"))?,
        reverse: request.reverse,
        at: request.at_revision.map(Revision),
        min_mod_revision: Revision(request.min_mod_revision),
    };
    let (default, max) = PAGE_SIZE;
    let page_size = std::mem::take(&mut request.page_size);
    let limit = validate::limit(page_size, default, max, Path::of("page_size"))?;
    let token = std::mem::take(&mut request.page_token);
    request.namespace = name.as_str().into();
    let token = PageToken::decode(Kind::List, &request, &token)?;
    let after = token.map(|token| token.cursor);
    Ok(Call::query(Query::List(List { request, query, limit, after })))
}

pub(super) fn batch_get(
    mut request: BatchGetRequest,
    name: &NamespaceName,
) -> Result<Call, Failure> {
    let keys = validate::keys(&request.keys, "keys")?;
    let token = std::mem::take(&mut request.page_token);
    request.namespace = name.as_str().into();
    let after = PageToken::decode(Kind::BatchGet, &request, &token)?;
    Ok(Call::query(Query::BatchGet(BatchGet { request, keys, after })))
}

/// All entries, in messages that are made as they are sent: a slow reader costs no memory.
pub(super) fn scan(
    store: Arc<Store>,
    request: ScanRequest,
) -> Result<impl Stream<Item = Result<ScanResponse, Status>> + Send + use<>, Failure> {
    let name = validate::namespace(&request.namespace)?;
    let query = ListQuery {
        selector: validate::selector(request.selector.as_ref(), Path::of("selector"))?,
        reverse: request.reverse,
        at: request.at_revision.map(Revision),
        min_mod_revision: Revision(request.min_mod_revision),
    };
    let with_values = !request.keys_only;
    tracing::debug!(namespace = name.as_str(), "scan");
    store.count_read();
    Ok(try_stream! {
        let mut pin = None;
        let mut told = false;
        let mut after = None;
        loop {
            let fits = budget(SCAN_BYTES, with_values);
            let page = store.page(&name, &query, after.take(), SCAN_ENTRIES, fits).await;
            let Page { cursor, entries, end } = page.map_err(Failure::from)?;
            pin.get_or_insert_with(|| store.pin(&name, cursor.revision));
            // Nothing is said of a stretch without a match, but of a scan without one.
            if !entries.is_empty() || (end && !told) {
                told = true;
                yield ScanResponse {
                    revision: cursor.revision.0,
                    time_ms: cursor.time_ms,
                    entries: encode(&entries, with_values),
                    lineage: entry::lineage(cursor.lineage),
                };
            }
            if end {
                break;
            }
            after = Some(cursor);
        }
    })
}

impl List {
    /// Reads the page.
    pub async fn run(self, store: &Store, name: &NamespaceName) -> Result<ListResponse, Failure> {
        let with_values = !self.request.keys_only;
        let page = store.page(
            name,
            &self.query,
            self.after,
            self.limit,
            budget(MESSAGE_BYTES, with_values),
        );
        let Page { cursor, entries, end } = page.await?;
        let mut response = ListResponse {
            revision: cursor.revision.0,
            time_ms: cursor.time_ms,
            entries: encode(&entries, with_values),
            lineage: entry::lineage(cursor.lineage),
            ..ListResponse::default()
        };
        if !end {
            let token = PageToken { cursor, index: 0 };
            response.next_page_token = token.encode(Kind::List, &self.request);
        }
        Ok(response)
    }
}

impl BatchGet {
    /// Reads the keys, from where the answer before ended.
    pub async fn run(
        self,
        store: &Store,
        name: &NamespaceName,
    ) -> Result<BatchGetResponse, Failure> {
        let start = self.after.as_ref().map_or(0, |after| after.index as usize);
        let keys = self.keys.get(start..).unwrap_or_default();
        let at = self.request.at_revision.map(Revision);
        let snapshot = match &self.after {
            Some(after) => store.read_again(name, keys, &after.cursor).await?,
            None => store.read(name, keys, at).await?,
        };
        let with_values = !self.request.keys_only;
        let slots = fitting_slots(&snapshot.entries, with_values);
        let mut response = BatchGetResponse {
            revision: snapshot.revision.0,
            time_ms: snapshot.time_ms,
            slots,
            ..BatchGetResponse::default()
        };
        if response.slots.len() < keys.len() {
            let cursor = self.after.map(|after| after.cursor).unwrap_or(Cursor {
                revision: snapshot.revision,
                time_ms: snapshot.time_ms,
                by_clock: at.is_none(),
                lineage: snapshot.lineage,
                edge: None,
            });
            let index = (start + response.slots.len()) as u32;
            let token = PageToken { cursor, index };
            response.next_page_token = token.encode(Kind::BatchGet, &self.request);
        }
        Ok(response)
    }
}

/// As many slots as fit into a message, but at least one.
fn fitting_slots(entries: &[Option<StoredEntry>], with_values: bool) -> Vec<Slot> {
    let mut bytes = 0;
    let mut slots = Vec::with_capacity(entries.len());
    for found in entries {
        bytes += SLOT_BYTES + found.as_ref().map_or(0, |found| entry::size(found, with_values));
        if bytes > MESSAGE_BYTES && !slots.is_empty() {
            break;
        }
        slots.push(Slot { entry: found.as_ref().map(|found| entry::stored(found, with_values)) });
    }
    slots
}

/// Lets entries in while they fit into a message of so many bytes.
fn budget(max_bytes: usize, with_values: bool) -> impl FnMut(&StoredEntry) -> bool {
    let mut bytes = 0;
    move |found| {
        bytes += entry::size(found, with_values);
        bytes <= max_bytes
    }
}

fn encode(entries: &[StoredEntry], with_values: bool) -> Vec<holdfast_proto::v1::Entry> {
    entries.iter().map(|found| entry::stored(found, with_values)).collect()
}
