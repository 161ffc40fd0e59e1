//! Lists and scans against a server that answers by a script.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use holdfast_proto::v1::{
    self,
    kv_service_server::{KvService, KvServiceServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

use crate::{Client, Error, Namespace, Revision, Selector, optimistic::tests::status};

type Scanned = Vec<Result<v1::ScanResponse, Status>>;

#[derive(Default)]
struct Script {
    lists: Mutex<Vec<Result<v1::ListResponse, Status>>>,
    scans: Mutex<Vec<Result<Scanned, Status>>>,
    batches: Mutex<Vec<v1::BatchGetResponse>>,
    tokens: Mutex<Vec<Vec<u8>>>,
}

impl Script {
    fn list(&self, request: v1::ListRequest) -> Result<v1::ListResponse, Status> {
        self.asked_with(&request.page_token);
        self.lists.lock().expect("no panic").remove(0)
    }

    fn batch_get(&self, request: v1::BatchGetRequest) -> v1::BatchGetResponse {
        self.asked_with(&request.page_token);
        self.batches.lock().expect("no panic").remove(0)
    }

    fn asked_with(&self, token: &[u8]) {
        self.tokens.lock().expect("no panic").push(token.to_vec());
    }

    fn tokens(&self) -> Vec<Vec<u8>> {
        self.tokens.lock().expect("no panic").clone()
    }
}

type Answer<'f, R> = Pin<Box<dyn Future<Output = Result<Response<R>, Status>> + Send + 'f>>;

/// Implements the service, each method in a line. Written without `async_trait`, which cannot look into
/// the macro.
macro_rules! kv_service {
    ($($method:ident($request:ident) -> $response:ty = $answer:expr;)*) => {
        impl KvService for Script {
            type ScanStream = stream::BoxStream<'static, Result<v1::ScanResponse, Status>>;

            $(fn $method<'s, 'f>(&'s self, request: Request<v1::$request>) -> Answer<'f, $response>
            where
                's: 'f,
                Self: 'f,
            {
                type Method = fn(&Script, v1::$request) -> Result<$response, Status>;
                let method: Method = $answer;
                let answer = method(self, request.into_inner()).map(Response::new);
                Box::pin(async move { answer })
            })*
        }
    };
}

fn no_part<Request, Response>(_: &Script, _: Request) -> Result<Response, Status> {
    Err(Status::unimplemented("not in the script"))
}

kv_service! {
    get(GetRequest) -> v1::GetResponse = no_part;
    set(SetRequest) -> v1::SetResponse = no_part;
    delete(DeleteRequest) -> v1::DeleteResponse = no_part;
    exists(ExistsRequest) -> v1::ExistsResponse = no_part;
    get_ttl(GetTtlRequest) -> v1::GetTtlResponse = no_part;
    set_ttl(SetTtlRequest) -> v1::SetTtlResponse = no_part;
    increment(IncrementRequest) -> v1::IncrementResponse = no_part;
    list(ListRequest) -> v1::ListResponse = Script::list;
    scan(ScanRequest) -> <Script as KvService>::ScanStream = |script, _| {
        let answer = script.scans.lock().expect("no panic").remove(0)?;
        Ok(stream::iter(answer).boxed())
    };
    count(CountRequest) -> v1::CountResponse = no_part;
    history(HistoryRequest) -> v1::HistoryResponse = no_part;
    delete_range(DeleteRangeRequest) -> v1::DeleteRangeResponse = no_part;
    batch_get(BatchGetRequest) -> v1::BatchGetResponse = |script, request| {
        Ok(script.batch_get(request))
    };
    batch_set(BatchSetRequest) -> v1::BatchSetResponse = no_part;
    batch_delete(BatchDeleteRequest) -> v1::BatchDeleteResponse = no_part;
}

async fn scripted(script: Script) -> (Namespace, Arc<Script>) {
    let (address, script) = server(script).await;
    let client = Client::builder(address).connect_lazy();
    (client.expect("a client").namespace("n"), script)
}

/// The address of a server that plays this script.
async fn server(script: Script) -> (String, Arc<Script>) {
    let script = Arc::new(script);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let server = tonic::transport::Server::builder()
        .add_service(KvServiceServer::from_arc(Arc::clone(&script)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    (address.to_string(), script)
}

fn entry(key: &str, value: &str) -> v1::Entry {
    v1::Entry {
        key: key.to_owned(),
        value: Some(value.to_owned().into()),
        content_type: "application/json".to_owned(),
        ..Default::default()
    }
}

fn page(entries: &[(&str, &str)], next: &str) -> v1::ListResponse {
    v1::ListResponse {
        revision: 5,
        lineage: "l".to_owned(),
        entries: entries.iter().map(|(key, value)| entry(key, value)).collect(),
        next_page_token: next.to_owned().into(),
        ..Default::default()
    }
}

fn part(entries: &[(&str, &str)]) -> v1::ScanResponse {
    let page = page(entries, "");
    v1::ScanResponse {
        revision: page.revision,
        time_ms: page.time_ms,
        entries: page.entries,
        lineage: page.lineage,
    }
}

#[tokio::test]
async fn a_list_goes_from_page_to_page() {
    let (namespace, script) = scripted(Script {
        lists: Mutex::new(vec![
            Ok(page(&[("a", "1"), ("b", "2")], "t1")),
            Err(Status::unavailable("a hiccup")),
            Ok(page(&[], "t2")),
            Ok(page(&[("c", "3")], "")),
        ]),
        ..Default::default()
    })
    .await;
    let mut stream = namespace.list::<u32>(Selector::all()).stream();
    assert_eq!(stream.header(), None);
    let entries: Vec<_> = stream.by_ref().try_collect().await.expect("entries");
    let values: Vec<_> = entries.iter().map(|entry| (entry.key(), entry.value)).collect();
    assert_eq!(values, [("a", 1), ("b", 2), ("c", 3)]);
    assert_eq!(stream.header().expect("answered").revision, Revision::new(5));
    assert_eq!(stream.cursor().expect("answered").to_string(), "5@l");
    assert_eq!(script.tokens(), [&b""[..], b"t1", b"t1", b"t2"]);
}

#[tokio::test]
async fn a_page_tells_where_the_next_begins() {
    let (namespace, _script) = scripted(Script {
        lists: Mutex::new(vec![Ok(page(&[("a", "1")], "t1")), Ok(page(&[], ""))]),
        ..Default::default()
    })
    .await;
    let first = namespace.list::<u32>(Selector::all()).page().await.expect("a page");
    let token = first.next.expect("a second page");
    assert_eq!(token.as_bytes(), b"t1");
    let list = namespace.list::<u32>(Selector::all()).page_token(token);
    assert_eq!(list.page().await.expect("a page").next, None);
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_an_error_in_its_place() {
    let (namespace, _script) = scripted(Script {
        lists: Mutex::new(vec![Ok(page(&[("a", "1"), ("b", "x"), ("c", "3")], ""))]),
        ..Default::default()
    })
    .await;
    let stream = namespace.list::<u32>(Selector::all()).stream();
    let read: Vec<_> = stream.map(|entry| entry.map(|entry| entry.value)).collect().await;
    assert!(
        matches!(&read[..], [Ok(1), Err(Error::Codec { key, .. }), Ok(3)] if key == "b"),
        "{read:?}"
    );
}

#[tokio::test]
async fn an_error_ends_a_list() {
    let (namespace, _script) = scripted(Script {
        lists: Mutex::new(vec![
            Ok(page(&[("a", "1")], "t1")),
            Err(Status::permission_denied("no")),
        ]),
        ..Default::default()
    })
    .await;
    let read: Vec<_> = namespace.list::<u32>(Selector::all()).stream().collect().await;
    assert!(matches!(&read[..], [Ok(_), Err(Error::PermissionDenied { .. })]), "{read:?}");
}

#[tokio::test]
async fn a_scan_is_opened_again_until_it_has_begun() {
    let (namespace, _script) = scripted(Script {
        scans: Mutex::new(vec![
            Err(Status::unavailable("a hiccup")),
            Ok(vec![Err(Status::unavailable("a hiccup"))]),
            Ok(vec![
                Ok(part(&[("a", "1")])),
                Ok(part(&[("b", "2")])),
                Err(Status::unavailable("too late to begin again")),
            ]),
        ]),
        ..Default::default()
    })
    .await;
    let stream = namespace.scan::<u32>(Selector::all()).stream();
    let read: Vec<_> = stream.map(|entry| entry.map(|entry| entry.value)).collect().await;
    assert!(matches!(&read[..], [Ok(1), Ok(2), Err(Error::Unavailable { .. })]), "{read:?}");
}

#[tokio::test]
async fn a_scan_goes_to_the_next_server_where_one_has_no_backend() {
    let away = || Err(status(Code::Unavailable, "BACKEND_UNAVAILABLE"));
    let scans = |scans| Script { scans: Mutex::new(scans), ..Default::default() };
    // One that has begun is not tried again, but the one after it goes elsewhere.
    for (begins, read_first) in [(vec![], 0), (vec![Ok(part(&[("a", "1")]))], 1)] {
        let breaks = begins.into_iter().chain([away()]).collect();
        let (first, asked) = server(scans(vec![Ok(breaks), Ok(vec![away()])])).await;
        let (second, _) = server(scans(vec![Ok(vec![Ok(part(&[("b", "2")]))])])).await;
        let client = Client::builder(first).endpoint(second).connect_lazy().expect("a client");
        let namespace = client.namespace("n");
        for _ in 0..read_first {
            let broken = namespace.scan::<u32>(Selector::all()).stream();
            let broken: Vec<_> = broken.collect().await;
            assert!(matches!(&broken[..], [Ok(_), Err(Error::Unavailable { .. })]), "{broken:?}");
        }
        let scan = namespace.scan::<u32>(Selector::all()).stream();
        let read: Vec<_> = scan.map(|entry| entry.map(|entry| entry.value)).collect().await;
        assert!(matches!(&read[..], [Ok(2)]), "{read:?}");
        assert_eq!(asked.scans.lock().expect("no panic").len(), 1, "asked once");
    }
}

#[tokio::test]
async fn a_batch_answered_in_parts_is_put_together() {
    let slots = |values: &[Option<&str>]| {
        let slot = |value: &Option<&str>| v1::batch_get_response::Slot {
            entry: value.map(|value| entry("k", value)),
        };
        values.iter().map(slot).collect()
    };
    let (namespace, script) = scripted(Script {
        batches: Mutex::new(vec![
            v1::BatchGetResponse {
                slots: slots(&[Some("1"), None]),
                next_page_token: "t1".into(),
                ..Default::default()
            },
            v1::BatchGetResponse { slots: slots(&[Some("3")]), ..Default::default() },
        ]),
        ..Default::default()
    })
    .await;
    let read = namespace.get_many::<u32>(["a", "b", "c"]).await.expect("three slots");
    let values: Vec<_> = read.into_iter().map(|slot| slot.map(|entry| entry.value)).collect();
    assert_eq!(values, [Some(1), None, Some(3)]);
    assert_eq!(script.tokens(), [&b""[..], b"t1"]);
}
