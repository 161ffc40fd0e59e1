//! The judge judged where one lineage follows another: what hides the change, or repeats what was given, is caught.

use std::sync::LazyLock;

use holdfast_proto::v1::{
    pipeline_answer::Result as Answer, pipeline_call::Operation as Op, watch_response::Body, *,
};
use libtest_mimic::Trial;

use crate::{
    falsified::{Falsified, Place, recorded, trials_of},
    faults::Fault,
    history::{Call, Chronicle, Epoch, Outcome, Request, Watch},
    judge::judge_all,
    servers::Kind,
};

/// One in which a namespace was deleted, replaced and lost.
static CHANGED: LazyLock<Chronicle> =
    LazyLock::new(|| recorded(Kind::Memory, vec![Fault::Delete, Fault::Import, Fault::Wipe], 300));

static MUTATIONS: [Falsified<Chronicle>; 11] = [
    ("a_revision_that_comes_again", repeated_base, &["no revision comes twice"]),
    ("a_write_given_a_revision_again", repeated_revision, &["a lineage stays", "what was seen is"]),
    ("a_token_given_again", repeated_token, &["a token is the revision", "a hold ends once"]),
    ("a_lineage_that_comes_again", repeated_lineage, &["a lineage never", "a watch is of one"]),
    ("a_change_that_nothing_caused", uncaused_change, &["a lineage stays"]),
    ("a_watch_that_goes_on_unaware", unaware_watch, &["a watch is of one lineage"]),
    ("a_watch_told_of_the_former_lineage", former_lineage, &["what was seen is", "a watch"]),
    ("a_watch_that_should_have_begun_anew", hidden_reset, &["a watch of another lineage"]),
    ("a_loss_said_to_be_none", false_valid_through, &["a watch says truly what it lost"]),
    ("a_read_of_the_former_lineage", former_read, &["a lineage stays", "what was seen is"]),
    ("a_write_to_the_former_lineage", former_write, &["a write is applied to the lineage"]),
];

/// One in which a namespace was replaced by imports, with leases and locks.
static IMPORTED: LazyLock<Chronicle> =
    LazyLock::new(|| recorded(Kind::Memory, vec![Fault::Import], 300));

static MUTATIONS_OF_IMPORTS: [Falsified<Chronicle>; 4] = [
    ("an_import_that_leaves_out_a_key", left_out_key, &["an import brings"]),
    (
        "an_import_that_leaves_out_a_lock",
        left_out_lock,
        &["a hold ends", "an answer about", "the locks told", "a guarded", "who holds"],
    ),
    ("an_import_that_leaves_out_a_lease", left_out_lease, &["an answer is", "a lease lasts"]),
    (
        "an_imported_lease_that_ends_early",
        early_lease,
        &["nothing ends early", "an answer is", "a lease lasts", "a refusal has", "a hold that"],
    ),
];

/// One for each way, and one for each good chronicle itself.
pub fn trials() -> Vec<Trial> {
    let imports = &MUTATIONS_OF_IMPORTS;
    let mut trials = trials_of("judge::good_lineages_pass", &CHANGED, judge_all, &MUTATIONS);
    trials.extend(trials_of("judge::good_imports_pass", &IMPORTED, judge_all, imports));
    trials
}

fn left_out_key(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let mut epochs = chronicle.epochs.iter_mut();
    let found = epochs.find(|epoch| !epoch.initial.is_empty() && place.is_here());
    found.is_some_and(|epoch| epoch.initial.pop().is_some())
}

/// A lock that was exported is not there.
fn left_out_lock(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let lasting = |event: &LockEvent| event.name == "lb";
    let index = chronicle.imported.granted.iter().position(lasting);
    let index = index.filter(|_| place.is_here());
    index.map(|index| chronicle.imported.granted.remove(index)).is_some()
}

/// A lease that was exported is not there.
fn left_out_lease(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let has_keys = |lease: &TransferLease| {
        chronicle.imported.entries.iter().any(|entry| entry.lease_id == Some(lease.id))
    };
    let index = chronicle.imported.leases.iter().position(has_keys);
    let index = index.filter(|_| place.is_here());
    index.map(|index| chronicle.imported.leases.remove(index)).is_some()
}

/// Leases would have lasted longer than they did.
fn early_lease(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let here = !chronicle.imported.leases.is_empty() && place.is_here();
    if here {
        let leases = chronicle.imported.leases.iter_mut();
        leases.for_each(|lease| lease.expires_at_ms += 60_000);
    }
    here
}

/// A lineage begins before the end of the one before.
fn repeated_base(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    (1..chronicle.epochs.len()).any(|next| {
        let last = chronicle.epochs[next - 1].last;
        let here = chronicle.epochs[next - 1].base < last && place.is_here();
        if here {
            chronicle.epochs[next].base = last - 1;
        }
        here
    })
}

/// A write is answered with the revision of one of the lineage before.
fn repeated_revision(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let Some((former, later)) = turned(chronicle) else { return false };
    let sets = sets(chronicle);
    let of = |epoch: &Epoch, revision: u64| epoch.base < revision && revision <= epoch.last;
    let Some(&(_, given)) = sets.iter().find(|(_, it)| of(&former, *it)) else { return false };
    let again = sets.iter().find(|(_, it)| of(&later, *it) && place.is_here());
    let Some(&(index, _)) = again else { return false };
    let Outcome::Answered(Answer::Set(a)) = &mut chronicle.calls[index].outcome else {
        return false;
    };
    a.revision = given;
    a.entry.iter_mut().for_each(|entry| entry.mod_revision = given);
    true
}

