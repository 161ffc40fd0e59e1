//! Single sets: unary calls, and the typed client.

use std::path::Path;

use holdfast_client::{Namespace, Raw};
use holdfast_proto::v1::{SetRequest, kv_service_client::KvServiceClient};
use tonic::transport::Channel;

use super::{
    disk,
    measure::{Calls, calls, median, rounds},
    peer::{
        directory,
        etcd::{self, Etcd},
    },
    server::{self, Apart},
    value::{Form, key},
};

const KEYS: usize = 10_000;
const NAMESPACE: &str = "bench";

/// Prints sets a second with 1 and 64 callers, and what one caller waits.
pub async fn run() {
    let (scratch, data) = (directory(), directory());
    let etcd = Etcd::start(&data.path().join("etcd")).await;
    let subjects = Subjects::start(data.path(), etcd).await;
    let mut syncs_us = Vec::new();
    println!(
        "{:<48} {:>10} {:>10} {:>10}",
        "sets, median of rounds", "per s", "of memory", "of etcd"
    );
    for form in Form::ALL {
        for callers in [1, 64] {
            for way in [Way::Unary, Way::Typed] {
                subjects.measure((form, way), callers, scratch.path(), &mut syncs_us).await;
            }
        }
    }
    println!("a bare fdatasync after an append: p50 {:.0} µs", median(syncs_us));
}

/// A server with its name, and two ways to it.
struct Subject {
    name: &'static str,
    _server: Apart,
    kv: KvServiceClient<Channel>,
    typed: Namespace,
}

/// How Holdfast is called; etcd has one way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Unary,
    Typed,
}

/// All that is measured.
struct Subjects {
    /// `memory:` comes first.
    servers: Vec<Subject>,
    etcd: Option<Etcd>,
}

impl Subjects {
    async fn start(data: &Path, etcd: Option<Etcd>) -> Self {
        let mut servers = Vec::new();
        let (files, sqlite) = (data.join("files"), data.join("state.sqlite"));
        for (name, url) in [
            ("memory:", "memory:".into()),
            ("files:", format!("files:{}", files.display())),
            ("sqlite:", format!("sqlite:{}", sqlite.display())),
        ] {
            let apart = Apart::start(&url);
            let kv = KvServiceClient::new(server::channel(&apart.address).await);
            let typed = server::connect(&apart.address).await.namespace(NAMESPACE);
            servers.push(Subject { name, _server: apart, kv, typed });
        }
        Self { servers, etcd }
    }

    /// Prints a line for each, measured in turns.
    async fn measure(
        &self,
        (form, way): (Form, Way),
        callers: usize,
        scratch: &Path,
        syncs_us: &mut Vec<f64>,
    ) {
        let mut all: Vec<_> = self.servers.iter().map(|it| (it.name, Vec::new())).collect();
        all.extend(self.etcd.iter().map(|_| ("etcd", Vec::new())));
        for _ in 0..rounds() {
            syncs_us.extend(disk::sync_latencies_us(scratch));
            for (subject, (_, runs)) in self.servers.iter().zip(&mut all) {
                runs.push(match way {
                    Way::Unary => calls(callers, &(subject.kv.clone(), form), set).await,
                    Way::Typed => {
                        let codec = Raw::with_content_type(form.content_type());
                        let typed = subject.typed.with_codec(codec);
                        calls(callers, &(typed, form), set_typed).await
                    }
                });
            }
            if let (Some(etcd), Some((_, runs))) = (&self.etcd, all.last_mut()) {
                runs.push(calls(callers, &(etcd.client.clone(), form), put).await);
            }
        }
        let of = |name| all.iter().find(|(of, _)| *of == name).map(|(_, runs)| Figures::of(runs));
        let (memory, etcd) = (of("memory:"), of("etcd"));
        for (name, runs) in &all {
            let by = if way == Way::Typed { ", typed client" } else { "" };
            Figures::of(runs).print(
                &format!("{name} {}, {callers} callers{by}", form.name()),
                &memory,
                &etcd,
                callers == 1,
            );
        }
    }
}

/// What came of the rounds of one subject.
struct Figures {
    rate: f64,
    latency_us: f64,
}

impl Figures {
    fn of(runs: &[Calls]) -> Self {
        Self {
            rate: median(runs.iter().map(|run| run.rate).collect()),
            latency_us: median(runs.iter().map(|run| median(run.latencies_us.clone())).collect()),
        }
    }

    fn print(&self, what: &str, memory: &Option<Self>, etcd: &Option<Self>, with_latency: bool) {
        let ratio = |of: Option<f64>| of.map_or("-".into(), |of| format!("{of:.2}"));
        let of_memory = ratio(memory.as_ref().map(|memory| self.rate / memory.rate));
        let of_etcd = ratio(etcd.as_ref().map(|etcd| self.rate / etcd.rate));
        println!("{what:<48} {:>10.0} {of_memory:>10} {of_etcd:>10}", self.rate);
        if with_latency {
            let of_memory =
                ratio(memory.as_ref().map(|memory| self.latency_us / memory.latency_us));
            let of_etcd = ratio(etcd.as_ref().map(|etcd| self.latency_us / etcd.latency_us));
            println!(
                "{:<48} {:>10.0} {of_memory:>10} {of_etcd:>10}",
                "  median latency in µs", self.latency_us
            );
        }
    }
}

async fn set((mut kv, form): (KvServiceClient<Channel>, Form), caller: usize, call: usize) {
    let number = (call * 67 + caller) % KEYS;
    let request = SetRequest {
        namespace: NAMESPACE.into(),
        key: key(number),
        value: form.value(number),
        content_type: form.content_type().into(),
        ..SetRequest::default()
    };
    kv.set(request).await.expect("a set succeeds");
}

async fn set_typed((namespace, form): (Namespace<Raw>, Form), caller: usize, call: usize) {
    let number = (call * 67 + caller) % KEYS;
    namespace.set(key(number), &form.value(number)).await.expect("a set succeeds");
}

async fn put((mut client, form): (etcd::Client, Form), caller: usize, call: usize) {
    let number = (call * 67 + caller) % KEYS;
    client.put(key(number), form.value(number)).await;
}
