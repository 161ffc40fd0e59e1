//! The judge judged where a store comes back with a part of what it had: what was kept and is lost, what was lost and comes
//! again, and whoever is not told of it, is caught.

use std::sync::LazyLock;

use holdfast_proto::v1::{
    pipeline_answer::Result as Answer, pipeline_call::Operation as Op, watch_request::Start,
    watch_response::Body, *,
};
use libtest_mimic::Trial;

use crate::{
    common::redis,
    falsified::{Falsified, Place, recorded, trials_of},
    faults::Fault,
    history::{Call, Chronicle, Epoch, Outcome, Request, Watch},
    judge::judge_all,
    servers::Kind,
};

/// One in which Redis came back with former copies.
static LOST: LazyLock<Chronicle> =
    LazyLock::new(|| recorded(Kind::RedisPair, vec![Fault::Rewind], 300));

static MUTATIONS: [Falsified<Chronicle>; 15] = [
    ("a_lost_revision_given_again", repeated_revision, &["what was seen is", "a lineage stays"]),
    ("a_history_that_goes_on_among_the_lost", repeated_base, &["no revision comes twice"]),
    ("a_lost_token_given_again", repeated_token, &["a token is the revision", "a hold ends once"]),
    ("a_kept_write_that_is_lost", lost_write, &["the previous value is"]),
    ("a_lost_write_that_comes_back", found_write, &["an answer is"]),
    ("a_lost_revision_that_is_read", lost_read, &["what was seen is"]),
    ("a_lost_event_that_is_told", lost_event, &["a watch tells"]),
    ("a_watch_that_goes_on_from_what_was_lost", resumed_beyond, &["a watch of another lineage"]),
    ("a_watch_of_what_was_lost_that_goes_on", unaware_watch, &["a watch is of one lineage"]),
    (
        "a_watch_refused_that_has_lost_nothing",
        refused_watch,
        &["a watch that has lost nothing", "a watch ends only with a reason"],
    ),
    ("more_said_to_be_lost_than_was", low_valid_through, &["what a store was left with"]),
    (
        "less_said_to_be_lost_than_was",
        high_valid_through,
        &[
            "a refusal",
            "a watch tells",
            "an answer",
            "the previous",
            "a hold",
            "an event",
            "a lock",
            "a guarded",
            // One that was refused what was lost would have lost nothing then.
            "a watch ends only with a reason",
            "a watch that has lost nothing",
        ],
    ),
    ("a_loss_told_wrong_to_one", false_valid_through, &["a watch says truly what it lost"]),
    ("a_loss_that_nothing_caused", uncaused_loss, &["a lineage stays"]),
    ("a_confirmed_write_that_is_lost", unconfirmed_write, &["what replicas have confirmed"]),
];

/// One for each way, and one for the good chronicle itself; none where there is no Redis.
pub fn trials() -> Vec<Trial> {
    match redis::is_installed() {
        true => trials_of("judge::good_losses_pass", &LOST, judge_all, &MUTATIONS),
        false => Vec::new(),
    }
}

/// Where a lineage goes on from what was left of another.
struct Loss {
    /// The index of the lineage that goes on.
    next: usize,
    former: Epoch,
    later: Epoch,
    /// The last revision that was left.
    through: u64,
}

impl Loss {
    fn has_lost(&self, revision: u64) -> bool {
        self.through < revision && revision < self.later.base
    }
}

/// Each place where something was lost of which much is known.
fn losses(chronicle: &Chronicle) -> Vec<Loss> {
    let pairs = chronicle.epochs.windows(2).enumerate().filter_map(|(number, pair)| {
        let (former, later) = (pair[0].clone(), pair[1].clone());
        let through = later.shared?;
        let loss = Loss { next: number + 1, former, later, through };
        (loss.former.last > through + 2 && loss.later.last > loss.later.base + 10).then_some(loss)
    });
    pairs.collect()
}

/// The plain reads of a key that were answered when what followed a loss was known, by their indices.
fn reads(chronicle: &Chronicle, loss: &Loss) -> Vec<usize> {
    let later = loss.later.base + 1..=loss.later.last;
    let is_later = |call: &Call| call.state().is_some_and(|(it, _)| later.contains(&it));
    let known = chronicle.calls.iter().filter(|call| is_later(call)).map(|call| call.returned);
    let known = known.min().unwrap_or(u64::MAX);
    let calls = chronicle.calls.iter().enumerate().filter(|(_, call)| {
        let is_read = matches!(
            &call.request,
            Request::Do(Op::Get(r)) if r.touch.is_none() && r.at_revision.is_none()
        );
        is_read && is_later(call) && call.attempts == 1 && call.invoked > known
    });
    calls.map(|(index, _)| index).collect()
}

