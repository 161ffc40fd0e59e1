//! Lines give back exactly what was written.

use super::{
    super::{decode, line},
    state::{draft, name},
};
use crate::backend::{
    Created, Draft, GroupIndex, Key, Lineage, NewDeadline, Position, Removal, Revision, Write,
    WriteOp,
    embedded::journal::{Action, Record},
};

#[test]
fn values_come_back_byte_by_byte() {
    let json = "application/json";
    for (content_type, value, expected) in [
        ("", &b"text"[..], r#""text":"text""#),
        ("", b"", r#""text":"""#),
        ("", b"\"quoted\"\nlines\0", r#""text":"\"quoted\"\nlines\u0000""#),
        ("", b"\xff\x00", r#""b64":"/wA=""#),
        ("text/plain", "žluť".as_bytes(), "\"type\":\"text/plain\",\"text\":\"žluť\""),
        (json, br#"{"b": 1.0,"a":[1e3]}"#, r#""json":{"b": 1.0,"a":[1e3]}"#),
        ("application/ld+json; q=1", b"null", r#""json":null"#),
        (json, b" 1", r#""text":" 1""#),
        (json, b"1 ", r#""text":"1 ""#),
        (json, b"{\n}", r#""text":"{\n}""#),
        (json, b"{\"a\":1", r#""text":"{\"a\":1""#),
        (json, b"1 2", r#""text":"1 2""#),
        (json, b"", r#""text":"""#),
        (json, b"\"\xff\"", r#""b64":"Iv8i""#),
        (json, b"123456789012345678901234567890.10", r#""json":123456789012345678901234567890.10"#),
    ] {
        let value = Draft { content_type: content_type.into(), ..draft(value) };
        let op = WriteOp::Set(value.clone());
        let record = write_record(vec![vec![Write { key: Key::new(b"k"), op }]]);
        let text = String::from_utf8(line::record(&record)).unwrap();
        assert!(text.contains(expected), "{text}");
        let Action::Write(read) = read(&text).action else { panic!("{text}") };
        let back = read.writes[0].op.draft().unwrap();
        assert_eq!((&back.value, &back.content_type), (&value.value, &value.content_type));
    }
}

#[test]
fn deeply_nested_json_is_no_danger() {
    let value = ["[".repeat(100_000), "]".repeat(100_000)].concat();
    let content_type = "application/json".into();
    let op = WriteOp::Set(Draft { content_type, ..draft(value.as_bytes()) });
    let record = write_record(vec![vec![Write { key: Key::new(b"k"), op }]]);
    let text = String::from_utf8(line::record(&record)).unwrap();
    let Action::Write(read) = read(&text).action else { panic!("{text}") };
    assert_eq!(read.writes[0].op.draft().unwrap().value, value);
}

#[test]
fn records_come_back_as_they_are_applied() {
    let full = |created, deadline| Draft { version: 7, created, deadline, ..draft(b"v") };
    let before = Created::Before(Revision(3), 30);
    let own = Created::By(GroupIndex(1));
    let drafts = [
        WriteOp::Set(full(own, NewDeadline::Never)),
        WriteOp::Set(full(before, NewDeadline::After(500))),
        WriteOp::SetDeadline(full(Created::By(GroupIndex(0)), NewDeadline::At(-5))),
        WriteOp::SetUnlogged(full(before, NewDeadline::Of(Key::new(b"\0lease\0\xff")))),
        WriteOp::Remove(Removal::Deleted),
        WriteOp::Remove(Removal::Ttl),
        WriteOp::Remove(Removal::Lease),
        WriteOp::Remove(Removal::Revoked),
        WriteOp::RemoveUnlogged,
    ];
    let keys: [&[u8]; 9] =
        [b"a", b"\0internal", b"\0\0note", b"\xf0\x28", b"\n", b"\"", b"\\", b"z", "ž".as_bytes()];
    let writes = keys.iter().zip(drafts).map(|(key, op)| Write { key: Key::new(key), op });
    let first = vec![Write { key: Key::new(b"unlogged"), op: WriteOp::RemoveUnlogged }];
    let mut record = write_record(vec![first, writes.collect()]);
    record.lineage = Some(Lineage(uuid::Uuid::from_u128(5)));
    record.compacted = Some(Revision(2));
    let text = String::from_utf8(line::record(&record)).unwrap();
    // Once resolved, a record is written the same way again.
    let once = read(&text);
    let twice = read(&String::from_utf8(line::record(&once)).unwrap());
    assert_eq!(format!("{once:?}"), format!("{twice:?}"));
    assert_eq!((once.lineage, once.compacted), (record.lineage, record.compacted));
    assert_eq!((once.position, once.before, once.time_ms), (Position(9), Revision(10), 1000));
    assert!(text.contains(r#""ends":1500"#) && text.contains(r#""ends":-5"#), "{text}");
    assert!(text.contains(r#""made":[10,1000]"#), "{text}");

    for action in [Action::Delete, Action::Clear(Vec::new())] {
        let record = Record { action, ..record.clone() };
        let back = read(&String::from_utf8(line::record(&record)).unwrap());
        assert_eq!(format!("{back:?}"), format!("{record:?}"));
    }
}

fn write_record(writes: Vec<Vec<Write>>) -> Record {
    Record {
        namespace: name("n"),
        position: Position(9),
        before: Revision(10),
        time_ms: 1000,
        lineage: None,
        compacted: None,
        action: Action::Write(writes.into()),
    }
}

fn read(text: &str) -> Record {
    let line = text.strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'));
    decode::check(line.as_bytes()).unwrap();
    decode::Decoder::default().journal(line.as_bytes()).unwrap()
}
