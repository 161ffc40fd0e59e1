//! What stands in Redis, almost right: others can write there.

use bytes::Bytes;
use redis::Value;

use super::{
    head::{FIELDS, Head, losses},
    record,
    url::Settings,
};
use crate::{
    backend::{Deadline, Entry, Key, Revision},
    fuzz::fuzz,
};

#[test]
fn records_are_read_or_refused() {
    let key = Key::new(b"k");
    let deadlines =
        [Deadline::Never, Deadline::At(7), Deadline::Of(Box::new(Key::new(b"\0lease\0a")))];
    let examples = deadlines.map(|deadline| written(&key, &entry(deadline)).to_vec());
    fuzz("redis_records", &examples, |bytes| {
        let Ok(change) = record::parse(key.clone(), Bytes::copy_from_slice(bytes)) else {
            return;
        };
        if let Some(entry) = &change.entry {
            let again = record::parse(key.clone(), written(&key, entry)).unwrap();
            let (is, was) = (format!("{:?}", again.entry), format!("{:?}", change.entry));
            assert_eq!(is, was);
        }
    });
}

#[test]
fn heads_are_read_or_refused() {
    let lineage = "3b9f0c52-0000-4000-8000-000000000007";
    let fields = format!("2|me {lineage} 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19");
    let loss = format!("{lineage} 7 9\n{lineage} 3 5\n");
    fuzz("redis_heads", &[fields.into(), loss.into()], |bytes| {
        let mut fields: Vec<_> =
            bytes.split(|byte| *byte == b'|').map(|it| Value::BulkString(it.to_vec())).collect();
        let _ = Head::parse(7, fields.last().cloned().unwrap_or(Value::Nil));
        fields.resize(FIELDS.len(), Value::Nil);
        let _ = Head::settled(7, "me", Value::Array(fields));
        let _ = losses(bytes);
    });
}

#[test]
fn addresses_are_read_or_refused() {
    let examples = [
        "redis //me:secret@host:6379/3?prefix=a&tls=1",
        "rediss //host?ca=%2Fa&connect_timeout=2s",
        "redis+sentinel //a:1,b:2/master/0?sentinel_user=u&sentinel_password=p",
        "redis+cluster //[fe80::1],b:7001?wait_replicas=1&wait_timeout=1s",
    ];
    fuzz("redis_urls", &examples.map(|it| it.as_bytes().to_vec()), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (scheme, rest) = text.split_once(' ').unwrap_or(("redis", &text));
        let schemes = ["redis", "rediss", "redis+sentinel", "redis+cluster", "rediss+cluster"];
        let known = schemes.into_iter().find(|it| *it == scheme).unwrap_or("redis");
        let _ = Settings::parse(known, rest);
    });
}

fn entry(deadline: Deadline) -> Entry {
    Entry {
        value: Bytes::from_static(b"value\n1 2 3"),
        content_type: "text/plain".into(),
        version: 2,
        create_revision: Revision(1),
        mod_revision: Revision(3),
        created_at_ms: 5,
        updated_at_ms: 6,
        deadline,
    }
}

/// The record of an entry as it is staged.
fn written(key: &Key, entry: &Entry) -> Bytes {
    let mut arguments = Vec::new();
    record::stage_args(key, entry, &mut arguments);
    arguments.pop().expect("the record comes last")
}
