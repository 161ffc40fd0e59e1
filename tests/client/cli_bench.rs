//! `bench`.

use serde_json::{Value, json};

use crate::program::Cli;

/// Runs a small load, and expects that nothing failed and nothing is left of it.
#[track_caller]
fn run(cli: &Cli, count: &str, args: &[&str]) -> Value {
    let small = ["bench", "--callers", "4", "--keys", "50", "--count", count];
    let report = cli.json_line(&[&small[..], args].concat(), 0);
    assert_eq!((&report["errors"], &report["interrupted"]), (&json!([]), &json!(false)));
    cli.ok(&["count"], "0\n");
    cli.ok(&["locks"], "");
    report
}

#[test]
fn a_load_is_counted_and_removed() {
    let cli = Cli::new("bench");
    cli.ok(&["set", "mine", "1"], "created, revision N\n");
    let report = cli.json_line(&["bench", "--callers", "4", "--keys", "50", "--count", "500"], 0);
    assert_eq!((&report["callers"], &report["keys"]), (&json!(4), &json!(50)));
    assert_eq!(report["mix"], json!({"get": 80, "set": 20}));
    let operations = report["operations"].as_array().expect("an array");
    let count = |row: &Value| row["count"].as_u64().expect("a number");
    assert_eq!(operations.iter().map(count).sum::<u64>(), 500);
    assert_eq!((count(&report["total"]), &report["total"]["failed"]), (500, &json!(0)));
    for row in operations {
        let latency = |name: &str| row["latency_us"][name].as_f64().expect("a number");
        assert!(latency("p50") <= latency("p99") && latency("p99") <= latency("max"), "{row}");
        assert!(row["per_second"].as_f64() > Some(0.0), "{row}");
    }
    assert_eq!(report["watch"], Value::Null);
    // What others have in the namespace stays.
    cli.ok(&["count"], "1\n");
}

#[test]
fn every_kind_of_operation_can_be_mixed() {
    let cli = Cli::new("bench_kinds");
    let mix = "get,set,del,exists,incr,list,txn,lock";
    let report =
        run(&cli, "500", &["--mix", mix, "--zipf", "0.99", "--ttl", "1h", "--page-size", "5"]);
    let operations = report["operations"].as_array().expect("an array");
    let names: Vec<_> = operations.iter().filter_map(|row| row["operation"].as_str()).collect();
    assert_eq!(names.join(","), mix);
    assert_eq!(report["zipf"], json!(0.99));
}

#[test]
fn locks_can_be_contended() {
    let cli = Cli::new("bench_locks");
    let report = run(&cli, "20", &["--mix", "lock", "--locks", "1"]);
    assert_eq!(report["total"]["count"], 20);
}

#[test]
fn unary_calls_and_several_connections_do_the_same() {
    let cli = Cli::new("bench_unary");
    let report = run(&cli, "500", &["--unary", "--connections", "3"]);
    assert_eq!((&report["transport"], &report["connections"]), (&json!("unary"), &json!(3)));
    assert_eq!(report["total"]["count"], 500);
}

#[test]
fn a_rate_is_kept() {
    let cli = Cli::new("bench_rate");
    let report = run(&cli, "200", &["--rate", "2000"]);
    assert_eq!(report["total"]["count"], 200);
    // The last is due after 99.5 ms, and none begins before it is due.
    assert!(report["elapsed_ms"].as_u64() >= Some(99), "{report}");
}

#[test]
fn every_watcher_gets_every_event() {
    let cli = Cli::new("bench_watchers");
    let report = run(&cli, "300", &["--mix", "set", "--watchers", "7"]);
    let watch = &report["watch"];
    assert_eq!((&watch["watchers"], &watch["events"]), (&json!(7), &json!(7 * 300)));
    assert!(watch["lateness_us"]["p50"].as_f64() > Some(0.0), "{watch}");
}

#[test]
fn keys_can_be_kept() {
    let cli = Cli::new("bench_keep");
    let args = ["bench", "--callers", "2", "--keys", "9", "--count", "50", "--keep"];
    let done = cli.run(&args);
    assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{done:?}");
    assert!(done.stdout.starts_with("2 callers over 1 connection"), "{done:?}");
    cli.ok(&["count"], "9\n");
}

#[test]
fn an_interrupted_load_is_told_and_removed() {
    for signal in ["INT", "TERM"] {
        let cli = Cli::new("bench_interrupted");
        let bench = cli.start(&["-o", "json", "bench", "--keys", "20", "--duration", "1h"]);
        // Keys are there once the load is about to begin.
        while cli.run(&["count"]).stdout != "20\n" {}
        bench.signal(signal);
        let (status, lines) = bench.end();
        // Interrupted before the load began, it has nothing to tell.
        if let [line] = &lines[..] {
            assert!(status.success(), "{line}");
            assert!(line.contains("\"interrupted\":true"), "{line}");
        }
        cli.ok(&["count"], "0\n");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let cli = Cli::new("bench_usage");
    for (args, part) in [
        (&["--mix", "got=1"][..], "there is no kind \"got\"; there are: get, set, del"),
        (&["--mix", "get=1,get=2"], "\"get\" stands there twice"),
        (&["--mix", "get=x"], "the weight of \"get\" is not a whole number: \"x\""),
        (&["--callers", "0"], "0 is not in 1..=100000"),
        (&["--zipf", "0"], "not a number above 0"),
        (&["--rate", "0"], "not a number above 0"),
        (&["--count", "5", "--duration", "5s"], "cannot be used with"),
        (&["--duration", "0s"], "--duration must be above zero"),
        (&["--locks", "5"], "--locks says nothing without `lock` in --mix"),
        (&["--watchers", "5", "--value-size", "8"], "must be at least 16, not 8"),
        (&["--watchers", "5", "--mix", "get"], "--mix needs `set`"),
    ] {
        let done = cli.run(&[&["bench"], args].concat());
        assert_eq!((done.status, done.stdout.as_str()), (2, ""), "{args:?}: {done:?}");
        assert!(done.stderr.contains(part), "{args:?}: {done:?}");
    }
    assert_eq!(cli.run(&["ns", "show"]).status, 1, "nothing was written");
}

#[test]
fn values_may_be_too_large_for_the_server() {
    let cli = Cli::new("bench_too_large");
    let done = cli.run(&["bench", "--value-size", "2MiB", "--keys", "1", "--count", "1"]);
    assert_eq!((done.status, done.stdout.as_str()), (2, ""), "{done:?}");
    assert!(done.stderr.contains("value"), "{done:?}");
}
