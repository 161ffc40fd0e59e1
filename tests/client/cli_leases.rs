//! `lease` and `elect`.

use std::time::Duration;

use holdfast_client::LeaseId;
use serde_json::json;

use crate::{
    fixture::{self, with_namespace},
    program::{Cli, parse, tidy},
    proxy::Proxy,
};

#[test]
fn keys_live_as_long_as_their_lease() {
    let cli = Cli::new("lease");
    let id = granted(&cli, &["lease", "grant", "1h"]);
    cli.ok(&["set", "a", "1", "--lease", &id], "created, revision N\n");
    cli.ok(&["mset", "b=2", "c=3", "--lease", &id], "2 created, 0 changed, revision N\n");
    assert_eq!(cli.json_line(&["get", "a"], 0)["lease_id"], json!(id));
    let lease = cli.json_line(&["lease", "get", &id], 0);
    assert_eq!((&lease["found"], &lease["lease_id"]), (&json!(true), &json!(id)));
    assert_eq!((&lease["ttl_ms"], &lease["key_count"]), (&json!(3_600_000), &json!(3)));
    assert_eq!((&lease["keys"], &lease["locks"]), (&json!(["a", "b", "c"]), &json!([])));
    // A write that does not name the lease detaches its key.
    cli.ok(&["set", "c", "3"], "changed, revision N\n");
    cli.ok(&["set", "b", "2", "--keep-ttl"], "changed, revision N\n");
    cli.ok(&["lease", "revoke", &id], "revoked, with 2 keys and 0 locks, revision N\n");
    cli.ok(&["list"], "c\t3\n");
    let events = cli.json(&["history", "a", "--limit", "1"], 0);
    assert_eq!((&events[0]["type"], &events[0]["reason"]), (&json!("delete"), &json!("revoked")));
    cli.ok(&["history", "b", "--limit", "1"], "N\tDELETE\tb\tits lease was revoked\n");
}

#[test]
fn keys_end_with_a_lease_that_is_not_kept_alive() {
    with_namespace("lease_expires", async |ns| {
        let cli = Cli { namespace: ns.name().to_owned() };
        let watch = cli.start(&["-o", "json", "watch", "--expiries", "--count", "1"]);
        assert_eq!(parse(&watch.line())["type"], "watching");
        // Kept alive as long as it takes to write a key.
        let lease = ns.grant_lease(Duration::from_secs(5)).await.expect("granted");
        let id = lease.id().get().to_string();
        cli.ok(&["set", "a", "1", "--lease", &id], "created, revision N\n");
        lease.detach();
        let event = parse(&watch.line());
        assert_eq!((&event["type"], &event["reason"]), (&json!("expire"), &json!("lease")));
        assert_eq!(event["previous"]["lease_id"], json!(id));
        assert_eq!(watch.end().0.code(), Some(0));
        let gone = format!("holdfast: there is no lease {id} in the namespace {:?}\n", ns.name());
        cli.fails(&["lease", "keepalive", &id], 1, &tidy(&gone));
    });
}

#[test]
fn a_lease_is_kept_alive_until_a_signal() {
    with_namespace("lease_keepalive", async |ns| {
        let cli = Cli { namespace: ns.name().to_owned() };
        // Kept alive until the program does so.
        let lease = ns.grant_lease(Duration::from_secs(6)).id(LeaseId::new(7));
        let lease = lease.await.expect("granted");
        let keeping = cli.start(&["-o", "json", "lease", "keepalive", "7"]);
        assert_eq!(parse(&keeping.line())["lease_id"], json!("7"));
        lease.detach();
        // More often than its TTL alone would allow.
        for _ in 0..4 {
            assert_eq!(parse(&keeping.line())["lease_id"], json!("7"));
        }
        keeping.interrupt();
        assert_eq!(keeping.end().0.code(), Some(0));
        let once = granted(&cli, &["lease", "grant", "1h"]);
        let kept = cli.json_line(&["lease", "keepalive", &once, "--once"], 0);
        assert_eq!(kept["ttl_ms"], 3_600_000);
    });
}

#[test]
fn a_lease_is_kept_alive_although_an_answer_is_late() {
    with_namespace("lease_late", async |ns| {
        let cli = Cli { namespace: ns.name().to_owned() };
        let proxy = Proxy::to(fixture::shared()).await;
        let lease = ns.grant_lease(Duration::from_secs(9)).id(LeaseId::new(7));
        lease.await.expect("granted").detach();
        let addr = format!("http://{}", proxy.address);
        // An answer that is waited for so long comes when the lease has ended.
        let args = ["--addr", &addr, "--timeout", "1h", "lease", "keepalive", "7"];
        let keeping = cli.start(&args);
        assert!(keeping.line().starts_with("7\t"));
        proxy.hold_back();
        let told = keeping.line();
        assert!(told.starts_with("holdfast: asking again: "), "{told}");
        proxy.let_go();
        assert!(keeping.line().starts_with("7\t"));
        keeping.interrupt();
        assert_eq!(keeping.end().0.code(), Some(0));
    });
}

