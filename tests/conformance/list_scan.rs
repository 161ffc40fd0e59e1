//! Selectors, order, and everything that works on many keys: list, scan, count, delete range.

use holdfast_proto::v1::*;

use crate::common::{build::*, namespace::Namespace};

crate::cases! {
    lists_are_in_the_order_of_key_bytes,
    reverse_lists_are_the_mirror_image,
    selectors_select_the_same_for_every_call,
    ranges_are_in_bytes_and_exclude_their_end,
    ranges_need_not_end_at_characters,
    prefixes_end_where_no_key_has_them,
    globs_match_whole_keys_by_characters,
    list_without_values,
    list_by_min_mod_revision,
    list_carries_the_lineage,
    list_at_a_revision,
    scan_gives_what_list_gives,
    scan_of_nothing_is_one_message,
    scan_sees_one_revision_while_writers_write,
    scan_at_a_revision,
    delete_range_is_one_revision_in_key_order,
    delete_range_of_nothing_changes_nothing,
    delete_range_takes_10000_at_most,
}

const KEYS: [&str; 12] =
    ["B", "a", "a/1", "a/2", "a0", "b", "user:1:name", "user:2:name", "z", "é", "中", "😀"];

async fn fill(ns: &Namespace) {
    let mut keys = KEYS;
    keys.reverse();
    ns.ok(batch_set(keys.map(|name| item(name, name)))).await;
}

async fn lists_are_in_the_order_of_key_bytes(ns: Namespace) {
    let odd =
        ["\u{ffff}", "😀", "é", "z", "Z", "a/b", "a", "a b", "a!", "\u{1}", "中", "\u{10ffff}"];
    for key in odd {
        ns.set(key, "1").await;
    }
    let mut sorted = odd.map(str::to_owned).to_vec();
    sorted.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    assert_eq!(ns.keys(all()).await, sorted);
}

async fn reverse_lists_are_the_mirror_image(ns: Namespace) {
    fill(&ns).await;
    for selector in [all(), prefix("a"), range("a", Some(b"b")), glob("*name")] {
        let mut forward = ns.keys(selector.clone()).await;
        for page_size in [0, 1, 3] {
            let backward = ListRequest { reverse: true, page_size, ..list(selector.clone()) };
            let backward = ns.list_all(backward).await.entries;
            forward.reverse();
            assert_eq!(names(&backward), forward);
            forward.reverse();
        }
    }
}

fn names(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.key.clone()).collect()
}

async fn selectors_select_the_same_for_every_call(ns: Namespace) {
    fill(&ns).await;
    let cases: [(Selector, &[&str]); 9] = [
        (key("a"), &["a"]),
        (key("none"), &[]),
        (prefix("a/"), &["a/1", "a/2"]),
        (prefix("é"), &["é"]),
        (range("a/2", Some(b"user:2")), &["a/2", "a0", "b", "user:1:name"]),
        (range("z", None), &["z", "é", "中", "😀"]),
        (range("", Some(b"a")), &["B"]),
        (glob("user:*:name"), &["user:1:name", "user:2:name"]),
        (all(), &KEYS),
    ];
    for (selector, expected) in cases {
        assert_eq!(ns.keys(selector.clone()).await, expected, "{selector:?}");
        let counted = ns.ok(count(selector.clone())).await.count;
        assert_eq!(counted, expected.len() as u64, "{selector:?}");
        let scanned = ns.scan(scan(selector.clone())).await.expect("scans");
        let scanned: Vec<_> = scanned.iter().flat_map(|part| names(&part.entries)).collect();
        assert_eq!(scanned, expected, "{selector:?}");
        let removed = ns.ok(delete_range(selector.clone())).await;
        assert_eq!((removed.deleted, removed.more), (expected.len() as u64, false));
        assert_eq!(ns.ok(count(all())).await.count, (KEYS.len() - expected.len()) as u64);
        assert!(ns.keys(selector).await.is_empty());
        fill(&ns).await;
    }
}

async fn ranges_are_in_bytes_and_exclude_their_end(ns: Namespace) {
    for key in ["a", "b", "c"] {
        ns.set(key, "1").await;
    }
    assert_eq!(ns.keys(range("a", Some(b"c"))).await, ["a", "b"]);
    assert_eq!(ns.keys(range("a\0", Some(b"c\0"))).await, ["b", "c"]);
    assert_eq!(ns.keys(range("b", Some(b"b"))).await, [""; 0]);
    assert_eq!(ns.keys(range("", None)).await, ["a", "b", "c"]);
}

async fn ranges_need_not_end_at_characters(ns: Namespace) {
    for key in ["z", "é", "ü", "中"] {
        ns.set(key, "1").await;
    }
    assert_eq!(ns.keys(range([0xc3], Some(&[0xc4]))).await, ["é", "ü"]);
    assert_eq!(ns.keys(range([0xff], None)).await, [""; 0]);
    assert_eq!(ns.keys(range("é", Some(&[0xc3, 0xbc]))).await, ["é"]);
}

