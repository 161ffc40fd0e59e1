//! Locks that nobody else wants, taken and given up.

use holdfast_client::Raw;

use super::{
    NAMESPACE,
    callers::{EtcdLocks, Subject, TypedLocks, in_turns},
    peer::etcd::Etcd,
    rates::{compare, counted},
    report::{Goal, Report},
    server::{self, Apart},
};

const CALLERS: [usize; 2] = [1, 64];
/// Longer than any run.
const LEASE_TTL_S: i64 = 3600;

/// Compares with etcd's locks, which are kept on disk as these are.
pub async fn run(report: &mut Report, files: &Apart, etcd: &Etcd) {
    let namespace = server::connect(&files.address).await.namespace(NAMESPACE);
    let ours = TypedLocks(namespace.with_codec(Raw::new()));
    let mut client = etcd.client.clone();
    let lease = client.grant(LEASE_TTL_S).await;
    let theirs = EtcdLocks(client, lease);
    for callers in CALLERS {
        let subjects = [Some(&ours as &dyn Subject), Some(&theirs)];
        let [ours, theirs] = in_turns(callers, subjects).await;
        let what = format!("lock taken and given up, `files:`, {}", counted(callers));
        let goal = (callers == 64).then_some(Goal::AtLeast(5.0));
        compare(report, &what, ours, theirs, "etcd lock and unlock", (goal, None));
    }
}
