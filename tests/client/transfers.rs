//! Export and import by the typed client.

use std::sync::{Arc, Mutex};

use holdfast_client::{Client, Error, Namespace, TransferProgress};

use crate::{
    fixture::{connect, shared, with_namespace},
    proxy::{LostAnswers, Proxy},
};

/// The lines of an export of a namespace.
async fn exported(ns: &Namespace) -> Vec<u8> {
    let mut lines = Vec::new();
    let client = connect(shared()).await;
    let done = client.export().namespace(ns.name()).write_to(&mut lines).await;
    assert_eq!(done.expect("it is exported").namespaces, 1);
    lines
}

#[test]
fn what_is_exported_is_imported_in_its_place() {
    with_namespace("typed_transfer", async |ns| {
        ns.set("k", &1).await.expect("set");
        let lines = exported(&ns).await;
        ns.set("k", &2).await.expect("set");
        let client = connect(shared()).await;
        match client.import().read_from(&lines[..]).await {
            Err(Error::NamespaceNotEmpty { namespace }) => assert_eq!(namespace, ns.name()),
            other => panic!("{other:?}"),
        }
        let before = ns.info().await.expect("answered").expect("it exists");
        let done = client.import().replace().read_from(&lines[..]).await.expect("imported");
        assert_eq!((done.total.namespaces, done.total.entries), (1, 1));
        let now = ns.info().await.expect("answered").expect("it exists");
        assert_eq!(done.namespaces[0].lineage, now.lineage);
        assert_eq!(done.namespaces[0].revision, now.revision);
        assert!(now.revision > before.revision && now.lineage != before.lineage);
        assert_eq!(ns.get::<u32>("k").await.expect("read").expect("there").value, 1);
    });
}

#[test]
fn how_far_a_transfer_has_come_is_told() {
    with_namespace("typed_progress", async |ns| {
        for number in 0..3 {
            ns.set(format!("k{number}"), &number).await.expect("set");
        }
        let told = Arc::<Mutex<Vec<TransferProgress>>>::default();
        let teller = || {
            let told = told.clone();
            move |progress: &TransferProgress| {
                told.lock().expect("nobody panics").push(progress.clone());
            }
        };
        let client = connect(shared()).await;
        let mut lines = Vec::new();
        let export = client.export().namespace(ns.name()).progress(teller());
        export.write_to(&mut lines).await.expect("it is exported");
        let import = client.import().replace().progress(teller());
        import.read_from(&lines[..]).await.expect("it is imported");
        let told = told.lock().expect("nobody panics");
        assert!(told.iter().all(|it| it.namespace == ns.name() && it.expected_entries == 3));
        let ends = told.iter().filter(|it| it.total.namespaces == 1);
        assert_eq!(ends.map(|it| it.entries).collect::<Vec<_>>(), [3, 3]);
    });
}

#[test]
fn lines_that_are_none_are_named() {
    with_namespace("typed_malformed", async |ns| {
        ns.set("k", &1).await.expect("set");
        let lines = exported(&ns).await;
        let client = connect(shared()).await;
        let import = client.import().replace();
        match import.read_from(&lines[..lines.len() - 5]).await {
            Err(Error::Malformed { line: 5, .. }) => {}
            other => panic!("{other:?}"),
        }
        match client.import().read_from(&b"{}\n"[..]).await {
            Err(Error::Malformed { line: 1, .. }) => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn an_import_whose_answer_is_lost_is_of_unknown_outcome() {
    with_namespace("typed_lost_import", async |ns| {
        ns.set("k", &1).await.expect("set");
        let lines = exported(&ns).await;
        ns.set("k", &2).await.expect("set");
        let proxy = Proxy::losing(shared(), LostAnswers::one_in(1)).await;
        let far = Client::builder(proxy.address.to_string()).connect_lazy().expect("a client");
        let error = far.import().replace().read_from(&lines[..]).await.expect_err("it is lost");
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
        assert_eq!(ns.get::<u32>("k").await.expect("read").expect("there").value, 1);
    });
}
