//! What `holdfastd` does to stored state without serving it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures::{StreamExt as _, stream};
use holdfast_proto::v1::{
    Entry, GetRequest, ImportRequest, SetRequest, TransferItems, TransferPart, TransferStart,
    admin_service_client::AdminServiceClient, transfer_part::Part,
};
use tempfile::TempDir;

use super::harness::{holdfastd, start};

/// State of two keys in `files:`, and where it is.
async fn stored() -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("files:{}", directory.path().join("data").display());
    let program = start(&["--backend", &url]).await;
    let mut kv = program.kv().await;
    for (key, value) in [("a", "1"), ("b", "2")] {
        let request = SetRequest {
            namespace: "n".into(),
            key: key.into(),
            value: value.into(),
            ..Default::default()
        };
        kv.set(request).await.unwrap();
    }
    program.signal("KILL").await;
    program.ended().await;
    (directory, url)
}

fn journal(directory: &TempDir) -> PathBuf {
    let files = fs::read_dir(directory.path().join("data")).unwrap();
    let mut paths = files.map(|file| file.unwrap().path());
    let is_journal = |path: &PathBuf| path.to_string_lossy().contains("/journal-");
    paths.find(is_journal).expect("there is a journal")
}

/// The lines of an export that are about entries.
fn entries(export: &str) -> Vec<&str> {
    export.lines().filter(|line| line.starts_with("{\"key\"")).collect()
}

async fn export(url: &str) -> String {
    holdfastd(&["export", "--backend", url]).prints().await
}

