//! What a watch has delivered, and from where it goes on. No I/O and no clock: messages in, steps out.

use std::{collections::HashSet, sync::Arc};

use super::told::{Events, Last, Told};
use crate::{
    Cursor, Error, Lineage, Revision,
    error::{Cause, Failure},
};

/// Where a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Now,
    After(u64),
    Initial,
}

/// What a server is asked to start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Now,
    Initial,
    After { revision: u64, or_initial: bool },
}

/// A message of a watch, whatever is watched: the initial state is made of `I`, events are `E`.
#[derive(Debug)]
pub(crate) struct Message<I, E> {
    pub(crate) revision: u64,
    pub(crate) time_ms: i64,
    pub(crate) complete_through: u64,
    pub(crate) new_lineage: String,
    pub(crate) body: Body<I, E>,
}

#[derive(Debug)]
pub(crate) enum Body<I, E> {
    Created {
        lineage: String,
        revision: u64,
        reset: bool,
    },
    Initial {
        items: Vec<I>,
        end: bool,
    },
    Events(Vec<E>),
    /// Progress, or what a newer server says that this client does not know.
    Nothing,
}

impl<I, E> Message<I, E> {
    /// The time of the state that is complete with this message, by the clock of the store. That a watch stands
    /// says nothing: what it was asked for may lie further back.
    pub(crate) fn complete_as_of(&self) -> Option<i64> {
        let is_complete = match &self.body {
            Body::Created { .. } => false,
            Body::Initial { end, .. } => *end,
            Body::Events(_) | Body::Nothing => self.complete_through >= self.revision,
        };
        is_complete.then_some(self.time_ms)
    }

    /// No event up to its end is of a later revision.
    pub(crate) fn reaches(&self) -> u64
    where
        E: Located,
    {
        let last = match &self.body {
            Body::Events(events) => events.last().map_or(0, Located::revision),
            Body::Created { .. } | Body::Initial { .. } | Body::Nothing => 0,
        };
        last.max(self.complete_through)
    }

    /// Whether it says that there is nothing newer.
    pub(crate) fn is_newest(&self) -> bool {
        match &self.body {
            Body::Initial { end, .. } => *end,
            Body::Nothing => self.complete_through >= self.revision,
            Body::Created { .. } | Body::Events(_) => false,
        }
    }

    /// Whether it tells of a history that goes on after this revision.
    pub(crate) fn tells_past(&self, revision: u64) -> bool {
        let has_event = matches!(self.body, Body::Events(_)) && self.revision > revision;
        has_event || self.complete_through > revision
    }
}

/// An event that can be known again.
pub(crate) trait Located {
    fn revision(&self) -> u64;

    /// What it differs in from the others of its revision.
    fn identity(&self) -> String;
}

/// What the consumer is to be told.
#[derive(Debug, PartialEq)]
pub(crate) enum Step<I, E> {
    Reset,
    Initial(I),
    InitialEnd(Cursor),
    Event(E),
    Progress(Cursor),
}

/// The state of a watch across its connections.
#[derive(Debug)]
pub(crate) struct Resume {
    start: Start,
    or_initial: bool,
    /// Empty: not known, or the namespace does not exist yet.
    lineage: String,
    phase: Phase,
    /// In the live phase: all events up to this revision have been delivered.
    through: u64,
    /// What has been delivered of the last revision above `through`. All revisions between have been
    /// delivered wholly, since events come in order.
    partial: Partial,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection has stood yet.
    Unstarted,
    /// The initial state is not complete; whether a part of it was delivered.
    Snapshot {
        begun: bool,
    },
    Live,
}

#[derive(Debug, Default)]
struct Partial {
    revision: u64,
    identities: HashSet<String>,
}

impl Resume {
    pub(crate) fn new(start: Start, lineage: Option<Lineage>, or_initial: bool) -> Self {
        Self {
            start,
            or_initial,
            lineage: lineage.map(String::from).unwrap_or_default(),
            phase: Phase::Unstarted,
            through: 0,
            partial: Partial::default(),
        }
    }

    /// How to ask for what is still missing: where to start, and in which lineage.
    pub(crate) fn request(&self) -> (Place, Option<String>) {
        let lineage = (!self.lineage.is_empty()).then(|| self.lineage.clone());
        match (self.phase, self.start) {
            (Phase::Live, _) => (self.after(self.through), lineage),
            (Phase::Unstarted, Start::After(revision)) => (self.after(revision), lineage),
            (Phase::Unstarted, Start::Now) => (Place::Now, None),
            (Phase::Unstarted, Start::Initial) | (Phase::Snapshot { .. }, _) => {
                (Place::Initial, None)
            }
        }
    }