fn answer(chronicle: &mut Chronicle, index: usize) -> &mut GetResponse {
    match &mut chronicle.calls[index].outcome {
        Outcome::Answered(Answer::Get(a)) => a,
        other => unreachable!("a read was answered with {other:?}"),
    }
}

/// A read that was answered when what followed a loss was known, and the first revision that was lost.
fn read_and_lost(chronicle: &Chronicle, place: &mut Place) -> Option<(usize, u64)> {
    losses(chronicle).into_iter().find_map(|loss| {
        let read = *reads(chronicle, &loss).first()?;
        place.is_here().then_some((read, loss.through + 1))
    })
}

/// A revision that was given and lost is that of another answer.
fn repeated_revision(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let Some((read, revision)) = read_and_lost(chronicle, place) else { return false };
    answer(chronicle, read).revision = revision;
    true
}

fn repeated_base(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let found = losses(chronicle).into_iter().find(|_| place.is_here());
    found.is_some_and(|loss| {
        chronicle.epochs[loss.next].base = loss.through + 1;
        true
    })
}

fn repeated_token(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let granted = |event: &&LockEvent| event.r#type() == LockEventType::Granted;
    for loss in losses(chronicle) {
        let mut lost = loss.former.lock_log.iter().filter(granted);
        let Some(token) = lost.find(|it| loss.has_lost(it.revision)).map(|it| it.token) else {
            continue;
        };
        let later = &mut chronicle.epochs[loss.next].lock_log;
        let Some(index) = later.iter().position(|it| granted(&it)) else { continue };
        if place.is_here() {
            later[index].token = token;
            later[index].lock.iter_mut().for_each(|lock| lock.token = token);
            return true;
        }
    }
    false
}

/// The first change of a key after a loss comes upon nothing, although there was something.
fn lost_write(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    losses(chronicle).into_iter().any(|loss| {
        let kept = |entry: &Entry| entry.mod_revision <= loss.through;
        let mut events = chronicle.epochs[loss.next].log.iter_mut();
        let found = events.find(|event| event.previous.as_ref().is_some_and(kept));
        let found = found.filter(|_| place.is_here());
        found.is_some_and(|event| event.previous.take().is_some())
    })
}

/// A read finds what was written and lost.
fn found_write(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let found = losses(chronicle).into_iter().find_map(|loss| {
        let lost: Vec<&Event> =
            loss.former.log.iter().filter(|it| loss.has_lost(it.revision)).collect();
        let read = reads(chronicle, &loss).into_iter().find_map(|index| {
            let Request::Do(Op::Get(r)) = &chronicle.calls[index].request else { return None };
            let lost = lost.iter().find(|it| it.key == r.key && it.entry.is_some())?;
            Some((index, lost.entry.clone()))
        });
        read.filter(|_| place.is_here())
    });
    let Some((index, entry)) = found else { return false };
    answer(chronicle, index).entry = entry;
    true
}

/// A read of a former revision finds what was lost, though another lineage is known.
fn lost_read(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let Some((index, lost)) = read_and_lost(chronicle, place) else { return false };
    answer(chronicle, index).revision = lost;
    if let Request::Do(Op::Get(r)) = &mut chronicle.calls[index].request {
        r.at_revision = Some(lost);
    }
    true
}

/// A watch of what follows a loss is told of what was lost.
fn lost_event(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    losses(chronicle).into_iter().any(|loss| {
        let mut lost = loss.former.log.iter().filter(|it| loss.has_lost(it.revision));
        let Some(lost) = lost.next() else { return false };
        let mut watches = resumed(chronicle, &loss);
        let told = watches.find_map(|watch| {
            watch.messages.iter_mut().find_map(|(_, message)| match &mut message.body {
                Some(Body::Events(it)) => Some(&mut it.events),
                _ => None,
            })
        });
        let told = told.filter(|_| place.is_here());
        told.is_some_and(|events| {
            events.insert(0, lost.clone());
            true
        })
    })
}

/// A watch goes on after a loss from a revision that was lost, and is not told so.
fn resumed_beyond(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    losses(chronicle).into_iter().any(|loss| {
        let found = resumed(chronicle, &loss).find(|_| place.is_here());
        found.is_some_and(|watch| {
            if let Some(Start::AfterRevision(after)) = &mut watch.request.start {
                after.revision = loss.through + 1;
            }
            true
        })
    })
}

/// A watch that was told of what is lost is told of what follows, as if nothing had been.
fn unaware_watch(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    losses(chronicle).into_iter().any(|loss| {
        let watches = chronicle.watches.iter().filter(|it| is_of(it, &loss.later.lineage));
        let mut told = watches.flat_map(|watch| watch.messages.clone());
        let Some(next) = told.find(|(_, message)| message.complete_through > loss.later.base)
        else {
            return false;
        };
        let mut watches = chronicle.watches.iter_mut().filter(|watch| {
            let last = watch.messages.last().map_or(0, |(_, last)| last.complete_through);
            is_of(watch, &loss.former.lineage) && loss.has_lost(last)
        });
        let found = watches.find(|_| place.is_here());
        found.is_some_and(|watch| {
            watch.messages.push(next);
            watch.end = None;
            true
        })
    })
}

