//! Leader election: a lock whose holder is the leader, and whose value tells who that is.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream::BoxStream};

use crate::{
    AcquireLock, Codec, Error, Guard, LockChange, LockGuard, LockInfo, LockItem, LockLoss,
    LockOwner, LockStream, Namespace, Timestamp, Token, call::awaitable,
};

impl<C: Codec> Namespace<C> {
    /// An election, to take part in or to look at. It is the lock of this name: whoever holds that leads.
    ///
    /// ```no_run
    /// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
    /// let election = client.namespace("jobs").election("scheduler");
    /// let leadership = election.campaign("10.0.0.7").await?;
    /// tokio::select! {
    ///     loss = leadership.lost() => println!("no longer the leader: {loss}"),
    ///     () = std::future::pending() => println!("the work of the leader is done"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn election(&self, name: impl Into<String>) -> Election {
        Election {
            // The value of a lock goes through no codec.
            namespace: self.with_codec(crate::Raw::new()),
            name: name.into(),
            ttl: None,
            owner: LockOwner::default(),
        }
    }
}

/// An election; made by [`Namespace::election`].
#[derive(Clone, Debug)]
pub struct Election {
    namespace: Namespace<crate::Raw>,
    name: String,
    ttl: Option<Duration>,
    owner: LockOwner,
}

impl Election {
    /// For how long a leader is not replaced after the last that was heard of it; 30 s unless set.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Who campaigns here; this process unless set.
    pub fn owner(mut self, owner: LockOwner) -> Self {
        self.owner = owner;
        self
    }

    /// Campaigns until elected, first come, first served; the leader is shown with this value, at most 4,096
    /// bytes. Dropping the future withdraws.
    pub fn campaign(&self, value: impl Into<Bytes>) -> Campaign {
        let mut acquire = self.namespace.lock(&*self.name).owner(self.owner.clone()).value(value);
        if let Some(ttl) = self.ttl {
            acquire = acquire.ttl(ttl);
        }
        Campaign { acquire }
    }

    /// Who leads now; `None` if nobody does.
    ///
    /// # Errors
    /// The failures of any read.
    pub async fn leader(&self) -> Result<Option<Leader>, Error> {
        Ok(self.namespace.get_lock(&*self.name).await?.map(Leader::from))
    }

    /// Follows who leads: the present leader first, or `None`, then every change.
    ///
    /// # Errors
    /// The failures of any call.
    pub async fn observe(&self) -> Result<LeaderStream, Error> {
        let locks = self.namespace.watch_lock(&*self.name).or_initial().await?;
        Ok(LeaderStream { leaders: leaders(locks).boxed() })
    }
}

/// A campaign; made by [`Election::campaign`]. Awaiting it gives the [`Leadership`].
#[must_use = "a campaign does nothing until it is awaited"]
pub struct Campaign {
    acquire: AcquireLock,
}

impl Campaign {
    /// How long to campaign at the most, else it is [`Error::LockTaken`]; unless set, as long as it takes.
    pub fn wait(self, wait: Duration) -> Self {
        Self { acquire: self.acquire.wait(wait) }
    }

    async fn send(self) -> Result<Leadership, Error> {
        Ok(Leadership { hold: self.acquire.acquire().await? })
    }
}

awaitable!([] Campaign => Leadership);

/// Being the leader; made by [`Election::campaign`].
///
/// It is kept up in the background and ends when it is dropped; what a [`LockGuard`] knows of its loss is true of
/// this as well.
#[derive(Debug)]
#[must_use = "whoever drops this leads no longer"]
pub struct Leadership {
    hold: LockGuard,
}

impl Leadership {
    /// The fencing token: greater than those of all leaders before.
    pub fn token(&self) -> Token {
        self.hold.token()
    }

    /// Whether this is still the leader, as far as can be told without asking.
    pub fn is_leader(&self) -> bool {
        self.hold.is_held()
    }

    /// How the leadership was lost, if it was.
    pub fn loss(&self) -> Option<LockLoss> {
        self.hold.loss()
    }

    /// Resolves when the leadership is lost, however that is found out.
    pub fn lost(&self) -> impl Future<Output = LockLoss> + Send + use<> {
        self.hold.lost()
    }

    /// The hold of the lock behind it.
    pub fn hold(&self) -> &LockGuard {
        &self.hold
    }

    /// Shows the leader with another value, at most 4,096 bytes.
    ///
    /// # Errors
    /// [`Error::LockLost`] if this is no longer the leader; the failures of any write.
    pub async fn proclaim(&self, value: impl Into<Bytes>) -> Result<(), Error> {
        self.hold.update_value(value).await.map(drop)
    }

    /// Leads no longer. Answers whether it did until now.
    ///
    /// # Errors
    /// The failures of any write; it is then tried once more in the background.
    pub async fn resign(self) -> Result<bool, Error> {
        self.hold.release().await
    }
}

impl From<&Leadership> for Guard {
    fn from(leadership: &Leadership) -> Self {
        Self::from(&leadership.hold)
    }
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// What the leader shows.
    pub value: Bytes,
    /// The fencing token of its leadership.
    pub token: Token,
    /// Who it is.
    pub owner: LockOwner,
    /// When it was elected.
    pub elected_at: Timestamp,
}

