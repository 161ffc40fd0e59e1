//! Looks through stored state without changing it.

use std::path::Path;

use super::{
    layer::FileLayer,
    load::{self, Files},
    names::Kind,
};
use crate::backend::{
    Finding,
    embedded::{journal::LoadError, load::Loaded},
};

/// Most findings of one file that are told.
const MAX_FINDINGS: usize = 100;

/// What there is, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many files were read.
    pub files: u64,
    /// How many lines they have.
    pub lines: u64,
    /// How many namespaces there are, deleted ones included.
    pub namespaces: u64,
    /// How many keys of users these hold.
    pub keys: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Checks every line by itself, and then whether all of them together make a state. The directory should not be in use.
///
/// # Errors
/// Where files cannot be read at all.
pub fn verify(layer: &dyn FileLayer, directory: &Path) -> Result<Report, LoadError> {
    let mut report = Report::default();
    for name in Files::find(layer, directory)?.names {
        if name.kind == Kind::Temporary {
            continue;
        }
        report.files += 1;
        let file = directory.join(name.to_string());
        let mut told = 0;
        let findings = &mut report.findings;
        report.lines += load::check_lines(layer, directory, name, |line, problem| {
            told += 1;
            if told <= MAX_FINDINGS {
                let place = format!("{}, line {line}", file.display());
                findings.push(Finding { place, problem, harmless: false });
            }
        })?;
    }
    let mut loaded = Loaded::default();
    match load::load(layer, directory, &mut loaded) {
        Ok(found) => {
            (report.namespaces, report.keys) = loaded.size();
            for finding in &mut report.findings {
                // What can be loaded has no damage but what will be cut off, or is in files of no use any more.
                finding.harmless = true;
            }
            report.findings.extend(found.stale.into_iter().map(|file| Finding {
                place: directory.join(file).display().to_string(),
                problem: "it is of no use any more, and removed at the next start".into(),
                harmless: true,
            }));
        }
        Err(error @ LoadError::Io { .. }) => return Err(error),
        Err(error) => {
            let (place, problem) = (directory.display().to_string(), error.to_string());
            report.findings.push(Finding { place, problem, harmless: false });
        }
    }
    Ok(report)
}