    /// Where the consumer could resume from, were everything delivered that was handed out.
    pub(crate) fn cursor(&self) -> Option<Cursor> {
        (self.phase == Phase::Live).then(|| Cursor {
            lineage: Lineage::new(self.lineage.clone()),
            revision: Revision::new(self.through),
        })
    }

    /// The same in the live phase: the lineage and the revision.
    pub(crate) fn position(&self) -> Option<(&str, u64)> {
        self.is_live().then_some((self.lineage.as_str(), self.through))
    }

    /// Begins after this revision, as if nothing had been told.
    pub(crate) fn begin_again(&mut self, after: u64) {
        *self = Self::new(Start::After(after), None, self.or_initial);
    }

    /// Whether the watch goes on, with a new connection, after this failure.
    pub(crate) fn survives(&self, failure: &Failure) -> bool {
        match (failure.cause, &failure.error) {
            (Cause::NotSent | Cause::Lost, _) => true,
            (Cause::Answered, Error::Unavailable { .. } | Error::Overloaded { .. }) => true,
            // A watch has no deadline: a proxy on the way has set one.
            (Cause::Answered, Error::DeadlineExceeded) => true,
            // Asked again with the cursor, the server answers with a fresh initial state.
            (Cause::Answered, Error::Compacted { .. } | Error::LineageChanged { .. }) => {
                self.or_initial && self.phase != Phase::Unstarted
            }
            (Cause::Answered, _) => false,
        }
    }

    /// Whether events are what it is at, and not an initial state.
    pub(crate) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Takes a message and tells what is new in it.
    pub(crate) fn accept<I, E: Located + Clone>(
        &mut self,
        message: impl Into<Arc<Message<I, E>>>,
    ) -> Result<Told<I, E>, Error> {
        let message = message.into();
        let (revision, complete_through) = (message.revision, message.complete_through);
        let before = self.is_live().then_some(self.through);
        // One that others read too may be of a time before this watch began.
        let as_of = message.complete_as_of().filter(|_| complete_through >= self.through);
        let mut told = Told { as_of, ..Told::default() };
        let mut is_relabelled = false;
        if !message.new_lineage.is_empty() {
            is_relabelled = self.relabel(&message.new_lineage);
        }
        let mut ended_initial = false;
        match &message.body {
            Body::Created { lineage, revision, reset } => {
                if !reset {
                    self.check_partial(lineage)?;
                }
                is_relabelled |= self.lineage != *lineage;
                told.reset = self.created(lineage, *revision, *reset);
            }
            Body::Initial { end, .. } => {
                if !matches!(self.phase, Phase::Snapshot { .. }) {
                    return Err(Error::protocol("a watch got an initial state it did not expect"));
                }
                self.phase = Phase::Snapshot { begun: true };
                ended_initial = *end;
                told.initial = items(message).into_iter();
                if ended_initial {
                    self.phase = Phase::Live;
                    self.rise_to(revision);
                }
            }
            Body::Events(events) => {
                if !self.is_live() {
                    return Err(Error::protocol("a watch got events before it was ready for them"));
                }
                told.events = Some(match self.first_fresh(events, complete_through) {
                    Some(first) => Events { range: first..events.len(), message },
                    None => self.fresh(events, complete_through),
                });
            }
            Body::Nothing => {}
        }
        if self.is_live() {
            self.rise_to(complete_through);
        }
        let has_moved = before.is_some_and(|through| is_relabelled || through != self.through);
        told.last = match self.cursor() {
            Some(cursor) if ended_initial => Some(Last::InitialEnd(cursor)),
            Some(cursor) if has_moved => Some(Last::Progress(cursor)),
            _ => None,
        };
        Ok(told)
    }

    /// From where on the events of a message are new, where that is all there is to it: they are of whole revisions, in
    /// order, of which each has been delivered or has not.
    fn first_fresh(&self, events: &[impl Located], complete_through: u64) -> Option<usize> {
        let ends_whole = events.last().is_none_or(|last| last.revision() <= complete_through);
        let are_whole = self.partial.revision == 0 && ends_whole;
        are_whole.then(|| events.partition_point(|event| event.revision() <= self.through))
    }

