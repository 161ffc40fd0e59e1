//! One watch over all restarts, resumed by where it stood.

use std::collections::BTreeMap;

use holdfast_proto::v1::{
    Event, EventType, Expiry, Selector, SetRequest, WatchRequest, WatchResponse, expiry, selector,
    watch_request, watch_response::Body,
};
use tonic::Streaming;

use super::harness::Program;

/// The namespace of the test.
pub const NAMESPACE: &str = "n";

const LAST: &str = "the end";

/// Where a watch stands, and what it has brought.
#[derive(Default)]
pub struct Cursor {
    lineage: Option<String>,
    complete_through: u64,
    events: Vec<Event>,
}

impl Cursor {
    /// Follows until the program is killed.
    pub async fn follow(mut self, mut watch: Streaming<WatchResponse>) -> Self {
        while let Ok(Some(message)) = watch.message().await {
            self.take(message);
        }
        self
    }

    /// Follows up to a key that is set last and ends at once; all events, from the first on.
    pub async fn follow_to_the_end(mut self, program: &Program) -> Vec<Event> {
        let mut watch = self.resume(program).await;
        let request = SetRequest {
            namespace: NAMESPACE.into(),
            key: LAST.into(),
            expiry: Some(Expiry { kind: Some(expiry::Kind::TtlMs(1)) }),
            ..SetRequest::default()
        };
        program.kv().await.set(request).await.unwrap();
        let is_last = |event: &Event| event.key == LAST && event.r#type() == EventType::Expire;
        while !self.events.iter().any(is_last) {
            let message = watch.message().await.unwrap().expect("the watch goes on");
            self.take(message);
        }
        self.events
    }

    /// Watches on from where it stands. What came after the last complete revision comes again.
    pub async fn resume(&mut self, program: &Program) -> Streaming<WatchResponse> {
        self.events.retain(|event| event.revision <= self.complete_through);
        let all = Selector { kind: Some(selector::Kind::All(selector::All {})) };
        let after =
            watch_request::AfterRevision { revision: self.complete_through, or_initial: false };
        let request = WatchRequest {
            namespace: NAMESPACE.into(),
            selectors: vec![all],
            start: Some(watch_request::Start::AfterRevision(after)),
            lineage: self.lineage.clone(),
            ..WatchRequest::default()
        };
        program.watches().await.watch(request).await.unwrap().into_inner()
    }

    fn take(&mut self, message: WatchResponse) {
        self.complete_through = self.complete_through.max(message.complete_through);
        match message.body {
            Some(Body::Created(created)) => self.lineage = Some(created.lineage),
            Some(Body::Events(more)) => self.events.extend(more.events),
            _ => {}
        }
    }
}

/// Events come in order, each once, and what expires does so once for each time it was set. All of `set`, which were
/// acknowledged, were set and have expired.
pub fn check_expiries(events: &[Event], set: &[String]) {
    assert!(events.is_sorted_by_key(|event| event.revision));
    let (mut made, mut expired) = (BTreeMap::new(), BTreeMap::new());
    for event in events {
        let times = match event.r#type() {
            EventType::Expire => expired.entry(event.key.as_str()).or_insert(0),
            _ => made.entry(event.key.as_str()).or_insert(0),
        };
        *times += 1;
    }
    let ends = |key: &str| key.starts_with("expiring:") || key.starts_with("leased:");
    for (key, times) in &made {
        let expected = if ends(key) { Some(times) } else { None };
        if *key != LAST {
            assert_eq!(expired.get(key), expected, "{key}");
        }
    }
    for key in set {
        assert_eq!(made.get(key.as_str()), Some(&1), "{key} was acknowledged");
    }
}
