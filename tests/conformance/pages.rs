//! Pages of lists: one state for all of them, tokens that cannot be misused, answers below 4 MiB.

use holdfast_proto::v1::{kv_service_client::KvServiceClient, pipeline_call::Operation as Op, *};
use prost::Message;

use crate::common::{build::*, failure::Failure, namespace::Namespace};

crate::cases! {
    pages_hold_no_more_than_asked,
    the_last_page_has_no_token,
    page_size_may_change_between_pages,
    all_pages_are_of_the_first_revision_while_writers_change_everything,
    pages_see_what_expires_between_them,
    page_token_fits_its_query_only,
    damaged_page_token_is_refused,
    page_token_of_another_namespace_is_refused,
    page_token_of_a_compacted_revision_is_compacted,
    page_token_of_a_former_lineage_is_refused,
    lists_over_4_mib_end_early_and_go_on,
    scans_over_4_mib_are_several_messages,
    a_slow_scan_gives_everything_or_says_compacted,
    globs_that_match_little_still_reach_the_end,
    long_globs_reach_the_end,
}

async fn fill(ns: &Namespace, keys: usize) -> Vec<String> {
    let names: Vec<String> = (0..keys).map(|number| format!("k{number:05}")).collect();
    let mut pipe = ns.pipe().await;
    let batches = names.chunks(1000);
    let sent = batches.len();
    for chunk in batches {
        let items = chunk.iter().map(|name| item(name, name));
        pipe.send([Op::BatchSet(batch_set(items))]);
    }
    pipe.answers(sent).await;
    names
}

fn paged(page_size: u32) -> ListRequest {
    ListRequest { page_size, ..list(all()) }
}

