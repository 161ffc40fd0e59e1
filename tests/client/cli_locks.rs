//! `lock`, `locks`, `unlock`, and guards.

use std::time::Instant;

use serde_json::{Value, json};

use crate::{
    fixture::{self, PATIENCE, with_namespace},
    program::{Cli, HOLDFAST, Running, parse, tidy},
    proxy::Proxy,
};

/// A command that says when it is there, and what it was sent.
const TRAPS: &str =
    r#"trap 'echo asked to end; exit 9' TERM; echo ready; while :; do sleep 1 & wait; done"#;

#[test]
fn a_command_runs_while_the_lock_is_held() {
    let cli = Cli::new("lock");
    let script = r#"echo "$HOLDFAST_LOCK_NAME $HOLDFAST_LOCK_TOKEN"; "$0" -o json locks"#;
    let program = HOLDFAST.to_str().expect("the path is UTF-8");
    let done = cli.run(&["lock", "job", "--who", "ann", "--", "sh", "-c", script, program]);
    assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{done:?}");
    let (environment, held) = done.stdout.split_once('\n').expect("two lines");
    let held = parse(held.trim_end());
    assert_eq!(environment, format!("job {}", held["token"]));
    assert_eq!((&held["name"], &held["owner"]["who"]), (&json!("job"), &json!("ann")));
    assert_eq!((&held["ttl_ms"], &held["waiting"]), (&json!(30_000), &json!(0)));
    assert_free(&cli);
}

#[test]
fn a_command_gets_the_input_and_the_status_is_its_own() {
    let cli = Cli::new("lock_status");
    let done = cli.run_with_input(&["lock", "a", "--", "cat"], b"from outside");
    assert_eq!((done.status, done.stdout.as_str()), (0, "from outside"), "{done:?}");
    assert_eq!(cli.run(&["lock", "a", "--", "sh", "-c", "exit 7"]).status, 7);
    assert_eq!(cli.run(&["lock", "a", "--", "sh", "-c", "kill -9 $$"]).status, 137);
    let done = cli.run(&["lock", "a", "--", "/no/such/program"]);
    assert_eq!(done.status, 127, "{done:?}");
    assert!(done.stderr.starts_with("holdfast: cannot run \"/no/such/program\": "), "{done:?}");
    assert_eq!(cli.run(&["lock", "a", "--", "/"]).status, 126);
    // Its own failures are told apart from those of the command.
    assert_eq!(cli.run(&["lock", "a", "--ttl", "0s", "--", "true"]).status, 125);
    assert_free(&cli);
}

#[test]
fn a_lock_that_another_holds_is_no() {
    let cli = Cli::new("lock_taken");
    let args = ["lock", "a", "--who", "ann", "--reason", "lunch"];
    let (holder, token) = held(&cli, &args);
    let told = |stderr: &str| {
        assert!(stderr.starts_with("holdfast: the lock \"a\" is held by ann ("), "{stderr}");
        assert!(stderr.contains("): lunch, since "), "{stderr}");
        assert!(stderr.ends_with(&format!(", with the token {token}\n")), "{stderr}");
    };
    for (args, status) in [
        (&["lock", "a", "--", "echo", "not run"][..], 1),
        (&["lock", "a", "--wait", "1ms", "--", "echo", "not run"], 1),
        (&["lock", "a", "--conflict-exit-code", "42", "--", "echo", "not run"], 42),
        (&["lock", "a"], 1),
    ] {
        let done = cli.run(args);
        assert_eq!((done.status, done.stdout.as_str()), (status, ""), "{args:?}: {done:?}");
        told(&done.stderr);
    }
    let taken = cli.json_line(&["lock", "a"], 1);
    assert_eq!(
        (&taken["acquired"], &taken["holder"]["token"]),
        (&json!(false), &json!(token)),
        "{taken}"
    );
    // With a command the standard output is that of the command.
    let done = cli.run(&["-o", "json", "lock", "a", "--", "echo", "not run"]);
    assert_eq!((done.status, done.stdout.as_str()), (1, ""), "{done:?}");
    assert_eq!(parse(done.stderr.trim_end())["holder"]["owner"]["reason"], "lunch");
    end(holder);
    assert_free(&cli);
}

