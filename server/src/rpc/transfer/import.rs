//! Messages that bring state: checked, and handed to the store in their order.

use std::{mem, sync::Arc};

use holdfast_proto::v1::{
    ErrorReason as Reason, ImportRequest, ImportResponse, TransferEnd, TransferItems,
    TransferStart, import_response, transfer_part::Part,
};
use tonic::Status;

use super::{checksum::Checksum, decode, export::count};
use crate::{
    backend::Key,
    rpc::{Limits, entry, path::Path, status::Failure, validate},
    store::{self, Import, Store},
};

/// How many imported namespaces the answer names.
const MAX_NAMED: usize = 10_000;

/// Takes what is imported, one part after the other. Dropped within a namespace, it leaves that as it was.
pub struct Importer {
    store: Arc<Store>,
    limits: Limits,
    current: Option<Current>,
    answer: ImportResponse,
}

/// A namespace that is being imported.
struct Current {
    import: Import,
    start: store::TransferStart,
    end: TransferEnd,
    checksum: Checksum,
    last_key: Option<Key>,
}

impl Importer {
    /// An import that has not begun.
    pub fn new(store: Arc<Store>, limits: Limits) -> Self {
        Self { store, limits, current: None, answer: ImportResponse::default() }
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// If it cannot be taken, and why; then this is of no further use.
    pub async fn take(&mut self, request: ImportRequest) -> Result<(), Status> {
        let replace = request.replace;
        match request.part.and_then(|part| part.part) {
            Some(Part::Start(start)) => self.start(start, replace).await?,
            Some(Part::Items(items)) => self.items(items).await?,
            Some(Part::End(end)) => self.end(end).await?,
            None => {
                let problem = "is empty; set `start`, `items` or `end`";
                Err(Failure::invalid(Reason::InvalidField, Path::of("part"), problem))?;
            }
        }
        Ok(())
    }

    /// Tells what was imported, once all parts have been taken.
    ///
    /// # Errors
    /// If a namespace has not ended. It is as it was before.
    pub fn finish(self) -> Result<ImportResponse, Status> {
        if let Some(current) = self.current {
            let name = validate::shown(current.start.namespace.as_str());
            let problem = format!(
                "is missing for {name}, which is left as it was; send an `end` after its last items"
            );
            return Err(misplaced("end", problem).into());
        }
        Ok(self.answer)
    }

    async fn start(&mut self, start: TransferStart, replace: bool) -> Result<(), Failure> {
        if let Some(current) = &self.current {
            let name = validate::shown(current.start.namespace.as_str());
            return Err(misplaced("start", format!("comes before the `end` of {name}")));
        }
        let start = decode::start(&start)?;
        let import = Import::begin(&self.store, &start, replace).await?;
        let (end, checksum) = (TransferEnd::default(), Checksum::default());
        self.current = Some(Current { import, start, end, checksum, last_key: None });
        Ok(())
    }

    async fn items(&mut self, items: TransferItems) -> Result<(), Failure> {
        let Some(current) = &mut self.current else {
            return Err(misplaced("items", "come before a `start`".into()));
        };
        let has_entries = current.end.entry_count > 0;
        let has_others = current.end.entry_count + current.end.lock_count > 0;
        if (has_others && !items.leases.is_empty()) || (has_entries && !items.locks.is_empty()) {
            let problem =
                "are not in order: all leases come before all locks, and these before entries";
            return Err(misplaced("items", problem.into()));
        }
        count(&items, &mut current.end, &mut current.checksum);
        current.take(items, &self.limits).await
    }

    async fn end(&mut self, end: TransferEnd) -> Result<(), Failure> {
        let Some(current) = self.current.take() else {
            return Err(misplaced("end", "comes before a `start`".into()));
        };
        let found = TransferEnd { checksum: current.checksum.value(), ..current.end };
        if found != end {
            let name = validate::shown(current.start.namespace.as_str());
            let problem = format!(
                "says that {name} has {}, but what came has {}: something was lost or changed on the way, and \
                 nothing of it is imported; export it again",
                told(&end),
                told(&found)
            );
            return Err(misplaced("end", problem));
        }
        let imported = current.import.finish().await?;
        let answer = &mut self.answer;
        answer.namespace_count += 1;
        answer.entry_count += end.entry_count;
        answer.lease_count += end.lease_count;
        answer.lock_count += end.lock_count;
        if answer.namespaces.len() < MAX_NAMED {
            answer.namespaces.push(import_response::Namespace {
                namespace: current.start.namespace.as_str().into(),
                revision: imported.revision.0,
                time_ms: imported.time_ms,
                lineage: entry::lineage(imported.lineage),
            });
        }
        Ok(())
    }
}

impl Current {
    async fn take(&mut self, mut items: TransferItems, limits: &Limits) -> Result<(), Failure> {
        for (index, lease) in mem::take(&mut items.leases).into_iter().enumerate() {
            let at = Path::item("leases", index);
            self.import.add_lease(decode::lease(lease, at)?);
        }
        for (index, lock) in mem::take(&mut items.locks).into_iter().enumerate() {
            let at = Path::item("locks", index);
            self.import.add_lock(decode::lock(lock, &self.start, at)?).await?;
        }
        for (index, entry) in items.entries.into_iter().enumerate() {
            let at = Path::item("entries", index);
            let (key, entry) = decode::entry(entry, &self.start, limits, at)?;
            if self.last_key.as_ref().is_some_and(|last| *last >= key) {
                let problem =
                    format!("is {key:?}, which does not come after the key before it; order them");
                return Err(Failure::invalid(Reason::InvalidKey, at.field("key"), problem));
            }
            self.last_key = Some(key.clone());
            self.import.add_entry(key, entry).await?;
        }
        Ok(())
    }
}

fn misplaced(field: &'static str, problem: String) -> Failure {
    Failure::invalid(Reason::InvalidField, Path::of("part").field(field), problem)
}

fn told(end: &TransferEnd) -> String {
    let TransferEnd { entry_count, lease_count, lock_count, checksum } = end;
    format!(
        "{entry_count} entries, {lease_count} leases and {lock_count} locks with the checksum {checksum:08x}"
    )
}
