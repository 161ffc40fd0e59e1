//! What can be set in the URL of a `sqlite:` backend.

use std::path::PathBuf;

use crate::backend::embedded::options::{self, Sync};

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
        let (file, settings) = options::split(rest);
        if file.is_empty() || file.ends_with('/') {
            return Err("needs a file, as in sqlite:holdfast.db".into());
        }
        let mut options = Self::new(file);
        for (name, value) in settings {
            options.set(name, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "sync" => self.sync = Sync::parse(value)?,
            "permissions" => self.permissions = options::permissions(value)?,
            _ => return Err(format!("has no option `{name}`; known are sync, permissions")),
        }
        Ok(())
    }
}