#[test]
fn a_lock_can_be_waited_for() {
    let cli = Cli::new("lock_wait");
    let (holder, token) = held(&cli, &["lock", "a"]);
    let script = "echo $HOLDFAST_LOCK_TOKEN";
    let waiting = cli.start(&["lock", "a", "--wait", "--", "sh", "-c", script]);
    wait_until(|| cli.json_line(&["locks"], 0)["waiting"] == 1);
    end(holder);
    let next: u64 = waiting.line().parse().expect("a token");
    assert!(next > token, "{next} after {token}");
    let (status, rest) = waiting.end();
    assert_eq!((status.code(), rest), (Some(0), vec![]));
}

#[test]
fn waiting_ends_by_a_signal_and_the_place_is_given_up() {
    let cli = Cli::new("lock_wait_signal");
    let (_holder, _) = held(&cli, &["lock", "a"]);
    let waiting = cli.start(&["lock", "a", "--wait", "1h", "--", "echo", "not run"]);
    wait_until(|| cli.json_line(&["locks"], 0)["waiting"] == 1);
    waiting.signal("TERM");
    let (status, rest) = waiting.end();
    assert_eq!((status.code(), rest), (Some(143), vec![]));
    wait_until(|| cli.json_line(&["locks"], 0)["waiting"] == 0);
}

#[test]
fn a_lock_that_may_have_been_granted_is_given_up() {
    with_namespace("lock_late", async |ns| {
        let cli = Cli { namespace: ns.name().to_owned() };
        let proxy = Proxy::to(fixture::shared()).await;
        proxy.hold_back();
        let addr = format!("http://{}", proxy.address);
        let args = ["--addr", &addr, "--timeout", "2s", "lock", "a", "--ttl", "1h", "--", "true"];
        let (status, rest) = cli.start(&args).end();
        assert_eq!(status.code(), Some(125), "{rest:?}");
        wait_until(|| cli.run(&["locks"]).stdout.is_empty());
    });
}

#[test]
fn without_a_command_the_lock_is_held_until_a_signal() {
    let cli = Cli::new("lock_hold");
    let holder = cli.start(&["-o", "json", "lock", "a", "--ttl", "1m"]);
    let answer = parse(&holder.line());
    assert_eq!((&answer["acquired"], &answer["lock"]["ttl_ms"]), (&json!(true), &json!(60_000)));
    holder.signal("TERM");
    let (status, rest) = holder.end();
    assert_eq!((status.code(), rest), (Some(0), vec![]));
    assert_free(&cli);
}

#[test]
fn signals_are_passed_on_and_the_lock_is_released_afterwards() {
    let cli = Cli::new("lock_signals");
    let running = cli.start(&["lock", "a", "--", "sh", "-c", TRAPS]);
    assert_eq!(running.line(), "ready");
    running.signal("TERM");
    assert_eq!(running.line(), "asked to end");
    let (status, rest) = running.end();
    assert_eq!((status.code(), rest), (Some(9), vec![]));
    assert_free(&cli);
    // What the command has started gets them, too: the shell would wait for it.
    let running = cli.start(&["lock", "a", "--", "sh", "-c", "echo ready; sleep 600; echo over"]);
    assert_eq!(running.line(), "ready");
    running.signal("HUP");
    let (status, rest) = running.end();
    assert_eq!((status.code(), rest), (Some(129), vec![]));
    assert_free(&cli);
}

#[test]
fn a_lock_that_cannot_be_told_of_is_released() {
    let cli = Cli::new("lock_unread");
    let done = cli.run_unread(&["lock", "a"]);
    assert_eq!(done.status, 125, "{done:?}");
    assert!(done.stderr.starts_with("holdfast: cannot write the output: "), "{done:?}");
    assert_free(&cli);
}

