//! Passwords, users and certificates: who has them is let in, and no word of them is told.

use std::{fs, path::Path};

use holdfast_proto::v1::{GetRequest, SetRequest};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::{
    harness::{Program, holdfastd, start},
    redis::{Options, Redis},
};

crate::cases! {
    a_password_lets_in_and_is_told_nowhere,
    a_user_lets_in_and_is_told_nowhere,
    a_wrong_password_is_told_nowhere,
    certificates_are_checked_on_both_sides,
    a_policy_that_evicts_is_warned_of,
}

const PASSWORD: &str = "s3cret-Of-Redis";
const EVERYTHING: [&str; 2] = ["--log-filter", "trace"];

async fn a_password_lets_in_and_is_told_nowhere() {
    let redis = with_password();
    let url = format!("redis://:{PASSWORD}@{}", redis.address());
    let program = start(&["--backend", &url, EVERYTHING[0], EVERYTHING[1]]).await;
    works(&program).await;
    // It goes on with connections that have to be made anew, though they are not let in any more.
    redis.run_all(&[
        &["CONFIG", "SET", "requirepass", "another"],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["CLIENT", "KILL", "TYPE", "pubsub"],
    ]);
    let mut kv = program.kv().await;
    while kv.get(get()).await.is_ok() {}
    program.signal("TERM").await;
    assert_secret(&program.ended().await.1);
}

async fn a_user_lets_in_and_is_told_nowhere() {
    let user = format!("--user keeper on >{PASSWORD} ~holdfast:* &holdfast:* +@all");
    let arguments: Vec<&str> = user.split(' ').collect();
    let redis = Redis::with_arguments(&arguments).unwrap();
    let url = format!("redis://keeper:{PASSWORD}@{}", redis.address());
    let program = start(&["--backend", &url, EVERYTHING[0], EVERYTHING[1]]).await;
    works(&program).await;
    program.signal("TERM").await;
    assert_secret(&program.ended().await.1);
}

async fn a_wrong_password_is_told_nowhere() {
    let redis = with_password();
    for login in [format!(":{PASSWORD}-not"), format!("nobody:{PASSWORD}"), PASSWORD.to_owned()] {
        let url = format!("redis://{login}@{}", redis.address());
        let call = holdfastd(&["--listen", "127.0.0.1:0", "--backend", &url]);
        let error = call.refused(2).await;
        assert_secret(&error);
        assert!(error.contains("password"), "{error}");
    }
}

fn with_password() -> Redis {
    let arguments = ["--requirepass", PASSWORD].map(str::to_owned).to_vec();
    let password = Some(PASSWORD.to_owned());
    Redis::with(Options { arguments, password, ..Options::default() }).unwrap()
}

fn assert_secret(log: &str) {
    assert!(!log.contains(PASSWORD), "{log}");
    assert!(!log.is_empty());
}

async fn certificates_are_checked_on_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    let redis = Redis::with_arguments(&[
        "--tls-port",
        "{free}",
        "--tls-ca-cert-file",
        &ca,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
    ])
    .unwrap();
    let port: Vec<String> = redis.run(&["CONFIG", "GET", "tls-port"]);
    let url =
        format!("rediss://localhost:{}?ca={ca}&cert={cert}&key={key}&connect_timeout=30s", port[1]);
    works(&start(&["--backend", &url]).await).await;
    // An authority of the system's did not sign it, and who shows nothing is not let in.
    for options in [format!("cert={cert}&key={key}"), format!("ca={ca}")] {
        let url = format!("rediss://localhost:{}?{options}", port[1]);
        holdfastd(&["--listen", "127.0.0.1:0", "--backend", &url]).refused(2).await;
    }
}

/// An authority, and a certificate of it for both sides.
fn make_certificates(directory: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "localhost");
    let cert = params.signed_by(&key, &authority).unwrap();
    fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
    fs::write(directory.join("cert.pem"), cert.pem()).unwrap();
    fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
}

async fn a_policy_that_evicts_is_warned_of() {
    for (policy, told) in [("allkeys-lru", true), ("noeviction", false)] {
        let redis = Redis::with_arguments(&["--maxmemory-policy", policy]).unwrap();
        let program = start(&["--backend", &redis.url()]).await;
        works(&program).await;
        program.signal("TERM").await;
        let (_, log) = program.ended().await;
        assert_eq!(log.contains("noeviction"), told, "{log}");
    }
}

async fn works(program: &Program) {
    let mut kv = program.kv().await;
    let request = SetRequest {
        namespace: "n".into(),
        key: "k".into(),
        value: "v".into(),
        ..SetRequest::default()
    };
    kv.set(request).await.unwrap();
    let entry = kv.get(get()).await.unwrap().into_inner().entry.unwrap();
    assert_eq!(entry.value.unwrap(), "v");
}

fn get() -> GetRequest {
    GetRequest { namespace: "n".into(), key: "k".into(), ..GetRequest::default() }
}
