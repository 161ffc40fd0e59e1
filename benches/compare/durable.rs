//! What is kept on disk, beside etcd: sets, gets, locks, watches.

use holdfast_client::Raw;

use super::{
    NAMESPACE,
    callers::{Call, Etcd, Subject, Typed, fill, in_turns},
    locks,
    peer::{self, directory},
    rates::{compare, counted},
    report::{Goal, Report},
    server::{self, Apart},
    watchers,
};

const CALLERS: [usize; 2] = [1, 64];

/// Compares with etcd.
pub async fn run(report: &mut Report) {
    let data = directory();
    let Some(etcd) = peer::etcd::Etcd::start(&data.path().join("etcd")).await else {
        return;
    };
    fill(Etcd(etcd.client.clone(), Call::Set)).await;
    let files = format!("files:{}", data.path().join("files").display());
    let sqlite = format!("sqlite:{}", data.path().join("state.sqlite").display());
    // `files:` is what etcd is to be compared with; it comes first, and is alone with it in what follows.
    let files = ("files:", Apart::start(&files));
    let sqlite = ("sqlite:", Apart::start(&sqlite));
    for (name, server) in [&files, &sqlite] {
        let namespace = server::connect(&server.address).await.namespace(NAMESPACE);
        let namespace = namespace.with_codec(Raw::new());
        fill(Typed(namespace.clone(), Call::Set)).await;
        for call in [Call::Set, Call::Get] {
            let ours = Typed(namespace.clone(), call);
            let theirs = Etcd(etcd.client.clone(), call);
            for callers in CALLERS {
                let subjects = [Some(&ours as &dyn Subject), Some(&theirs)];
                let [ours, theirs] = in_turns(callers, subjects).await;
                let (against, goal) = match call {
                    Call::Set => ("etcd put", 15.0),
                    Call::Get => ("etcd serializable get", 20.0),
                };
                let goal = (callers == 64 && *name == "files:").then_some(Goal::AtLeast(goal));
                let what =
                    format!("{} by the typed client, `{name}`, {}", call.name(), counted(callers));
                compare(report, &what, ours, theirs, against, (goal, None));
            }
        }
    }
    drop(sqlite);
    locks::run(report, &files.1, &etcd).await;
    watchers::run(report, &files.1, &etcd).await;
}
