//! `txn`.

use serde_json::json;

use crate::program::{Cli, file, parse, tidy};

#[test]
fn a_transaction_compares_then_acts() {
    let cli = Cli::new("txn");
    cli.ok(&["set", "stock", "1"], "created, revision N\n");
    let buy = file(
        "buy.json",
        r#"{
            "compare": [{"key": "stock", "value": {"!=": "0"}}, {"key": "order", "exists": false}],
            "then": [
                {"incr": {"key": "stock", "delta": -1}},
                {"set": {"key": "order", "value": "ann", "ttl": "15m"}},
                {"list": {"glob": "*"}},
                {"expire": {"key": "none", "ttl": "1s"}}
            ],
            "otherwise": [{"get": {"key": "order"}}, {"list": {"keys": true}}, {"get": {"key": "none"}}]
        }"#,
    );
    cli.ok(
        &["txn", &buy],
        "succeeded, revision N\nincr\tstock\t0\nset\torder\tcreated\nlist\t*\t2 listed\n\torder\tann\n\
         \tstock\t0\nexpire\tnone\t(missing)\n",
    );
    cli.fails_saying(
        &["txn", &buy],
        1,
        "not done, revision N\ncompare\tstock\tdoes not hold\ncompare\torder\tdoes not hold\n\
         get\torder\tann\nlist\t*\t2 listed\n\torder\n\tstock\nget\tnone\t(missing)\n",
    );
    let outcome = cli.json_line(&["txn", &buy], 1);
    assert_eq!(
        (&outcome["succeeded"], &outcome["failed_compares"]),
        (&json!(false), &json!([0, 1]))
    );
    assert_eq!(outcome["results"][0]["get"]["value"], "ann");
    assert_eq!(outcome["results"][2]["get"], json!({"found": false}));
}

#[test]
fn a_transaction_may_come_from_standard_input() {
    let cli = Cli::new("txn_stdin");
    let text =
        br#"{"then": [{"set": {"key": "k", "value_base64": "/wA="}}, {"del": {"key": "none"}},
                             {"set": {"key": "a:1", "value": ""}}, {"del": {"prefix": "a:"}}]}"#;
    let done = cli.run_with_input(&["txn", "-"], text);
    let expected = "succeeded, revision N\nset\tk\tcreated\ndel\tnone\t0 deleted\nset\ta:1\tcreated\n\
                    del\ta:\t1 deleted\n";
    assert_eq!((done.status, tidy(&done.stdout).as_str()), (0, expected), "{done:?}");
}

#[test]
fn mistakes_are_told_with_their_place() {
    let cli = Cli::new("txn_mistakes");
    let done = cli.run_with_input(&["txn", "-"], b"{\n  \"then\": [{\"put\": {}}]\n}");
    assert_eq!((done.status, done.stdout.as_str()), (2, ""));
    assert!(done.stderr.contains("standard input: unknown variant `put`"), "{done:?}");
    assert!(done.stderr.contains("line 2"), "{done:?}");
    let done = cli.run_with_input(&["txn", "-"], br#"{"compare": [{"key": "k"}]}"#);
    assert_eq!(done.status, 2, "{done:?}");
    let done = cli.run(&["txn", "no/such/file.json"]);
    assert_eq!(done.status, 3, "{done:?}");
    assert!(done.stderr.starts_with("holdfast: cannot read no/such/file.json"), "{done:?}");
}

#[test]
fn an_operation_that_fails_fails_the_whole() {
    let cli = Cli::new("txn_fails");
    let text = br#"{"then": [{"set": {"key": "k", "value": "text"}}, {"incr": {"key": "k"}}]}"#;
    let done = cli.run_with_input(&["txn", "-"], text);
    assert_eq!((done.status, done.stdout.as_str()), (3, ""));
    assert!(done.stderr.contains("then[1]"), "{done:?}");
    let done = cli.run_with_input(&["-o", "json", "txn", "-"], text);
    assert_eq!(parse(&done.stderr)["error"]["reason"], "NOT_A_NUMBER");
    cli.ok(&["count"], "0\n");
}
