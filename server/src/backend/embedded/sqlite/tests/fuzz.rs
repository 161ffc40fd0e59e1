//! Rows with anything in their columns: SQLite keeps whatever is put there, whatever the schema says.

use rusqlite::{Connection, params_from_iter, types::Value};

use super::super::columns;
use crate::{
    backend::{GroupStamp, Revision},
    fuzz::{fuzz, random::Random},
};

#[test]
fn rows_are_read_or_refused() {
    let connection = Connection::open_in_memory().unwrap();
    let mut select = connection.prepare("SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7").unwrap();
    let examples = [&b"text/plain"[..], b"\xff\0", b"3b9f0c52-0000-4000-8000-000000000007", b"set"];
    let select = std::cell::RefCell::new(&mut select);
    fuzz("rows", &examples.map(<[u8]>::to_vec), |bytes| {
        let mut random =
            Random::new(bytes.iter().fold(7, |sum, it| sum * 31 % 65_521 + u64::from(*it)));
        let mut value = || match random.below(6) {
            0 => Value::Null,
            1 => Value::Integer(random.next() as i64),
            2 => Value::Integer(random.below(5) as i64 - 2),
            3 => Value::Real(random.next() as f64),
            4 => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
            _ => Value::Blob(bytes.to_vec()),
        };
        let values: Vec<_> = (0..7).map(|_| value()).collect();
        let mut select = select.borrow_mut();
        let mut rows = select.query(params_from_iter(values)).unwrap();
        let row = rows.next().unwrap().unwrap();
        let stamp = GroupStamp { revision: Revision(1), time_ms: 1 };
        let _ = columns::entry(row, 0, stamp);
        for column in 0..7 {
            let _ = (columns::key(row, column), columns::lineage(row, column));
            let _ = columns::revision(row, column);
        }
        let _ = std::str::from_utf8(bytes).map(columns::kind);
    });
}
