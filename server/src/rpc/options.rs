//! What any write may carry beside its operation: the history it is for, the locks it is made under, and by what
//! it is known if it comes again.

use holdfast_proto::v1::{self, ErrorReason as Reason, WriteOptions, pipeline_call::Operation};
use prost::Message;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    path::Path,
    status::Failure,
    validate::{self, shown},
};
use crate::{
    backend::Revision,
    store::{Guard, RequestId, Submission, Work},
};

const MAX_GUARDS: usize = 16;
const CLIENT_ID_BYTES: usize = 8;

/// What fingerprints are made with. They are kept with the answers to requests: another seed would make another
/// request of each.
const FINGERPRINT_SEED: u64 = 0x7265_7175_6573_7431;

/// Options of a write that were found fine.
#[derive(Debug, Default)]
pub(super) struct Options {
    expected_lineage: Option<String>,
    guards: Vec<Guard>,
    request: Option<RequestId>,
}

/// The namespace and the options of a request that writes.
type Parts<'a> = (&'a mut String, &'a mut Option<WriteOptions>);

impl Options {
    /// Takes the options out of an operation; of one that only reads there are none. Where the operation has an
    /// id, its namespace goes, too.
    pub fn take(operation: &mut Operation) -> Result<Self, Failure> {
        let is_acquire = matches!(operation, Operation::Acquire(_));
        let options = take(operation, parts, |operation| {
            let mut bytes = Vec::with_capacity(operation.encoded_len());
            operation.encode(&mut bytes);
            bytes
        })?;
        if is_acquire && options.request.is_some() {
            let problem = "cannot be given here; `acquire_id` is what this request is known by";
            return Err(Failure::invalid(Reason::InvalidRequestId, request_id_path(), problem));
        }
        Ok(options)
    }

    /// The same for a request that is no operation of a pipeline.
    pub fn take_from<M: Message>(
        method: &str,
        request: &mut M,
        parts: fn(&mut M) -> Parts<'_>,
    ) -> Result<Self, Failure> {
        take(
            request,
            |request| Some(parts(request)),
            |request| {
                // An operation begins with the number of a field, which is never 0.
                let mut bytes = [b"\0", method.as_bytes(), b"\0"].concat();
                bytes.extend(request.encode_to_vec());
                bytes
            },
        )
    }

    /// Work with these options.
    pub fn submission(self, work: Work) -> Submission {
        let Self { expected_lineage, guards, request } = self;
        Submission { expected_lineage, guards, request, work }
    }
}

fn take<R>(
    request: &mut R,
    parts: impl Fn(&mut R) -> Option<Parts<'_>>,
    encode: impl FnOnce(&R) -> Vec<u8>,
) -> Result<Options, Failure> {
    let Some((namespace, Some(options))) = parts(request) else {
        return Ok(Options::default());
    };
    let id = match options.request_id.take() {
        Some(id) => {
            namespace.clear();
            Some(request_id(&id, fingerprint(&encode(request)))?)
        }
        None => None,
    };
    let options = parts(request).and_then(|(_, options)| options.take()).unwrap_or_default();
    Ok(Options {
        expected_lineage: options.expected_lineage,
        guards: guards(&options.guards)?,
        request: id,
    })
}

fn request_id(id: &v1::RequestId, fingerprint: u64) -> Result<RequestId, Failure> {
    let at = request_id_path();
    let invalid =
        |name, problem| Err(Failure::invalid(Reason::InvalidRequestId, at.field(name), problem));
    let v1::RequestId { client_id, seq, done_below } = id;
    let Ok(client) = <[u8; CLIENT_ID_BYTES]>::try_from(&client_id[..]) else {
        let problem = format!(
            "has {} bytes, it must be {CLIENT_ID_BYTES}, chosen at random once for each client",
            client_id.len()
        );
        return invalid("client_id", problem);
    };
    if *seq == 0 {
        return invalid("seq", "is 0; count the requests of the client from 1".into());
    }
    if done_below > seq {
        let problem = format!(
            "is {done_below}, at most {seq} is allowed, the seq of this request: it is not answered yet"
        );
        return invalid("done_below", problem);
    }
    let (seq, done_below) = (*seq, *done_below);
    Ok(RequestId { client: u64::from_be_bytes(client), seq, done_below, fingerprint })
}

fn guards(guards: &[v1::Guard]) -> Result<Vec<Guard>, Failure> {
    let options = Path::of("options");
    if guards.len() > MAX_GUARDS {
        let problem = format!("has {}, at most {MAX_GUARDS} are allowed", guards.len());
        return Err(Failure::invalid(Reason::InvalidField, options.field("guards"), problem));
    }
    let mut checked = Vec::with_capacity(guards.len());
    for (index, guard) in guards.iter().enumerate() {
        let at = options.item_of("guards", index);
        let lock = validate::lock(&guard.lock, at.field("lock"))?;
        if checked.iter().any(|known: &Guard| known.lock == lock) {
            let problem = format!("names {} again; name each lock once", shown(&guard.lock));
            return Err(Failure::invalid(Reason::InvalidField, at.field("lock"), problem));
        }
        checked.push(Guard { lock, token: Revision(guard.token) });
    }
    Ok(checked)
}

