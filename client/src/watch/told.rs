//! What one message tells, step by step.

use std::{ops::Range, sync::Arc, vec};

use super::resume::{Body, Message, Step};
use crate::Cursor;

/// What a message has to tell, in order. Others may read the same message: its events are lent, or copied one by one.
#[derive(Debug)]
pub(crate) struct Told<I, E> {
    pub(super) reset: bool,
    pub(super) initial: vec::IntoIter<I>,
    pub(super) events: Option<Events<I, E>>,
    /// Where the watch has come to with it, if that is further than before.
    pub(super) last: Option<Last>,
    /// The time of the state that is complete with it.
    pub(super) as_of: Option<i64>,
}

/// Those events of a message that are new.
#[derive(Debug)]
pub(crate) struct Events<I, E> {
    pub(super) message: Arc<Message<I, E>>,
    pub(super) range: Range<usize>,
}

#[derive(Debug)]
pub(super) enum Last {
    InitialEnd(Cursor),
    Progress(Cursor),
}

impl<I, E> Default for Told<I, E> {
    fn default() -> Self {
        let initial = Vec::new().into_iter();
        Self { reset: false, initial, events: None, last: None, as_of: None }
    }
}

impl<I, E> Told<I, E> {
    /// The next step, if that is an event; not a copy of it.
    pub(super) fn next_event(&mut self) -> Option<&E> {
        let events = self.events.as_mut()?;
        let index = events.range.next()?;
        match &events.message.body {
            Body::Events(all) => all.get(index),
            _ => None,
        }
    }

    /// The next step after the events.
    pub(super) fn next_other<F>(&mut self) -> Option<Step<I, F>> {
        if std::mem::take(&mut self.reset) {
            return Some(Step::Reset);
        }
        if let Some(item) = self.initial.next() {
            return Some(Step::Initial(item));
        }
        self.last.take().map(|last| match last {
            Last::InitialEnd(cursor) => Step::InitialEnd(cursor),
            Last::Progress(cursor) => Step::Progress(cursor),
        })
    }
}

impl<I, E: Clone> Iterator for Told<I, E> {
    type Item = Step<I, E>;

    fn next(&mut self) -> Option<Step<I, E>> {
        if let Some(event) = self.next_event() {
            return Some(Step::Event(event.clone()));
        }
        self.next_other()
    }
}
