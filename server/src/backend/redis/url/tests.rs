//! What is in URLs, and what may not be.

use std::time::Duration;

use super::{Address, Kind, Settings, Tls};

fn parse(url: &str) -> Result<Settings, String> {
    let (scheme, rest) = url.split_once(':').unwrap();
    Settings::parse(scheme, rest)
}

fn servers(settings: &Settings) -> Vec<String> {
    settings.servers.iter().map(Address::to_string).collect()
}

#[test]
fn what_is_not_set_has_a_default() {
    let settings = parse("redis://localhost").unwrap();
    assert_eq!(settings.kind, Kind::Single);
    assert_eq!(servers(&settings), ["localhost:6379"]);
    assert_eq!((settings.tls, settings.database, settings.wait), (None, 0, None));
    assert_eq!(settings.prefix, "holdfast");
    assert_eq!(settings.connect_timeout, Duration::from_secs(2));
    assert_eq!(settings.command_timeout, Duration::from_secs(5));
    assert!(settings.login.user.is_none() && settings.login.password.is_none());
}

#[test]
fn what_is_set_is_taken() {
    let url = "rediss://me%40home:p%3A%2F%25@[::1]:7000/3?prefix=a:b&connect_timeout=250ms&command_timeout=1s\
        &wait_replicas=2&wait_timeout=3s&ca=/etc/ca.pem&cert=c.pem&key=k%26.pem";
    let settings = parse(url).unwrap();
    assert_eq!(servers(&settings), ["[::1]:7000"]);
    assert_eq!(settings.login.user.as_deref(), Some("me@home"));
    assert_eq!(settings.login.password.unwrap().expose(), "p:/%");
    assert_eq!((settings.database, &settings.prefix[..]), (3, "a:b"));
    assert_eq!(settings.connect_timeout, Duration::from_millis(250));
    assert_eq!(settings.command_timeout, Duration::from_secs(1));
    assert_eq!(settings.wait, Some((2, Duration::from_secs(3))));
    let cert = Some(("c.pem".into(), "k&.pem".into()));
    assert_eq!(settings.tls, Some(Tls { ca: Some("/etc/ca.pem".into()), cert }));
}

#[test]
fn sentinels_have_a_master_and_a_login_of_their_own() {
    let url = "redis+sentinel://:one@s1,s2:5000/my%2Fmaster/2?sentinel_user=watch&sentinel_password=t%40wo&tls=true";
    let settings = parse(url).unwrap();
    assert_eq!(settings.kind, Kind::Sentinel { master: "my/master".into() });
    assert_eq!(servers(&settings), ["s1:26379", "s2:5000"]);
    assert_eq!((settings.database, settings.tls), (2, Some(Tls::default())));
    assert_eq!(settings.login.user, None);
    assert_eq!(settings.login.password.unwrap().expose(), "one");
    assert_eq!(settings.sentinel_login.user.as_deref(), Some("watch"));
    assert_eq!(settings.sentinel_login.password.unwrap().expose(), "t@wo");
}

#[test]
fn clusters_have_several_servers() {
    let settings = parse("rediss+cluster://a,b:7001,[fe80::1]").unwrap();
    assert_eq!(settings.kind, Kind::Cluster);
    assert_eq!(servers(&settings), ["a:6379", "b:7001", "[fe80::1]:6379"]);
    assert_eq!(settings.tls, Some(Tls::default()));
}

#[test]
fn what_is_wrong_is_named() {
    for (url, expected) in [
        ("redis:localhost", "needs `//` and a server"),
        ("redis://", "needs a server"),
        ("redis:///0", "needs a server"),
        ("redis://a,b", "takes one server"),
        ("redis://a:port", "not `a:port`"),
        ("redis://a:0", "not `a:0`"),
        ("redis://a:65536", "not `a:65536`"),
        ("redis://::1", "not `::1`"),
        ("redis://[::1", "not `[::1`"),
        ("redis://a b", "not `a b`"),
        ("redis+cluster://a,", "not ``"),
        ("redis://a/x", "as the database, not `x`"),
        ("redis://a/-1", "as the database, not `-1`"),
        ("redis+cluster://a/1", "a cluster has only 0"),
        ("redis+sentinel://a", "needs the master's name"),
        ("redis+sentinel://a/m/x", "as the database, not `x`"),
        ("redis://me@a", "with a colon"),
        ("redis://me:@a", "no password"),
        ("redis://%ff:a@a", "UTF-8 as the user"),
        ("redis://a?prefixx=b", "has no option `prefixx`; known are prefix, connect_timeout,"),
        ("redis://a?tls=true", "has no option `tls`"),
        ("redis://a?sentinel_user=b", "has no option `sentinel_user`"),
        ("redis://a?prefix=", "as `prefix`, not ``"),
        ("redis://a?prefix={b}", "as `prefix`, not `{b}`"),
        ("redis://a?prefix=b%20c", "as `prefix`, not `b c`"),
        ("redis://a?prefix=b&prefix=c", "has `prefix` twice"),
        ("redis://a?connect_timeout=2", "as `connect_timeout`, not `2`"),
        ("redis://a?command_timeout=0s", "as `command_timeout`, not `0s`"),
        ("redis://a?wait_replicas=0", "as `wait_replicas`, not `0`"),
        ("redis://a?wait_timeout=1s", "set `wait_replicas`"),
        ("redis://a?ca=b", "the scheme for that is rediss"),
        ("rediss://a?ca=", "needs a file as `ca`"),
        ("rediss://a?cert=b", "no `key`"),
        ("rediss://a?key=b", "no `cert`"),
        ("redis+cluster://a?tls=maybe", "as `tls`, not `maybe`"),
        ("redis+sentinel://a/m?sentinel_user=b", "no `sentinel_password`"),
    ] {
        let problem = parse(url).map(|_| url).unwrap_err();
        assert!(problem.contains(expected), "{url}: {problem}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let problem = parse("redis://a:x/y?prefix=&wait_replicas=none&colour=red").unwrap_err();
    for part in ["`a:x`", "`y`", "`prefix`", "`none`", "`colour`"] {
        assert!(problem.contains(part), "{part}: {problem}");
    }
}

#[test]
fn passwords_are_not_shown() {
    for url in [
        "redis://me:hunter2@a/x?y=z",
        "redis://hunter2@a",
        "redis://me:hunter2@a:x",
        // Not percent-encoded as they should be.
        "redis://me:hun/hunter2@a",
        "redis://me:hunter2/x@a",
        "redis://me:hunter2?x@a",
        "redis://me:hun?hunter2@a",
        "redis://me:hun?x=hunter2@a",
        "redis://me:hun?x&hunter2@a",
        "redis+sentinel://a/m?sentinel_password=hunter2&x=y",
        "redis+sentinel://a/m?sentinel_password=hunter2&sentinel_password=hunter2",
    ] {
        let problem = parse(url).map(|_| url).unwrap_err();
        assert!(!problem.contains("hunter2"), "{url}: {problem}");
    }
    let url = "redis+sentinel://me:hunter2@a/m?sentinel_password=hunter2";
    assert!(!format!("{:?}", parse(url).unwrap()).contains("hunter2"));
}
