//! What is good, falsified in many ways, each of which a judge is to catch.

use std::sync::LazyLock;

use libtest_mimic::{Failed, Trial};

use crate::{
    common::RUNTIME,
    faults::Fault,
    history::Chronicle,
    judge::Violation,
    run::{self, Plan},
    servers::Kind,
};

/// A way of falsifying what was seen; `false` where this has nothing to falsify.
pub type Mutation<T> = fn(&mut T, &mut Place) -> bool;

/// Its name, and with what the promises begin that it may be caught by.
pub type Falsified<T> = (&'static str, Mutation<T>, &'static [&'static str]);

/// Which of the places where it can be done.
pub struct Place {
    skip: usize,
}

impl Place {
    /// The one after so many others.
    pub fn after(skip: usize) -> Self {
        Place { skip }
    }

    /// Whether this is the one.
    pub fn is_here(&mut self) -> bool {
        self.skip = self.skip.wrapping_sub(1);
        self.skip == usize::MAX
    }
}

/// What was seen in a run that is to be falsified.
pub fn recorded(kind: Kind, faults: Vec<Fault>, steps: usize) -> Chronicle {
    let plan =
        Plan { seed: 5, kind, faults, clients: 6, namespaces: 1, steps, is_replicated: false };
    RUNTIME.block_on(run::run(&plan)).remove(0)
}

/// One for each way of falsifying what is good, and one for that itself.
pub fn trials_of<T: Clone + Send + Sync>(
    name: &str,
    good: &'static LazyLock<T>,
    judge: fn(&T) -> Result<(), Violation>,
    mutations: &'static [Falsified<T>],
) -> Vec<Trial> {
    let passes = move || judge(good).map_err(|violation| Failed::from(violation.to_string()));
    let mut trials = vec![Trial::test(name, passes)];
    for (name, mutation, promises) in mutations {
        let caught = move || caught(&**good, judge, *mutation, promises);
        trials.push(Trial::test(format!("judge::{name}"), caught));
    }
    trials
}

/// Does it in as many places as there are, up to a few, and expects a violation each time.
fn caught<T: Clone>(
    good: &T,
    judge: fn(&T) -> Result<(), Violation>,
    mutation: Mutation<T>,
    promises: &[&str],
) -> Result<(), Failed> {
    const MOST: usize = 3;
    let mut done = 0;
    for skip in 0..MOST {
        let mut falsified = good.clone();
        if !mutation(&mut falsified, &mut Place::after(skip)) {
            break;
        }
        done += 1;
        match judge(&falsified) {
            Err(Violation { promise, .. }) if promises.iter().any(|it| promise.starts_with(it)) => {
            }
            Err(violation) => return Err(format!("for another reason: {violation}").into()),
            Ok(()) => return Err(format!("not caught at place {skip}").into()),
        }
    }
    match done {
        0 => Err("there is no place for it".into()),
        _ => Ok(()),
    }
}
