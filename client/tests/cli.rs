//! The program `holdfast` by itself: what it says where no server is needed.

use std::{
    net::TcpListener,
    process::{Command, Output},
};

#[test]
fn wrong_usage_is_told_apart() {
    for args in [
        &[][..],
        &["frobnicate"],
        &["get"],
        &["set", "k"],
        &["set", "k", "v", "--ttl", "soon"],
        &["set", "k", "v", "--ttl", "1s", "--never"],
        &["set", "k", "v", "--if-absent", "--if-present"],
        &["del"],
        &["del", "k", "--prefix", "p"],
        &["del", "k", "l", "--if-revision", "3"],
        &["incr", "n", "much"],
        &["expire", "k", "0.5"],
        &["list", "*", "--prefix", "p"],
        &["list", "--limit", "0"],
        &["mset", "no-equals-sign"],
        &["set", "k", "v", "--guard", "report"],
        &["set", "k", "v", "--ttl", "1s", "--lease", "7"],
        &["unlock", "a"],
        &["lease", "grant", "soon"],
        &["lease", "grant", "1s", "--id", "0"],
        &["elect", "a"],
        &["elect", "a", "b", "--listen"],
        &["watch", "--after", "yesterday"],
        &["watch", "--after", "3", "--initial"],
        &["--addr", "ftp://somewhere", "get", "k"],
        &["-o", "xml", "get", "k"],
    ] {
        let output = holdfast(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn wrong_usage_of_lock_is_not_taken_for_the_status_of_its_command() {
    for args in [
        &["lock"][..],
        &["lock", "a", "true"],
        &["lock", "--wait", "a"],
        &["lock", "a", "--ttl", "soon", "--", "true"],
        &["-n", "other", "lock", "a", "--no-such-option", "--", "true"],
    ] {
        let output = holdfast(args);
        assert_eq!(output.status.code(), Some(125), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(stderr(&output).starts_with("error: "), "{args:?}: {}", stderr(&output));
    }
    let output = holdfast(&["get", "lock", "--no-such-option"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn help_and_version_are_no_errors() {
    for args in
        [&["--help"][..], &["help", "set"], &["txn", "--help"], &["lock", "--help"], &["--version"]]
    {
        let output = holdfast(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn where_nobody_answers_it_says_where_and_what_to_do() {
    let address = nobody();
    let output = holdfast(&["--addr", &address, "get", "k"]);
    assert_eq!(output.status.code(), Some(3));
    let told = stderr(&output);
    assert!(told.starts_with(&format!("holdfast: unavailable: {address}: ")), "{told}");
    assert!(told.contains("`holdfastd` starts one"), "{told}");
}

#[test]
fn a_command_is_not_run_where_the_lock_cannot_be_asked_for() {
    let address = nobody();
    let output = holdfast(&["--addr", &address, "lock", "a", "--", "echo", "not run"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(125), &b""[..]));
    let told = stderr(&output);
    assert!(told.starts_with(&format!("holdfast: unavailable: {address}: ")), "{told}");
}

#[test]
fn errors_are_json_where_the_output_is() {
    let address = nobody();
    let output = holdfast(&["--addr", &address, "-o", "json", "watch"]);
    assert_eq!(output.status.code(), Some(3));
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(error["error"]["reason"], "UNAVAILABLE");
    assert!(error["error"]["hint"].is_string());
}

#[test]
fn certificates_are_read_before_anything_is_sent() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (args, status, expected) in [
        (&["--ca", "no-such-file", "get", "k"][..], 3, "cannot read no-such-file"),
        (&["--addr", "https://a:1", "--ca", manifest, "get", "k"], 2, "not PEM-encoded"),
        (&["--addr", "http://a:1", "--ca", manifest, "get", "k"], 2, "must begin with https://"),
    ] {
        let output = holdfast(args);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn the_environment_says_what_arguments_do_not() {
    let address = nobody();
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let output = command.args(["get", "k"]).env("HOLDFAST_ADDR", &address).output();
    let told = stderr(&output.expect("it runs"));
    assert!(told.contains(&address), "{told}");
}

fn holdfast(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    for name in ["HOLDFAST_ADDR", "HOLDFAST_NAMESPACE", "HOLDFAST_TOKEN", "HOLDFAST_CA"] {
        command.env_remove(name);
    }
    command.args(args).output().expect("it runs")
}

/// An address of this machine at which nothing listens: it was free a moment ago.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    format!("http://{}", listener.local_addr().expect("it has an address"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
