//! `holdfastd import`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    sync::Arc,
};

use holdfast_proto::{lines, v1::ImportRequest};

use super::{OfflineError, failed};
use crate::{
    config::Config,
    rpc::{Limits, transfer::Importer},
    store::Store,
};

/// Reads namespaces from a file or, as `-`, from the standard input.
pub async fn import(
    store: Arc<Store>,
    config: &Config,
    file: &str,
    replace: bool,
) -> Result<(), OfflineError> {
    let unread = |error| failed(format!("cannot read {file}"), error);
    let malformed = |error| OfflineError::Line { file: file.to_owned(), error };
    let mut input = input(file).map_err(unread)?;
    let limits = Limits { max_value_bytes: config.limits.max_value_bytes, ..Limits::default() };
    let (mut importer, mut reader) = (Importer::new(store, limits), lines::Reader::new());
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).map_err(unread)? > 0 {
        for part in reader.read(&line).map_err(malformed)? {
            importer.take(ImportRequest { part: Some(part), replace }).await?;
        }
        line.clear();
    }
    reader.finish().map_err(malformed)?;
    let imported = importer.finish()?;
    let (namespaces, entries) = (imported.namespace_count, imported.entry_count);
    tracing::info!(namespaces, entries, "imported");
    Ok(())
}

fn input(file: &str) -> io::Result<Box<dyn BufRead + Send>> {
    Ok(match file {
        "-" => Box::new(BufReader::new(io::stdin())),
        file => Box::new(BufReader::with_capacity(1 << 20, File::open(file)?)),
    })
}
