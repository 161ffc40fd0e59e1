//! Page tokens: where a list goes on. Clients hand them back as they are.
//!
//! A token is of one query: it holds a checksum of it, and one of itself. Neither is a secret. A token that a
//! client makes up shows it nothing that it could not ask for.

use bytes::{Buf, BufMut, Bytes};
use holdfast_proto::v1::ErrorReason;
use prost::Message;
use uuid::Uuid;

use super::{path::Path, status::Failure};
use crate::{
    backend::{Key, Lineage, Revision},
    store::Cursor,
};

const FORMAT: u8 = 1;

/// What kind of call a token goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    List = b'l',
    BatchGet = b'b',
    Namespaces = b'n',
    Locks = b'k',
    Leases = b'e',
}

/// Where a list, or a batch of reads, goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageToken {
    /// The state that all pages are of.
    pub cursor: Cursor,
    /// How many keys of a batch have been answered.
    pub index: u32,
}

impl PageToken {
    /// The token as bytes, bound to a query.
    pub fn encode(&self, kind: Kind, query: &impl Message) -> Bytes {
        let Cursor { revision, time_ms, by_clock, lineage, edge } = &self.cursor;
        let mut bytes = Vec::new();
        bytes.put_u64(revision.0);
        bytes.put_i64(*time_ms);
        bytes.put_u8((*by_clock).into());
        bytes.put_u128(lineage.map_or(0, |Lineage(uuid)| uuid.as_u128()));
        bytes.put_u32(self.index);
        if let Some(edge) = edge {
            bytes.put_u8(1);
            bytes.put_slice(edge.as_bytes());
        }
        seal(kind, query, &bytes)
    }

    /// Reads what `encode` has written for the same query; nothing where there is no token.
    pub fn decode(
        kind: Kind,
        query: &impl Message,
        token: &Bytes,
    ) -> Result<Option<Self>, Failure> {
        if token.is_empty() {
            return Ok(None);
        }
        let payload = open(kind, query, token)?;
        Self::read(payload).map(Some).ok_or_else(invalid)
    }

    fn read(mut payload: &[u8]) -> Option<Self> {
        let revision = Revision(payload.try_get_u64().ok()?);
        let time_ms = payload.try_get_i64().ok()?;
        let by_clock = payload.try_get_u8().ok()? != 0;
        let lineage = payload.try_get_u128().ok().map(Uuid::from_u128)?;
        let index = payload.try_get_u32().ok()?;
        let edge = payload.split_first().map(|(_, edge)| Key::new(edge));
        let lineage = (!lineage.is_nil()).then_some(Lineage(lineage));
        let cursor = Cursor { revision, time_ms, by_clock, lineage, edge };
        Some(Self { cursor, index })
    }
}

/// The token of a list that goes on after a name.
pub(super) fn after_name(kind: Kind, query: &impl Message, name: &str) -> Bytes {
    seal(kind, query, name.as_bytes())
}

/// The name that a list goes on after; nothing where there is no token.
pub(super) fn name<'a>(
    kind: Kind,
    query: &impl Message,
    token: &'a [u8],
) -> Result<Option<&'a str>, Failure> {
    if token.is_empty() {
        return Ok(None);
    }
    let name = std::str::from_utf8(open(kind, query, token)?);
    name.map(Some).map_err(|_| invalid())
}

/// The token of a list that goes on after a number.
pub(super) fn after_number(kind: Kind, query: &impl Message, number: u64) -> Bytes {
    seal(kind, query, &number.to_be_bytes())
}

/// The number that a list goes on after; nothing where there is no token.
pub(super) fn number(
    kind: Kind,
    query: &impl Message,
    token: &[u8],
) -> Result<Option<u64>, Failure> {
    if token.is_empty() {
        return Ok(None);
    }
    let number = open(kind, query, token)?.try_into();
    number.map(|number| Some(u64::from_be_bytes(number))).map_err(|_| invalid())
}

/// Binds what a token says to a query, and against damage.
fn seal(kind: Kind, query: &impl Message, payload: &[u8]) -> Bytes {
    let mut token = Vec::with_capacity(payload.len() + 10);
    token.put_u8(FORMAT);
    token.put_u8(kind as u8);
    token.put_u32(crc32fast::hash(&query.encode_to_vec()));
    token.put_slice(payload);
    token.put_u32(crc32fast::hash(&token));
    token.into()
}

