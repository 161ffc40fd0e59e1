//! Who made each revision: one write, or the end of what was due, and nobody twice.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::v1::*;

use super::{Case, Violation, calls, locks};
use crate::history::{Call, Moment, Outcome, Request};

/// The calls that are known to have made revisions, by these.
pub type Owned = BTreeMap<u64, usize>;

/// Finds which revision each answered call took, and checks each answer and refusal.
pub fn of_answered(case: &Case) -> Result<Owned, Violation> {
    let mut owned = Owned::new();
    for (index, call) in case.history.calls.iter().enumerate() {
        let taken = taken_by(case, index, call)?;
        let Some(revision) = taken else { continue };
        if let Some(other) = owned.insert(revision, index) {
            let what = format!("{revision} was answered to two");
            let violation = Violation::new("a revision is one write", what);
            return Err(violation.call(&case.history.calls[other]).call(call));
        }
        let (known, _) = case.windows.known_at(call.invoked);
        if revision <= known {
            let what = format!("{revision}, but {known} was seen before it began");
            return Err(Violation::new("a write comes after what was seen", what).call(call));
        }
    }
    check_messages(case, &owned)?;
    check_kept(case, &owned)?;
    Ok(owned)
}

/// Checks that nothing is lost with the end of a lineage that was acknowledged, where it must not be.
fn check_kept(case: &Case, owned: &Owned) -> Result<(), Violation> {
    let Some(kept) = case.history.kept else { return Ok(()) };
    match owned.range(kept + 1..).next() {
        None => Ok(()),
        Some((revision, call)) => {
            let what = format!("{revision} is lost, for only {kept} is left");
            let violation = Violation::new("what replicas have confirmed is kept", what);
            Err(violation.call(&case.history.calls[*call]))
        }
    }
}

/// Checks that the writes of each message of a pipeline were applied in the order sent.
fn check_messages(case: &Case, owned: &Owned) -> Result<(), Violation> {
    let taken: BTreeMap<usize, u64> =
        owned.iter().map(|(&revision, &call)| (call, revision)).collect();
    let mut newest: BTreeMap<(Moment, usize), (u64, usize)> = BTreeMap::new();
    for (index, call) in case.history.calls.iter().enumerate() {
        let (Some(sent), Some((revision, _))) = (call.sent, call.state()) else { continue };
        let former = newest.get(&sent.message).copied();
        if let Some((former, by)) = former.filter(|(former, _)| sent.ordered && revision < *former)
        {
            let what = format!("{revision} came after {former} in the same message");
            let violation = Violation::new("writes of a pipeline are applied in order", what);
            return Err(violation.call(&case.history.calls[by]).call(call));
        }
        if let Some(&revision) = taken.get(&index) {
            newest.insert(sent.message, (revision, index));
        }
    }
    Ok(())
}

