//! Options in the URL.

use std::time::Duration;

use super::super::{Options, Sync};

#[test]
fn what_is_set_is_taken() {
    assert_eq!(Options::parse("a/b"), Ok(Options::new("a/b")));
    let text = "d?sync=interval:250ms&fill_ahead=1MiB&snapshot_every=64MiB&snapshot_interval=10m&backups=3\
        &backup_dir=b&permissions=0640";
    let options = Options {
        sync: Sync::Interval(Duration::from_millis(250)),
        fill_ahead_bytes: 1 << 20,
        snapshot_every_bytes: 64 << 20,
        snapshot_interval: Some(Duration::from_secs(600)),
        backups: 3,
        backup_directory: Some("b".into()),
        permissions: 0o640,
        ..Options::new("d")
    };
    assert_eq!(Options::parse(text), Ok(options));
    let options = Options {
        sync: Sync::Never,
        fill_ahead_bytes: 0,
        snapshot_interval: None,
        ..Options::new("d")
    };
    assert_eq!(Options::parse("d?sync=never&fill_ahead=0&snapshot_interval=never"), Ok(options));
}

#[test]
fn what_is_wrong_is_named() {
    for (text, expected) in [
        ("", "needs a directory"),
        ("?sync=always", "needs a directory"),
        ("d?snc=always", "has no option `snc`; known are sync,"),
        ("d?sync=often", "as `sync`, not `often`"),
        ("d?sync=interval:0s", "as `sync`"),
        ("d?fill_ahead=1KiB", "64KiB to 1GiB as `fill_ahead`, not `1KiB`"),
        ("d?fill_ahead=2GiB", "as `fill_ahead`"),
        ("d?snapshot_every=1", "at least 64KiB"),
        ("d?snapshot_every=1MB", "as `snapshot_every`, not `1MB`"),
        ("d?snapshot_every=99999999999GiB", "as `snapshot_every`"),
        ("d?snapshot_interval=soon", "as `snapshot_interval`"),
        ("d?backups=2", "set `backup_dir`"),
        ("d?backup_dir=e", "set `backups`"),
        ("d?backups=1&backup_dir=d", "other than its own"),
        ("d?backups=-1", "whole number"),
        ("d?permissions=0940", "octal mode"),
        ("d?permissions=0400", "octal mode"),
    ] {
        let problem = Options::parse(text).unwrap_err();
        assert!(problem.contains(expected), "{text}: {problem}");
    }
}
