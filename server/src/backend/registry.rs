//! Which URL schemes name which backend.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Backend,
    embedded::{Capacity, Embedded},
};
use crate::clock::Clock;

/// Makes a backend from what follows the scheme's colon in its URL, or says what is wrong with it. What it says is
/// logged: it must not show where a password may be.
pub type Constructor = fn(rest: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, String>;

/// Why a backend could not be opened. Of the URL it has no more than the scheme: the rest may hold a password.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// The URL does not begin with a scheme.
    #[error("no scheme; known are {known}")]
    NoScheme {
        /// The schemes that there are.
        known: String,
    },
    /// No backend is registered for the scheme.
    #[error("unknown scheme `{scheme}`; known are {known}")]
    UnknownScheme {
        /// The scheme of the URL.
        scheme: String,
        /// The schemes that there are.
        known: String,
    },
    /// The backend cannot be opened as the rest of the URL says.
    #[error("`{scheme}:` {problem}")]
    Url {
        /// The scheme of the URL.
        scheme: String,
        /// What is wrong.
        problem: String,
    },
}

/// The backends that a server can open. A program of one's own can register others.
#[derive(Debug, Clone)]
pub struct Registry {
    constructors: BTreeMap<&'static str, Constructor>,
}

impl Default for Registry {
    fn default() -> Self {
        let mut registry = Self { constructors: BTreeMap::new() };
        registry.register("memory", open_memory);
        registry
    }
}

impl Registry {
    /// Makes `scheme:…` open a backend by `constructor`.
    pub fn register(&mut self, scheme: &'static str, constructor: Constructor) {
        self.constructors.insert(scheme, constructor);
    }

    /// Opens the backend that a URL names.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, url: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, OpenError> {
        let known = || {
            let schemes: Vec<_> =
                self.constructors.keys().map(|known| format!("{known}:")).collect();
            schemes.join(", ")
        };
        let (scheme, rest) = url
            .split_once(':')
            .filter(|(scheme, _)| is_scheme(scheme))
            .ok_or_else(|| OpenError::NoScheme { known: known() })?;
        let constructor = self
            .constructors
            .get(scheme)
            .ok_or_else(|| OpenError::UnknownScheme { scheme: scheme.into(), known: known() })?;
        constructor(rest, clock)
            .map_err(|problem| OpenError::Url { scheme: scheme.into(), problem })
    }
}

/// Whether it could be one; what could not may be the beginning of a password.
fn is_scheme(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// `memory:?max_keys=…&max_bytes=…`
fn open_memory(rest: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, String> {
    let options = match rest.split_once('?') {
        None if rest.is_empty() => "",
        Some(("", options)) => options,
        _ => return Err("takes no path".into()),
    };
    let mut capacity = Capacity::default();
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let bound = match name {
            "max_keys" => &mut capacity.max_keys,
            "max_bytes" => &mut capacity.max_bytes,
            _ => return Err(format!("has no option `{name}`; known are max_keys, max_bytes")),
        };
        let number = value
            .parse()
            .map_err(|_| format!("needs a whole number as `{name}`, not `{value}`"))?;
        *bound = Some(number);
    }
    Ok(Arc::new(Embedded::new(clock, capacity)))
}