fn names_of(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

async fn pages_hold_no_more_than_asked(ns: Namespace) {
    let keys = fill(&ns, 2_500).await;
    for (page_size, first) in [(1, 1), (10, 10), (0, 1_000), (2_500, 2_500), (10_000, 2_500)] {
        let page = ns.ok(paged(page_size)).await;
        assert_eq!(names_of(&page.entries), keys[..first]);
        assert_eq!(page.next_page_token.is_empty(), first == keys.len());
    }
    assert_eq!(names_of(&ns.list_all(paged(7)).await.entries), keys);
}

async fn the_last_page_has_no_token(ns: Namespace) {
    fill(&ns, 10).await;
    let first = ns.ok(paged(5)).await;
    let second = ns.ok(ListRequest { page_token: first.next_page_token, ..paged(5) }).await;
    // Whether there is more may be unknown when a page is full; then one more page is empty.
    if !second.next_page_token.is_empty() {
        let third = ns.ok(ListRequest { page_token: second.next_page_token, ..paged(5) }).await;
        assert!(third.entries.is_empty() && third.next_page_token.is_empty());
    }
}

async fn page_size_may_change_between_pages(ns: Namespace) {
    let keys = fill(&ns, 10).await;
    let first = ns.ok(paged(3)).await;
    let second = ns.ok(ListRequest { page_token: first.next_page_token, ..paged(100) }).await;
    assert_eq!(names_of(&second.entries), keys[3..]);
}

async fn all_pages_are_of_the_first_revision_while_writers_change_everything(ns: Namespace) {
    let keys = fill(&ns, 1_000).await;
    for reverse in [false, true] {
        let mut expected = ns.ok(ListRequest { reverse, ..list(all()) }).await;
        assert_eq!(expected.entries.len(), 1_000);
        let mut request = ListRequest { reverse, ..paged(100) };
        let mut found = Vec::new();
        for round in 0_usize.. {
            let page = ns.ok(request.clone()).await;
            assert_eq!(page.revision, expected.revision);
            found.extend(page.entries);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
            // Everything changes: deleted, overwritten, created between.
            let (start, end) = (&keys[round * 20], keys[round * 20 + 30].as_bytes());
            ns.ok(delete_range(range(start, Some(end)))).await;
            ns.ok(batch_set(keys.iter().map(|name| item(name, "new")))).await;
            ns.ok(batch_set(keys.iter().map(|name| item(&format!("{name}+"), "")))).await;
        }
        assert_eq!(found, std::mem::take(&mut expected.entries));
        ns.ok(delete_range(all())).await;
        ns.ok(batch_set(keys.iter().map(|name| item(name, name)))).await;
    }
}

/// The first page's time counts for all: what expires while one pages stays in the list.
async fn pages_see_what_expires_between_them(ns: Namespace) {
    let answer = ns
        .ok(batch_set(
            ["a", "b", "c", "d"]
                .map(|name| batch_set_request::Item { expiry: ttl(200), ..item(name, "1") }),
        ))
        .await;
    let first = ns.ok(paged(2)).await;
    if first.time_ms >= answer.time_ms + 200 {
        return;
    }
    let mut watcher = ns.watching(watch_after(all(), answer.revision)).await;
    watcher.events(4).await;
    let rest = ns.list_all(ListRequest { page_token: first.next_page_token, ..paged(2) }).await;
    assert_eq!((rest.revision, rest.time_ms), (first.revision, first.time_ms));
    assert_eq!(names_of(&rest.entries), ["c", "d"]);
}

async fn page_token_fits_its_query_only(ns: Namespace) {
    fill(&ns, 10).await;
    let page = ns.ok(paged(3)).await;
    let again = || ListRequest { page_token: page.next_page_token.clone(), ..paged(3) };
    let others = [
        ListRequest { selector: Some(prefix("k")), ..again() },
        ListRequest { keys_only: true, ..again() },
        ListRequest { reverse: true, ..again() },
        ListRequest { at_revision: Some(page.revision), ..again() },
        ListRequest { min_mod_revision: 1, ..again() },
    ];
    for request in others {
        let failure = ns.fails(request, ErrorReason::InvalidPageToken).await;
        assert_eq!(failure.fields, ["page_token"]);
    }
    ns.ok(again()).await;
}

async fn damaged_page_token_is_refused(ns: Namespace) {
    fill(&ns, 10).await;
    let token = ns.ok(paged(3)).await.next_page_token;
    let mut damaged =
        vec![token.slice(1..), token.slice(..token.len() - 1), "x".into(), vec![0xff; 64].into()];
    for position in 0..token.len() {
        let mut bytes = token.to_vec();
        bytes[position] ^= 0x40;
        damaged.push(bytes.into());
    }
    for page_token in damaged {
        let request = ListRequest { page_token, ..paged(3) };
        ns.fails(request, ErrorReason::InvalidPageToken).await;
    }
}

async fn page_token_of_another_namespace_is_refused(ns: Namespace) {
    let other = ns.sibling("other");
    fill(&ns, 10).await;
    fill(&other, 10).await;
    let page_token = ns.ok(paged(3)).await.next_page_token;
    let request = ListRequest { page_token, ..paged(3) };
    assert!(other.call(request).await.is_err());
}

async fn page_token_of_a_compacted_revision_is_compacted(ns: Namespace) {
    fill(&ns, 10).await;
    let page = ns.ok(paged(3)).await;
    ns.set("k00005", "new").await;
    let newest = ns.set("k00005", "newer").await.mod_revision;
    ns.ok(compact(newest)).await;
    let request = ListRequest { page_token: page.next_page_token, ..paged(3) };
    let failure = ns.fails(request, ErrorReason::Compacted).await;
    assert_eq!(failure.number("oldest_revision"), newest);
}

async fn page_token_of_a_former_lineage_is_refused(ns: Namespace) {
    fill(&ns, 10).await;
    let page_token = ns.ok(paged(3)).await.next_page_token;
    ns.ok(DeleteNamespaceRequest::default()).await;
    fill(&ns, 10).await;
    let request = ListRequest { page_token, ..paged(3) };
    ns.fails(request, ErrorReason::LineageChanged).await;
}

async fn fill_large(ns: &Namespace) -> Vec<String> {
    let names: Vec<String> = (0..10).map(|number| format!("large{number}")).collect();
    for name in &names {
        ns.set(name, vec![b'x'; 1 << 20]).await;
    }
    names
}

async fn lists_over_4_mib_end_early_and_go_on(ns: Namespace) {
    let keys = fill_large(&ns).await;
    let first = ns.ok(list(all())).await;
    assert!(first.encoded_len() <= 4 << 20);
    assert!(!first.entries.is_empty() && !first.next_page_token.is_empty());
    let whole = ns.list_all(list(all())).await.entries;
    assert_eq!(names_of(&whole), keys);
    let request = ListRequest { keys_only: true, ..list(all()) };
    assert!(ns.ok(request).await.next_page_token.is_empty(), "keys alone are small");
}

async fn scans_over_4_mib_are_several_messages(ns: Namespace) {
    let keys = fill_large(&ns).await;
    let parts = ns.scan(scan(all())).await.expect("scans");
    assert!(parts.len() >= 3);
    assert!(parts.iter().all(|part| part.encoded_len() <= 4 << 20));
    let found: Vec<_> = parts.iter().flat_map(|part| names_of(&part.entries)).collect();
    assert_eq!(found, keys);
}

/// A scan holds its revision; where that would cost too much it ends with an error, never with a part.
async fn a_slow_scan_gives_everything_or_says_compacted(ns: Namespace) {
    ns.ok(update(NamespaceSettings { log_max_bytes: Some(1 << 20), ..Default::default() })).await;
    let names: Vec<String> = (0..40).map(|number| format!("large{number:02}")).collect();
    let fill = async |byte: u8| {
        for name in &names {
            ns.set(name, vec![byte; 1 << 20]).await;
        }
    };
    fill(b'x').await;
    let mut client = KvServiceClient::new(ns.channel.clone());
    let request = ScanRequest { namespace: ns.name.clone(), ..scan(all()) };
    let mut stream = client.scan(request).await.expect("scans").into_inner();
    let first = stream.message().await.expect("scans").expect("one at least");
    fill(b'y').await;
    let mut entries = first.entries;
    let ended = loop {
        match stream.message().await {
            Ok(Some(part)) => entries.extend(part.entries),
            Ok(None) => break Ok(()),
            Err(status) => break Err(Failure::from(status)),
        }
    };
    match ended {
        Ok(()) => {
            assert_eq!(names_of(&entries), names);
            let old = |entry: &Entry| entry.value.as_ref().is_some_and(|value| value[0] == b'x');
            assert!(entries.iter().all(old), "all of the first revision");
        }
        Err(failure) => drop(failure.expect(ErrorReason::Compacted)),
    }
}

async fn globs_that_match_little_still_reach_the_end(ns: Namespace) {
    fill(&ns, 20_000).await;
    ns.set("a:name", "1").await;
    ns.set("z:name", "1").await;
    assert_eq!(ns.keys(glob("*:name")).await, ["a:name", "z:name"]);
    assert_eq!(ns.ok(count(glob("*:name"))).await.count, 2);
}

/// With a long pattern fewer keys are looked at in one step.
async fn long_globs_reach_the_end(ns: Namespace) {
    let names: Vec<_> = (0..1000).map(|number| format!("{number:0>100}")).collect();
    ns.ok(batch_set(names.iter().map(|name| item(name, "1")))).await;
    let pattern = glob(&"?".repeat(100));
    assert_eq!(ns.keys(pattern.clone()).await, names);
    assert_eq!(ns.ok(count(pattern.clone())).await.count, 1000);
    assert_eq!(ns.ok(delete_range(pattern)).await.deleted, 1000);
}