#[test]
fn a_command_is_ended_when_its_lock_is_lost() {
    let cli = Cli::new("lock_lost");
    let running = cli.start(&["lock", "a", "--ttl", "10s", "--", "sh", "-c", TRAPS]);
    assert_eq!(running.line(), "ready");
    unlock(&cli, "a", "enough");
    assert_eq!(running.line(), "asked to end");
    assert_lost(running, "enough");
    assert_free(&cli);
}

#[test]
fn a_command_is_ended_before_a_hold_that_cannot_be_renewed() {
    with_namespace("lock_cut_off", async |ns| {
        let cli = Cli { namespace: ns.name().to_owned() };
        let proxy = Proxy::to(fixture::shared()).await;
        let addr = format!("http://{}", proxy.address);
        let args = ["--addr", &addr, "lock", "a", "--ttl", "12s", "--", "sh", "-c", TRAPS];
        let running = cli.start(&args);
        assert_eq!(running.line(), "ready");
        let held = ns.get_lock("a").await.expect("answers").expect("is held");
        proxy.block();
        assert_eq!(running.line(), "asked to end");
        let still = ns.get_lock("a").await.expect("answers");
        assert_eq!(still.map(|lock| lock.token), Some(held.token));
        assert_lost(running, "it could not be renewed in time");
    });
}

#[test]
fn a_command_that_does_not_end_is_killed() {
    let cli = Cli::new("lock_killed");
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let args = ["lock", "a", "--ttl", "10s", "--kill-after", "50ms", "--", "sh", "-c", script];
    let running = cli.start(&args);
    assert_eq!(running.line(), "ready");
    unlock(&cli, "a", "enough");
    assert_lost(running, "enough");
}

#[test]
fn a_hold_without_a_command_ends_when_it_is_lost() {
    let cli = Cli::new("lock_hold_lost");
    let (holder, _) = held(&cli, &["lock", "a", "--ttl", "10s"]);
    unlock(&cli, "a", "enough");
    assert_lost(holder, "enough");
}

#[test]
fn locks_are_listed_by_name() {
    let cli = Cli::new("locks");
    assert_free(&cli);
    let (_b, token) = held(&cli, &["lock", "b:1", "--who", "ann"]);
    let (_a, _) = held(&cli, &["lock", "a"]);
    let names: Vec<Value> = cli.json(&["locks"], 0).iter().map(|l| l["name"].clone()).collect();
    assert_eq!(names, ["a", "b:1"]);
    let done = cli.run(&["locks", "b:"]);
    let fields: Vec<&str> = done.stdout.trim_end().split('\t').collect();
    assert_eq!((fields[0], fields[1].parse()), ("b:1", Ok(token)), "{done:?}");
    assert!(fields[2].starts_with("ann (") && fields[3].starts_with("until 20"), "{done:?}");
    assert_eq!(fields[4..], ["0 waiting"]);
}

#[test]
fn unlock_needs_the_token_of_the_hold() {
    let cli = Cli::new("unlock");
    let (_holder, token) = held(&cli, &["lock", "a"]);
    let other = (token + 1).to_string();
    let remark = "holdfast: nothing was changed: the lock \"a\" is not held with the token N\n";
    cli.fails(&["unlock", "a", "--token", &other], 1, remark);
    let refused = cli.json_line(&["unlock", "a", "--token", &other], 1);
    assert_eq!((&refused["unlocked"], &refused["name"]), (&json!(false), &json!("a")));
    let unlocked = cli.json_line(&["unlock", "a", "--token", &token.to_string()], 0);
    assert_eq!((&unlocked["unlocked"], &unlocked["token"]), (&json!(true), &json!(token)));
    cli.fails(&["unlock", "a", "--token", &token.to_string()], 1, remark);
    assert_free(&cli);
}

