//! `bench`: load from the command line, and what comes of it.

mod args;
mod keys;
mod live;
mod load;
mod operation;
mod report;
mod tally;
mod watch;

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Instant,
};

use holdfast_client::{Error, Namespace, Raw};
use tokio::task::JoinSet;

use self::{
    args::BenchArgs as Args,
    keys::Keys,
    load::{Pace, call_until_stopped},
    operation::{Caller, value},
    report::Report,
    tally::Tally,
    watch::{Epoch, Fanout, Watchers},
};
use crate::{Session, Verdict, failure::Failure, process::Signals};

pub use args::BenchArgs;

/// Where a load is put unless a namespace is named: away from everything else.
pub const NAMESPACE: &str = "holdfast-bench";

pub const HELP: &str = "\
First every key is set, then callers do what --mix says, each one operation after the other:
  get set del exists   of one of the keys
  incr                 of a number beside each key
  list                 the entries from one of the keys on
  txn                  if the key exists, add to its number and read it
  lock                 take a lock, waiting for it if need be, and give it up

With --rate, operations are due at even times, and latencies count from then on, also where all callers were
still busy: so what a server that stands still does to those who come meanwhile is not left out. Without, each
caller begins the next when the last has ended. Watchers, beside the callers, are told of everything; their line
says how late events were there, from when their set was due.

The namespace is holdfast-bench unless one is named. Keys and locks have a prefix that no other run has; they are
removed at the end, also after Ctrl-C or SIGTERM, and nothing else is touched. The status is 3 if calls failed.

  holdfast bench --mix get=90,set=10 --zipf 0.99 --duration 30s
  holdfast bench --mix set --rate 5000 --watchers 1000
  holdfast bench --mix lock --locks 1 --callers 50 -o json";

/// The status where calls failed.
const CALLS_FAILED: u8 = 3;

pub async fn bench(session: &mut Session, args: Args) -> Result<Verdict, Failure> {
    args.check()?;
    let run = Run::new(session, args)?;
    let mut signals = Signals::listen()?;
    let mut interrupt = pin!(signals.next());
    let report = tokio::select! {
        filled = run.fill() => match filled {
            Ok(()) => run.load(interrupt.as_mut()).await.map(Some),
            Err(error) => Err(error),
        },
        _ = interrupt.as_mut() => Ok(None),
    };
    let removed = match run.args.keep {
        true => Ok(()),
        false => run.keys.remove(&run.namespaces[0]).await,
    };
    // What went wrong first says more.
    let report = report?;
    removed?;
    let Some(report) = report else {
        return Ok(Verdict::Status(CALLS_FAILED));
    };
    session.out.print(&report)?;
    Ok(if report.is_clean() { Verdict::Yes } else { Verdict::Status(CALLS_FAILED) })
}

/// One run.
struct Run {
    args: Arc<Args>,
    keys: Keys,
    /// One for each connection.
    namespaces: Vec<Namespace<Raw>>,
}

impl Run {
    fn new(session: &Session, args: Args) -> Result<Self, Failure> {
        let name = session.namespace.name();
        let connect = |_| {
            let client = session.builder.clone().pipeline(!args.unary).connect_lazy()?;
            Ok(client.namespace(name).with_codec(Raw::with_content_type("text/plain")))
        };
        let namespaces = (0..args.connections).map(connect).collect::<Result<_, Error>>()?;
        Ok(Self { keys: Keys::new(&args), args: Arc::new(args), namespaces })
    }

    async fn fill(&self) -> Result<(), Error> {
        self.keys.fill(&self.namespaces[0], &value(self.args.value_size)).await
    }

    /// Lets callers call until it is enough, or until interrupted.
    async fn load(&self, interrupt: Pin<&mut impl Future>) -> Result<Report, Error> {
        let args = &self.args;
        let epoch = Epoch::now();
        let watchers = match args.watchers {
            0 => None,
            count => Some(Watchers::start(count, &self.namespaces, &self.keys, epoch).await?),
        };
        let tally = Arc::new(Tally::new(args.mix.weights().iter().map(|(kind, _)| *kind)));
        let pace = Pace::start(args.rate, args.count, args.callers);
        let mut callers = self.callers(watchers.is_some().then_some(epoch), &pace, &tally);
        let interrupted = tokio::select! {
            () = ended(&mut callers) => false,
            () = tokio::time::sleep(args.duration), if args.count.is_none() => false,
            never = live::show(&tally, watchers.as_ref()) => match never {},
            _ = interrupt => true,
        };
        pace.stop();
        ended(&mut callers).await;
        let elapsed = pace.began().elapsed();
        let fanout = match watchers {
            Some(watchers) => Some(self.finish(watchers, pace.began()).await?),
            None => None,
        };
        let name = self.namespaces[0].name();
        let (counts, took) = (tally.sum(), (elapsed, interrupted));
        Ok(Report::new((name, args), took, &counts, fanout.as_ref()))
    }

    fn callers(&self, epoch: Option<Epoch>, pace: &Arc<Pace>, tally: &Arc<Tally>) -> JoinSet<()> {
        let callers = 0..self.args.callers as usize;
        let tasks = callers.map(|number| {
            let namespace = self.namespaces[number % self.namespaces.len()].clone();
            let caller = Caller::new(number as u64, namespace, &self.keys, &self.args, epoch);
            call_until_stopped(caller, number, pace.clone(), tally.clone())
        });
        tasks.collect()
    }

    async fn finish(&self, watchers: Watchers, began: Instant) -> Result<Fanout, Error> {
        // The last event that every watcher gets.
        self.namespaces[0].set(self.keys.end(), "").await?;
        Ok(watchers.finish(began).await)
    }
}

async fn ended(callers: &mut JoinSet<()>) {
    while let Some(ended) = callers.join_next().await {
        ended.expect("a caller does not panic");
    }
}
