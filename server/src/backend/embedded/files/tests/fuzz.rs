//! Lines that are almost right. That checksums keep nearly all of them out is tested elsewhere: here they are read.

use bytes::Bytes;

use super::{
    super::{
        decode::{self, Decoder},
        line,
    },
    state::{draft, key, name},
};
use crate::{
    backend::{
        ContentType, Created, Deadline, Draft, Entry, GroupIndex, Lineage, NewDeadline, Position,
        Removal, Revision, Write, WriteOp,
        embedded::journal::{Action, NamespaceState, Record},
    },
    fuzz::fuzz,
};

#[test]
fn lines_of_journals_come_back() {
    fuzz("journal_lines", &examples(), |bytes| {
        let _ = decode::check(bytes);
        let _ = decode::header(bytes, "journal");
        let Ok(record) = Decoder::default().journal(bytes) else {
            return;
        };
        let written = line::record(&record);
        let written = written.strip_suffix(b"\n").unwrap_or(&written);
        decode::check(written).unwrap();
        let Ok(again) = Decoder::default().journal(written) else {
            panic!("what was written cannot be read: {}", written.escape_ascii());
        };
        assert_eq!(format!("{record:?}"), format!("{again:?}"));
    });
}

#[test]
fn lines_of_snapshots_are_read_or_refused() {
    let mut examples = examples();
    let mut lines = Vec::new();
    line::namespace(
        &mut lines,
        &NamespaceState {
            name: name("n"),
            position: Position(7),
            revision: Revision(6),
            time_ms: 5,
            lineage: Some(Lineage(uuid::Uuid::from_u128(7))),
            created_at_ms: 4,
            birth: Revision(3),
            cleared: Revision(2),
        },
    );
    line::dropped(&mut lines, &key("k"));
    line::namespace_end(&mut lines, Revision(5));
    line::snapshot_end(&mut lines, 9);
    examples.extend(lines.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    examples.push(
        br#"{"op":"set","k":"a","r":5,"t":6,"v":1,"type":"text/plain","text":"x","at":7}"#.to_vec(),
    );
    fuzz("snapshot_lines", &examples, |bytes| {
        let _ = Decoder::default().snapshot(bytes);
    });
}

fn examples() -> Vec<Vec<u8>> {
    let before = Created::Before(Revision(3), 30);
    let full = |content_type: &'static str, value: &'static [u8], deadline| Draft {
        content_type: content_type.into(),
        version: 7,
        created: before,
        deadline,
        ..draft(value)
    };
    let ops = [
        WriteOp::Set(full("application/json", b"{\"a\":[1.0]}", NewDeadline::After(500))),
        WriteOp::SetDeadline(full("", b"\xff\0", NewDeadline::Of(key("\0lease\0a")))),
        WriteOp::Remove(Removal::Revoked),
        WriteOp::SetUnlogged(Draft { created: Created::By(GroupIndex(0)), ..draft(b"u") }),
        WriteOp::RemoveUnlogged,
    ];
    let writes: Vec<_> = ops.into_iter().map(|op| vec![Write { key: key("k\"1"), op }]).collect();
    let entry = Entry {
        value: Bytes::from_static(b"v"),
        content_type: ContentType::UNKNOWN,
        version: 2,
        create_revision: Revision(1),
        mod_revision: Revision(2),
        created_at_ms: -1,
        updated_at_ms: 3,
        deadline: Deadline::At(9),
    };
    let actions = [
        Action::Write(writes.clone().into()),
        Action::Clear(writes.into_iter().flatten().filter(|it| !it.op.is_logged()).collect()),
        Action::Delete,
        Action::Stage(vec![(key("k"), entry)]),
        Action::Replace(Some(name("!n")), Revision(8)),
    ];
    let record = |action| Record {
        namespace: name("n"),
        position: Position(3),
        before: Revision(5),
        time_ms: 1_700_000_000_000,
        lineage: Some(Lineage(uuid::Uuid::from_u128(1))),
        compacted: Some(Revision(4)),
        action,
    };
    let line = |action| {
        let line = line::record(&record(action));
        line.strip_suffix(b"\n").map_or(line.clone(), <[u8]>::to_vec)
    };
    actions.map(line).to_vec()
}
