//! Transactions written as a closure that is run until nobody has interfered.

mod state;

use std::time::Duration;

use holdfast_proto::v1;

use crate::{
    Codec, Decode, Encode, Error, Expiry, Guard, Header, Namespace, Token,
    retry::Backoff,
    wire::{self, Reader},
};
use state::{Recorded, SharedState, State, Write};

impl<C: Codec> Namespace<C> {
    /// Runs a closure as a transaction: what it reads is remembered, what it writes is kept back, and at
    /// its end everything is written in one step if nothing that it read has changed. Otherwise it is run
    /// again, up to ten times, with growing, jittered waits.
    ///
    /// What the reads of one attempt see, together, is a state that the namespace had at one revision and
    /// time (see [`Tx::get`]); the attempt that succeeds is serializable. If the closure answers with an
    /// error, or the future is dropped before the closure ends, nothing is written. The closure may be run
    /// several times, so it should do nothing else that cannot be repeated. It can read up to 1,024 keys and
    /// write as many.
    ///
    /// For errors of one's own or another number of attempts, see [`transact_with`](Self::transact_with).
    ///
    /// ```no_run
    /// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
    /// let accounts = client.namespace("accounts");
    /// let moved = accounts
    ///     .transact(async |tx| {
    ///         let from = tx.get::<u64>("ann").await?.unwrap_or(0);
    ///         let to = tx.get::<u64>("bob").await?.unwrap_or(0);
    ///         let amount = from.min(10);
    ///         tx.set("ann", &(from - amount))?;
    ///         tx.set("bob", &(to + amount))?;
    ///         Ok(amount)
    ///     })
    ///     .await?;
    /// println!("moved {} at attempt {}", moved.value, moved.attempts);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Conflict`] if every attempt met a conflict; what the closure fails with; the failures of a
    /// write, [`Error::OutcomeUnknown`] among them.
    pub async fn transact<R, F>(&self, closure: F) -> Result<Committed<R>, Error>
    where
        F: AsyncFn(Tx<C>) -> Result<R, Error>,
    {
        self.transact_with(TransactOptions::default(), closure).await
    }

    /// Runs a closure as a transaction like [`transact`](Self::transact), with options, and with errors of
    /// the caller's own type.
    ///
    /// # Errors
    /// Those of [`transact`](Self::transact), converted.
    pub async fn transact_with<R, E, F>(
        &self,
        options: TransactOptions,
        closure: F,
    ) -> Result<Committed<R>, E>
    where
        E: From<Error>,
        F: AsyncFn(Tx<C>) -> Result<R, E>,
    {
        let mut backoff = Backoff::for_calls();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let state = SharedState::default();
            let tx = Tx { namespace: self.clone(), state: state.clone(), timeout: options.timeout };
            let result = closure(tx).await;
            let state = state.take();
            // An attempt that has already met a conflict is void, whatever the closure made of it.
            if !state.conflicted {
                let value = result?;
                if let Commit::Done(header) = self.commit(state, &options).await? {
                    return Ok(Committed { value, header, attempts });
                }
            }
            if attempts >= options.max_attempts {
                return Err(Error::Conflict { attempts }.into());
            }
            tokio::time::sleep(backoff.wait(None)).await;
        }
    }

    /// Writes what an attempt has gathered, if what it has read still holds.
    async fn commit(&self, state: State, options: &TransactOptions) -> Result<Commit, Error> {
        if state.is_empty() {
            return Ok(Commit::Done(None));
        }
        let mut request = state.into_request(self.namespace());
        for guard in &options.guards {
            wire::guard(&mut request.options, guard.clone());
        }
        let transport = &self.client.transport;
        let response = transport.call(request, options.timeout).await?;
        let header = Header::new(response.revision, response.time_ms);
        Ok(match response.succeeded {
            true => Commit::Done(Some(header)),
            false => Commit::Conflict,
        })
    }
}

/// How the end of an attempt went.
enum Commit {
    /// At this state; none if there was nothing to do.
    Done(Option<Header>),
    Conflict,
}

/// How [`Namespace::transact_with`] goes about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactOptions {
    max_attempts: u32,
    timeout: Option<Duration>,
    guards: Vec<Guard>,
}

impl Default for TransactOptions {
    fn default() -> Self {
        Self { max_attempts: 10, timeout: None, guards: Vec::new() }
    }
}

impl TransactOptions {
    /// Ten attempts, and the client's timeout.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often the closure is run at the most; at least once.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// How long each read and the write at the end may take, instead of the client's setting.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Writes only if this hold of a lock of the same namespace is current then, else it is
    /// [`Error::LockLost`]. Up to 16 holds can be named.
    pub fn guard(mut self, hold: impl Into<Guard>) -> Self {
        self.guards.push(hold.into());
        self
    }