/// Checks that what nobody was answered for was made by what was due, or by calls whose fate is not known, each once.
pub fn of_the_rest(case: &Case, owned: Owned) -> Result<(), Violation> {
    let taken: BTreeSet<usize> = owned.values().copied().collect();
    let suspects: Vec<usize> = (0..case.history.calls.len())
        .filter(|index| {
            !taken.contains(index) && case.history.calls[*index].may_have_been_applied()
        })
        .collect();
    let mut open = Vec::new();
    for (revision, it) in case.log.revisions() {
        let ends = it.events.iter().all(|event| event.r#type() == EventType::Expire)
            && it.locks.iter().all(|event| event.r#type() == LockEventType::Expired);
        if owned.contains_key(&revision) || ends || locks::is_passed_on(case, it) {
            continue;
        }
        let may = |index: &&usize| {
            let call = &case.history.calls[**index];
            case.windows.of(**index).from < revision && can_make(case, call, revision)
        };
        let able: Vec<usize> = suspects.iter().filter(may).copied().collect();
        if able.is_empty() {
            return Err(unexplained(case, revision));
        }
        open.push((revision, able));
    }
    let mut made: BTreeMap<usize, usize> = BTreeMap::new();
    for place in 0..open.len() {
        if !assign(&open, place, &mut made, &mut BTreeSet::new()) {
            return Err(unexplained(case, open[place].0));
        }
    }
    Ok(())
}

/// Finds a call for a revision, and if need be others for those that had it: each makes one.
fn assign(
    open: &[(u64, Vec<usize>)],
    place: usize,
    made: &mut BTreeMap<usize, usize>,
    tried: &mut BTreeSet<usize>,
) -> bool {
    for &call in &open[place].1 {
        if !tried.insert(call) {
            continue;
        }
        let former = made.get(&call).copied();
        if former.is_none_or(|former| assign(open, former, made, tried)) {
            made.insert(call, place);
            return true;
        }
    }
    false
}

fn taken_by(case: &Case, index: usize, call: &Call) -> Result<Option<u64>, Violation> {
    locks::check_guards(case, index, call)?;
    match (&call.request, &call.outcome) {
        (_, Outcome::Unknown { .. }) => Ok(None),
        (Request::Do(op), Outcome::Answered(answer)) if locks::is_about(op) => {
            locks::explain(case, call, op, answer)
        }
        (Request::Do(op), Outcome::Answered(answer)) => {
            let is_unlogged = matches!(
                op,
                pipeline_call::Operation::Grant(_) | pipeline_call::Operation::KeepAlive(_)
            );
            match is_unlogged {
                true => Ok(None),
                false => calls::explain(case, index, call, op, answer),
            }
        }
        (_, Outcome::Refused(failure)) if failure.reason == "LOCK_LOST" => {
            locks::explain_loss(case, index, call).map(|()| None)
        }
        (Request::Do(op), Outcome::Refused(_)) => {
            match locks::is_about(op) {
                true => locks::explain_refusal(case, index, call, op),
                false => calls::explain_refusal(case, index, call, op),
            }?;
            Ok(None)
        }
        (_, Outcome::Cleared(answer)) => {
            let before = case.log.state_at(answer.revision.saturating_sub(1)).len() as u64;
            let is_clear = case.log.clears.contains(&answer.revision);
            match answer.cleared {
                0 => Ok(None),
                cleared if is_clear && cleared == before => Ok(Some(answer.revision)),
                _ => {
                    let what = format!("there were {before} keys");
                    Err(Violation::new("a clear removes all keys at once", what).call(call))
                }
            }
        }
        (Request::Update(asked), Outcome::Updated(answer)) => {
            let lineage = case.history.lineage_at(answer.revision);
            // It is looked at after that, when it may have another lineage, or be gone.
            let is_so = answer.namespace.as_ref().map_or(case.history.is_over, |it| {
                (it.lineage == lineage || case.history.is_over)
                    && it.settings.unwrap_or_default() == *asked
            });
            match is_so {
                true => Ok(None),
                false => Err(Violation::new("settings are as they were set", "not so").call(call)),
            }
        }
        (_, Outcome::Looked(answer)) => {
            let told = answer.namespace.as_ref().map(|it| (&it.lineage, it.revision));
            let lineage = case.history.lineage_at(answer.revision);
            match told.is_none_or(|(told, at)| (told.as_str(), at) == (lineage, answer.revision)) {
                true => Ok(None),
                false => Err(Violation::new("a lineage stays", "another is told").call(call)),
            }
        }
        _ => Ok(None),
    }
}

/// Whether a call whose fate is not known can have made a revision.
fn can_make(case: &Case, call: &Call, revision: u64) -> bool {
    match &call.request {
        Request::Do(op) if locks::is_about(op) => locks::can_make(case, op, revision),
        Request::Do(op) => {
            let is_unlogged = matches!(
                op,
                pipeline_call::Operation::Grant(_) | pipeline_call::Operation::KeepAlive(_)
            );
            !is_unlogged && calls::applies(case, call, op, revision, None)
        }
        Request::Clear => case.log.clears.contains(&revision),
        _ => false,
    }
}

fn unexplained(case: &Case, revision: u64) -> Violation {
    let what = format!("nobody made {revision}, or who did was refused, or made another, too");
    let mut violation = Violation::new("every change has one cause", what);
    for call in &case.history.calls {
        if can_make(case, call, revision) {
            violation = violation.call(call);
        }
    }
    for event in case.log.revision(revision).iter().flat_map(|it| it.locks.iter()) {
        violation = violation.told(event);
    }
    violation.with_log(&case.log, &[], revision - 2, revision)
}
