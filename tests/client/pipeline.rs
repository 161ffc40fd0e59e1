//! Calls that share streams: nobody notices, whatever happens to the stream.

use std::{convert::Infallible, future::Future, net::SocketAddr, time::Duration};

use futures::{
    FutureExt as _, StreamExt as _, TryStreamExt as _,
    future::{BoxFuture, join_all, try_join_all},
    stream,
};
use holdfast_client::{
    Acquired, Client, ClientBuilder, Compare, Error, Namespace, Op, Raw, Selector, Text,
};
use tokio::{net::TcpListener, runtime::Builder};
use tonic::{
    Code,
    body::Body,
    codegen::http::{Request, Response, StatusCode},
    server::NamedService,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

use crate::{
    fixture::{self, PATIENCE, fresh_name, with_namespace},
    proxy::Proxy,
};

fn builder(address: SocketAddr) -> ClientBuilder {
    Client::builder(address.to_string()).timeout(PATIENCE)
}

/// The same namespace by way of another address.
fn by_way_of(address: SocketAddr, namespace: &Namespace) -> Namespace {
    let client = builder(address).max_attempts(100).connect_lazy().expect("a client");
    client.namespace(namespace.name())
}

/// Runs something where nothing else runs as long as it does not wait.
fn alone<T>(run: impl Future<Output = T>) -> T {
    // The first who asks starts the server, which cannot be done from within.
    fixture::shared();
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(2 * PATIENCE, run).await.expect("the test comes to an end")
    })
}

#[test]
fn many_callers_do_many_things_at_once() {
    with_namespace("mixed", async |ns| {
        let callers = (0..200_i64).map(|n| {
            let ns = ns.clone();
            tokio::spawn(async move {
                let key = format!("k:{n}");
                for round in 0..5_i64 {
                    ns.set(&*key, &(n, round)).await?;
                    let entry = ns.get::<(i64, i64)>(&*key).await?.expect("was set");
                    assert_eq!(entry.value, (n, round));
                    ns.increment("total", 1).await?;
                }
                let moved = ns
                    .transaction()
                    .compare(Compare::key(&*key).exists())
                    .then(Op::delete(&*key))
                    .then(Op::increment("moved", 1));
                assert!(moved.await?.succeeded);
                let Acquired::Held(hold) = ns.lock(format!("l:{n}")).try_acquire().await? else {
                    panic!("nobody else has it");
                };
                hold.release().await?;
                ns.with_codec(Text)
                    .list::<i64>(Selector::prefix("m"))
                    .page()
                    .await
                    .map(|page| page.entries.len())
            })
        });
        for caller in join_all(callers).await {
            assert_eq!(caller.expect("no panic").expect("all are answered"), 1);
        }
        assert_eq!(ns.increment("total", 0).await.expect("answers"), 1000);
        assert_eq!(ns.increment("moved", 0).await.expect("answers"), 200);
        assert_eq!(ns.count(Selector::prefix("k:")).await.expect("answers"), 0);
    });
}

#[test]
fn a_stream_that_is_cut_in_flight_applies_everything_once() {
    const INCREMENTS: i64 = 4_000;
    with_namespace("cut_stream", async |ns| {
        let proxy = Proxy::to(fixture::shared()).await;
        let far = by_way_of(proxy.address, &ns);
        let increments = stream::iter(0..INCREMENTS).map(|_| far.increment("n", 1).into_future());
        let mut answers = increments.buffer_unordered(64);
        let mut seen = Vec::new();
        while let Some(value) = answers.try_next().await.expect("all are answered") {
            seen.push(value);
            if seen.len() % 500 == 0 {
                proxy.cut();
            }
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(1..=INCREMENTS));
        assert_eq!(ns.increment("n", 0).await.expect("answers"), INCREMENTS);
    });
}

#[test]
fn many_calls_at_once_have_more_connections_and_few_have_one() {
    with_namespace("connections", async |ns| {
        let proxy = Proxy::to(fixture::shared()).await;
        let far = by_way_of(proxy.address, &ns);
        let increment = || far.increment("n", 1).into_future();
        for _ in 0..20 {
            try_join_all((0..16).map(|_| increment())).await.expect("all are answered");
        }
        assert_eq!(proxy.connections(), 1);
        let mut done = 320;
        while proxy.connections() < 2 {
            try_join_all((0..100).map(|_| increment())).await.expect("all are answered");
            done += 100;
        }
        // A namespace makes one commit at a time: for writes there are no more.
        try_join_all((0..2_000).map(|_| increment())).await.expect("all are answered");
        assert_eq!(proxy.connections(), 2);
        let read = || far.exists("n").into_future();
        while proxy.connections() < 4 {
            try_join_all((0..100).map(|_| read())).await.expect("all are answered");
        }
        try_join_all((0..2_000).map(|_| read())).await.expect("all are answered");
        assert_eq!(proxy.connections(), 4);
        assert_eq!(ns.increment("n", 0).await.expect("answers"), done + 2_000);
    });
}

