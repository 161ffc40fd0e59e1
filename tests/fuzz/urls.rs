//! Addresses of backends and of servers.

use std::{
    hint::black_box,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use holdfast_client::Client;
use holdfast_server::backend::embedded::{files, sqlite};

use crate::{common::RUNTIME, harness::fuzz};

#[test]
fn addresses_of_backends_are_read_or_refused() {
    let examples = [
        "data?sync=interval:50ms&snapshot_interval=1h&permissions=0600",
        "/a/b%20c?sync=always",
        "state.db?sync=never&busy_timeout=5s",
        "?",
    ];
    fuzz("backend_urls", &examples.map(|it| it.as_bytes().to_vec()), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = (files::Options::parse(&text), sqlite::Options::parse(&text));
    });
}

#[test]
fn addresses_of_servers_are_read_or_refused() {
    let examples = [
        "127.0.0.1:4653",
        "https://holdfast.example:4653",
        "http://[fe80::1]:80/",
        "http://user:password@host",
        "localhost",
    ];
    let _runtime = RUNTIME.enter();
    fuzz("server_urls", &examples.map(|it| it.as_bytes().to_vec()), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = Client::builder(&*text).connect_lazy();
    });
}

/// The harness itself: what fails is found, and made smaller.
#[test]
fn a_target_that_fails_or_takes_too_much_is_found_out() {
    let fails = |bytes: &[u8]| assert!(!bytes.contains(&b'7'), "a seven");
    assert_eq!(found("harness", fails), [b"7"]);
    let believes = |bytes: &[u8]| {
        let claimed = usize::from(bytes.contains(&b'7')) << 24;
        drop(black_box(Vec::<u8>::with_capacity(claimed)));
    };
    assert_eq!(found("harness_memory", believes), [b"7"]);
}

/// What is kept of a target that fails.
fn found(name: &str, target: impl Fn(&[u8])) -> Vec<Vec<u8>> {
    let ran = catch_unwind(AssertUnwindSafe(|| fuzz(name, &[b"123456".to_vec()], target)));
    assert!(ran.is_err());
    let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus")).join(name);
    const KEPT: &str = "what failed is kept";
    let files = std::fs::read_dir(&corpus).expect(KEPT).map(|it| it.expect(KEPT).path());
    let kept = files.map(|file| std::fs::read(file).expect(KEPT)).collect();
    std::fs::remove_dir_all(corpus).expect("it was made by this test");
    kept
}