/// A watch is told that it has lost something, although it would go on from what was left.
fn refused_watch(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    losses(chronicle).into_iter().any(|loss| {
        let told = loss.through.to_string();
        let mut watches = chronicle.watches.iter_mut().filter(|watch| {
            let through = watch.end.as_ref().and_then(|end| end.metadata.get("valid_through"));
            watch.messages.is_empty() && through == Some(&told)
        });
        watches.find(|_| place.is_here()).is_some_and(|watch| {
            if let Some(Start::AfterRevision(after)) = &mut watch.request.start {
                after.revision = loss.through;
            }
            true
        })
    })
}

/// Everybody is told of another revision as the last that was left.
fn tell_other(chronicle: &mut Chronicle, loss: &Loss, through: u64) {
    let (told, other) = (loss.through.to_string(), through.to_string());
    chronicle.epochs[loss.next].shared = Some(through);
    let ends = chronicle.watches.iter_mut().filter_map(|watch| watch.end.as_mut());
    let lock_ends = chronicle.lock_watches.iter_mut().filter_map(|watch| watch.end.as_mut());
    for end in ends.chain(lock_ends) {
        let through = end.metadata.get_mut("valid_through").filter(|it| **it == told);
        through.into_iter().for_each(|through| through.clone_from(&other));
    }
}

fn low_valid_through(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    const TOO_LOW: u64 = 20;
    let found = losses(chronicle).into_iter().find(|_| place.is_here());
    found.is_some_and(|loss| {
        tell_other(chronicle, &loss, loss.through - TOO_LOW);
        true
    })
}

fn high_valid_through(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let mut losses = losses(chronicle).into_iter().filter(|loss| {
        let lost = loss.former.log.iter().filter(|it| loss.has_lost(it.revision));
        lost.count() > 2
    });
    losses.find(|_| place.is_here()).is_some_and(|loss| {
        tell_other(chronicle, &loss, loss.former.last);
        true
    })
}

fn false_valid_through(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    chronicle.watches.iter_mut().filter_map(|watch| watch.end.as_mut()).any(|end| {
        let through = end.metadata.get_mut("valid_through");
        let through = through.filter(|_| end.reason == "LINEAGE_CHANGED" && place.is_here());
        through.is_some_and(|through| {
            *through = (through.parse().unwrap_or(0_u64) + 1).to_string();
            true
        })
    })
}

/// Nothing had the store lose only a part.
fn uncaused_loss(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let here = !losses(chronicle).is_empty() && place.is_here();
    if here {
        chronicle.changes.iter_mut().for_each(|change| change.kept = None);
    }
    here
}

/// What was acknowledged and lost had been confirmed by replicas.
fn unconfirmed_write(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let here = !losses(chronicle).is_empty() && place.is_here();
    if here {
        chronicle.is_replicated = true;
        let borders: Vec<u64> = chronicle.epochs.iter().filter_map(|epoch| epoch.shared).collect();
        let at_border = |call: &Call| call.state().is_some_and(|(at, _)| borders.contains(&at));
        // It is about writes: of what takes no revision, and may have been lost at a border, nothing is known.
        for call in chronicle.calls.iter_mut().filter(|call| at_border(call)) {
            let takes_none = match (&call.request, &call.outcome) {
                (Request::Do(Op::KeepAlive(_) | Op::Renew(_)) | Request::Update(_), _) => true,
                (_, Outcome::Answered(Answer::Revoke(a))) => a.keys == 0 && a.locks == 0,
                _ => false,
            };
            if takes_none {
                call.outcome = Outcome::Unknown { why: "it is left out".to_owned() };
            }
        }
    }
    here
}

/// The watches that went on after a loss from what was left.
fn resumed<'a>(
    chronicle: &'a mut Chronicle,
    loss: &'a Loss,
) -> impl Iterator<Item = &'a mut Watch> {
    chronicle.watches.iter_mut().filter(|watch| {
        let asked = watch.request.lineage.as_ref() == Some(&loss.former.lineage);
        let goes_on = matches!(
            watch.messages.first(),
            Some((_, WatchResponse { body: Some(Body::Created(created)), .. })) if !created.reset
        );
        asked && goes_on && is_of(watch, &loss.later.lineage)
    })
}

/// Whether a watch is of this lineage.
fn is_of(watch: &Watch, lineage: &str) -> bool {
    let first = watch.messages.first().and_then(|(_, message)| message.body.as_ref());
    matches!(first, Some(Body::Created(created)) if created.lineage == lineage)
}
