//! What Redis' errors mean, slots, and what is known of a server's setup.

use redis::{ServerError, parse_redis_value};

use super::{
    cluster::slot,
    connection::{Connection, OnPush},
    found::{Found, Kept, is_new_enough},
    health::Health,
    refusal::Refusal,
    *,
};
use crate::backend::redis::url::{Address, Settings};

fn refusal(answer: &str) -> Refusal {
    let value = parse_redis_value(format!("-{answer}\r\n").as_bytes()).unwrap();
    Refusal::of(&ServerError::try_from(value.extract_error().unwrap_err()).unwrap())
}

fn address(host: &str, port: u16) -> Address {
    Address { host: host.into(), port }
}

#[test]
fn what_was_refused_before_it_was_run_is_unavailable() {
    for answer in [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
        "READONLY You can't write against a read only replica.",
        "READONLY You can't write against a read only replica. script: 1234, on @user_script:3.",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "CLUSTERDOWN The cluster is down",
        "NOREPLICAS Not enough good replicas to write.",
        "MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk.",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "NOPERM this user has no permissions to run the 'evalsha' command",
        "ERR max number of clients reached",
        "ERR Script killed by user with SCRIPT KILL... script: 1234, on @user_script:1.",
        "DENIED Redis is running in protected mode",
        "CROSSSLOT Keys in request don't hash to the same slot",
        "TRYAGAIN Multiple keys request during rehashing of slot",
    ] {
        let error = LinkError::from(refusal(answer));
        assert!(matches!(error, LinkError::Unavailable(_)), "{answer}: {error:?}");
    }
}

#[test]
fn what_others_meet_too_makes_a_server_unwritable() {
    for (answer, expected) in [
        ("OOM command not allowed", true),
        ("MISCONF Errors writing to the AOF file: No space left on device", true),
        ("NOPERM this user has no permissions to run the 'evalsha' command", false),
        ("TRYAGAIN Multiple keys request during rehashing of slot", false),
    ] {
        let is_unwritable = matches!(refusal(answer), Refusal::Unwritable(_));
        assert_eq!(is_unwritable, expected, "{answer}");
    }
}

#[test]
fn what_a_script_says_is_its_own() {
    for (answer, expected) in [
        ("FORMAT version 9 is unknown", "FORMAT version 9 is unknown"),
        ("ERR user_script:1: oops script: 1234, on @user_script:1.", "ERR user_script:1: oops"),
        ("WRONGTYPE Operation against a key script: 1234, on @user_script:1.", "WRONGTYPE"),
        // It may have written before.
        ("NOPERM the user can't run 'xadd' script: 1234, on @user_script:1.", "NOPERM"),
    ] {
        match LinkError::from(refusal(answer)) {
            LinkError::Script(text) => assert!(text.starts_with(expected), "{text}"),
            other => panic!("{answer}: {other:?}"),
        }
    }
}

#[test]
fn redirects_are_read() {
    let moved = |slot, host, port| Refusal::Moved { slot, address: address(host, port) };
    assert_eq!(refusal("MOVED 3999 10.0.0.1:6381"), moved(3999, "10.0.0.1", 6381));
    assert_eq!(refusal("MOVED 1 :6381"), moved(1, "", 6381));
    assert_eq!(refusal("MOVED 1 2001:db8::1:6381"), moved(1, "2001:db8::1", 6381));
    assert_eq!(
        refusal("ASK 3999 redis-2:6381"),
        Refusal::Ask { address: address("redis-2", 6381) }
    );
    assert_eq!(refusal("NOSCRIPT No matching script."), Refusal::NoScript);
    assert!(matches!(refusal("MOVED nowhere"), Refusal::Unavailable(_)));
}

#[test]
fn slots_are_those_of_redis() {
    // By `CLUSTER KEYSLOT`.
    for (key, expected) in [
        ("123456789", 12739),
        ("foo", 12182),
        ("holdfast:{foo}:head", 12182),
        ("{}foo", slot(b"{}foo")),
        ("foo{bar}{zap}", slot(b"bar")),
        ("foo{{bar}}zap", slot(b"{bar")),
    ] {
        assert_eq!(slot(key.as_bytes()), expected, "{key}");
    }
    assert_ne!(slot(b"{}foo"), slot(b""));
}

#[test]
fn what_holds_of_two_servers_is_the_less() {
    let found = |kept, replicas, eviction: &str| Found {
        version: Some("7.2.4".into()),
        eviction: Some(eviction.into()),
        kept: Some(kept),
        replicas: Some(replicas),
        waited_for: 1,
    };
    let both =
        found(Kept::SyncedAlways, 1, "noeviction").with(found(Kept::Snapshots, 2, "allkeys-lru"));
    assert_eq!(both, found(Kept::Snapshots, 1, "allkeys-lru"));
    assert!(both.durability().contains("the replica that was waited for"), "{}", both.durability());
}

#[test]
fn old_versions_are_refused() {
    for (version, expected) in [
        ("7.0.15", true),
        ("7.2.4", true),
        ("10.0", true),
        ("6.2.14", false),
        ("255.255.255", true),
        ("", true),
    ] {
        assert_eq!(is_new_enough(version), expected, "{version}");
    }
}

#[test]
fn health_follows_those_that_take_writes() {
    let health = Health::new();
    let writable = health.writable();
    assert!(*writable.borrow());
    health.report("a", Some("OOM".into()));
    assert!(!*writable.borrow());
    assert_eq!(health.reason("a").as_deref(), Some("OOM"));
    health.report("b", None);
    assert!(*writable.borrow(), "others take writes");
    health.forget("b");
    assert!(!*writable.borrow());
    health.report("a", None);
    assert!(*writable.borrow());
    assert_eq!(health.reason("a"), None);
}

#[tokio::test]
async fn where_nothing_listens_is_said_without_the_password() {
    // Bound and not listened on, so that nobody else takes it.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let rest = format!("//user:hunter2@127.0.0.1:{port}");
    let settings = Settings::parse("redis", &rest).unwrap();
    assert!(!format!("{settings:?}").contains("hunter2"));
    let ignore: OnPush = Box::new(|_| {});
    let server = &settings.servers[0];
    let problem =
        Connection::open(&settings, &settings.login, 0, server, ignore).await.unwrap_err();
    assert!(!problem.contains("hunter2"), "{problem}");
    let problem = Link::open(settings).await.unwrap_err();
    assert!(problem.contains(&format!("Redis at 127.0.0.1:{port}")), "{problem}");
    assert!(!problem.contains("hunter2"), "{problem}");
}
