//! Lines of an export.

use holdfast_proto::{
    lines::{Reader, Writer},
    v1::{
        Entry, NamespaceSettings, TransferEnd, TransferItems, TransferPart, TransferStart,
        transfer_part::Part,
    },
};

use crate::harness::fuzz;

#[test]
fn lines_that_can_be_read_come_back_as_they_are() {
    let entry = |key: &str, value: &'static [u8], content_type: &str| Entry {
        key: key.into(),
        value: Some(value.into()),
        content_type: content_type.into(),
        version: 2,
        create_revision: 3,
        mod_revision: 4,
        expires_at_ms: Some(1_700_000_000_000),
        ..Entry::default()
    };
    let entries = vec![
        entry("a", b"text", "text/plain"),
        entry("b", b"\xff\0", ""),
        entry("\u{e9}", b"{\"c\":[1.0]}", "application/json"),
    ];
    let start = TransferStart {
        namespace: "n".into(),
        revision: 7,
        settings: Some(NamespaceSettings { default_ttl_ms: Some(5), ..Default::default() }),
        ..TransferStart::default()
    };
    let parts = [
        Part::Start(start),
        Part::Items(TransferItems { entries, ..TransferItems::default() }),
        Part::End(TransferEnd { entry_count: 3, ..TransferEnd::default() }),
    ];
    let file = written(&parts.map(|part| TransferPart { part: Some(part) }));
    assert!(read(&file).is_ok_and(|parts| !parts.is_empty()));
    fuzz("export_lines", &[file], |bytes| {
        if let Ok(parts) = read(bytes) {
            assert_eq!(read(&written(&parts)), Ok(parts));
        }
    });
}

fn read(file: &[u8]) -> Result<Vec<TransferPart>, String> {
    let mut reader = Reader::new();
    let mut parts = Vec::new();
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        parts.extend(reader.read(line).map_err(|error| error.to_string())?);
    }
    reader.finish().map_err(|error| error.to_string())?;
    Ok(parts)
}

fn written(parts: &[TransferPart]) -> Vec<u8> {
    let (mut writer, mut file) = (Writer::new(), Vec::new());
    parts.iter().for_each(|part| writer.write(part, &mut file));
    writer.finish(&mut file);
    file
}
