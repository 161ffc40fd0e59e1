//! `get`, `set`, `del`, `exists`, `ttl`, `expire`, `incr`, `mget`, `mset`.

use serde_json::json;

use crate::program::{Cli, tidy};

#[test]
fn get_prints_the_bare_value() {
    let cli = Cli::new("get");
    cli.ok(&["set", "k", "some text"], "created, revision N\n");
    cli.ok(&["get", "k"], "some text\n");
    cli.ok(&["get", "k", "--raw"], "some text");
    let entry = cli.json_line(&["get", "k"], 0);
    assert_eq!((&entry["found"], &entry["key"]), (&json!(true), &json!("k")));
    assert_eq!((&entry["value"], &entry["version"]), (&json!("some text"), &json!(1)));
    assert!(entry["mod_revision"].is_u64());
}

#[test]
fn get_of_a_missing_key_is_no() {
    let cli = Cli::new("get_missing");
    let name = &cli.namespace;
    let remark = format!("holdfast: there is no key \"k\" in the namespace {name:?}\n");
    cli.fails(&["get", "k"], 1, &remark);
    assert_eq!(cli.json_line(&["get", "k"], 1), json!({"found": false, "key": "k"}));
}

#[test]
fn get_at_a_revision_and_touch() {
    let cli = Cli::new("get_at");
    let first = cli.json_line(&["set", "k", "old"], 0)["mod_revision"].to_string();
    cli.ok(&["set", "k", "new"], "changed, revision N\n");
    cli.ok(&["get", "k", "--at", &first], "old\n");
    cli.ok(&["get", "k", "--touch", "1h"], "new\n");
    assert!(cli.json_line(&["get", "k"], 0)["expires_at_ms"].is_i64());
    cli.ok(&["get", "k", "--touch", "never"], "new\n");
    assert!(cli.json_line(&["get", "k"], 0)["expires_at_ms"].is_null());
}

#[test]
fn bytes_come_from_standard_input_and_go_as_base64() {
    let cli = Cli::new("bytes");
    let done = cli.run_with_input(&["set", "k", "-"], b"\xff\x00\n");
    assert_eq!(done.status, 0, "{done:?}");
    let entry = cli.json_line(&["get", "k"], 0);
    assert_eq!(entry["value_base64"], "/wAK");
    assert!(entry["value"].is_null());
    cli.ok(&["mget", "k"], "k\t\\xff\\x00\\n\n");
    let done = cli.run_with_input(&["set", "text", "-"], "straße\n".as_bytes());
    assert_eq!(done.status, 0, "{done:?}");
    cli.ok(&["get", "text", "--raw"], "straße\n");
}

#[test]
fn set_heeds_its_conditions() {
    let cli = Cli::new("conditions");
    let name = &cli.namespace;
    let missing =
        format!("holdfast: nothing was changed: there is no key \"k\" in the namespace {name:?}\n");
    let there = "holdfast: nothing was changed: the key \"k\" was last changed at revision N\n";
    cli.fails(&["set", "k", "1", "--if-present"], 1, &missing);
    cli.fails(&["set", "k", "1", "--if-revision", "7"], 1, &missing);
    cli.ok(&["set", "k", "1", "--if-absent"], "created, revision N\n");
    cli.fails(&["set", "k", "2", "--if-absent"], 1, there);
    let refused = cli.json_line(&["set", "k", "2", "--if-revision", "7"], 1);
    assert_eq!((&refused["applied"], &refused["key"]), (&json!(false), &json!("k")));
    let revision = refused["current"]["mod_revision"].to_string();
    let set = cli.json_line(&["set", "k", "2", "--if-revision", &revision, "--previous"], 0);
    assert_eq!((&set["applied"], &set["created"]), (&json!(true), &json!(false)));
    assert_eq!((&set["version"], &set["previous"]["value"]), (&json!(2), &json!("1")));
    cli.ok(&["set", "k", "3", "--if-present", "--previous"], "changed, revision N, was 2\n");
}

#[test]
fn set_takes_negative_numbers_and_content_types() {
    let cli = Cli::new("set_forms");
    cli.ok(&["set", "k", "-5", "--content-type", "text/plain"], "created, revision N\n");
    let entry = cli.json_line(&["get", "k"], 0);
    assert_eq!((&entry["value"], &entry["content_type"]), (&json!("-5"), &json!("text/plain")));
    cli.ok(&["set", "--", "-k", "--x"], "created, revision N\n");
    cli.ok(&["get", "--", "-k"], "--x\n");
}

#[test]
fn a_ttl_is_set_kept_changed_and_taken_away() {
    let cli = Cli::new("ttl");
    let name = &cli.namespace;
    let missing = format!("holdfast: there is no key \"none\" in the namespace {name:?}\n");
    cli.ok(&["set", "k", "v", "--ttl", "2h"], "created, revision N\n");
    let ttl = cli.run(&["ttl", "k"]);
    assert!(ttl.stdout.starts_with("1h 59m 59s") || ttl.stdout == "2h\n", "{ttl:?}");
    cli.ok(&["set", "k", "v", "--keep-ttl"], "changed, revision N\n");
    let left = cli.json_line(&["ttl", "k"], 0)["ttl_ms"].as_u64().expect("a number");
    assert!(left > 7_000_000 && left <= 7_200_000, "{left}");
    cli.ok(&["expire", "k", "7d"], "k ends in 7days, revision N\n");
    cli.ok(&["expire", "k", "never"], "k never ends, revision N\n");
    cli.ok(&["ttl", "k"], "never\n");
    let ttl = cli.json_line(&["ttl", "k"], 0);
    assert_eq!((&ttl["found"], &ttl["ttl_ms"]), (&json!(true), &json!(null)));
    cli.fails(&["ttl", "none"], 1, &missing);
    cli.fails(&["expire", "none", "1s"], 1, &missing);
    assert_eq!(cli.json_line(&["expire", "none", "1s"], 1)["found"], false);
    assert_eq!(cli.json_line(&["ttl", "none"], 1)["found"], false);
}

