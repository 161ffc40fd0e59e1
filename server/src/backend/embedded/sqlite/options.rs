//! What can be set in the URL of a `sqlite:` backend.

use std::{path::PathBuf, time::Duration};

/// When commits are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before they are acknowledged.
    Always,
    /// So often.
    Interval(Duration),
    /// When the system likes to.
    Never,
}

/// How state is kept in an SQLite database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The database.
    pub file: PathBuf,
    /// When commits are made durable.
    pub sync: Sync,
    /// The mode of its files.
    pub permissions: u32,
}

impl Options {
    /// What holds where nothing is set.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), sync: Sync::Always, permissions: 0o600 }
    }

    /// Reads `FILE?option=value&…`.
    ///
    /// # Errors
    /// What is wrong, to be shown after the scheme.
    pub fn parse(rest: &str) -> Result<Self, String> {
        let (file, settings) = rest.split_once('?').unwrap_or((rest, ""));
        if file.is_empty() || file.ends_with('/') {
            return Err("needs a file, as in sqlite:holdfast.db".into());
        }
        let mut options = Self::new(file);
        for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            options.set(name, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let needs = |what: &str| format!("needs {what} as `{name}`, not `{value}`");
        match name {
            "sync" => {
                const WHAT: &str = "`always`, `never` or `interval:` and a duration such as 100ms";
                self.sync = match value.split_once(':') {
                    None if value == "always" => Sync::Always,
                    None if value == "never" => Sync::Never,
                    Some(("interval", every)) => {
                        Sync::Interval(duration(every).ok_or_else(|| needs(WHAT))?)
                    }
                    _ => return Err(needs(WHAT)),
                }
            }
            "permissions" => {
                const WHAT: &str =
                    "an octal mode in which the owner can read and write, such as 0640";
                let mode = u32::from_str_radix(value, 8).ok();
                let mode = mode.filter(|mode| *mode <= 0o777 && mode & 0o600 == 0o600);
                self.permissions = mode.ok_or_else(|| needs(WHAT))?;
            }
            _ => return Err(format!("has no option `{name}`; known are sync, permissions")),
        }
        Ok(())
    }
}

fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|duration| *duration >= Duration::from_millis(1))
}
