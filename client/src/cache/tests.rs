//! What a table answers, without a server.

use super::*;

/// The store's time in these tests, in milliseconds.
const NOON: i64 = 1_700_000_000_000;

fn table(bounds: impl FnOnce(&mut Bounds)) -> Table<u32> {
    let mut whole = Bounds {
        max_staleness: Duration::from_secs(60),
        max_entries: 10,
        max_bytes: 1_000,
        leased: false,
    };
    bounds(&mut whole);
    let table = Table::new("k".to_owned(), whole);
    let now = Instant::now();
    table.clock.answered(now, now, NOON);
    table
}

fn filled(bounds: impl FnOnce(&mut Bounds)) -> Table<u32> {
    let table = table(bounds);
    table.complete(Cursor { lineage: "l".into(), revision: Revision::new(5) });
    table.complete_as_of(NOON);
    table
}

fn metadata(key: &str) -> Metadata {
    Metadata {
        key: key.to_owned(),
        content_type: String::new(),
        version: 1,
        create_revision: Revision::new(1),
        mod_revision: Revision::new(1),
        created_at: Timestamp::from_millis(NOON),
        updated_at: Timestamp::from_millis(NOON),
        expires_at: None,
        lease_id: None,
    }
}

fn ending(key: &str, millis: i64) -> Metadata {
    Metadata { expires_at: Some(Timestamp::from_millis(NOON + millis)), ..metadata(key) }
}

fn held(cached: Cached<u32>) -> Option<u32> {
    match cached {
        Cached::Held(entry) => Some(*entry.value),
        _ => None,
    }
}

#[test]
fn nothing_is_known_before_a_state_is_complete() {
    let table = table(|_| {});
    table.put(metadata("k1"), Some(1), 10);
    assert_eq!(table.any("k1"), Cached::Unknown);
    assert_eq!(table.any("k2"), Cached::Unknown);
    table.complete_as_of(NOON);
    assert_eq!(held(table.fresh("k1")), Some(1));
    assert_eq!(table.fresh("k2"), Cached::Missing);
    assert_eq!(table.fresh("other"), Cached::Unknown);
    table.forget();
    assert_eq!(table.any("k1"), Cached::Unknown);
    assert_eq!(table.any("k2"), Cached::Unknown);
}

#[test]
fn an_entry_is_not_answered_from_its_deadline_on() {
    let table = filled(|_| {});
    table.put(ending("k1", 60_000), Some(1), 10);
    table.put(ending("k2", 1), Some(2), 10);
    assert_eq!(held(table.any("k1")), Some(1));
    assert_eq!(table.any("k2"), Cached::Unknown);
    table.retime(ending("k1", 0));
    assert_eq!(table.any("k1"), Cached::Unknown);
    table.retime(metadata("k1"));
    assert_eq!(held(table.any("k1")), Some(1));
}

#[test]
fn a_clock_set_forward_ends_what_it_passes() {
    let table = filled(|_| {});
    table.put(ending("k1", 30_000), Some(1), 10);
    assert_eq!(held(table.fresh("k1")), Some(1));
    table.clock.told(Instant::now(), NOON + 30_000);
    assert_eq!(table.any("k1"), Cached::Unknown);
}

#[test]
fn what_is_older_than_the_bound_is_only_answered_however_old() {
    let table = filled(|bounds| bounds.leased = true);
    let leased = Metadata { lease_id: Some(7.into()), ..metadata("k2") };
    table.put(metadata("k1"), Some(1), 10);
    table.put(leased, Some(2), 10);
    assert_eq!(held(table.fresh("k1")), Some(1));
    assert_eq!(held(table.any("k2")), Some(2));
    assert!(table.freshness().is_fresh);
    table.complete_as_of(NOON - 60_000);
    assert_eq!(table.fresh("k1"), Cached::Unknown);
    assert_eq!(held(table.any("k1")), Some(1));
    assert_eq!(table.any("k2"), Cached::Unknown);
    assert!(!table.freshness().is_fresh);
}

#[test]
fn leased_entries_are_left_to_the_server_unless_asked_for() {
    let table = filled(|_| {});
    table.put(Metadata { lease_id: Some(7.into()), ..metadata("k1") }, Some(1), 10);
    assert_eq!(table.any("k1"), Cached::Unknown);
    table.put(metadata("k1"), Some(1), 10);
    assert_eq!(held(table.any("k1")), Some(1));
}

#[test]
fn a_value_that_cannot_be_read_is_left_to_the_server() {
    let table = filled(|_| {});
    table.put(metadata("k1"), None, 10);
    assert_eq!(table.fresh("k1"), Cached::Unknown);
    table.retime(ending("k1", 60_000));
    assert_eq!(table.fresh("k1"), Cached::Unknown);
}

#[test]
fn what_has_no_room_is_left_to_the_server() {
    let table = filled(|bounds| (bounds.max_entries, bounds.max_bytes) = (2, 100));
    table.put(metadata("k1"), Some(1), 40);
    table.put(metadata("k2"), Some(2), 40);
    assert_eq!(table.fresh("k3"), Cached::Missing);
    table.put(metadata("k3"), Some(3), 1);
    assert_eq!((table.fresh("k3"), table.fresh("k4")), (Cached::Unknown, Cached::Unknown));
    assert!(!table.freshness().holds_all);
    // One that has grown too large goes, and makes room.
    table.put(metadata("k1"), Some(1), 61);
    assert_eq!(table.fresh("k1"), Cached::Unknown);
    table.put(metadata("k3"), Some(3), 60);
    assert_eq!(held(table.fresh("k3")), Some(3));
    table.remove("k3");
    table.put(metadata("k1"), Some(1), 60);
    assert_eq!(held(table.fresh("k1")), Some(1));
    table.clear();
    assert!(table.freshness().holds_all);
    assert_eq!(table.fresh("k1"), Cached::Missing);
}

#[test]
fn it_is_told_how_far_the_state_reaches() {
    let table = filled(|_| {});
    assert!(table.has_reached(Revision::new(5)) && !table.has_reached(Revision::new(6)));
    let freshness = table.freshness();
    assert_eq!(freshness.as_of, Some(Timestamp::from_millis(NOON)));
    assert_eq!(freshness.complete_through.map(|cursor| cursor.revision), Some(Revision::new(5)));
    assert_eq!((freshness.disconnected_for, freshness.problem), (None, None));
    table.failed("not permitted".to_owned());
    let freshness = table.freshness();
    assert!(freshness.disconnected_for.is_some() && freshness.is_fresh);
    assert_eq!(freshness.problem.as_deref(), Some("not permitted"));
    table.connected();
    assert_eq!(table.freshness().disconnected_for, None);
}