fn write(path: &Path, text: &str) -> String {
    fs::write(path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn state_is_moved_from_one_backend_to_another() {
    let (directory, url) = stored().await;
    let exported = export(&url).await;
    assert_eq!(exported.lines().count(), 6, "{exported}");
    let file = write(&directory.path().join("state.jsonl"), &exported);
    for scheme in ["files", "sqlite"] {
        let other = format!("{scheme}:{}", directory.path().join(format!("to-{scheme}")).display());
        holdfastd(&["import", &file, "--backend", &other]).prints().await;
        assert_eq!(entries(&export(&other).await), entries(&exported));
        let refusal = holdfastd(&["import", &file, "--backend", &other]).refused(1).await;
        assert!(refusal.contains("has keys, locks or leases already"), "{refusal}");
        holdfastd(&["import", "--replace", &file, "--backend", &other]).prints().await;
        assert_eq!(entries(&export(&other).await), entries(&exported));
        let verified = holdfastd(&["verify", "--backend", &other]).prints().await;
        assert!(verified.ends_with("sound\n"), "{verified}");
        assert!(verified.contains("2 keys"), "{verified}");
    }
}

#[tokio::test]
async fn an_import_that_is_killed_leaves_everything_as_it_was() {
    let (directory, url) = stored().await;
    let before = export(&url).await;
    let program = start(&["--backend", &url]).await;
    let entry = |number| Entry {
        key: format!("k{number:04}"),
        value: Some("7".into()),
        version: 1,
        create_revision: 1,
        mod_revision: 1,
        ..Default::default()
    };
    let begin =
        TransferStart { format: 1, namespace: "n".into(), revision: 1, ..Default::default() };
    let items = TransferItems { entries: (0..1000).map(entry).collect(), ..Default::default() };
    let parts = [Part::Start(begin), Part::Items(items)]
        .map(|part| ImportRequest { part: Some(TransferPart { part: Some(part) }), replace: true });
    let mut admin = AdminServiceClient::new(program.channel().await);
    let unfinished = stream::iter(parts).chain(stream::pending());
    let import = tokio::spawn(async move { admin.import(unfinished).await });
    while !fs::read_to_string(journal(&directory)).unwrap().contains("\"stage\":") {
        tokio::task::yield_now().await;
    }
    program.signal("KILL").await;
    program.ended().await;
    assert!(import.await.unwrap().is_err());
    assert_eq!(entries(&export(&url).await), entries(&before));
    let verified = holdfastd(&["verify", "--backend", &url]).prints().await;
    assert!(verified.ends_with("sound\n"), "{verified}");
    let program = start(&["--backend", &url]).await;
    let mut kv = program.kv().await;
    let request = GetRequest { namespace: "n".into(), key: "a".into(), ..Default::default() };
    let entry = kv.get(request).await.unwrap().into_inner().entry.unwrap();
    assert_eq!(entry.value.unwrap(), "1");
}

#[tokio::test]
async fn one_namespace_is_exported_if_named() {
    let (_directory, url) = stored().await;
    let call = holdfastd(&["export", "--namespace", "n", "--backend", &url]);
    assert_eq!(entries(&call.prints().await).len(), 2);
    let twice = holdfastd(&["export", "--namespace", "n", "--namespace", "n", "--backend", &url]);
    assert_eq!(entries(&twice.prints().await).len(), 2, "it could not be imported twice");
    let error = holdfastd(&["export", "--namespace", "m", "--backend", &url]).refused(1).await;
    assert!(error.contains("there is no namespace \"m\""), "{error}");
}

#[tokio::test]
async fn where_nothing_is_stored_nothing_is_exported_or_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(&directory.path().join("state.jsonl"), "the former\n");
    for scheme in ["files", "sqlite"] {
        let url = format!("{scheme}:{}", directory.path().join("misspelt").display());
        for call in [&["export", &file, "--backend", &url][..], &["compact", "--backend", &url]] {
            let error = holdfastd(call).refused(1).await;
            assert!(error.contains("misspelt does not exist"), "{error}");
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "the former\n");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is made anew");
}

#[cfg(unix)]
#[tokio::test]
async fn an_export_that_fails_leaves_the_file_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(&directory.path().join("state.jsonl"), "the former\n");
    // As on a disk that is full: no file may get longer.
    let export =
        holdfastd(&["export", &file, "--backend", "memory:"]).after("trap '' XFSZ; ulimit -f 0");
    let error = export.refused(1).await;
    assert!(error.contains(&format!("cannot write {file}: ")), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "the former\n");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
}

#[tokio::test]
async fn compacting_keeps_what_is_there() {
    let (directory, url) = stored().await;
    let before = export(&url).await;
    assert_eq!(holdfastd(&["compact", "--backend", &url]).prints().await, "compacted\n");
    assert_eq!(entries(&export(&url).await), entries(&before));
    let names: Vec<_> = fs::read_dir(directory.path().join("data")).unwrap().collect();
    let snapshots = names.into_iter().filter(|name| {
        let name = name.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("snapshot-")
    });
    assert_eq!(snapshots.count(), 1, "the snapshot is all that is left");
}

#[tokio::test]
async fn damage_is_found_and_told() {
    let (directory, url) = stored().await;
    let journal = journal(&directory);
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, text.replacen("\"text\":\"1\"", "\"text\":\"7\"", 1)).unwrap();
    let output = holdfastd(&["verify", "--backend", &url]).output().await;
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("damage: ") && told.contains(".jsonl, line 2: "), "{told}");
}

#[tokio::test]
async fn what_is_before_damage_is_repaired() {
    let (directory, url) = stored().await;
    let saved = directory.path().join("saved").display().to_string();
    let repair = ["repair", &saved, "--backend", &url];
    let refusal = holdfastd(&repair).refused(1).await;
    assert!(refusal.contains("is sound: there is nothing to repair"), "{refusal}");
    let journal = journal(&directory);
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, text.replacen("\"text\":\"2\"", "\"text\":\"7\"", 1)).unwrap();
    let told = holdfastd(&repair).prints().await;
    for part in ["line 3 is damaged: its checksum", "1 line", "0 sound commits", "1 keys"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let saved = format!("files:{saved}");
    assert_eq!(entries(&export(&saved).await).len(), 1);
    let refusal = holdfastd(&repair).refused(1).await;
    assert!(refusal.contains("is not empty"), "{refusal}");
    let refusal = holdfastd(&["repair", "other", "--backend", "memory:"]).refused(1).await;
    assert!(refusal.contains("has no journal that could be cut"), "{refusal}");
}

#[tokio::test]
async fn what_is_nowhere_kept_cannot_be_verified() {
    let error = holdfastd(&["verify", "--backend", "memory:"]).refused(1).await;
    assert!(error.contains("keeps nothing here that could be verified"), "{error}");
}