#[test]
fn exists_answers_by_its_status() {
    let cli = Cli::new("exists");
    cli.fails_saying(&["exists", "k"], 1, "false\n");
    cli.ok(&["set", "k", ""], "created, revision N\n");
    cli.ok(&["exists", "k"], "true\n");
    assert_eq!(cli.json_line(&["exists", "k"], 0)["exists"], true);
}

#[test]
fn incr_counts_up_and_down() {
    let cli = Cli::new("incr");
    cli.ok(&["incr", "n"], "1\n");
    cli.ok(&["incr", "n", "-5"], "-4\n");
    assert_eq!(cli.json_line(&["incr", "n", "10"], 0)["value"], 6);
    cli.ok(&["incr", "m", "--initial", "-3", "--ttl", "1h"], "-2\n");
    assert!(cli.json_line(&["ttl", "m"], 0)["ttl_ms"].is_u64());
    cli.ok(&["set", "t", "text"], "created, revision N\n");
    let done = cli.run(&["incr", "t"]);
    assert_eq!((done.status, done.stdout.as_str()), (3, ""));
    assert!(done.stderr.contains("\"text\""), "{done:?}");
    let done = cli.run(&["-o", "json", "incr", "t"]);
    assert_eq!(crate::program::parse(&done.stderr)["error"]["reason"], "NOT_A_NUMBER");
}

#[test]
fn del_says_what_was_missing() {
    let cli = Cli::new("del");
    cli.ok(&["mset", "a=1", "b=2", "c=3=x"], "3 created, 0 changed, revision N\n");
    let done = cli.run(&["del", "a", "b", "zip"]);
    assert_eq!((done.status, tidy(&done.stdout).as_str()), (1, "2 deleted, revision N\n"));
    assert!(done.stderr.contains("there is no key \"zip\""), "{done:?}");
    let deleted = cli.json_line(&["del", "a", "c"], 1);
    assert_eq!((&deleted["deleted"], &deleted["missing"]), (&json!(1), &json!(["a"])));
    let revision = cli.json_line(&["set", "k", "v"], 0)["mod_revision"].to_string();
    assert_eq!(cli.json_line(&["del", "k", "--if-revision", "1"], 1)["applied"], false);
    cli.ok(&["del", "k", "--if-revision", &revision], "1 deleted, revision N\n");
}

#[test]
fn del_by_prefix() {
    let cli = Cli::new("del_prefix");
    cli.ok(&["mset", "a:1=x", "a:2=x", "b=x"], "3 created, 0 changed, revision N\n");
    cli.ok(&["del", "--prefix", "a:"], "2 deleted, revision N\n");
    cli.ok(&["del", "--prefix", "a:"], "0 deleted, revision N\n");
    cli.ok(&["list", "--keys"], "b\n");
}

#[test]
fn mget_answers_in_the_order_asked() {
    let cli = Cli::new("mget");
    let revision = cli.json_line(&["mset", "a=1", "b=2=3"], 0)["revision"].to_string();
    let set = cli.json_line(&["mset", "a=4", "c=5", "--ttl", "1h"], 0);
    assert_eq!(set["entries"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        (&set["entries"][0]["key"], &set["entries"][0]["version"]),
        (&json!("a"), &json!(2))
    );
    assert!(set["entries"][1]["expires_at_ms"].is_i64());
    cli.ok(&["mget", "b", "a"], "b\t2=3\na\t4\n");
    cli.ok(&["mget", "b", "a", "--at", &revision], "b\t2=3\na\t1\n");
    let found = cli.json(&["mget", "c", "none", "a"], 1);
    assert_eq!((&found[0]["value"], &found[2]["value"]), (&json!("5"), &json!("4")));
    assert_eq!(found[1], json!({"found": false, "key": "none"}));
}

#[test]
fn an_empty_variable_says_nothing() {
    let cli = Cli::new("empty_variables");
    let empty = ["HOLDFAST_ADDR", "HOLDFAST_NAMESPACE", "HOLDFAST_TOKEN", "HOLDFAST_CA"]
        .map(|name| (name, ""));
    let addr = format!("http://{}", crate::fixture::shared());
    let args = ["--addr", &addr, "exists", "no such key"];
    let done = cli.run_with_variables(&empty, &args);
    assert_eq!((done.status, done.stdout.as_str()), (1, "false\n"), "{done:?}");
    // Whether a server is at the usual address or not: that is where it is looked for.
    let done = cli.run_with_variables(&empty, &["exists", "no such key"]);
    assert!(done.status == 1 || done.stderr.contains("http://127.0.0.1:4653"), "{done:?}");
    let done = cli.run(&["--addr", "", "exists", "no such key"]);
    assert_eq!(done.status, 2, "what is said is not passed over: {done:?}");
}

#[test]
fn what_the_server_refuses_is_wrong_usage() {
    let cli = Cli::new("refused");
    let done = cli.run(&["mset", "a=1", "a=2"]);
    assert_eq!((done.status, done.stdout.as_str()), (2, ""));
    assert!(done.stderr.contains("items[1]"), "{done:?}");
    let done = cli.run(&["set", "k", "v", "--ttl", "0s"]);
    assert_eq!(done.status, 2, "{done:?}");
    let done = cli.run(&["-n", "no such name", "get", "k"]);
    assert_eq!(done.status, 2, "{done:?}");
    let done = cli.run(&["-o", "json", "get", ""]);
    assert_eq!(crate::program::parse(&done.stderr)["error"]["reason"], "INVALID_KEY");
}
