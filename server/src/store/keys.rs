//! The layout of keys in a namespace, all in one place.
//!
//! Keys of users stand as they are: they have no zero byte. Internal keys begin with one, those that go when the keys of
//! users are cleared with two. Numbers stand in hexadecimal digits, so that every key is text and sorts by its number.
//!
//! | key | what | ends |
//! | --- | --- | --- |
//! | `\0settings` | the settings of the namespace | never |
//! | `\0lease\0<id>` | a lease | by its TTL |
//! | `\0ended\0<id>` | that a client had chosen this id for a lease | an hour after the lease |
//! | `\0lock\0<name>` | a lock: its hold, or how its last one ended | with its hold; free, 10 minutes later |
//! | `\0held\0<lease>\0<name>` | that the lock is held by the lease | with the hold |
//! | `\0queue\0<name>` | how many wait for the lock, and the last ticket | with the last place |
//! | `\0place\0<name>\0<ticket>` | a place in the queue of the lock | with its server |
//! | `\0wait\0<name>\0<acquire id>` | the ticket of who waits with this id | with the place |
//! | `\0server\0<id>` | that a server with waiting callers lives | by its TTL |
//! | `\0request\0<client>\0<number>` | answers to requests of a client | 10 minutes after the last |
//! | `\0\0lease\0<id>\0<key>` | that the key is attached to the lease | with the attachment |
//!
//! All are JSON, written without a revision but for locks and for the end of a lease with keys or locks: whoever watches
//! locks reads that in the log.

use crate::backend::{Key, KeyRange};

/// What an internal key is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A lease.
    Lease,
    /// A lock.
    Lock,
    /// Where the ticket stands of who waits for a lock.
    Wait,
    /// Anything that is simply gone when it is due.
    Other,
}

/// What a key is about; nothing for a key of users.
pub fn kind(key: &Key) -> Option<Kind> {
    let bytes = key.as_bytes();
    Some(match () {
        () if !key.is_internal() => return None,
        () if bytes.starts_with(LEASE) => Kind::Lease,
        () if bytes.starts_with(LOCK) => Kind::Lock,
        () if bytes.starts_with(WAIT) => Kind::Wait,
        () => Kind::Other,
    })
}

const LEASE: &[u8] = b"\0lease\0";
const ENDED: &[u8] = b"\0ended\0";
const LOCK: &[u8] = b"\0lock\0";
const HELD: &[u8] = b"\0held\0";
const QUEUE: &[u8] = b"\0queue\0";
const PLACE: &[u8] = b"\0place\0";
const WAIT: &[u8] = b"\0wait\0";
const SERVER: &[u8] = b"\0server\0";
const REQUEST: &[u8] = b"\0request\0";
const ATTACHED: &[u8] = b"\0\0lease\0";

/// Where the settings of a namespace are.
pub fn settings() -> Key {
    Key::new(b"\0settings")
}

/// A lease.
pub fn lease(id: u64) -> Key {
    join(&[LEASE, &number(id)])
}

/// All leases whose ids come after `id`.
pub fn leases_after(id: Option<u64>) -> KeyRange {
    let start = id.map_or_else(|| Key::new(LEASE), |id| lease(id).successor());
    KeyRange { start, end: after_prefix(LEASE) }
}

/// The id of the lease of a key.
pub fn lease_id(lease: &Key) -> Option<u64> {
    parse_number(lease.as_bytes().strip_prefix(LEASE)?)
}

/// That a client had chosen the id of a lease that has ended.
pub fn ended_lease(id: u64) -> Key {
    join(&[ENDED, &number(id)])
}

/// A lock.
pub fn lock(name: &str) -> Key {
    join(&[LOCK, name.as_bytes()])
}

/// The locks whose names begin with `prefix` and come after the name `after`.
pub fn locks(prefix: &str, after: Option<&str>) -> KeyRange {
    let prefix = [LOCK, prefix.as_bytes()].concat();
    let first = Key::new(&prefix);
    let start = after.map_or(first.clone(), |after| lock(after).successor().max(first));
    KeyRange { start, end: after_prefix(&prefix) }
}

