//! `export` and `import`.

use std::{
    fs,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use serde_json::{Value, json};

use crate::{
    fixture::{self, PATIENCE, with_namespace},
    program::{Cli, Done, HOLDFAST, file, parse, read_all},
    proxy::Proxy,
};

/// A namespace with something of everything.
fn furnish(test: &str) -> Cli {
    let cli = Cli::new(test);
    cli.ok(
        &["set", "json", r#"{"a":[1]}"#, "--content-type", "application/json"],
        "created, revision N\n",
    );
    cli.ok(&["set", "text", "two\nlines"], "created, revision N\n");
    cli.ok(&["set", "ends", "x", "--ttl", "1h"], "created, revision N\n");
    let done = cli.run_with_input(&["set", "bytes", "-"], b"\xff\x00");
    assert_eq!(done.status, 0, "{done:?}");
    let done = cli.run(&["ns", "set", "--quota-max-keys", "100"]);
    assert_eq!(done.status, 0, "{done:?}");
    cli
}

fn exported(cli: &Cli) -> Done {
    let done = cli.run(&["export"]);
    assert_eq!(done.status, 0, "{done:?}");
    done
}

/// The same file for another namespace.
fn renamed(file: &str, from: &Cli, to: &Cli) -> String {
    let (from, to) = (&from.namespace, &to.namespace);
    file.replace(&format!("{{\"namespace\":\"{from}\""), &format!("{{\"namespace\":\"{to}\""))
}

#[test]
fn an_export_is_lines_that_people_can_read() {
    let cli = furnish("export_lines");
    let done = exported(&cli);
    assert_eq!(done.stderr, "holdfast: 1 namespace, 4 entries, 0 leases, 0 locks\n");
    let lines: Vec<Value> = done.stdout.lines().map(parse).collect();
    assert_eq!(lines[0], json!({"holdfast": "export", "format": 1}));
    assert_eq!(lines[1]["namespace"], json!(cli.namespace));
    assert_eq!(lines[1]["settings"], json!({"quota_max_keys": 100}));
    let value = |key: &str, member: &str| {
        let line = lines.iter().find(|line| line["key"] == key).expect("it is there");
        line[member].clone()
    };
    assert_eq!(value("json", "json"), json!({"a": [1]}));
    assert_eq!(value("text", "text"), json!("two\nlines"));
    assert_eq!(value("bytes", "base64"), json!("/wA="));
    assert!(value("ends", "expires_at_ms").is_i64());
    assert_eq!(lines[6]["end"]["entries"], 4);
    assert_eq!(lines[7], json!({"holdfast": "end", "namespaces": 1}));
}

#[test]
fn an_export_that_fails_leaves_the_file_as_it_was() {
    let cli = Cli::new("export_fails");
    let path = file("former.jsonl", "the former\n");
    let done = cli.run(&["--addr", "http://127.0.0.1:1", "export", &path]);
    assert_eq!(done.status, 3, "{done:?}");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "the former\n");
    assert!(!fs::exists(format!("{path}.tmp")).expect("one can look"));
}

#[test]
fn an_export_that_a_signal_ends_leaves_nothing() {
    with_namespace("export_signal", async |ns| {
        let cli = Cli { namespace: ns.name().to_owned() };
        let proxy = Proxy::to(fixture::shared()).await;
        proxy.hold_back();
        let path = file("ended.jsonl", "the former\n");
        let unfinished = format!("{path}.tmp");
        // A run that failed may have left it.
        let _ = fs::remove_file(&unfinished);
        let is_there = || fs::exists(&unfinished).expect("one can look");
        let addr = format!("http://{}", proxy.address);
        let export = cli.start(&["--addr", &addr, "--timeout", "1h", "export", &path]);
        while !is_there() {
            tokio::task::yield_now().await;
        }
        export.signal("TERM");
        assert_eq!(export.end().0.code(), Some(143));
        assert!(!is_there());
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "the former\n");
    });
}

#[test]
fn an_export_goes_straight_into_what_is_no_file() {
    let cli = furnish("export_pipe");
    let done = cli.run(&["export", "/dev/stdout"]);
    assert_eq!(done.status, 0, "{done:?}");
    assert!(done.stdout.contains("\n{\"holdfast\":\"end\",\"namespaces\":1}\n"), "{done:?}");
}

#[test]
fn an_import_brings_back_what_an_export_wrote() {
    let cli = furnish("import");
    let copy = Cli::new("import_copy");
    let path = file("import.jsonl", &renamed(&exported(&cli).stdout, &cli, &copy));
    let done = copy.json_line(&["import", &path], 0);
    assert_eq!(done["imported"]["entries"], 4);
    assert_eq!(done["namespaces"][0]["name"], json!(copy.namespace));
    let list = |cli: &Cli| cli.json(&["list"], 0);
    assert_eq!(list(&copy), list(&cli));
}

