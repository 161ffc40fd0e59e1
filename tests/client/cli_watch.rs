//! `watch`.

use serde_json::json;

use crate::program::{Cli, Running, parse, tidy};

#[test]
fn a_watch_prints_changes_as_they_come() {
    let cli = Cli::new("watch");
    cli.ok(&["set", "a:1", "old"], "created, revision N\n");
    let watch = started(&cli, &["watch", "a:*"], "\"a:*\"");
    cli.ok(&["mset", "a:1=new", "b=not this"], "1 created, 1 changed, revision N\n");
    cli.ok(&["expire", "a:1", "1h"], "a:1 ends in 1h, revision N\n");
    cli.ok(&["del", "a:1"], "1 deleted, revision N\n");
    for expected in ["N\tSET\ta:1\tnew", "N\tTTL\ta:1\tends in 1h", "N\tDELETE\ta:1"] {
        assert_eq!(tidy(&watch.line()), expected);
    }
    watch.interrupt();
    let (status, rest) = watch.end();
    assert_eq!((status.code(), rest), (Some(0), vec![]));
}

#[test]
fn a_watch_ends_after_its_count() {
    let cli = Cli::new("watch_count");
    cli.ok(&["set", "k", "1"], "created, revision N\n");
    cli.ok(&["set", "k", "2"], "changed, revision N\n");
    cli.ok(&["set", "k", "3"], "changed, revision N\n");
    let done = cli.run(&["watch", "--after", "0", "--count", "2", "--previous"]);
    assert_eq!(done.status, 0);
    assert_eq!(tidy(&done.stdout), "N\tSET\tk\t1\nN\tSET\tk\t2\twas 1\n");
    let name = &cli.namespace;
    let remark = format!(
        "holdfast: watching all keys in the namespace {name:?}, after revision 0; Ctrl-C ends\n"
    );
    assert_eq!(done.stderr, remark);
}

#[test]
fn an_expiry_brings_the_last_value() {
    let cli = Cli::new("watch_expiry");
    let watch = started(&cli, &["watch", "--expiries", "--count", "1"], "all keys");
    cli.ok(&["set", "kept", "x"], "created, revision N\n");
    cli.ok(&["set", "brief", "gone soon", "--ttl", "50ms"], "created, revision N\n");
    assert_eq!(tidy(&watch.line()), "N\tEXPIRE\tbrief\tgone soon");
    assert_eq!(watch.end().0.code(), Some(0));
    cli.ok(&["list"], "kept\tx\n");
}

#[test]
fn the_initial_state_comes_first() {
    let cli = Cli::new("watch_initial");
    cli.ok(&["mset", "a=1", "b=2"], "2 created, 0 changed, revision N\n");
    let watch = started(&cli, &["watch", "--initial", "--count", "1"], "all keys");
    assert_eq!(tidy(&watch.line()), "N\tENTRY\ta\t1");
    assert_eq!(tidy(&watch.line()), "N\tENTRY\tb\t2");
    // Remarks and lines come over two pipes; this is the only one left.
    assert_eq!(tidy(&watch.line()), "holdfast: that was all at revision N; changes follow");
    cli.ok(&["del", "a"], "1 deleted, revision N\n");
    assert_eq!(tidy(&watch.line()), "N\tDELETE\ta");
    assert_eq!(watch.end().0.code(), Some(0));
}

#[test]
fn json_has_cursors_to_go_on_from() {
    let cli = Cli::new("watch_json");
    cli.ok(&["set", "k", "1"], "created, revision N\n");
    let watch = cli.start(&["-o", "json", "watch", "--initial", "--progress", "--previous"]);
    assert_eq!(parse(&watch.line()), json!({"type": "watching"}));
    let initial = parse(&watch.line());
    assert_eq!((&initial["type"], &initial["entry"]["value"]), (&json!("initial"), &json!("1")));
    let end = parse(&watch.line());
    assert_eq!(end["type"], "initial_end");
    cli.ok(&["set", "k", "2"], "changed, revision N\n");
    let event = parse(&watch.line());
    assert_eq!((&event["type"], &event["key"]), (&json!("set"), &json!("k")));
    assert_eq!((&event["entry"]["value"], &event["previous"]["value"]), (&json!("2"), &json!("1")));
    let progress = parse(&watch.line());
    assert_eq!(progress["type"], "progress");
    drop(watch);
    let cursor = end["cursor"].as_str().expect("a cursor");
    let again = cli.json(&["watch", "--after", cursor, "--count", "1"], 0);
    assert_eq!(again[0], json!({"type": "watching", "cursor": cursor}));
    assert_eq!(again[1]["revision"], event["revision"]);
}

#[test]
fn a_watch_of_a_namespace_that_is_deleted_ends() {
    let cli = Cli::new("watch_deleted");
    cli.ok(&["set", "k", "1"], "created, revision N\n");
    let watch = started(&cli, &["watch"], "all keys");
    assert_eq!(cli.run(&["ns", "clear", &cli.namespace, "--yes"]).status, 0);
    assert_eq!(tidy(&watch.line()), "N\tCLEAR\t(all keys)");
    assert_eq!(cli.run(&["ns", "delete", &cli.namespace, "--yes"]).status, 0);
    let (status, rest) = watch.end();
    assert_eq!(status.code(), Some(3), "{rest:?}");
    assert!(rest[0].contains("the namespace has another lineage now"), "{rest:?}");
}

/// Starts a watch, and waits until it stands.
fn started(cli: &Cli, args: &[&str], what: &str) -> Running {
    let watch = cli.start(args);
    let line = watch.line();
    let begin = format!("holdfast: watching {what} in the namespace");
    assert!(line.starts_with(&begin), "{line}");
    watch
}