fn open<'a>(kind: Kind, query: &impl Message, token: &'a [u8]) -> Result<&'a [u8], Failure> {
    let read = || {
        let (mut body, checksum) = token.split_last_chunk::<4>()?;
        let intact = crc32fast::hash(body) == u32::from_be_bytes(*checksum);
        let fits = body.try_get_u8().ok()? == FORMAT
            && body.try_get_u8().ok()? == kind as u8
            && body.try_get_u32().ok()? == crc32fast::hash(&query.encode_to_vec());
        (intact && fits).then_some(body)
    };
    read().ok_or_else(invalid)
}

fn invalid() -> Failure {
    let problem = "was not made by this query, or is damaged; ask with the `next_page_token` of the page \
                   before and everything else as it was, or from the beginning without a token";
    Failure::invalid(ErrorReason::InvalidPageToken, Path::of("page_token"), problem)
}

#[cfg(test)]
mod tests {
    use holdfast_proto::v1::ListRequest;

    use super::*;
    use crate::fuzz::fuzz;

    fn query(namespace: &str) -> ListRequest {
        ListRequest { namespace: namespace.into(), ..ListRequest::default() }
    }

    fn tokens() -> Vec<PageToken> {
        let lineages = [None, Some(Lineage(Uuid::from_u128(7)))];
        let edges = [None, Some(Key::new(b"")), Some(Key::new(&[0xff; 1025]))];
        let mut tokens = Vec::new();
        for (lineage, edge) in
            lineages.iter().flat_map(|it| edges.iter().map(move |edge| (it, edge)))
        {
            for by_clock in [false, true] {
                let (lineage, edge) = (*lineage, edge.clone());
                let (revision, time_ms) = (Revision(1 << 52), -5);
                let cursor = Cursor { revision, time_ms, by_clock, lineage, edge };
                tokens.push(PageToken { cursor, index: 1023 });
            }
        }
        tokens
    }

    #[test]
    fn is_read_as_it_was_written() {
        for token in tokens() {
            let bytes = token.encode(Kind::List, &query("a"));
            let read = PageToken::decode(Kind::List, &query("a"), &bytes).unwrap();
            assert_eq!(read, Some(token));
        }
        let bytes = after_name(Kind::Locks, &query("a"), "name");
        assert_eq!(name(Kind::Locks, &query("a"), &bytes).unwrap(), Some("name"));
        let bytes = after_number(Kind::Leases, &query("a"), u64::MAX);
        assert_eq!(number(Kind::Leases, &query("a"), &bytes).unwrap(), Some(u64::MAX));
    }

    #[test]
    fn fits_its_query_only() {
        let bytes = tokens()[0].encode(Kind::List, &query("a"));
        PageToken::decode(Kind::List, &query("b"), &bytes).unwrap_err();
        PageToken::decode(Kind::BatchGet, &query("a"), &bytes).unwrap_err();
        name(Kind::Namespaces, &query("a"), &bytes).unwrap_err();
        let bytes = after_name(Kind::Locks, &query("a"), "12345678");
        number(Kind::Leases, &query("a"), &bytes).unwrap_err();
    }

    #[test]
    fn anything_else_is_refused() {
        let mut examples: Vec<Vec<u8>> = Vec::new();
        examples.extend(tokens().iter().map(|it| it.encode(Kind::List, &query("a")).into()));
        examples.push(after_name(Kind::Locks, &query("a"), "name").into());
        examples.push(after_number(Kind::Leases, &query("a"), u64::MAX).into());
        fuzz("page_tokens", &examples, |bytes| {
            let token = Bytes::copy_from_slice(bytes);
            if let Ok(Some(read)) = PageToken::decode(Kind::List, &query("a"), &token) {
                let again = read.encode(Kind::List, &query("a"));
                let known = PageToken::decode(Kind::List, &query("a"), &again).unwrap();
                assert_eq!(known, Some(read));
            }
            if let Ok(Some(read)) = name(Kind::Locks, &query("a"), bytes) {
                assert_eq!(after_name(Kind::Locks, &query("a"), read), token);
            }
            if let Ok(Some(read)) = number(Kind::Leases, &query("a"), bytes) {
                assert_eq!(after_number(Kind::Leases, &query("a"), read), token);
            }
            // What is sealed passes the checksum, and only then is anything read.
            let _ = PageToken::read(bytes);
        });
    }

    #[test]
    fn is_refused_when_damaged_anywhere() {
        for token in tokens() {
            let bytes = token.encode(Kind::List, &query("a")).to_vec();
            for position in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[position] ^= 0x10;
                PageToken::decode(Kind::List, &query("a"), &damaged.into()).unwrap_err();
                if position > 0 {
                    let cut = bytes[..position].to_vec();
                    PageToken::decode(Kind::List, &query("a"), &cut.into()).unwrap_err();
                }
            }
        }
    }
}