impl From<LockInfo> for Leader {
    fn from(lock: LockInfo) -> Self {
        Self {
            value: lock.value,
            token: lock.token,
            owner: lock.owner,
            elected_at: lock.acquired_at,
        }
    }
}

/// Who leads, as that changes; made by [`Election::observe`]. `None`: nobody does; between two leaders of whom one
/// followed the other at once it does not come. A proclamation is a change, too.
///
/// An event of a type that this client does not know is an error in its place, and the stream goes on after it. Any other
/// error ends the stream.
#[must_use = "a stream does nothing until it is read"]
pub struct LeaderStream {
    leaders: BoxStream<'static, Result<Option<Leader>, Error>>,
}

impl Stream for LeaderStream {
    type Item = Result<Option<Leader>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.leaders.poll_next_unpin(cx)
    }
}

impl fmt::Debug for LeaderStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderStream").finish_non_exhaustive()
    }
}

fn leaders(locks: LockStream) -> impl Stream<Item = Result<Option<Leader>, Error>> + Send {
    let told = locks.scan(Observed::default(), |observed, item| {
        let news = match item {
            Ok(item) => observed.take(item).map(Ok),
            Err(error) => Some(Err(error)),
        };
        std::future::ready(Some(news))
    });
    told.filter_map(std::future::ready)
}

/// What an observer has seen and was told.
#[derive(Default)]
struct Observed {
    leader: Option<Leader>,
    /// What was told last; the outer none: nothing yet.
    told: Option<Option<Leader>>,
}

impl Observed {
    /// Takes what the lock's watch tells; answers with what is worth telling.
    fn take(&mut self, item: LockItem) -> Option<Option<Leader>> {
        match item {
            LockItem::Reset => {
                self.leader = None;
                None
            }
            LockItem::State(lock) => {
                self.leader = Some(lock.into());
                None
            }
            // Only here is it sure that nobody has followed in the same revision.
            LockItem::StateEnd(_) | LockItem::Progress(_) => self.tell(),
            LockItem::Event(event) => match event.change {
                LockChange::Granted(lock) | LockChange::ValueChanged(lock) => {
                    self.leader = Some(lock.into());
                    self.tell()
                }
                LockChange::Released | LockChange::Expired | LockChange::Broken { .. } => {
                    self.leader = None;
                    None
                }
            },
        }
    }

    fn tell(&mut self) -> Option<Option<Leader>> {
        if self.told.as_ref() == Some(&self.leader) {
            return None;
        }
        self.told = Some(self.leader.clone());
        self.told.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cursor, Lineage, LockEvent, Revision};

    fn lock(token: u64, value: &'static str) -> LockInfo {
        LockInfo::from_wire(holdfast_proto::v1::Lock {
            token,
            value: Bytes::from_static(value.as_bytes()),
            ..Default::default()
        })
    }

    fn event(token: u64, change: LockChange) -> LockItem {
        LockItem::Event(LockEvent {
            name: "e".to_owned(),
            token: Token::new(token),
            revision: Revision::new(token),
            time: Timestamp::from_millis(0),
            change,
        })
    }

    fn cursor() -> Cursor {
        Cursor { lineage: Lineage::from("l"), revision: Revision::new(1) }
    }

    fn told(observed: &mut Observed, item: LockItem) -> Option<Option<Bytes>> {
        observed.take(item).map(|leader| leader.map(|leader| leader.value))
    }

    #[test]
    fn the_first_thing_told_is_who_leads_or_that_nobody_does() {
        let mut nobody = Observed::default();
        assert_eq!(told(&mut nobody, LockItem::StateEnd(cursor())), Some(None));
        let mut somebody = Observed::default();
        assert_eq!(told(&mut somebody, LockItem::State(lock(1, "a"))), None);
        let first = told(&mut somebody, LockItem::StateEnd(cursor()));
        assert_eq!(first, Some(Some(Bytes::from("a"))));
    }

    #[test]
    fn between_two_leaders_in_one_revision_there_is_no_gap() {
        let mut observed = Observed::default();
        told(&mut observed, LockItem::State(lock(1, "a")));
        told(&mut observed, LockItem::StateEnd(cursor()));
        assert_eq!(told(&mut observed, event(1, LockChange::Released)), None);
        let next = told(&mut observed, event(2, LockChange::Granted(lock(2, "b"))));
        assert_eq!(next, Some(Some(Bytes::from("b"))));
        assert_eq!(told(&mut observed, LockItem::Progress(cursor())), None);
        assert_eq!(told(&mut observed, event(2, LockChange::Expired)), None);
        assert_eq!(told(&mut observed, LockItem::Progress(cursor())), Some(None));
    }

    #[test]
    fn a_reset_that_changes_nothing_is_not_told() {
        let mut observed = Observed::default();
        told(&mut observed, LockItem::State(lock(1, "a")));
        told(&mut observed, LockItem::StateEnd(cursor()));
        assert_eq!(told(&mut observed, LockItem::Reset), None);
        assert_eq!(told(&mut observed, LockItem::State(lock(1, "a"))), None);
        assert_eq!(told(&mut observed, LockItem::StateEnd(cursor())), None);
    }
}
