//! `list`, `count`, `history`; `stats`, `compact`, `info`.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use serde_json::json;

use crate::{
    fixture,
    program::{Cli, HOLDFAST, read_all},
};

#[test]
fn list_prints_keys_and_values_in_order() {
    let cli = Cli::new("list");
    cli.ok(&["list"], "");
    cli.ok(&["mset", "user:2=b", "user:1=a", "x=1\n2"], "3 created, 0 changed, revision N\n");
    cli.ok(&["list"], "user:1\ta\nuser:2\tb\nx\t1\\n2\n");
    cli.ok(&["list", "user:*", "--keys"], "user:1\nuser:2\n");
    cli.ok(&["list", "user:[!1]"], "user:2\tb\n");
    cli.ok(&["list", "--prefix", "user:", "--reverse", "--limit", "1"], "user:2\tb\n");
    let entries = cli.json(&["list", "--limit", "2"], 0);
    assert_eq!(entries.len(), 2);
    assert_eq!((&entries[0]["key"], &entries[0]["value"]), (&json!("user:1"), &json!("a")));
    let keys = cli.json(&["list", "--keys"], 0);
    assert_eq!(keys.len(), 3);
    assert!(keys[0]["value"].is_null() && keys[0]["mod_revision"].is_u64());
}

#[test]
fn list_at_a_revision() {
    let cli = Cli::new("list_at");
    let revision = cli.json_line(&["mset", "a=1", "b=1"], 0)["revision"].to_string();
    cli.ok(&["del", "a"], "1 deleted, revision N\n");
    cli.ok(&["set", "b", "2"], "changed, revision N\n");
    cli.ok(&["list", "--at", &revision], "a\t1\nb\t1\n");
    cli.ok(&["list"], "b\t2\n");
    let done = cli.run(&["list", "--at", "1"]);
    assert_eq!((done.status, done.stdout.as_str()), (3, ""));
    assert!(done.stderr.contains("compacted"), "{done:?}");
}

#[test]
fn a_long_list_goes_over_pages_and_may_be_left() {
    let cli = Cli::new("long_list");
    for batch in 0..3 {
        let pairs: Vec<String> =
            (0..1_000).map(|n| format!("key:{:05}={n}", batch * 1_000 + n)).collect();
        let args: Vec<&str> =
            ["mset"].into_iter().chain(pairs.iter().map(String::as_str)).collect();
        cli.ok(&args, "1000 created, 0 changed, revision N\n");
    }
    let done = cli.run(&["list", "--keys"]);
    let keys: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(keys.len(), 3_000);
    assert!(keys.is_sorted());
    assert_eq!((keys[0], keys[2_999]), ("key:00000", "key:02999"));
    // Whoever reads the first line only, as `head -1` does, has not met with an error.
    let mut child = Command::new(HOLDFAST.as_path())
        .args(["-o", "json", "-n", &cli.namespace, "list"])
        .env("HOLDFAST_ADDR", fixture::shared().to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("holdfast runs");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("it has an output"));
    stdout.read_line(&mut line).expect("a line");
    drop(stdout);
    assert!(line.contains("key:00000"), "{line}");
    assert_eq!(read_all(child.stderr.take().expect("it has an output")), "");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_bad_pattern_is_wrong_usage() {
    let cli = Cli::new("glob");
    for command in ["list", "count", "watch"] {
        let done = cli.run(&[command, "a["]);
        assert_eq!((done.status, done.stdout.as_str()), (2, ""), "{command}");
        assert!(done.stderr.contains("`[` is not closed"), "{done:?}");
    }
}

#[test]
fn count_counts() {
    let cli = Cli::new("count");
    cli.ok(&["count"], "0\n");
    cli.ok(&["mset", "a:1=", "a:2=", "b="], "3 created, 0 changed, revision N\n");
    cli.ok(&["count"], "3\n");
    cli.ok(&["count", "?:*"], "2\n");
    cli.ok(&["count", "--prefix", "b"], "1\n");
    assert_eq!(cli.json_line(&["count"], 0)["count"], 3);
}

#[test]
fn history_tells_the_changes_newest_first() {
    let cli = Cli::new("history");
    cli.ok(&["set", "k", "1"], "created, revision N\n");
    cli.ok(&["set", "k", "2"], "changed, revision N\n");
    cli.ok(&["expire", "k", "1h"], "k ends in 1h, revision N\n");
    cli.ok(&["del", "k"], "1 deleted, revision N\n");
    cli.ok(&["history", "k"], "N\tDELETE\tk\nN\tTTL\tk\tends in 1h\nN\tSET\tk\t2\nN\tSET\tk\t1\n");
    cli.ok(&["history", "k", "--limit", "1"], "N\tDELETE\tk\n");
    let events = cli.json(&["history", "k"], 0);
    let types: Vec<_> = events.iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types, ["delete", "ttl_changed", "set", "set"]);
    assert_eq!(events[3]["entry"]["value"], "1");
    let before = events[2]["revision"].to_string();
    cli.ok(&["history", "k", "--before", &before], "N\tSET\tk\t1\n");
    cli.fails(&["history", "none"], 1, "holdfast: no changes of the key \"none\" are held\n");
}

#[test]
fn compact_forgets() {
    let cli = Cli::new("compact");
    cli.ok(&["set", "k", "1"], "created, revision N\n");
    let revision = cli.json_line(&["set", "k", "2"], 0)["mod_revision"].to_string();
    cli.ok(&["compact", &revision], "compacted through revision N\n");
    let done = cli.run(&["watch", "--after", "0"]);
    assert_eq!(done.status, 3, "{done:?}");
    assert!(done.stderr.contains("watch with --initial"), "{done:?}");
    let compacted = cli.json_line(&["compact", &revision], 0);
    assert_eq!(compacted["compacted_revision"].to_string(), revision);
    let done = cli.run(&["-o", "json", "compact", "9007199254740000"]);
    assert_eq!(done.status, 3);
    assert_eq!(crate::program::parse(&done.stderr)["error"]["reason"], "FUTURE_REVISION");
}

#[test]
fn info_and_stats_tell_of_the_server() {
    let cli = Cli::new("info");
    let done = cli.run(&["info"]);
    assert_eq!(done.status, 0);
    assert!(done.stdout.contains("backend     memory\n"), "{done:?}");
    assert_eq!(cli.json_line(&["info"], 0)["limits"]["max_key_bytes"], 1024);
    cli.ok(&["set", "k", "v"], "created, revision N\n");
    let done = cli.run(&["stats"]);
    assert!(done.stdout.starts_with("namespaces  "), "{done:?}");
    assert!(cli.json_line(&["stats"], 0)["keys"].as_u64() >= Some(1));
}
