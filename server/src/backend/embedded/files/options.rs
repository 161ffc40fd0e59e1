//! What can be set in the URL of a `files:` backend.

use std::{path::PathBuf, time::Duration};

use crate::backend::embedded::options::{self, Sync, duration};

/// How state is kept in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where.
    pub directory: PathBuf,
    /// When commits are made durable.
    pub sync: Sync,
    /// How long journals may be that are prepared ahead; 0: none is.
    pub fill_ahead_bytes: u64,
    /// How many bytes of journal are written until the next snapshot is.
    pub snapshot_every_bytes: u64,
    /// How long after a snapshot the next one is written, if anything was committed.
    pub snapshot_interval: Option<Duration>,
    /// How many copies of snapshots are kept,
    pub backups: u32,
    /// and where.
    pub backup_directory: Option<PathBuf>,
    /// The mode of the files.
    pub permissions: u32,
}

impl Options {
    /// What holds where nothing is set.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            sync: Sync::Always,
            fill_ahead_bytes: 16 << 20,
            snapshot_every_bytes: 256 << 20,
            snapshot_interval: Some(Duration::from_secs(3600)),
            backups: 0,
            backup_directory: None,
            permissions: 0o600,
        }
    }

    /// Reads `DIR?option=value&…`.
    ///
    /// # Errors
    /// What is wrong, to be shown after the scheme.
    pub fn parse(rest: &str) -> Result<Self, String> {
        let (directory, settings) = options::split(rest);
        if directory.is_empty() {
            return Err("needs a directory, as in files:holdfast-data".into());
        }
        let mut options = Self::new(directory);
        for (name, value) in settings {
            options.set(name, value)?;
        }
        match (options.backups, &options.backup_directory) {
            (0, Some(_)) => Err("has `backup_dir` but not how many to keep: set `backups`".into()),
            (1.., None) => Err("has `backups` but not where to: set `backup_dir`".into()),
            (_, Some(backups)) if *backups == options.directory => {
                Err("needs a `backup_dir` other than its own directory".into())
            }
            _ => Ok(options),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let needs = |what: &str| options::needs(what, name, value);
        match name {
            "sync" => self.sync = Sync::parse(value)?,
            "fill_ahead" => {
                let needs = || needs("0 or a number of bytes such as 16MiB, 64KiB to 1GiB");
                let fits = |bytes: &u64| *bytes == 0 || (64 << 10..=1 << 30).contains(bytes);
                self.fill_ahead_bytes = bytes(value).filter(fits).ok_or_else(needs)?;
            }
            "snapshot_every" => {
                let needs = || needs("a number of bytes such as 256MiB, at least 64KiB");
                let bytes = bytes(value).filter(|bytes| *bytes >= 64 << 10);
                self.snapshot_every_bytes = bytes.ok_or_else(needs)?;
            }
            "snapshot_interval" => {
                self.snapshot_interval = match value {
                    "never" => None,
                    _ => Some(
                        duration(value).ok_or_else(|| needs("`never` or a duration such as 1h"))?,
                    ),
                }
            }
            "backups" => {
                self.backups = value.parse().map_err(|_| needs("a whole number"))?;
            }
            "backup_dir" if value.is_empty() => return Err(needs("a directory")),
            "backup_dir" => self.backup_directory = Some(value.into()),
            "permissions" => self.permissions = options::permissions(value)?,
            _ => {
                return Err(format!(
                    "has no option `{name}`; known are sync, fill_ahead, snapshot_every, snapshot_interval, \
                     backups, backup_dir, permissions"
                ));
            }
        }
        Ok(())
    }
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