    /// Writes only if this lock is held by this token; like [`guard`](Self::guard), for whoever has only the
    /// token.
    pub fn guard_token(self, lock: impl Into<String>, token: impl Into<Token>) -> Self {
        self.guard(Guard::new(lock, token))
    }
}

/// What a transaction has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed<R> {
    /// What the closure answered with.
    pub value: R,
    /// The revision and time of the write, or of the state in which all that was read still held. None if
    /// the closure neither read nor wrote anything.
    pub header: Option<Header>,
    /// How often the closure was run.
    pub attempts: u32,
}

/// One attempt of a transaction, handed to the closure of [`Namespace::transact`].
#[derive(Debug)]
pub struct Tx<C> {
    namespace: Namespace<C>,
    state: SharedState,
    timeout: Option<Duration>,
}

impl<C: Codec> Tx<C> {
    /// Reads a value; `None` if there is no such key, which is remembered as well. What the transaction has
    /// written itself is seen, and what it has read before is answered from memory.
    ///
    /// All reads of an attempt see one state: if the namespace has moved on since the first, or a lease may have ended, it
    /// is checked that what was read before still holds.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it does not. Hand it on: the closure is run again. [`Error::Codec`] or
    /// [`Error::UnexpectedContentType`] if the value cannot be read as a `T`; the failures of a read.
    pub async fn get<T>(&self, key: impl Into<String>) -> Result<Option<T>, Error>
    where
        C: Decode<T>,
    {
        let entry = self.entry(key.into()).await?;
        let reader = Reader::of_values(self.namespace.codec.clone());
        Ok(reader.read_option(entry)?.map(crate::Entry::into_value))
    }

    /// Tells whether a key exists; like [`get`](Self::get) otherwise.
    ///
    /// # Errors
    /// Those of [`get`](Self::get).
    pub async fn exists(&self, key: impl Into<String>) -> Result<bool, Error> {
        Ok(self.entry(key.into()).await?.is_some())
    }

    /// Writes a value at the end of the transaction.
    ///
    /// # Errors
    /// [`Error::Codec`] if it does not fit the codec, and those of [`delete`](Self::delete).
    pub fn set<V: ?Sized>(&self, key: impl Into<String>, value: &V) -> Result<(), Error>
    where
        C: Encode<V>,
    {
        self.write(key.into(), value, None)
    }

    /// Writes a value with an expiry at the end of the transaction; a TTL counts from there.
    ///
    /// # Errors
    /// Those of [`set`](Self::set).
    pub fn set_expiring<V: ?Sized>(
        &self,
        key: impl Into<String>,
        value: &V,
        expiry: impl Into<Expiry>,
    ) -> Result<(), Error>
    where
        C: Encode<V>,
    {
        self.write(key.into(), value, Some(expiry.into()))
    }

    /// Removes a key at the end of the transaction.
    ///
    /// # Errors
    /// [`Error::Conflict`] if a read of this attempt has met one: hand it on. [`Error::TransactionEnded`] if the
    /// closure has ended.
    pub fn delete(&self, key: impl Into<String>) -> Result<(), Error> {
        self.state.lock().write(key.into(), Write::Delete)
    }

    fn write<V: ?Sized>(&self, key: String, value: &V, expiry: Option<Expiry>) -> Result<(), Error>
    where
        C: Encode<V>,
    {
        let codec = &self.namespace.codec;
        let write = Write::Set {
            value: wire::encode(codec, &key, value)?,
            content_type: wire::content_type(codec),
            expiry,
        };
        self.state.lock().write(key, write)
    }

    async fn entry(&self, key: String) -> Result<Option<v1::Entry>, Error> {
        if let Some(known) = self.state.lock().known(&key)? {
            return Ok(known);
        }
        let request = v1::GetRequest {
            namespace: self.namespace.namespace(),
            key: key.clone(),
            ..Default::default()
        };
        let transport = &self.namespace.client.transport;
        let response = transport.call(request, self.timeout).await?;
        let header = Header::new(response.revision, response.time_ms);
        let recorded = self.state.lock().record(&key, response.entry, header)?;
        if recorded == Recorded::MustValidate {
            self.validate().await?;
        }
        // Of two reads of one key at the same time, the first to be recorded counts for both.
        Ok(self.state.lock().known(&key)?.unwrap_or_default())
    }

    /// Checks in one read that everything read so far is still as it was.
    async fn validate(&self) -> Result<(), Error> {
        loop {
            let keys = self.state.lock().keys_read();
            let mut batch = self.namespace.get_many_keys(keys.clone());
            if let Some(timeout) = self.timeout {
                batch = batch.timeout(timeout);
            }
            let now = batch.with_header().await?;
            let revisions = now
                .value
                .into_iter()
                .map(|entry| entry.map(|entry| entry.mod_revision().get()))
                .collect();
            if self.state.lock().validate(&keys, revisions, now.header)? {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
