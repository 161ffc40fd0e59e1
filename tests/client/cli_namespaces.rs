//! `ns`.

use serde_json::json;

use crate::program::Cli;

#[test]
fn namespaces_are_listed_and_shown() {
    let cli = Cli::new("ns_show");
    let name = cli.namespace.as_str();
    let missing = format!("holdfast: there is no namespace {name:?}\n");
    cli.fails(&["ns", "show"], 1, &missing);
    assert_eq!(cli.json_line(&["ns", "show"], 1), json!({"found": false, "name": name}));
    cli.ok(&["set", "k", "v"], "created, revision N\n");
    cli.ok(&["ns", "list", name], &format!("{name}\t1 key\trevision N\n"));
    let done = cli.run(&["ns", "show"]);
    assert!(done.stdout.starts_with(&format!("name             {name}\nkeys             1\n")));
    let info = cli.json_line(&["ns", "list", name], 0);
    assert_eq!((&info["name"], &info["key_count"]), (&json!(name), &json!(1)));
    let mut shown = cli.json_line(&["ns", "show", name], 0);
    let found = shown.as_object_mut().expect("an object").remove("found");
    assert_eq!((found, shown), (Some(json!(true)), info.clone()));
    assert!(cli.json(&["ns", "list"], 0).contains(&info));
}

#[test]
fn settings_are_changed_one_by_one() {
    let cli = Cli::new("ns_set");
    let info = cli.json_line(
        &["ns", "set", "--default-ttl", "1h", "--quota-max-keys", "1", "--log-max-bytes", "2MiB"],
        0,
    );
    let settings = &info["settings"];
    assert_eq!(settings["default_ttl_ms"], 3_600_000);
    assert_eq!(settings["quota_max_keys"], 1);
    assert_eq!(settings["log_max_bytes"], 2 << 20);
    cli.ok(&["set", "k", "v"], "created, revision N\n");
    assert!(cli.json_line(&["ttl", "k"], 0)["ttl_ms"].is_u64());
    let done = cli.run(&["set", "l", "v"]);
    assert_eq!((done.status, done.stdout.as_str()), (3, ""));
    assert!(done.stderr.contains("quota_max_keys"), "{done:?}");
    let settings = cli.json_line(&["ns", "set", "--quota-max-keys", "default"], 0);
    assert_eq!(settings["settings"]["quota_max_keys"], json!(null));
    assert_eq!(settings["settings"]["default_ttl_ms"], 3_600_000);
    cli.ok(&["set", "l", "v", "--never"], "created, revision N\n");
    cli.ok(&["ttl", "l"], "never\n");
    let done = cli.run(&["ns", "set", "--log-max-age", "soon"]);
    assert_eq!(done.status, 2, "{done:?}");
}

#[test]
fn removing_needs_a_yes() {
    let cli = Cli::new("ns_remove");
    let name = cli.namespace.as_str();
    cli.ok(&["mset", "a=1", "b=2"], "2 created, 0 changed, revision N\n");
    let refusal = "holdfast: this cannot be undone: without a terminal to ask at, say --yes\n";
    cli.fails(&["ns", "clear", name], 2, refusal);
    cli.fails(&["ns", "delete", name], 2, refusal);
    cli.ok(&["count"], "2\n");
    cli.ok(&["ns", "clear", name, "--yes"], "2 keys removed, revision N\n");
    assert_eq!(cli.json_line(&["ns", "clear", name, "--yes"], 0)["cleared"], 0);
    cli.ok(&["ns", "delete", name, "--yes"], &format!("namespace {name} removed\n"));
    assert_eq!(cli.json_line(&["ns", "delete", name, "--yes"], 1)["deleted"], false);
}
