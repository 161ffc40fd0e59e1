//! Who may have a directory, and what is wrong with the URL of one.

use super::harness::{holdfastd, start};

#[tokio::test]
async fn a_second_process_is_refused_with_the_id_of_the_first() {
    for scheme in ["files", "sqlite"] {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("{scheme}:{}", directory.path().join("data").display());
        let first = start(&["--backend", &url]).await;
        let error = holdfastd(&["--listen", "127.0.0.1:0", "--backend", &url]).refused(2).await;
        let expected = format!("is in use by the process {}", first.process());
        assert!(error.contains(&expected), "{error}");
        first.signal("KILL").await;
        first.ended().await;
        start(&["--backend", &url]).await;
    }
}

#[tokio::test]
async fn a_url_that_is_wrong_is_refused() {
    for (url, expected) in [
        ("files:", "`files:` needs a directory"),
        ("files:data?sync=sometimes", "`always`, `never` or `interval:`"),
        ("files:data?color=red", "has no option `color`"),
    ] {
        let error = holdfastd(&["--listen", "127.0.0.1:0", "--backend", url]).refused(2).await;
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn damage_is_refused_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal-00000001.jsonl");
    std::fs::write(&journal, "not a journal\n").unwrap();
    let url = format!("files:{}", directory.path().display());
    let error = holdfastd(&["--listen", "127.0.0.1:0", "--backend", &url]).refused(2).await;
    let place = format!("{}, line 1 is damaged", journal.display());
    assert!(error.contains(&place) && error.contains("put back a copy"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().unwrap();
    for (name, options, mode) in [("a", "", 0o600), ("b", "?permissions=0640", 0o640)] {
        let data = directory.path().join(name);
        let url = format!("files:{}{options}", data.display());
        let _program = start(&["--backend", &url]).await;
        let mode_of = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode_of(data.join("journal-00000001.jsonl")), mode);
        assert_eq!(mode_of(data.clone()), mode | 0o100 | (mode & 0o040) >> 2);
    }
}