#[test]
fn where_a_server_takes_one_connection_many_calls_share_it() {
    with_namespace("one_connection", async |ns| {
        let proxy = Proxy::to(fixture::shared()).await;
        let client = builder(proxy.address).max_attempts(1).connect_lazy().expect("a client");
        let far = client.namespace(ns.name());
        far.increment("n", 1).await.expect("answers");
        proxy.close();
        for _ in 0..20 {
            let increments = (0..100).map(|_| far.increment("n", 1).into_future());
            try_join_all(increments).await.expect("all are answered, and none is tried again");
        }
        assert_eq!(ns.increment("n", 0).await.expect("answers"), 2_001);
    });
}

#[test]
fn a_call_that_is_dropped_before_it_is_sent_is_never_sent() {
    alone(async {
        let client = fixture::connect(fixture::shared()).await;
        let ns = client.namespace(fresh_name("dropped"));
        assert_eq!(ns.increment("n", 0).await.expect("answers"), 0);
        for _ in 0..10_000 {
            // It is in the queue, and nobody has taken it out yet.
            assert!(ns.increment("n", 1).into_future().now_or_never().is_none());
        }
        assert_eq!(ns.increment("n", 2).await.expect("answers"), 2);
    });
}

#[test]
fn a_call_that_is_dropped_later_harms_nobody() {
    with_namespace("dropped_later", async |ns| {
        ns.set("k", "v").await.expect("answers");
        for _ in 0..500 {
            let dropped = ns.get::<String>("k").into_future();
            let kept = ns.get::<String>("k").into_future();
            // Whichever is answered first; the other is dropped on its way.
            let first = futures::future::select(dropped, kept).await.factor_first().0;
            assert_eq!(first.expect("answers").expect("is there").value, "v");
        }
    });
}

#[test]
fn large_values_go_beside_small_ones() {
    with_namespace("large", async |ns| {
        let ns = ns.with_codec(Raw::new());
        let sizes = [0, 1, 1 << 10, (16 << 10) - 100, 16 << 10, 60 << 10, 1 << 20];
        let callers = sizes.into_iter().cycle().take(70).enumerate().map(|(n, size)| {
            let ns = ns.clone();
            async move {
                let (key, value) = (format!("k:{n}"), vec![n as u8; size]);
                ns.set(&*key, &value).await?;
                let entry = ns.get::<Vec<u8>>(&*key).await?.expect("was set");
                assert!(entry.value == value, "{size}");
                Ok::<_, Error>(())
            }
        });
        try_join_all(callers).await.expect("all are answered");
    });
}

#[test]
fn more_calls_than_there_is_room_for_are_all_answered() {
    alone(async {
        let client = fixture::connect(fixture::shared()).await;
        let ns = client.namespace(fresh_name("crowd")).with_codec(Raw::new());
        let value = vec![7; 2_000];
        let sets = (0..20_000).map(|n| ns.set(format!("k:{}", n % 100), &value).into_future());
        // All are asked at once, before any is answered.
        try_join_all(sets).await.expect("all are answered");
        assert_eq!(ns.count(Selector::all()).await.expect("answers"), 100);
    });
}

#[test]
fn a_caller_sees_what_it_has_done() {
    with_namespace("own_writes", async |ns| {
        for n in 1..=300_u64 {
            ns.set("k", &n).await.expect("answers");
            assert_eq!(ns.get::<u64>("k").await.expect("answers").expect("is there").value, n);
            // Over another stream.
            let page = ns.list::<u64>(Selector::all()).page().await.expect("answers");
            assert_eq!(page.entries[0].value, n);
        }
    });
}

#[test]
fn a_call_that_waits_for_a_stream_has_its_deadline() {
    alone(async {
        // Connections wait to be accepted for ever.
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = silent.local_addr().expect("its address");
        let client = builder(address).connect_lazy().expect("a client");
        let late = client.namespace("n").get::<u64>("k").timeout(Duration::from_millis(20)).await;
        assert!(matches!(late, Err(Error::DeadlineExceeded)), "{late:?}");
    });
}

#[test]
fn the_next_server_is_used_when_one_is_dead() {
    with_namespace("two_servers", async |ns| {
        let dead = Proxy::to(fixture::shared()).await;
        let builder = builder(dead.address).endpoint(fixture::shared().to_string());
        let client = builder.connect_lazy().expect("a client");
        let far = client.namespace(ns.name());
        assert_eq!(far.increment("n", 1).await.expect("answers"), 1);
        // From now on there is only the other.
        dead.block();
        let increments = (0..100).map(|_| far.increment("n", 1).into_future());
        let mut seen = try_join_all(increments).await.expect("all are answered");
        seen.sort_unstable();
        assert!(seen.into_iter().eq(2..=101));
    });
}