#[test]
fn guarded_writes_are_applied_while_the_lock_is_held() {
    let cli = Cli::new("guards");
    let script = r#"
        guard="--guard $HOLDFAST_LOCK_NAME=$HOLDFAST_LOCK_TOKEN"
        set -e
        "$0" set k 1 $guard
        "$0" mset l=1 m=1 $guard
        "$0" incr n $guard
        "$0" expire k 1h $guard
        echo '{"then": [{"del": {"key": "m"}}]}' | "$0" txn - $guard
        "$0" del l $guard
        "$0" del --prefix n $guard"#;
    let program = HOLDFAST.to_str().expect("the path is UTF-8");
    cli.ok(
        &["lock", "a=b", "--", "sh", "-c", script, program],
        "created, revision N\n2 created, 0 changed, revision N\n1\nk ends in 1h, revision N\n\
         succeeded, revision N\ndel\tm\t1 deleted\n1 deleted, revision N\n1 deleted, revision N\n",
    );
    cli.ok(&["list"], "k\t1\n");
}

#[test]
fn guarded_writes_are_refused_when_the_lock_is_lost() {
    let cli = Cli::new("guards_lost");
    let (holder, token) = held(&cli, &["lock", "a"]);
    end(holder);
    let guard = format!("a={token}");
    for write in [
        &["set", "k", "1"][..],
        &["mset", "k=1"],
        &["incr", "k"],
        &["expire", "k", "1h"],
        &["del", "k"],
        &["del", "k", "--if-revision", "7"],
        &["del", "--prefix", "k"],
    ] {
        let done = cli.run(&[write, &["--guard", &guard]].concat());
        assert_eq!((done.status, done.stdout.as_str()), (1, ""), "{write:?}: {done:?}");
        assert!(done.stderr.contains("the lock \"a\""), "{done:?}");
    }
    let text = br#"{"then": [{"set": {"key": "k", "value": "1"}}]}"#;
    let done = cli.run_with_input(&["-o", "json", "txn", "-", "--guard", &guard], text);
    assert_eq!((done.status, done.stdout.as_str()), (1, ""), "{done:?}");
    assert_eq!(parse(done.stderr.trim_end())["error"]["reason"], "LOCK_LOST");
    cli.ok(&["count"], "0\n");
}

#[test]
fn a_transaction_compares_tokens() {
    let cli = Cli::new("txn_token");
    let (holder, token) = held(&cli, &["lock", "a"]);
    let text = format!(
        r#"{{"compare": [{{"lock": "a", "token": {token}}}], "then": [{{"incr": {{"key": "k"}}}}]}}"#
    );
    let run = || cli.run_with_input(&["txn", "-"], text.as_bytes());
    let done = run();
    assert_eq!(
        (done.status, tidy(&done.stdout).as_str()),
        (0, "succeeded, revision N\nincr\tk\t1\n")
    );
    end(holder);
    let done = run();
    let expected = "not done, revision N\ncompare\ta\tdoes not hold\n";
    assert_eq!((done.status, tidy(&done.stdout).as_str()), (1, expected));
}

/// Starts a holder without a command, and waits until it has the lock; its token, too.
fn held(cli: &Cli, args: &[&str]) -> (Running, u64) {
    let holder = cli.start(args);
    let token = holder.line().parse().expect("a token");
    (holder, token)
}

/// Ends a holder, which gives its lock up.
#[track_caller]
fn end(holder: Running) {
    holder.interrupt();
    let (status, rest) = holder.end();
    assert_eq!((status.code(), rest), (Some(0), vec![]));
}

/// Takes a lock away from whoever holds it.
#[track_caller]
fn unlock(cli: &Cli, name: &str, reason: &str) {
    let token = cli.json_line(&["locks", name], 0)["token"].to_string();
    let args = ["unlock", name, "--token", &token, "--reason", reason];
    cli.ok(&args, "unlocked, revision N\n");
}

#[track_caller]
fn assert_lost(running: Running, reason: &str) {
    let (status, rest) = running.end();
    assert_eq!(status.code(), Some(125), "{rest:?}");
    let told = rest.last().expect("it says why");
    assert!(told.starts_with("holdfast: the lock \"a\" was "), "{told}");
    assert!(told.contains("lost: ") && told.contains(reason), "{told}");
}

#[track_caller]
fn assert_free(cli: &Cli) {
    cli.ok(&["locks"], "");
}

/// Asks until it is so; each time a program runs, which takes a while.
#[track_caller]
fn wait_until(so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "it does not come to be so");
    }
}