#[test]
fn leases_are_listed_and_missing_ones_are_no() {
    let cli = Cli::new("lease_list");
    let name = &cli.namespace;
    let missing = format!("holdfast: there is no lease 5 in the namespace {name:?}\n");
    cli.fails(&["lease", "get", "5"], 1, &missing);
    cli.fails(&["lease", "revoke", "5"], 1, &missing);
    assert_eq!(cli.json_line(&["lease", "get", "5"], 1), json!({"found": false, "lease_id": "5"}));
    assert_eq!(cli.json_line(&["lease", "revoke", "5"], 1)["revoked"], json!(false));
    for id in ["9", "5"] {
        granted(&cli, &["lease", "grant", "1h", "--id", id]);
    }
    let again = cli.run(&["-o", "json", "lease", "grant", "1h", "--id", "5"]);
    assert_eq!(again.status, 3, "{again:?}");
    assert_eq!(parse(again.stderr.trim_end())["error"]["reason"], "LEASE_ID_USED");
    let ids: Vec<_> =
        cli.json(&["lease", "list"], 0).iter().map(|l| l["lease_id"].clone()).collect();
    assert_eq!(ids, ["5", "9"]);
    let done = cli.run(&["lease", "list"]);
    let first: Vec<&str> = done.stdout.lines().next().expect("a line").split('\t').collect();
    assert_eq!((first[0], first[1], &first[3..]), ("5", "1h", &["0 keys", "0 locks"][..]));
    let unknown = cli.run(&["-o", "json", "set", "k", "1", "--lease", "6"]);
    assert_eq!(unknown.status, 3, "{unknown:?}");
    assert_eq!(parse(unknown.stderr.trim_end())["error"]["reason"], "LEASE_NOT_FOUND");
}

#[test]
fn one_is_elected_and_the_next_when_it_resigns() {
    let cli = Cli::new("elect");
    let listening = cli.start(&["elect", "e", "--listen"]);
    assert_eq!(listening.line(), "-");
    let first = cli.start(&["elect", "e", "here:1", "--who", "ann"]);
    assert_eq!(tidy(&first.line()), "elected, token N");
    assert_eq!(tidy(&listening.line()), "N\there:1");
    let done = cli.run(&["elect", "e", "here:2", "--wait", "1ms"]);
    assert_eq!((done.status, done.stdout.as_str()), (1, ""), "{done:?}");
    assert!(done.stderr.starts_with("holdfast: not elected: here:1 leads, which is "), "{done:?}");
    let refused = cli.json_line(&["elect", "e", "here:2", "--wait", "1ms"], 1);
    assert_eq!(
        (&refused["elected"], &refused["leader"]["value"]),
        (&json!(false), &json!("here:1"))
    );
    let second = cli.start(&["-o", "json", "elect", "e", "here:2"]);
    first.interrupt();
    assert_eq!(first.end().0.code(), Some(0));
    let elected = parse(&second.line());
    assert_eq!((&elected["elected"], &elected["name"]), (&json!(true), &json!("e")));
    // Between the two, nobody may have led.
    let mut line = listening.line();
    if line == "-" {
        line = listening.line();
    }
    assert_eq!(line, format!("{}\there:2", elected["token"]));
    second.signal("TERM");
    assert_eq!(second.end().0.code(), Some(0));
    assert_eq!(listening.line(), "-");
    listening.interrupt();
    let (status, rest) = listening.end();
    assert_eq!((status.code(), rest), (Some(0), vec![]));
}

#[test]
fn a_leader_that_is_deposed_says_so() {
    let cli = Cli::new("elect_lost");
    let leader = cli.start(&["elect", "e", "here", "--ttl", "10s"]);
    assert_eq!(tidy(&leader.line()), "elected, token N");
    let token = cli.json_line(&["locks", "e"], 0)["token"].to_string();
    cli.ok(&["unlock", "e", "--token", &token, "--reason", "enough"], "unlocked, revision N\n");
    let (status, rest) = leader.end();
    assert_eq!(status.code(), Some(3), "{rest:?}");
    assert!(rest[0].contains("was lost") && rest[0].contains("enough"), "{rest:?}");
}

#[test]
fn a_leader_that_cannot_tell_of_it_resigns() {
    let cli = Cli::new("elect_unread");
    let done = cli.run_unread(&["elect", "e", "here"]);
    assert_eq!(done.status, 3, "{done:?}");
    assert!(done.stderr.starts_with("holdfast: cannot write the output: "), "{done:?}");
    cli.ok(&["locks"], "");
}

/// Runs what prints the id of a lease.
#[track_caller]
fn granted(cli: &Cli, args: &[&str]) -> String {
    let done = cli.run(args);
    assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{args:?}: {done:?}");
    done.stdout.trim_end().to_owned()
}
