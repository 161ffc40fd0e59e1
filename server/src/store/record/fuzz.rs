//! Records that are almost right: those that can be read come back as they are, and none is read in a way that ends
//! the server.

use std::fmt::Debug;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Ended, Hold, HoldDuration, LeaseRecord, LockRecord, LossCause, Owner, Past, Queue, Ticket,
    decode, encode, request,
};
use crate::{
    backend::{
        Change, ChangeKind, ContentType, Deadline, Entry, GroupIndex, GroupStamp, Key, Revision,
        SharedChange, StoredEntry,
    },
    fuzz::fuzz,
    store::{
        RequestId,
        command::{DeleteRangeReply, Reply},
        settings::Settings,
    },
};

#[test]
fn records_of_locks_and_leases_come_back() {
    let ended = vec![
        Ended { token: 7, cause: LossCause::Broken { reason: "why".into() } },
        Ended { token: 6, cause: LossCause::LeaseExpired },
    ];
    let past = Past::from(ended.as_slice());
    let hold = Hold {
        acquire_id: uuid::Uuid::from_u128(7),
        owner: Owner { id: "ann".into(), ..Owner::default() },
        value: Bytes::from_static(b"\xff\0"),
        duration: HoldDuration::Lease(u64::MAX),
        call: Some(u64::MAX),
        is_offered: true,
        before: past.clone(),
    };
    let lease = LeaseRecord { ttl_ms: 1000, is_chosen: true, keys: 3, locks: u32::MAX };
    let examples = [
        encode(&LockRecord::Held(Box::new(hold.clone()))),
        encode(&LockRecord::Free(past)),
        encode(&hold),
        encode(&Queue { waiting: 2, last_ticket: u64::MAX }),
        encode(&Ticket { ticket: 3, call: None }),
        encode(&lease),
        encode(&Settings { default_ttl_ms: Some(1), ..Settings::default() }),
    ];
    fuzz("records", &examples.map(Vec::from), |bytes| {
        comes_back::<LockRecord>(bytes);
        let past = decode(bytes).map(LockRecord::into_past);
        let _ = past.map(|past| past.cause_of_loss(Revision(6)));
        comes_back::<Hold>(bytes);
        comes_back::<Queue>(bytes);
        comes_back::<Ticket>(bytes);
        comes_back::<LeaseRecord>(bytes);
        comes_back::<Settings>(bytes);
        let _ = LeaseRecord::of(bytes, Revision(1), Revision(2));
    });
}

#[test]
fn answers_are_found_or_not() {
    let first = stored(10, with_answers(None, &[1, 2]));
    let second = with_answers(Some(first.clone()), &[3]);
    fuzz("answers", &[first.value.to_vec(), second.into()], |bytes| {
        let record = stored(20, Bytes::copy_from_slice(bytes));
        let numbers = request::numbers(bytes);
        for seq in [0, 1, 2, 3] {
            if let Some((answer, written)) = request::find(&record, seq) {
                let _ = answer.recall(None, written);
            }
        }
        // Whatever is there, another answer can be added, and is found.
        if let Some(numbers) = numbers
            && !numbers.contains(&99)
            && request::find(&record, 99).is_none()
            && request::find(&record, numbers.first().copied().unwrap_or(99)).is_some()
        {
            let more = stored(30, with_answers(Some(record), &[99]));
            assert!(request::find(&more, 99).is_some(), "{}", more.value.escape_ascii());
        }
    });
}

fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(record) = serde_json::from_slice::<T>(bytes) {
        assert_eq!(super::decode::<T>(&encode(&record)), Some(record));
    }
}

fn with_answers(record: Option<StoredEntry>, seqs: &[u64]) -> Bytes {
    let numbers = record.as_ref().and_then(|it| request::numbers(&it.value)).unwrap_or_default();
    let mut writer = request::RecordWriter::new(record, numbers);
    let expected = [Revision(1), Revision(2)];
    for seq in seqs {
        let request = RequestId { client: 1, seq: *seq, done_below: 1, fingerprint: 9 };
        let revisions = request::Revisions { expected: &expected, last: Revision(2) };
        let reply = match seq % 2 {
            0 => Reply::Increment(-7),
            _ => Reply::DeleteRange(DeleteRangeReply { deleted: 3, more: true }),
        };
        writer.add(&request::KeptAnswer::new(&request, None, &reply, GroupIndex(0), revisions));
    }
    writer.finish()
}

fn stored(revision: u64, value: Bytes) -> StoredEntry {
    let stamp = GroupStamp { revision: Revision(revision), time_ms: 7 };
    let entry = Entry {
        value,
        content_type: ContentType::JSON,
        version: 1,
        create_revision: stamp.revision,
        mod_revision: stamp.revision,
        created_at_ms: 7,
        updated_at_ms: 7,
        deadline: Deadline::Never,
    };
    let change = Change::new(Key::new(b"k"), stamp, ChangeKind::Set, Some(entry), None);
    StoredEntry::of(SharedChange::new(change)).expect("it has an entry")
}