#[test]
fn errors_are_those_of_unary_calls() {
    with_namespace("errors", async |ns| {
        let builder = builder(fixture::shared()).pipeline(false);
        let unary = builder.connect_lazy().expect("a client").namespace(ns.name());
        ns.set("k", "text").await.expect("answers");
        let (shared, own) = (errors(&ns).await, errors(&unary).await);
        assert_eq!(shared, own);
    });
}

/// What goes wrong in several calls, in words.
async fn errors(ns: &Namespace) -> Vec<String> {
    let long = "k".repeat(100_000);
    let outcomes = [
        ns.set("k", "x").if_absent().await.map(drop),
        ns.set("", "x").await.map(drop),
        ns.set(&*long, "x").await.map(drop),
        ns.increment("k", 1).await.map(drop),
        ns.get::<String>("k").at_revision(1_000_000).await.map(drop),
        ns.set("k", "x").guard_token("none", 7).await.map(drop),
        ns.transaction().then(Op::increment("k", 1)).await.map(drop),
        ns.with_codec(Raw::new()).set("large", &vec![0; 2 << 20]).await.map(drop),
    ];
    let names = ["", "_a", "a b"].map(|name| ns.client().namespace(name));
    let named = join_all(names.iter().map(|ns| ns.exists("k").into_future())).await;
    let outcomes = outcomes.into_iter().chain(named.into_iter().map(|outcome| outcome.map(drop)));
    outcomes.map(|outcome| format!("{:?}", outcome.expect_err("it cannot be"))).collect()
}

/// What stands before a server does to streams of calls.
#[derive(Clone, Copy)]
enum Streams {
    Unknown,
    BadGateway,
    Unanswered,
}

/// Passes unary calls on to a server, and does something else to pipelines.
#[derive(Clone)]
struct Gateway<const PIPELINE: bool>(Channel, Streams);

impl NamedService for Gateway<false> {
    const NAME: &'static str = "holdfast.v1.KvService";
}

impl NamedService for Gateway<true> {
    const NAME: &'static str = "holdfast.v1.PipelineService";
}

impl<const PIPELINE: bool> tower_service::Service<Request<Body>> for Gateway<PIPELINE> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self(mut channel, streams) = self.clone();
        Box::pin(async move {
            let mut refused = Response::new(Body::default());
            match (PIPELINE, streams) {
                (false, _) => {
                    futures::future::poll_fn(|context| channel.poll_ready(context))
                        .await
                        .expect("the server is there");
                    return Ok(channel.call(request).await.expect("the server answers"));
                }
                (true, Streams::Unknown) => {
                    let code = (Code::Unimplemented as i32).into();
                    refused.headers_mut().insert("grpc-status", code);
                }
                (true, Streams::BadGateway) => *refused.status_mut() = StatusCode::BAD_GATEWAY,
                (true, Streams::Unanswered) => std::future::pending().await,
            }
            Ok(refused)
        })
    }
}

async fn gateway(streams: Streams) -> SocketAddr {
    let server =
        Endpoint::from_shared(format!("http://{}", fixture::shared())).expect("an address");
    let channel = server.connect_lazy();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let server = Server::builder()
        .add_service(Gateway::<false>(channel.clone(), streams))
        .add_service(Gateway::<true>(channel, streams))
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(server);
    address
}

#[test]
fn where_no_stream_passes_calls_go_alone() {
    with_namespace("no_stream", async |ns| {
        for (n, streams) in
            [Streams::Unknown, Streams::BadGateway, Streams::Unanswered].into_iter().enumerate()
        {
            let far = by_way_of(gateway(streams).await, &ns);
            let increments = (0..50).map(|_| far.increment("n", 1).into_future());
            try_join_all(increments).await.expect("all are answered");
            let total = far.increment("n", 0).await.expect("answers");
            assert_eq!(total, 50 * (n as i64 + 1));
        }
    });
}

#[test]
fn streams_that_are_read_slowly_keep_no_answers_from_others() {
    with_namespace("slow_streams", async |ns| {
        let ns = ns.with_codec(Raw::new());
        let value = vec![0_u8; 512 << 10];
        for n in 0..24 {
            ns.set(format!("k:{n:02}"), &value).await.expect("answers");
        }
        // Of each the server sends ahead as much as it may.
        let scan = || ns.scan::<Vec<u8>>(Selector::prefix("k:")).stream();
        let mut scans: Vec<_> = std::iter::repeat_with(scan).take(6).collect();
        for _ in 0..24 {
            for scan in &mut scans {
                scan.next().await.expect("goes on").expect("no error");
                ns.increment("read", 1).await.expect("answers");
            }
        }
    });
}
