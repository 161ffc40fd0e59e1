//! The checksum of what travels, as admin.proto describes it.

use holdfast_proto::v1::{Entry, LockOwner, TransferLease, TransferLock, transfer_lock::Duration};

/// A checksum in the making.
#[derive(Debug, Default)]
pub(super) struct Checksum(crc32fast::Hasher);

impl Checksum {
    /// What it comes to.
    pub fn value(&self) -> u32 {
        self.0.clone().finalize()
    }

    pub fn add_lease(&mut self, lease: &TransferLease) {
        self.0.update(b"l");
        self.number(lease.id);
        self.number(lease.ttl_ms);
        self.time(lease.granted_at_ms);
        self.time(lease.expires_at_ms);
        self.number(lease.is_chosen.into());
    }

    pub fn add_lock(&mut self, lock: &TransferLock) {
        self.0.update(b"k");
        self.bytes(lock.name.as_bytes());
        self.number(lock.token);
        self.number(lock.mod_revision);
        self.number(lock.version);
        self.time(lock.acquired_at_ms);
        self.time(lock.updated_at_ms);
        self.bytes(&lock.acquire_id);
        let nobody = LockOwner::default();
        let LockOwner { id, who, reason, operation, client_version } =
            lock.owner.as_ref().unwrap_or(&nobody);
        for text in [id, who, reason, operation, client_version] {
            self.bytes(text.as_bytes());
        }
        self.bytes(&lock.value);
        match lock.duration {
            None => self.number(0),
            Some(Duration::TtlMs(ttl_ms)) => self.numbers([10, ttl_ms]),
            Some(Duration::LeaseId(lease)) => self.numbers([11, lease]),
        }
        self.optional(12, lock.expires_at_ms.map(i64::cast_unsigned));
    }

    pub fn add_entry(&mut self, entry: &Entry) {
        self.0.update(b"e");
        self.bytes(entry.key.as_bytes());
        match &entry.value {
            None => self.number(0),
            Some(value) => {
                self.number(2);
                self.bytes(value);
            }
        }
        self.bytes(entry.content_type.as_bytes());
        self.numbers([entry.version, entry.create_revision, entry.mod_revision]);
        self.time(entry.created_at_ms);
        self.time(entry.updated_at_ms);
        self.optional(9, entry.expires_at_ms.map(i64::cast_unsigned));
        self.optional(10, entry.lease_id);
    }

    fn optional(&mut self, field: u64, value: Option<u64>) {
        match value {
            None => self.number(0),
            Some(value) => self.numbers([field, value]),
        }
    }

    fn numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        numbers.into_iter().for_each(|number| self.number(number));
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn time(&mut self, time_ms: i64) {
        self.number(time_ms.cast_unsigned());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }
}