async fn prefixes_end_where_no_key_has_them(ns: Namespace) {
    for key in ["a\u{10ffff}", "a\u{10ffff}x", "b", "\u{10ffff}", "\u{7f}", "\u{80}"] {
        ns.set(key, "1").await;
    }
    assert_eq!(ns.keys(prefix("a\u{10ffff}")).await, ["a\u{10ffff}", "a\u{10ffff}x"]);
    assert_eq!(ns.keys(prefix("\u{10ffff}")).await, ["\u{10ffff}"]);
    assert_eq!(ns.keys(prefix("\u{7f}")).await, ["\u{7f}"]);
}

async fn globs_match_whole_keys_by_characters(ns: Namespace) {
    // Pattern, what it matches, what it does not.
    let table: &[(&str, &[&str], &[&str])] = &[
        ("abc", &["abc"], &["ab", "abcd", "ABC"]),
        ("*", &["a", "a/b", "é"], &[]),
        ("a*", &["a", "ab", "a/b/c"], &["ba", "A"]),
        ("*a", &["a", "ba", "x/a"], &["ab"]),
        ("a*c", &["ac", "abc", "a/b/c", "acc"], &["a", "acd"]),
        ("*b*", &["b", "abc", "bb"], &["ac"]),
        ("a*b*c", &["abc", "axbxc", "abbcc"], &["acb", "ac"]),
        ("**", &["a", "a/b"], &[]),
        ("?", &["a", "é", "中", "😀", "/"], &["ab"]),
        ("a?c", &["abc", "a/c", "aéc", "a😀c"], &["ac", "abbc"]),
        ("??", &["ab", "éé"], &["a", "é", "abc"]),
        ("[abc]", &["a", "b", "c"], &["d", "ab"]),
        ("[a-c]x", &["ax", "bx", "cx"], &["dx", "x", "-x"]),
        ("[!a-c]", &["d", "é", "-"], &["a", "b", "c"]),
        ("[^a-c]", &["d", "^"], &["a"]),
        ("[α-ω]", &["α", "λ", "ω"], &["a", "Ω"]),
        ("[a-]", &["a", "-"], &["b"]),
        ("[a\\]b]", &["a", "]", "b"], &["\\"]),
        ("\\*", &["*"], &["a", "\\*"]),
        ("a\\?", &["a?"], &["ab"]),
        ("\\[a]", &["[a]"], &["a"]),
        ("\\\\", &["\\"], &["\\\\"]),
        ("a]", &["a]"], &["a"]),
        ("{a,b}", &["{a,b}"], &["a", "b"]),
        ("user:*:name", &["user:1:name", "user::name"], &["user:1:names"]),
    ];
    for (number, (pattern, matching, others)) in table.iter().enumerate() {
        let ns = ns.sibling(&number.to_string());
        for name in matching.iter().chain(*others) {
            ns.set(name, "1").await;
        }
        let mut expected: Vec<String> = matching.iter().map(|name| (*name).to_owned()).collect();
        expected.sort();
        assert_eq!(ns.keys(glob(pattern)).await, expected, "{pattern}");
    }
}

async fn list_without_values(ns: Namespace) {
    fill(&ns).await;
    let request = ListRequest { keys_only: true, ..list(all()) };
    let answer = ns.ok(request).await;
    assert_eq!(names(&answer.entries), KEYS);
    assert!(answer.entries.iter().all(|entry| entry.value.is_none() && entry.version == 1));
    let whole = ns.ok(list(all())).await;
    assert!(whole.entries.iter().all(|entry| entry.value.as_deref() == Some(entry.key.as_bytes())));
}

async fn list_by_min_mod_revision(ns: Namespace) {
    fill(&ns).await;
    let since = ns.set("a/1", "2").await.mod_revision;
    ns.set("z", "2").await;
    let newer = |min_mod_revision| ListRequest { min_mod_revision, ..list(all()) };
    let found = ns.list_all(newer(since)).await.entries;
    assert_eq!(names(&found), ["a/1", "z"]);
    assert_eq!(ns.list_all(newer(since + 1)).await.entries.len(), 1);
    assert_eq!(ns.list_all(newer(since + 2)).await.entries.len(), 0);
    assert_eq!(ns.list_all(newer(since - 1)).await.entries.len(), KEYS.len());
    let scanned =
        ns.scan(ScanRequest { min_mod_revision: since, ..scan(all()) }).await.expect("scans");
    assert_eq!(names(&scanned[0].entries), ["a/1", "z"]);
}

async fn list_carries_the_lineage(ns: Namespace) {
    fill(&ns).await;
    let lineage = ns.lineage().await;
    assert_eq!(ns.ok(list(all())).await.lineage, lineage);
    assert_eq!(ns.scan(scan(all())).await.expect("scans")[0].lineage, lineage);
}

