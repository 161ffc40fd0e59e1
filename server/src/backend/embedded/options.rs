//! What can be set in the URLs of all backends that keep their state on the disk of one machine.

use std::time::Duration;

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

impl Sync {
    /// Reads `always`, `never` or `interval:100ms`.
    pub(super) fn parse(value: &str) -> Result<Self, String> {
        const WHAT: &str = "`always`, `never` or `interval:` and a duration such as 100ms";
        match value.split_once(':') {
            None if value == "always" => Ok(Self::Always),
            None if value == "never" => Ok(Self::Never),
            Some(("interval", every)) => {
                duration(every).map(Self::Interval).ok_or_else(|| needs(WHAT, "sync", value))
            }
            _ => Err(needs(WHAT, "sync", value)),
        }
    }

    /// How often, if that is set.
    pub fn interval(self) -> Option<Duration> {
        match self {
            Self::Interval(every) => Some(every),
            Self::Always | Self::Never => None,
        }
    }

    /// What an acknowledged write survives.
    pub(super) fn durability(self) -> &'static str {
        match self {
            Self::Always => "the end of the process and power failure",
            Self::Interval(_) => {
                "the end of the process; what was written shortly before a power failure may be lost"
            }
            Self::Never => "the end of the process, but perhaps no power failure",
        }
    }
}

/// Takes `PATH?option=value&…` apart.
pub(super) fn split(rest: &str) -> (&str, impl Iterator<Item = (&str, &str)>) {
    let (path, settings) = rest.split_once('?').unwrap_or((rest, ""));
    let settings = settings.split('&').filter(|setting| !setting.is_empty());
    (path, settings.map(|setting| setting.split_once('=').unwrap_or((setting, ""))))
}

/// Reads the mode of files.
pub(super) fn permissions(value: &str) -> Result<u32, String> {
    const WHAT: &str = "an octal mode in which the owner can read and write, such as 0640";
    let mode = u32::from_str_radix(value, 8).ok();
    let mode = mode.filter(|mode| *mode <= 0o777 && mode & 0o600 == 0o600);
    mode.ok_or_else(|| needs(WHAT, "permissions", value))
}

/// Reads a duration of a millisecond or more.
pub(super) fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|duration| *duration >= Duration::from_millis(1))
}

/// What is wrong with the value of an option.
pub(super) fn needs(what: &str, name: &str, value: &str) -> String {
    format!("needs {what} as `{name}`, not `{value}`")
}