fn request_id_path() -> Path<'static> {
    static OPTIONS: Path = Path::of("options");
    OPTIONS.field("request_id")
}

/// What tells another request under the same id from the same one sent again. It needs no secret: a client that makes two
/// requests with the same fingerprint deceives nobody but itself.
fn fingerprint(request: &[u8]) -> u64 {
    xxh3_64_with_seed(request, FINGERPRINT_SEED)
}

/// The parts of an operation that writes.
fn parts(operation: &mut Operation) -> Option<Parts<'_>> {
    macro_rules! parts {
        ($($writing:ident)*; $($reading:ident)*) => {
            match operation {
                $(Operation::$writing(request) => {
                    Some((&mut request.namespace, &mut request.options))
                })*
                $(Operation::$reading(_))|* => None,
            }
        };
    }
    parts! {
        Get Set Delete SetTtl Increment DeleteRange BatchSet BatchDelete Transact
        Acquire Renew Release UpdateValue BreakLock Grant Revoke;
        Exists GetTtl List Count History BatchGet GetLock ListLocks KeepAlive GetLease ListLeases
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use holdfast_proto::v1::{AcquireRequest, DeleteRequest, SetRequest};

    use super::*;

    const CLIENT: Bytes = Bytes::from_static(b"client 1");

    fn id(seq: u64) -> v1::RequestId {
        v1::RequestId { client_id: CLIENT, seq, done_below: 1 }
    }

    fn options(seq: u64, guard: &str) -> Option<WriteOptions> {
        Some(WriteOptions {
            expected_lineage: None,
            guards: vec![v1::Guard { lock: guard.into(), token: 7 }],
            request_id: Some(id(seq)),
        })
    }

    fn set(namespace: &str, key: &str, seq: u64, guard: &str) -> Operation {
        Operation::Set(SetRequest {
            namespace: namespace.into(),
            key: key.into(),
            options: options(seq, guard),
            ..SetRequest::default()
        })
    }

    fn delete(key: &str) -> Operation {
        let options = options(1, "lock");
        Operation::Delete(DeleteRequest { key: key.into(), options, ..DeleteRequest::default() })
    }

    fn fingerprint_of(mut operation: Operation) -> u64 {
        Options::take(&mut operation).unwrap().request.unwrap().fingerprint
    }

    #[test]
    fn a_fingerprint_is_of_all_but_the_namespace_and_the_id() {
        let one = fingerprint_of(set("a", "k", 1, "lock"));
        assert_eq!(fingerprint_of(set("", "k", 1, "lock")), one);
        assert_eq!(fingerprint_of(set("a", "k", 2, "lock")), one);
        for other in [set("a", "l", 1, "lock"), set("a", "k", 1, "other"), delete("k")] {
            assert_ne!(fingerprint_of(other), one);
        }
    }

    /// They are kept with answers, also over a change of the server's version.
    #[test]
    fn a_fingerprint_stays_what_it_was() {
        assert_eq!(fingerprint(b""), 0x5848_8c0a_acde_96de);
        assert_eq!(fingerprint_of(set("a", "k", 1, "lock")), 0xe732_8d6e_8963_679a);
    }

    #[test]
    fn requests_outside_of_pipelines_have_fingerprints_of_their_own() {
        let taken = |method| {
            let mut request =
                v1::ClearNamespaceRequest { namespace: "a".into(), options: options(1, "lock") };
            let options =
                Options::take_from(method, &mut request, |it| (&mut it.namespace, &mut it.options));
            options.unwrap().request.unwrap().fingerprint
        };
        assert_ne!(taken("ClearNamespace"), taken("DeleteNamespace"));
    }

    #[test]
    fn ids_are_checked() {
        let good = id(3);
        assert_eq!(request_id(&good, 9).unwrap().client, u64::from_be_bytes(*b"client 1"));
        let bad = [
            v1::RequestId { client_id: Bytes::from_static(b"short"), ..good.clone() },
            v1::RequestId { seq: 0, ..good.clone() },
            v1::RequestId { done_below: 4, ..good.clone() },
        ];
        for id in bad {
            request_id(&id, 9).unwrap_err();
        }
        request_id(&v1::RequestId { done_below: 3, ..good }, 9).unwrap();
    }

    #[test]
    fn an_acquire_has_no_id() {
        let request = AcquireRequest { options: options(1, "lock"), ..AcquireRequest::default() };
        Options::take(&mut Operation::Acquire(request)).unwrap_err();
    }

    #[test]
    fn no_lock_guards_twice_and_not_too_many_do() {
        let guard = |number: usize| v1::Guard { lock: format!("l{number}"), token: 0 };
        let many: Vec<_> = (0..=MAX_GUARDS).map(guard).collect();
        assert_eq!(guards(&many[1..]).unwrap().len(), MAX_GUARDS);
        guards(&many).unwrap_err();
        guards(&[guard(1), guard(2), guard(1)]).unwrap_err();
        guards(&[v1::Guard { lock: String::new(), token: 1 }]).unwrap_err();
    }
}