/// The name of the lock of a key.
pub fn lock_name(lock: &Key) -> String {
    let name = lock.as_bytes().strip_prefix(LOCK).unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// The queue of a lock.
pub fn queue(lock: &Key) -> Key {
    join(&[QUEUE, name_of(lock)])
}

/// A place in the queue of a lock.
pub fn place(lock: &Key, ticket: u64) -> Key {
    join(&[PLACE, name_of(lock), b"\0", &number(ticket)])
}

/// All places in the queue of a lock.
pub fn places(lock: &Key) -> KeyRange {
    range_of(&[PLACE, name_of(lock), b"\0"])
}

/// Where the ticket stands of who waits for a lock with an acquire id.
pub fn wait(lock: &Key, acquire_id: &[u8; 16]) -> Key {
    let id = format!("{:032x}", u128::from_be_bytes(*acquire_id));
    join(&[WAIT, name_of(lock), b"\0", id.as_bytes()])
}

/// All places in all queues.
pub fn all_places() -> KeyRange {
    range_of(&[PLACE])
}

/// The lock that a place is in the queue of.
pub fn lock_of_place(place: &Key) -> Key {
    let rest = place.as_bytes().strip_prefix(PLACE).unwrap_or_default();
    let name = rest.iter().position(|byte| *byte == 0).map_or(rest, |zero| &rest[..zero]);
    join(&[LOCK, name])
}

/// Whether it says that a server lives.
pub fn is_server(key: &Key) -> bool {
    key.as_bytes().starts_with(SERVER)
}

/// That a server lives.
pub fn server(id: u128) -> Key {
    join(&[SERVER, format!("{id:032x}").as_bytes()])
}

/// That a lock is held by a lease.
pub fn held(lease: &Key, lock: &Key) -> Key {
    join(&[HELD, id_of(lease), b"\0", name_of(lock)])
}

/// All that says of locks that they are held by a lease.
pub fn held_by(lease: &Key) -> KeyRange {
    range_of(&[HELD, id_of(lease), b"\0"])
}

/// The lock of which `held` says by which lease it is held.
pub fn lock_held(held: &Key) -> Key {
    join(&[LOCK, after_second_zero(held, HELD)])
}

/// That a key of users is attached to a lease.
pub fn attached(lease: &Key, key: &Key) -> Key {
    join(&[ATTACHED, id_of(lease), b"\0", key.as_bytes()])
}

/// All that says of keys that they are attached to a lease.
pub fn attached_to(lease: &Key) -> KeyRange {
    range_of(&[ATTACHED, id_of(lease), b"\0"])
}

/// The key of users of which `attached` says to which lease it is attached.
pub fn key_attached(attached: &Key) -> Key {
    Key::new(after_second_zero(attached, ATTACHED))
}

/// The answers to requests of a client whose numbers divided by their number in a record are `bucket`.
pub fn requests(client: u64, bucket: u64) -> Key {
    join(&[REQUEST, &number(client), b"\0", &number(bucket)])
}

/// Whose answers `requests` are, and their bucket.
pub fn parse_requests(requests: &Key) -> Option<(u64, u64)> {
    let rest = requests.as_bytes().strip_prefix(REQUEST)?;
    let (client, bucket) = rest.split_at_checked(16)?;
    Some((parse_number(client)?, parse_number(bucket.strip_prefix(b"\0")?)?))
}

/// The answers to all requests.
pub fn all_requests() -> KeyRange {
    range_of(&[REQUEST])
}

/// All keys of users.
pub fn all() -> KeyRange {
    KeyRange { start: Key::new(b"\x01"), end: None }
}

/// The keys of users that begin with `prefix`, which is not empty.
pub fn with_prefix(prefix: &[u8]) -> KeyRange {
    KeyRange { start: Key::new(prefix), end: after_prefix(prefix) }
}

/// The keys of users from `start` on and before `end`.
pub fn between(start: &[u8], end: Option<&[u8]>) -> KeyRange {
    let all = all();
    KeyRange { start: Key::new(start).max(all.start), end: end.map(Key::new) }
}

fn join(parts: &[&[u8]]) -> Key {
    Key::new(&parts.concat())
}

fn range_of(parts: &[&[u8]]) -> KeyRange {
    with_prefix(&parts.concat())
}

fn number(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (index, digit) in digits.iter_mut().enumerate() {
        let nibble = (number >> (60 - 4 * index)) & 0xf;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    digits
}

fn parse_number(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn name_of(lock: &Key) -> &[u8] {
    lock.as_bytes().strip_prefix(LOCK).unwrap_or_default()
}

fn id_of(lease: &Key) -> &[u8] {
    lease.as_bytes().strip_prefix(LEASE).unwrap_or_default()
}

/// What comes after the prefix and a part without a zero byte.
fn after_second_zero<'a>(key: &'a Key, prefix: &[u8]) -> &'a [u8] {
    let rest = key.as_bytes().strip_prefix(prefix).unwrap_or_default();
    let zero = rest.iter().position(|byte| *byte == 0);
    zero.map_or(&[], |zero| &rest[zero + 1..])
}

/// The least key that is greater than all that begin with `prefix`; `None` where there is none.
fn after_prefix(prefix: &[u8]) -> Option<Key> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(Key::new(&end))
}
