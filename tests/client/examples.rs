//! The examples of the client do what they say.

use holdfast_client::{Client, Error};

use crate::fixture::with_namespace;

#[path = "../../client/examples/job_queue.rs"]
#[allow(dead_code, reason = "its `main` is for the command line")]
mod job_queue;
#[path = "../../client/examples/leader_election.rs"]
#[allow(dead_code, reason = "its `main` is for the command line")]
mod leader_election;
#[path = "../../client/examples/live_configuration.rs"]
#[allow(dead_code, reason = "its `main` is for the command line")]
mod live_configuration;
#[path = "../../client/examples/rate_limiter.rs"]
#[allow(dead_code, reason = "its `main` is for the command line")]
mod rate_limiter;
#[path = "../../client/examples/session_store.rs"]
#[allow(dead_code, reason = "its `main` is for the command line")]
mod session_store;

/// Runs an example in a namespace of its own, and compares what it tells.
fn check(
    name: &str,
    example: impl AsyncFnOnce(Client, &str) -> Result<Vec<String>, Error>,
    expected: &[&str],
) {
    with_namespace(name, async |ns| {
        let told = example(ns.client().clone(), ns.name()).await.expect("the example runs");
        assert_eq!(told, expected);
    });
}

#[test]
fn sessions_end_and_are_told() {
    let expected = [
        "bob's cart has all three: true",
        "who comes with ann's cookie: Some(\"ann\")",
        "ann signs out: true",
        "who comes with it now: None",
        "sessions of carl that end: 2",
        "bob went away and left [\"apples\", \"pears\", \"plums\"]",
        "bob is still there: false",
    ];
    check("sessions", session_store::run, &expected);
}

#[test]
fn limits_hold_under_many_calls_at_once() {
    let expected = [
        "the window admits 10 of 50",
        "and somebody else: Admitted",
        "the bucket admits 5 of 50",
        "the next within its interval: true",
        "who waits as told gets through: 3 times",
    ];
    check("limits", rate_limiter::run, &expected);
}

#[test]
fn every_job_is_done_once_though_workers_die() {
    let expected = [
        "mortal dies with the job of Some(1)",
        "the others complete 20 jobs",
        "what comes from late counts: false",
        "20 results, which add up to 2870",
    ];
    check("jobs", job_queue::run, &expected);
}

#[test]
fn leaders_follow_one_another_and_the_former_is_refused() {
    let expected = [
        "the first has done its work: true",
        "observed: Some(\"10.0.0.1\")",
        "the second has done its work: true",
        "observed: Some(\"10.0.0.2\")",
        "who led yesterday is refused: true",
        "the plan is Some(\"of the second\")",
    ];
    check("leaders", leader_election::run, &expected);
}

#[test]
fn settings_change_while_the_program_runs() {
    let expected = [
        "at first: Settings { workers: 4, greeting: \"hello\" }",
        "changed: Settings { workers: 8, greeting: \"welcome\" }",
        "refused: Some(\"there must be a worker\")",
        "still: Settings { workers: 8, greeting: \"welcome\" }",
        "the flag is on: false",
        "the flag is on: true",
    ];
    check("configuration", live_configuration::run, &expected);
}
