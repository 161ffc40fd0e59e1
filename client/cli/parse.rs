//! How arguments are read.

use std::{fs, io::Read as _, time::Duration};

use clap::Args;
use holdfast_client::{Expiry, Guard, LockOwner, Selector};

use crate::{failure::Failure, process};

/// `500ms`, `30s`, `1h 30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "not a duration, such as 500ms, 30s, 5m, 2h or 7d".to_owned())
}

/// A duration, or `never`.
pub fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry::Never);
    }
    duration(text).map(Expiry::Ttl).map_err(|error| format!("{error}, and not `never`"))
}

/// `4096`, `64KiB`, `256MiB`, `2GiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match &text[digits.len()..] {
        "" | "B" => Some(1),
        "KiB" => Some(1_u64 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "TiB" => Some(1 << 40),
        _ => None,
    };
    digits
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| "not a number of bytes, such as 4096, 64KiB, 256MiB or 2GiB".to_owned())
}

/// `KEY=VALUE`; the value may have further `=`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "not KEY=VALUE".to_owned())
}

/// `LOCK=TOKEN`; the name of the lock may have `=` in it.
fn guard(text: &str) -> Result<Guard, String> {
    let (lock, token) = text.rsplit_once('=').ok_or_else(|| "not LOCK=TOKEN".to_owned())?;
    match token.parse::<u64>() {
        Ok(token) => Ok(Guard::new(lock, token)),
        Err(_) => Err(format!("not LOCK=TOKEN: {token:?} is not a number")),
    }
}

/// Which locks must be held for a write to be applied.
#[derive(Args)]
pub struct GuardArgs {
    /// Only if the lock is held with this token at that very moment; may be given several times
    #[arg(long = "guard", value_name = "LOCK=TOKEN", value_parser = guard)]
    guards: Vec<Guard>,
}

impl GuardArgs {
    /// Puts the guards on a write, one after the other.
    pub fn on<B>(&self, write: B, put: impl Fn(B, Guard) -> B) -> B {
        self.guards.iter().cloned().fold(write, put)
    }
}

/// What a hold says about its owner beside which process it is.
#[derive(Args)]
pub struct OwnerArgs {
    /// Who it is for, shown to those who find it taken
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// What it is for, shown to those who find it taken
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl OwnerArgs {
    pub fn owner(&self) -> LockOwner {
        let version = concat!("holdfast ", env!("CARGO_PKG_VERSION"));
        let mut owner = LockOwner::new(process::name()).client_version(version);
        if let Some(who) = &self.who {
            owner = owner.who(who);
        }
        if let Some(reason) = &self.reason {
            owner = owner.reason(reason);
        }
        owner
    }
}

/// Which keys a command is about; all unless said.
#[derive(Args)]
pub struct SelectorArgs {
    /// A pattern for whole keys: * ? [a-z] [!a-z], and \ before what is meant literally
    pub glob: Option<String>,
    /// Every key that begins with this, instead of a pattern
    #[arg(long, conflicts_with = "glob")]
    pub prefix: Option<String>,
}

impl SelectorArgs {
    pub fn selector(&self) -> Selector {
        selector(self.glob.clone(), self.prefix.clone())
    }
}

/// The keys of a pattern, or those that begin with a prefix, or all.
pub fn selector(glob: Option<String>, prefix: Option<String>) -> Selector {
    match (glob, prefix) {
        (Some(glob), _) => Selector::glob(glob),
        (None, Some(prefix)) => Selector::prefix(prefix),
        (None, None) => Selector::all(),
    }
}

/// The value of an argument where `-` stands for the standard input, byte by byte.
pub fn value_or_stdin(value: String) -> Result<Vec<u8>, Failure> {
    if value == "-" { stdin() } else { Ok(value.into_bytes()) }
}

/// What stands in a file, or comes from the standard input if its name is `-`.
pub fn file_or_stdin(path: &str) -> Result<Vec<u8>, Failure> {
    if path == "-" {
        return stdin();
    }
    file(path)
}

/// What stands in a file.
pub fn file(path: &str) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::io(format!("cannot read {path}"), error))
}

fn stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::io("cannot read the standard input", error))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("1h 30m", 5_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "30", "s", "-1s", "soon", "never"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(expiry("never"), Ok(Expiry::Never));
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        for text in ["", "KiB", "1kb", "-1", "99999999999TiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_guard_is_split_at_its_last_equals_sign() {
        assert_eq!(guard("a=b=7"), Ok(Guard::new("a=b", 7)));
        for text in ["", "a", "7", "a=", "a=b", "a=-1"] {
            assert!(guard(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pair_is_split_at_its_first_equals_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("a").is_err());
    }
}