async fn list_at_a_revision(ns: Namespace) {
    fill(&ns).await;
    let old = ns.ok(list(all())).await;
    ns.ok(delete_range(prefix("a"))).await;
    ns.set("new", "1").await;
    let again = ns
        .list_all(ListRequest { at_revision: Some(old.revision), page_size: 5, ..list(all()) })
        .await;
    assert_eq!(again.revision, old.revision);
    assert_eq!(again.entries, old.entries);
}

async fn scan_gives_what_list_gives(ns: Namespace) {
    fill(&ns).await;
    let listed = ns.list_all(list(all())).await;
    for (reverse, keys_only) in [(false, false), (true, false), (false, true)] {
        let request = ScanRequest { reverse, keys_only, ..scan(all()) };
        let parts = ns.scan(request).await.expect("scans");
        let mut expected = listed.entries.clone();
        if reverse {
            expected.reverse();
        }
        if keys_only {
            expected.iter_mut().for_each(|entry| entry.value = None);
        }
        assert_eq!(parts[0].revision, listed.revision);
        let entries: Vec<_> = parts.into_iter().flat_map(|part| part.entries).collect();
        assert_eq!(entries, expected);
    }
}

async fn scan_of_nothing_is_one_message(ns: Namespace) {
    let parts = ns.scan(scan(all())).await.expect("scans");
    assert_eq!((parts.len(), parts[0].revision, parts[0].entries.len()), (1, 0, 0));
    let written = ns.set("a", "1").await;
    let parts = ns.scan(scan(prefix("b"))).await.expect("scans");
    assert_eq!((parts.len(), parts[0].entries.len()), (1, 0));
    assert_eq!(parts[0].revision, written.mod_revision);
    assert!(parts[0].time_ms > 0);
}

async fn scan_sees_one_revision_while_writers_write(ns: Namespace) {
    let names: Vec<String> = (0..1000).map(|number| format!("k{number:04}")).collect();
    // Values so large that a scan is many messages.
    let write = |round: u32| {
        let value = format!("{round:08}").repeat(1000);
        batch_set(names.iter().map(|name| item(name, &value)).take(400).collect::<Vec<_>>())
    };
    ns.ok(write(0)).await;
    let writer = async {
        for round in 1..8 {
            ns.ok(write(round)).await;
        }
    };
    let scanner = async {
        for _ in 0..5 {
            let parts = ns.scan(scan(all())).await.expect("scans");
            let state = (parts[0].revision, parts[0].time_ms);
            assert!(parts.iter().all(|part| (part.revision, part.time_ms) == state));
            let entries: Vec<_> = parts.into_iter().flat_map(|part| part.entries).collect();
            assert_eq!(entries.len(), 400);
            for entry in &entries {
                assert_eq!(entry.mod_revision, state.0);
                assert_eq!(entry.value, entries[0].value);
            }
        }
    };
    futures::join!(writer, scanner);
}

async fn scan_at_a_revision(ns: Namespace) {
    fill(&ns).await;
    let old = ns.ok(list(all())).await;
    ns.ok(delete_range(all())).await;
    let request = ScanRequest { at_revision: Some(old.revision), ..scan(all()) };
    let parts = ns.scan(request).await.expect("scans");
    assert_eq!(parts[0].revision, old.revision);
    assert_eq!(parts[0].entries, old.entries);
}

async fn delete_range_is_one_revision_in_key_order(ns: Namespace) {
    fill(&ns).await;
    let before = ns.revision().await;
    let limited = DeleteRangeRequest { limit: Some(3), ..delete_range(all()) };
    let answer = ns.ok(limited).await;
    assert_eq!((answer.deleted, answer.more), (3, true));
    assert_eq!(answer.revision, before + 1);
    assert_eq!(ns.keys(all()).await, KEYS[3..]);
    let events = ns.events_after(before).await;
    let keys: Vec<_> = events.iter().map(|event| event.key.as_str()).collect();
    assert_eq!(keys, KEYS[..3]);
    for event in events {
        assert_eq!(event.r#type(), EventType::Delete);
        assert_eq!(event.reason(), RemovalReason::Deleted);
        assert!(event.entry.is_none() && event.previous.is_some());
    }
}

async fn delete_range_of_nothing_changes_nothing(ns: Namespace) {
    fill(&ns).await;
    let before = ns.revision().await;
    let answer = ns.ok(delete_range(prefix("none"))).await;
    assert_eq!((answer.deleted, answer.more, answer.revision), (0, false, before));
    assert_eq!(ns.revision().await, before);
}

async fn delete_range_takes_10000_at_most(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    for chunk in 0..11 {
        let items = (0..1000).map(|number| item(&format!("{chunk:02}/{number:03}"), ""));
        pipe.send([pipeline_call::Operation::BatchSet(batch_set(items))]);
    }
    pipe.answers(11).await;
    let answer = ns.ok(delete_range(all())).await;
    assert_eq!((answer.deleted, answer.more), (10_000, true));
    let answer = ns.ok(delete_range(all())).await;
    assert_eq!((answer.deleted, answer.more), (1_000, false));
}
