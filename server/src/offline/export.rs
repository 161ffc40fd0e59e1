//! `holdfastd export`.

use std::{
    io::{self, Write},
    sync::Arc,
};

use futures::{StreamExt as _, future::Either};
use holdfast_proto::{lines, v1::transfer_part::Part, whole_file::WholeFile};

use super::{OfflineError, failed};
use crate::{backend::NamespaceName, rpc::transfer, store::Store};

/// Writes namespaces, all unless some are named, to a file or, as `-`, to the standard output.
pub async fn export(
    store: Arc<Store>,
    file: &str,
    namespaces: &[String],
) -> Result<(), OfflineError> {
    let names: Vec<_> = namespaces.iter().map(|name| NamespaceName::new(name)).collect();
    for name in &names {
        if store.backend().namespace(name).await?.is_none() {
            return Err(OfflineError::NoNamespace(name.as_str().to_owned()));
        }
    }
    let mut parts = match names.is_empty() {
        true => Either::Left(transfer::export_all(store).boxed()),
        false => Either::Right(transfer::export(store, names).boxed()),
    };
    let unwritten = |error| failed(format!("cannot write {file}"), error);
    let whole = (file != "-").then(|| WholeFile::create(file)).transpose().map_err(unwritten)?;
    let mut out: Box<dyn Write + Send + '_> = match &whole {
        Some(whole) => Box::new(whole.file()),
        None => Box::new(io::stdout()),
    };
    let (mut writer, mut buffer) = (lines::Writer::new(), Vec::new());
    let (mut namespaces, mut entries) = (0, 0);
    while let Some(part) = parts.next().await {
        let part = part?;
        if let Some(Part::End(end)) = &part.part {
            namespaces += 1;
            entries += end.entry_count;
        }
        writer.write(&part, &mut buffer);
        out.write_all(&buffer).map_err(unwritten)?;
        buffer.clear();
    }
    writer.finish(&mut buffer);
    out.write_all(&buffer).and_then(|()| out.flush()).map_err(unwritten)?;
    drop(out);
    whole.map_or(Ok(()), WholeFile::finish).map_err(unwritten)?;
    tracing::info!(namespaces, entries, "exported");
    Ok(())
}