    /// Those events that have not been delivered yet, and from now on have been.
    fn fresh<I, E: Located + Clone>(
        &mut self,
        events: &[E],
        complete_through: u64,
    ) -> Events<I, E> {
        let fresh = events.iter().filter(|event| self.is_new(*event, complete_through));
        let fresh: Vec<_> = fresh.cloned().collect();
        let range = 0..fresh.len();
        let message = Message {
            revision: 0,
            time_ms: 0,
            complete_through,
            new_lineage: String::new(),
            body: Body::Events(fresh),
        };
        Events { message: message.into(), range }
    }

    /// Goes on under this lineage; whether that is another one.
    fn relabel(&mut self, lineage: &str) -> bool {
        let is_another = self.lineage != lineage;
        if is_another {
            lineage.clone_into(&mut self.lineage);
        }
        is_another
    }

    /// A part of a revision that was delivered is not a part of another lineage, which goes on from before it. Only a
    /// fresh initial state makes up for that.
    fn check_partial(&mut self, lineage: &str) -> Result<(), Error> {
        if self.partial.revision == 0 || self.lineage.is_empty() || self.lineage == lineage {
            return Ok(());
        }
        let valid_through = Some(Revision::new(self.through));
        if self.or_initial {
            self.phase = Phase::Snapshot { begun: true };
            self.partial = Partial::default();
        }
        Err(Error::LineageChanged { lineage: Lineage::new(lineage.to_owned()), valid_through })
    }

    /// The watch stands. Whether the consumer has to forget what it knows.
    fn created(&mut self, lineage: &str, revision: u64, reset: bool) -> bool {
        let from_scratch = reset
            || matches!(self.phase, Phase::Snapshot { .. })
            || (self.phase, self.start) == (Phase::Unstarted, Start::Initial);
        if from_scratch {
            let forget = reset || self.phase == (Phase::Snapshot { begun: true });
            self.phase = Phase::Snapshot { begun: false };
            self.relabel(lineage);
            self.through = 0;
            self.partial = Partial::default();
            return forget;
        }
        // The server was told the lineage: if it goes on under another one, that goes on from ours.
        self.relabel(lineage);
        if let (Phase::Unstarted, Start::After(revision)) = (self.phase, self.start) {
            self.through = revision;
        }
        self.phase = Phase::Live;
        self.rise_to(revision);
        false
    }

    /// Whether an event has not been delivered yet, and from now on has been. That of a revision which is complete with
    /// its message need not be known again.
    fn is_new(&mut self, event: &impl Located, complete_through: u64) -> bool {
        let revision = event.revision();
        if revision <= self.through || revision < self.partial.revision {
            return false;
        }
        if revision > self.partial.revision {
            if revision <= complete_through {
                return true;
            }
            self.partial = Partial { revision, identities: HashSet::new() };
        }
        self.partial.identities.insert(event.identity())
    }

    fn rise_to(&mut self, revision: u64) {
        self.through = self.through.max(revision);
        if self.through >= self.partial.revision {
            self.partial = Partial::default();
        }
    }

    fn after(&self, revision: u64) -> Place {
        Place::After { revision, or_initial: self.or_initial }
    }
}

