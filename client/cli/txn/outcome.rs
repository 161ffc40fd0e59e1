//! What a transaction did, as JSON and as text.

use std::fmt;

use bytes::Bytes;
use holdfast_client::{EncodedEntry, Entry, Error, OpResult, Raw, TransactionOutcome};
use serde::Serialize;

use super::draft::{CompareDraft, Draft, OperationDraft};
use crate::shape::{EntryShape, printable};

/// The JSON names each result like its operation: `{"get": {…}}`.
#[derive(Serialize)]
pub struct OutcomeShape<'a> {
    succeeded: bool,
    /// Indexes, from 0.
    failed_compares: &'a [usize],
    revision: u64,
    results: Vec<ResultShape>,
    #[serde(skip)]
    compares: &'a [CompareDraft],
    #[serde(skip)]
    operations: &'a [OperationDraft],
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum ResultShape {
    Get(GetShape),
    Set { created: bool, mod_revision: u64 },
    Del { deleted: u64, more: bool },
    Expire { found: bool },
    Incr { value: i64 },
    List { entries: Vec<Found>, more: bool },
}

#[derive(Serialize)]
struct GetShape {
    found: bool,
    #[serde(flatten)]
    entry: Option<Found>,
}

/// An entry, with its value if that was asked for.
enum Found {
    Entry(Entry<Bytes>),
    Key(holdfast_client::Metadata),
}

impl<'a> OutcomeShape<'a> {
    pub fn new(draft: &'a Draft, outcome: &'a TransactionOutcome<Raw>) -> Result<Self, Error> {
        let operations = if outcome.succeeded { &draft.then } else { &draft.otherwise };
        Ok(Self {
            succeeded: outcome.succeeded,
            failed_compares: &outcome.failed_compares,
            revision: outcome.header.revision.get(),
            results: outcome
                .results
                .iter()
                .filter_map(|result| ResultShape::new(result).transpose())
                .collect::<Result<_, _>>()?,
            compares: &draft.compare,
            operations,
        })
    }
}

impl ResultShape {
    /// None for what this program did not ask for.
    fn new(result: &OpResult<Raw>) -> Result<Option<Self>, Error> {
        Ok(Some(match result {
            OpResult::Get(entry) => Self::Get(GetShape {
                found: entry.is_some(),
                entry: entry.as_ref().map(Found::new).transpose()?,
            }),
            OpResult::Set { metadata, created, .. } => {
                Self::Set { created: *created, mod_revision: metadata.mod_revision.get() }
            }
            OpResult::Delete { deleted, .. } => {
                Self::Del { deleted: u64::from(*deleted), more: false }
            }
            OpResult::DeleteRange { deleted, more } => Self::Del { deleted: *deleted, more: *more },
            OpResult::SetTtl { found } => Self::Expire { found: *found },
            OpResult::Increment { value } => Self::Incr { value: *value },
            OpResult::List { entries, more } => Self::List {
                entries: entries.iter().map(Found::new).collect::<Result<_, _>>()?,
                more: *more,
            },
            _ => return Ok(None),
        }))
    }
}

impl Found {
    fn new(entry: &EncodedEntry<Raw>) -> Result<Self, Error> {
        Ok(match entry.bytes() {
            Some(_) => Found::Entry(entry.decode()?),
            None => Found::Key(entry.metadata()),
        })
    }
}

impl Serialize for Found {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Found::Entry(entry) => EntryShape::new(entry).serialize(serializer),
            Found::Key(metadata) => EntryShape::without_value(metadata).serialize(serializer),
        }
    }
}

impl fmt::Display for OutcomeShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.succeeded { "succeeded" } else { "not done" };
        write!(f, "{done}, revision {}", self.revision)?;
        for index in self.failed_compares {
            let key = self.compares.get(*index).map_or("", CompareDraft::name);
            write!(f, "\ncompare\t{}\tdoes not hold", printable(key.as_bytes()))?;
        }
        for (operation, result) in self.operations.iter().zip(&self.results) {
            let (name, what) = operation.name();
            write!(f, "\n{name}\t{}\t{result}", printable(what.as_bytes()))?;
        }
        Ok(())
    }
}

impl fmt::Display for ResultShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get(get) => match &get.entry {
                Some(entry) => entry.fmt(f),
                None => f.write_str("(missing)"),
            },
            Self::Set { created: true, .. } => f.write_str("created"),
            Self::Set { created: false, .. } => f.write_str("changed"),
            Self::Del { deleted, more } => {
                write!(f, "{deleted} deleted")?;
                f.write_str(if *more { ", more are left" } else { "" })
            }
            Self::Expire { found: true } => f.write_str("changed"),
            Self::Expire { found: false } => f.write_str("(missing)"),
            Self::Incr { value } => value.fmt(f),
            Self::List { entries, more } => {
                let more = if *more { ", there are more" } else { "" };
                write!(f, "{} listed{more}", entries.len())?;
                for entry in entries {
                    write!(f, "\n\t{}", printable(entry.key().as_bytes()))?;
                    if let Found::Entry(_) = entry {
                        write!(f, "\t{entry}")?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl Found {
    fn key(&self) -> &str {
        match self {
            Found::Entry(entry) => entry.key(),
            Found::Key(metadata) => &metadata.key,
        }
    }
}

/// The value; empty if it is not known.
impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Entry(entry) => f.write_str(&printable(&entry.value)),
            Found::Key(_) => Ok(()),
        }
    }
}
