//! What stops the start.

use std::net::TcpListener;

use super::harness::holdfastd;

#[tokio::test]
async fn every_mistake_is_reported_at_once_with_its_origin() {
    let file = "\
listen = 4653
lisen = 'a typo'
log = 'debug'
[limits]
max_value = 1
[tls]
cert = 'cert.pem'
";
    let error =
        holdfastd(&["--config", "holdfastd.toml", "--log-filter", "loud", "--listen", "here"])
            .file("holdfastd.toml", file)
            .variable("HOLDFASTD_BUSY_POLL", "2ms")
            .variable("HOLDFASTD_LOG_FORMAT", "xml")
            .variable("HOLDFASTD_LIMITS_MAX_REQUEST_BYTES", "1MB")
            .variable("HOLDFASTD_SHUTDOWN_DRAIN_TIMEOUT", "10")
            .variable("HOLDFASTD_AUTH_TOKENS", "good,not good")
            .variable("HOLDFASTD_PROT", "4653")
            .refused(2)
            .await;
    let mistakes = [
        ("listen: ", "in holdfastd.toml"),
        ("lisen: unknown setting", "in holdfastd.toml"),
        ("log: is a section", "in holdfastd.toml"),
        ("limits.max_value: unknown setting", "in holdfastd.toml"),
        ("tls.cert: needs tls.key", "in holdfastd.toml"),
        ("log.filter: `loud`", "from --log-filter"),
        ("listen: `here`", "from --listen"),
        ("busy_poll: 2ms is too long", "from HOLDFASTD_BUSY_POLL"),
        ("log.format: unknown variant `xml`", "from HOLDFASTD_LOG_FORMAT"),
        ("limits.max_request_bytes: `1MB`", "from HOLDFASTD_LIMITS_MAX_REQUEST_BYTES"),
        ("shutdown.drain_timeout: `10`", "from HOLDFASTD_SHUTDOWN_DRAIN_TIMEOUT"),
        ("auth.tokens: ", "from HOLDFASTD_AUTH_TOKENS"),
        ("HOLDFASTD_PROT: unknown setting", "from the environment"),
    ];
    for (beginning, origin) in mistakes {
        let is_told = |line: &str| line.trim().starts_with(beginning) && line.contains(origin);
        assert!(error.lines().any(is_told), "{beginning} {origin}\n{error}");
    }
    assert_eq!(error.lines().count(), 1 + mistakes.len(), "{error}");
    assert!(!error.contains("not good"), "a token is shown\n{error}");
}

#[tokio::test]
async fn what_only_the_parts_know_is_reported_at_once_too() {
    let error = holdfastd(&["--tls-cert", "cert.pem", "--tls-key", "key.pem"])
        .file("key.pem", "no key")
        .variable("HOLDFASTD_BACKEND", "etcd://me:s3cret@host:1/?password=s3cret")
        .variable("HOLDFASTD_NAMESPACE_DEFAULTS_LOG_MAX_AGE_MS", "1")
        .refused(2)
        .await;
    for told in [
        "backend: unknown scheme `etcd`",
        "(from HOLDFASTD_BACKEND)",
        "namespace_defaults.log_max_age_ms: 1 is not within",
        "tls.cert: cert.pem cannot be read",
        "(from --tls-cert)",
    ] {
        assert!(error.contains(told), "{told}\n{error}");
    }
    assert!(!error.contains("s3cret"), "a password is shown\n{error}");
}

#[tokio::test]
async fn no_part_of_a_backend_that_may_be_a_password_is_shown() {
    for (backend, told) in [
        ("s3cret", "backend: no scheme; known are files:, memory:"),
        ("//s3cret@host:1/0", "backend: no scheme; known are files:, memory:"),
        ("memory://me:s3cret@host:1/0", "backend: `memory:` takes no path"),
    ] {
        let error = holdfastd(&["--backend", backend]).refused(2).await;
        assert!(error.contains(told) && error.contains("(from --backend)"), "{told}\n{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_is_none_is_named() {
    for (name, text, told) in [
        ("a.toml", "[log", "a.toml: is not TOML: line 1: "),
        ("a.yaml", "log: {", "a.yaml: is not YAML: line "),
        ("b.yaml", "listen: a:1\nlisten: b:1", "b.yaml: is not YAML: line 2"),
        ("a.yml", "- log", "a.yml: is not a YAML mapping"),
        ("a.ini", "", "a.ini: the name of the file must end in .toml, .yaml or .yml"),
    ] {
        let error = holdfastd(&["--config", name]).file(name, text).refused(2).await;
        assert!(error.contains(told), "{told}\n{error}");
    }
    let error = holdfastd(&[]).variable("HOLDFASTD_CONFIG", "gone.toml").refused(2).await;
    assert!(error.contains("gone.toml: cannot be read"), "{error}");
    assert!(error.contains("(from HOLDFASTD_CONFIG)"), "{error}");
}

#[tokio::test]
async fn unknown_flags_are_named() {
    let error = holdfastd(&["--lisen", "127.0.0.1:0"]).refused(2).await;
    assert!(error.contains("'--lisen'") && error.contains("'--listen'"), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = holdfastd(&["--listen", &address]).refused(1).await;
    assert!(error.contains(&format!("cannot listen on {address}: ")), "{error}");
    assert!(error.contains("(from --listen)"), "{error}");
}