/// What the message of an initial state brings. That is for nobody else.
fn items<I, E>(message: Arc<Message<I, E>>) -> Vec<I> {
    match Arc::into_inner(message) {
        Some(Message { body: Body::Initial { items, .. }, .. }) => items,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Message = super::Message<String, Event>;
    type Step = super::Step<String, Event>;

    /// The change of a key at a revision.
    #[derive(Clone, Debug, PartialEq)]
    struct Event(String, u64);

    impl Located for Event {
        fn revision(&self) -> u64 {
            self.1
        }

        fn identity(&self) -> String {
            self.0.clone()
        }
    }

    fn message(revision: u64, complete_through: u64, body: Body<String, Event>) -> Message {
        let new_lineage = String::new();
        Message { revision, time_ms: 1_000, complete_through, new_lineage, body }
    }

    fn created(lineage: &str, revision: u64, reset: bool) -> Message {
        let lineage = lineage.to_owned();
        message(revision, 0, Body::Created { lineage, revision, reset })
    }

    fn event(key: &str, revision: u64) -> Event {
        Event(key.to_owned(), revision)
    }

    fn events(complete_through: u64, events: &[(&str, u64)]) -> Message {
        let events: Vec<_> = events.iter().map(|(key, at)| event(key, *at)).collect();
        let last = events.last().map_or(0, Located::revision);
        message(last, complete_through, Body::Events(events))
    }

    fn initial(key: &str, revision: u64, end: bool) -> Message {
        let items = vec![entry(key)];
        let complete_through = if end { revision } else { 0 };
        message(revision, complete_through, Body::Initial { items, end })
    }

    fn entry(key: &str) -> String {
        key.to_owned()
    }

    fn cursor(revision: u64) -> Cursor {
        Cursor { lineage: Lineage::from("l"), revision: Revision::new(revision) }
    }

    fn accept(resume: &mut Resume, message: Message) -> Vec<Step> {
        let told = resume.accept(message).expect("a message that makes sense");
        told.collect()
    }

    fn live(revision: u64) -> Resume {
        let mut resume = Resume::new(Start::Now, None, false);
        assert_eq!(accept(&mut resume, created("l", revision, false)), []);
        resume
    }

    fn resumes_after(resume: &Resume, revision: u64) -> bool {
        let (place, lineage) = resume.request();
        matches!(place, Place::After { revision: after, .. } if after == revision)
            && lineage.as_deref() == Some("l")
    }

    fn asks_for_initial(resume: &Resume) -> bool {
        resume.request() == (Place::Initial, None)
    }

    fn answered(error: Error) -> Failure {
        Failure { error, cause: Cause::Answered }
    }

    #[test]
    fn a_watch_from_now_resumes_where_it_stood() {
        let resume = live(5);
        assert_eq!(resume.cursor(), Some(cursor(5)));
        assert!(resumes_after(&resume, 5));
    }

    #[test]
    fn what_was_delivered_of_a_revision_is_not_delivered_again() {
        let mut resume = live(5);
        assert_eq!(
            accept(&mut resume, events(6, &[("a", 6), ("a", 7), ("b", 7)])),
            [
                Step::Event(event("a", 6)),
                Step::Event(event("a", 7)),
                Step::Event(event("b", 7)),
                Step::Progress(cursor(6)),
            ]
        );
        assert!(resumes_after(&resume, 6));
        assert_eq!(accept(&mut resume, created("l", 6, false)), []);
        assert_eq!(
            accept(&mut resume, events(8, &[("a", 7), ("b", 7), ("c", 7), ("a", 8)])),
            [Step::Event(event("c", 7)), Step::Event(event("a", 8)), Step::Progress(cursor(8)),]
        );
    }

    #[test]
    fn revisions_before_a_partial_one_are_wholly_delivered() {
        let mut resume = live(5);
        accept(&mut resume, events(0, &[("a", 6), ("a", 7)]));
        assert!(resumes_after(&resume, 5));
        accept(&mut resume, created("l", 5, false));
        assert_eq!(
            accept(&mut resume, events(7, &[("a", 6), ("a", 7), ("b", 7)])),
            [Step::Event(event("b", 7)), Step::Progress(cursor(7))]
        );
    }

    #[test]
    fn a_message_tells_the_time_of_what_is_complete_with_it() {
        assert_eq!(created("l", 5, false).complete_as_of(), None);
        assert_eq!(initial("a", 5, false).complete_as_of(), None);
        assert_eq!(initial("a", 5, true).complete_as_of(), Some(1_000));
        assert_eq!(events(6, &[("a", 6), ("a", 7)]).complete_as_of(), None);
        assert_eq!(events(7, &[("a", 6), ("a", 7)]).complete_as_of(), Some(1_000));
        assert_eq!(message(7, 7, Body::Nothing).complete_as_of(), Some(1_000));
    }

    #[test]
    fn a_broken_initial_state_starts_again_and_says_so() {
        let mut resume = Resume::new(Start::Initial, None, false);
        assert!(asks_for_initial(&resume));
        assert_eq!(accept(&mut resume, created("l", 5, false)), []);
        assert_eq!(accept(&mut resume, initial("a", 5, false)), [Step::Initial(entry("a"))]);
        assert_eq!(resume.cursor(), None);
        assert!(asks_for_initial(&resume));
        assert_eq!(accept(&mut resume, created("l", 9, false)), [Step::Reset]);
        assert_eq!(
            accept(&mut resume, initial("a", 9, true)),
            [Step::Initial(entry("a")), Step::InitialEnd(cursor(9))]
        );
        assert!(resumes_after(&resume, 9));
    }

    #[test]
    fn an_initial_state_of_which_nothing_came_needs_no_reset() {
        let mut resume = Resume::new(Start::Initial, None, false);
        accept(&mut resume, created("l", 5, false));
        assert_eq!(accept(&mut resume, created("l", 6, false)), []);
    }

    #[test]
    fn a_reset_by_the_server_forgets_everything() {
        let lineage = Some(Lineage::from("old"));
        let mut resume = Resume::new(Start::After(90), lineage, true);
        assert_eq!(accept(&mut resume, created("l", 5, true)), [Step::Reset]);
        assert!(asks_for_initial(&resume));
        assert_eq!(
            accept(&mut resume, initial("a", 5, true)),
            [Step::Initial(entry("a")), Step::InitialEnd(cursor(5))]
        );
        assert_eq!(
            accept(&mut resume, events(6, &[("a", 6)])),
            [Step::Event(event("a", 6)), Step::Progress(cursor(6))]
        );
    }

    #[test]
    fn lost_history_ends_the_watch_unless_it_may_start_again() {
        let lost = || Error::Compacted { oldest: Revision::new(50) };
        let changed = || Error::LineageChanged { lineage: Lineage::default(), valid_through: None };
        let mut resume = live(5);
        assert!(!resume.survives(&answered(lost())));
        assert!(!resume.survives(&answered(changed())));
        resume.or_initial = true;
        assert!(resume.survives(&answered(lost())));
        assert!(resume.survives(&answered(changed())));
        assert!(!resume.survives(&answered(Error::PermissionDenied { message: String::new() })));
    }

    #[test]
    fn a_deadline_of_somebody_on_the_way_does_not_end_the_watch() {
        assert!(live(5).survives(&answered(Error::DeadlineExceeded)));
    }

    #[test]
    fn a_lineage_that_goes_on_from_ours_is_taken_over() {
        let mut resume = live(5);
        let next = Cursor { lineage: Lineage::from("next"), ..cursor(5) };
        assert_eq!(accept(&mut resume, created("next", 5, false)), [Step::Progress(next)]);
        let (place, lineage) = resume.request();
        assert_eq!(place, Place::After { revision: 5, or_initial: false });
        assert_eq!(lineage.as_deref(), Some("next"));
    }

    #[test]
    fn a_part_of_a_revision_that_was_lost_is_taken_back() {
        for or_initial in [false, true] {
            let mut resume = live(5);
            resume.or_initial = or_initial;
            accept(&mut resume, events(6, &[("a", 6), ("a", 7)]));
            let error = resume.accept(created("next", 6, false)).expect_err("the part is lost");
            assert!(matches!(
                &error,
                Error::LineageChanged { lineage, valid_through: Some(through) }
                    if lineage.as_str() == "next" && through.get() == 6
            ));
            assert_eq!(resume.survives(&answered(error)), or_initial);
            if or_initial {
                assert!(asks_for_initial(&resume));
                assert_eq!(accept(&mut resume, created("next", 7, false)), [Step::Reset]);
            }
        }
        // The same lineage goes on with the rest.
        let mut resume = live(5);
        accept(&mut resume, events(6, &[("a", 6), ("a", 7)]));
        assert_eq!(accept(&mut resume, created("l", 6, false)), []);
    }

    #[test]
    fn a_namespace_that_comes_into_being_gives_the_cursor_its_lineage() {
        let mut resume = Resume::new(Start::Now, None, false);
        accept(&mut resume, created("", 0, false));
        assert_eq!(resume.request(), (Place::After { revision: 0, or_initial: false }, None));
        let mut first = events(1, &[("a", 1)]);
        first.new_lineage = "l".to_owned();
        assert_eq!(
            accept(&mut resume, first),
            [Step::Event(event("a", 1)), Step::Progress(cursor(1))]
        );
        assert!(resumes_after(&resume, 1));
    }

    #[test]
    fn progress_raises_the_cursor_and_repeats_nothing() {
        let mut resume = live(5);
        let progress = || message(9, 9, Body::Nothing);
        assert_eq!(accept(&mut resume, progress()), [Step::Progress(cursor(9))]);
        assert_eq!(accept(&mut resume, progress()), []);
    }

    #[test]
    fn a_clear_and_its_repetition_are_one() {
        let mut resume = live(5);
        assert_eq!(accept(&mut resume, events(5, &[("", 6)])), [Step::Event(event("", 6))]);
        accept(&mut resume, created("l", 5, false));
        assert_eq!(accept(&mut resume, events(6, &[("", 6)])), [Step::Progress(cursor(6))]);
    }
}