#[test]
fn a_namespace_that_is_not_empty_is_replaced_only_if_told() {
    let cli = furnish("import_replace");
    let path = file("replace.jsonl", &exported(&cli).stdout);
    cli.ok(&["set", "more", "x"], "created, revision N\n");
    let name = &cli.namespace;
    let refusal = format!(
        "holdfast: the namespace {name:?} is not empty\nimport --replace puts what is imported in its place.\n"
    );
    cli.fails(&["import", &path], 3, &refusal);
    let error = cli.run(&["-o", "json", "import", &path]).stderr;
    assert_eq!(parse(&error)["error"]["reason"], "NAMESPACE_NOT_EMPTY");
    let done = cli.run(&["import", "--replace", &path]);
    assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{done:?}");
    assert!(done.stdout.ends_with("1 namespace, 4 entries, 0 leases, 0 locks\n"), "{done:?}");
    cli.fails_saying(&["exists", "more"], 1, "false\n");
}

#[test]
fn state_goes_through_a_pipe_to_another_server() {
    let cli = furnish("pipe");
    let other = format!("http://{}", fixture::start());
    let program = || Command::new(HOLDFAST.as_path());
    let mut export = program()
        .args(["--addr", &format!("http://{}", fixture::shared()), "-n", &cli.namespace, "export"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let pipe = export.stdout.take().expect("it has an output");
    let import = program()
        .args(["--addr", &other, "-o", "json", "import", "-"])
        .stdin(pipe)
        .output()
        .expect("it runs");
    assert!(export.wait().expect("it ends").success());
    assert!(import.status.success(), "{import:?}");
    let got = program().args(["--addr", &other, "-n", &cli.namespace, "get", "json"]).output();
    assert_eq!(read_all(&got.expect("it runs").stdout[..]), "{\"a\":[1]}\n");
}

#[test]
fn an_export_that_is_not_read_to_its_end_has_failed() {
    let cli = furnish("export_unread");
    let done = cli.run_unread(&["export"]);
    assert_eq!(done.status, 3, "{done:?}");
    assert!(done.stderr.starts_with("holdfast: cannot write the output: "), "{done:?}");
    // Who only looks may look away.
    let done = cli.run_unread(&["list"]);
    assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{done:?}");
    assert_eq!(cli.run_unread(&["incr", "n"]).status, 3);
}

#[test]
fn all_namespaces_go_into_one_file() {
    let other = format!("http://{}", fixture::start());
    let cli = Cli::new("all");
    let at = |args: &[&str]| cli.run(&[&["--addr", other.as_str()], args].concat());
    for name in ["a", "b"] {
        assert_eq!(at(&["-n", name, "set", "k", name]).status, 0);
    }
    let path = file("all.jsonl", "");
    let done = at(&["export", "--all", &path]);
    assert_eq!(done.stdout, "2 namespaces, 2 entries, 0 leases, 0 locks\n", "{done:?}");
    let done = at(&["-n", "a", "export", "--also", "b", &path]);
    assert_eq!(done.stdout, "2 namespaces, 2 entries, 0 leases, 0 locks\n", "{done:?}");
    let text = fs::read_to_string(&path).expect("it was written");
    assert_eq!(text.lines().count(), 8, "{text}");
}

#[test]
fn an_import_that_fails_does_not_wait_for_the_end_of_its_input() {
    let args = ["--addr", "http://127.0.0.1:1", "import", "-"];
    let mut import = Cli::new("import_open").command(&args).spawn().expect("it runs");
    // Else it is closed by whoever waits.
    let _input = import.stdin.take();
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(import.wait().expect("it can be waited for")));
    let status = ended.recv_timeout(PATIENCE).expect("it ends");
    assert_eq!(status.code(), Some(3));
}

#[test]
fn a_missing_namespace_is_told() {
    let cli = Cli::new("export_missing");
    let done = cli.run(&["export"]);
    assert_eq!(done.status, 1, "{done:?}");
    assert!(done.stderr.contains("does not exist"), "{done:?}");
    assert_eq!(done.stdout.lines().count(), 2, "{done:?}");
    let path = file("missing.jsonl", "the former\n");
    let done = cli.run(&["export", &path]);
    assert_eq!(done.status, 1, "{done:?}");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "the former\n");
    assert!(!fs::exists(format!("{path}.tmp")).expect("one can look"));
}

#[test]
fn a_damaged_file_changes_nothing() {
    let cli = furnish("import_damaged");
    let copy = Cli::new("import_damaged_copy");
    let whole = renamed(&exported(&cli).stdout, &cli, &copy);
    let lines: Vec<&str> = whole.lines().collect();
    let cut = lines[..5].join("\n");
    let changed = whole.replace("two\\nlines", "two\\nlies");
    let error = |text: &str| {
        let done = copy.run_with_input(&["import", "-"], text.as_bytes());
        assert_eq!(done.stdout, "", "{done:?}");
        (done.status, done.stderr)
    };
    let (status, message) = error(&cut);
    assert_eq!(status, 3, "{message}");
    assert!(
        message.starts_with("holdfast: line 6: the file ends before its last line"),
        "{message}"
    );
    let (status, message) = error(&changed);
    assert_eq!(status, 2, "{message}");
    assert!(message.contains("was lost or changed on the way"), "{message}");
    let (status, message) = error("PK\u{3}\u{4}");
    assert_eq!(status, 3, "{message}");
    assert!(message.starts_with("holdfast: line 1: it is not an object of JSON"), "{message}");
    assert_eq!(copy.run(&["ns", "show"]).status, 1);
}
