//! What it means that Redis answers with an error.

use redis::ServerError;

use super::LinkError;
use crate::backend::redis::url::Address;

/// Why a command or script was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The server does not know the script (any more).
    NoScript,
    /// The slot is another node's.
    Moved { slot: u16, address: Address },
    /// The slot is on its way to another node, and these keys are there or would be made there.
    Ask { address: Address },
    /// Of these keys some have gone to another node, and some have not.
    TryAgain,
    /// Writes are refused just now, whoever asks.
    Unwritable(String),
    /// This was refused before it was begun.
    Unavailable(String),
    /// The script was begun, and ended in an error or answered with one.
    Script(String),
}

/// Redis refuses commands, and a script's first write, for what it is in a state for: nothing was written yet.
const UNWRITABLE: [&str; 10] = [
    "OOM",
    "READONLY",
    "MISCONF",
    "NOREPLICAS",
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "NOAUTH",
    "DENIED",
];

/// These refuse this command alone, or this user.
const UNAVAILABLE: [&str; 4] = ["WRONGPASS", "NOPERM", "CROSSSLOT", "UNKILLABLE"];

impl Refusal {
    pub(super) fn of(error: &ServerError) -> Self {
        let (code, detail) = (error.code(), error.details().unwrap_or_default());
        let text = || format!("{code} {detail}").trim_end().to_owned();
        match code {
            "NOSCRIPT" => Self::NoScript,
            "TRYAGAIN" => Self::TryAgain,
            "MOVED" | "ASK" => redirect(code, detail).unwrap_or_else(|| Self::Unavailable(text())),
            code if UNWRITABLE.contains(&code) => Self::Unwritable(text()),
            code if UNAVAILABLE.contains(&code) && !is_inside(detail) => Self::Unavailable(text()),
            "ERR" if detail.starts_with("max number of clients") => Self::Unavailable(text()),
            // `SCRIPT KILL` ends only what has not written yet.
            "ERR" if detail.starts_with("Script killed by user") => Self::Unavailable(text()),
            _ => Self::Script(text()),
        }
    }

    /// Whether it may be answered otherwise elsewhere or in a moment.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::NoScript | Self::Moved { .. } | Self::Ask { .. } | Self::TryAgain)
    }
}

impl From<Refusal> for LinkError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unwritable(text) | Refusal::Unavailable(text) => Self::Unavailable(text),
            Refusal::Script(text) => Self::Script(text),
            Refusal::NoScript => Self::Unavailable("the script could not be loaded".into()),
            Refusal::Moved { address, .. } | Refusal::Ask { address } => {
                Self::Unavailable(format!("the slot has moved to {address}"))
            }
            Refusal::TryAgain => Self::Unavailable("the slot is being moved".into()),
        }
    }
}

/// Whether a call inside a script was refused, which may have written before.
fn is_inside(detail: &str) -> bool {
    detail.contains("script: ")
}

/// `SLOT HOST:PORT`; the host is empty where the node that says so does not know its own name.
fn redirect(code: &str, detail: &str) -> Option<Refusal> {
    let (slot, target) = detail.split_once(' ')?;
    let (host, port) = target.trim().rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let (slot, port) = (slot.parse().ok()?, port.parse().ok()?);
    let address = Address { host, port };
    match code {
        "MOVED" => Some(Refusal::Moved { slot, address }),
        _ => Some(Refusal::Ask { address }),
    }
}