/// A lock is granted with a token that was given in the lineage before.
fn repeated_token(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let granted = |epoch: &Epoch| {
        epoch.lock_log.iter().position(|event| event.r#type() == LockEventType::Granted)
    };
    for next in 1..chronicle.epochs.len() {
        let former = &chronicle.epochs[next - 1];
        let Some(token) = granted(former).map(|index| former.lock_log[index].token) else {
            continue;
        };
        let Some(index) = granted(&chronicle.epochs[next]).filter(|_| place.is_here()) else {
            continue;
        };
        let event = &mut chronicle.epochs[next].lock_log[index];
        event.token = token;
        event.lock.iter_mut().for_each(|lock| lock.token = token);
        return true;
    }
    false
}

/// What comes after a change says that it is what was before.
fn repeated_lineage(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    (1..chronicle.epochs.len()).any(|next| {
        let here = place.is_here();
        if here {
            let former = chronicle.epochs[next - 1].lineage.clone();
            chronicle.epochs[next].lineage = former;
        }
        here
    })
}

fn uncaused_change(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let here = chronicle.epochs.len() > 1 && place.is_here();
    if here {
        chronicle.changes.clear();
    }
    here
}

/// A watch is not told that its lineage has ended, and goes on with the events of the next.
fn unaware_watch(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let told = chronicle.watches.clone();
    chronicle.watches.iter_mut().any(|watch| {
        let is_ended = watch.end.as_ref().is_some_and(|end| end.reason == "LINEAGE_CHANGED");
        let Some((_, last)) = watch.messages.last().filter(|_| is_ended) else { return false };
        let through = last.complete_through;
        let mut later = told.iter().flat_map(|it| it.messages.iter()).filter(|(_, message)| {
            let is_events = matches!(message.body, Some(Body::Events(_)));
            is_events && message.complete_through > through + 1
        });
        let Some(next) = later.next_back().filter(|_| place.is_here()) else { return false };
        watch.messages.push(next.clone());
        watch.end = None;
        true
    })
}

/// A watch that is opened after a change is told that it is of the lineage before.
fn former_lineage(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let Some((former, later)) = turned(chronicle) else { return false };
    let mut created = created(&mut chronicle.watches);
    created.any(|(_, created)| {
        let here = created.lineage == later.lineage && place.is_here();
        if here {
            created.lineage.clone_from(&former.lineage);
        }
        here
    })
}

/// A watch that was asked to go on in a lineage that is gone begins anew, and does not say so.
fn hidden_reset(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let mut created = created(&mut chronicle.watches);
    created.any(|(request, created)| {
        let is_another = request.lineage.as_ref().is_some_and(|it| *it != created.lineage);
        let here = is_another && created.reset && place.is_here();
        created.reset &= !here;
        here
    })
}

/// It is said that up to some revision nothing was lost, though all was.
fn false_valid_through(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    chronicle.watches.iter_mut().filter_map(|watch| watch.end.as_mut()).any(|end| {
        let here = end.reason == "LINEAGE_CHANGED" && place.is_here();
        if here {
            end.metadata.insert("valid_through".to_owned(), "1024".to_owned());
        }
        here
    })
}

/// A read is answered by a state of the lineage before.
fn former_read(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let Some((former, later)) = turned(chronicle) else { return false };
    let get = |call: &Call| match (&call.request, &call.outcome) {
        (Request::Do(Op::Get(r)), Outcome::Answered(Answer::Get(a)))
            if r.touch.is_none() && r.at_revision.is_none() =>
        {
            Some(a.clone())
        }
        _ => None,
    };
    let stale = chronicle.calls.iter().filter_map(get).find(|a| a.revision <= former.last);
    let Some(stale) = stale else { return false };
    chronicle.calls.iter_mut().any(|call| {
        let here = get(call).is_some_and(|a| a.revision > later.base + 5) && place.is_here();
        if here {
            call.outcome = Outcome::Answered(Answer::Get(stale.clone()));
        }
        here
    })
}

/// A write that was to be applied to the lineage before is applied to the next.
fn former_write(chronicle: &mut Chronicle, place: &mut Place) -> bool {
    let Some((former, later)) = turned(chronicle) else { return false };
    let sets = sets(chronicle);
    let found = sets
        .iter()
        .find(|(_, revision)| (later.base + 1..=later.last).contains(revision) && place.is_here());
    let Some(&(index, _)) = found else { return false };
    if let Request::Do(Op::Set(r)) = &mut chronicle.calls[index].request {
        let options = r.options.get_or_insert_default();
        options.expected_lineage = Some(former.lineage);
    }
    true
}

/// Two lineages that follow each other, each with some revisions.
fn turned(chronicle: &Chronicle) -> Option<(Epoch, Epoch)> {
    let mut pairs = chronicle.epochs.windows(2);
    let is_long = |epoch: &Epoch| epoch.last > epoch.base + 10;
    let pair = pairs.find(|pair| is_long(&pair[0]) && is_long(&pair[1]))?;
    Some((pair[0].clone(), pair[1].clone()))
}

/// The calls that set something and were answered, with their revisions.
fn sets(chronicle: &Chronicle) -> Vec<(usize, u64)> {
    let calls = chronicle.calls.iter().enumerate();
    let sets = calls.filter_map(|(index, call)| match &call.outcome {
        Outcome::Answered(Answer::Set(a)) if call.attempts == 1 => Some((index, a.revision)),
        _ => None,
    });
    sets.collect()
}

/// How watches began.
fn created(
    watches: &mut [Watch],
) -> impl Iterator<Item = (&WatchRequest, &mut watch_response::Created)> {
    watches.iter_mut().filter_map(|watch| match watch.messages.first_mut() {
        Some((_, WatchResponse { body: Some(Body::Created(created)), .. })) => {
            Some((&watch.request, created))
        }
        _ => None,
    })
}
