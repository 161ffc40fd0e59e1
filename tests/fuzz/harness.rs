//! Runs what reads bytes on bytes that are almost right: the corpus, and changes of it and of what the target itself has
//! written. Blind bytes would hardly come past the first brace.
//!
//! A failure is made smaller and put into the corpus, `tests/fuzz/corpus/NAME/`, where it stays as a test; it prints the
//! seed. `SEED=…` repeats a run, `FUZZ_SECONDS=…` makes every target run for so long.
#![allow(dead_code, reason = "each crate has targets of its own kind")]

#[path = "../common/random.rs"]
pub mod random;

use std::{
    cell::Cell,
    env, fs,
    hash::{BuildHasher as _, DefaultHasher, Hasher as _, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Once,
    time::{Duration, Instant},
};

use allocation_counter::measure;
use random::Random;

/// How many inputs a target gets unless it is said for how long.
const INPUTS: u64 = 4000;
/// The longest input.
const LONGEST: usize = 4096;
/// The most memory that a target may hold at a time for one input, in bytes: lengths that an input only claims to have are
/// not to be believed. Threads of their own are not counted.
const MOST_MEMORY: u64 = 8 << 20;
/// How often it is tried to make an input smaller that fails.
const SHRINKING: u32 = 2000;
/// Numbers at edges, as they may stand in text.
const NUMBERS: [&str; 8] =
    ["0", "-1", "1e9", "4294967296", "9223372036854775807", "18446744073709551615", "007", "1.5"];

thread_local! {
    /// Whether panics are expected and not to be shown.
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs a target on the corpus of this name, on `examples`, and on changes of both. Whatever it does, it must not panic, nor take
/// more memory than [`MOST_MEMORY`].
pub fn fuzz(name: &str, examples: &[Vec<u8>], target: impl Fn(&[u8])) {
    fuzz_times(name, INPUTS, examples, target);
}

/// The same with so many inputs, where each takes longer than usual.
#[allow(
    clippy::disallowed_methods,
    reason = "a test that runs for a time, also in the crate where clocks come in"
)]
pub fn fuzz_times(name: &str, inputs: u64, examples: &[Vec<u8>], target: impl Fn(&[u8])) {
    hush();
    let mut known: Vec<_> = corpus(name).into_iter().chain(examples.iter().cloned()).collect();
    known.push(Vec::new());
    for input in &known {
        run(name, None, input, &target);
    }
    let seed = number("SEED").unwrap_or_else(|| RandomState::new().hash_one(name));
    let mut random = Random::new(seed);
    let seconds = number("FUZZ_SECONDS").map(Duration::from_secs);
    let begin = Instant::now();
    for count in 0.. {
        let is_over = match seconds {
            None => count >= inputs,
            Some(seconds) => begin.elapsed() >= seconds,
        };
        if is_over {
            return;
        }
        let mut input = known[random.below(known.len() as u64) as usize].clone();
        for _ in 0..random.below(5) {
            let other = &known[random.below(known.len() as u64) as usize];
            change(&mut input, other, &mut random);
        }
        input.truncate(LONGEST);
        run(name, Some(seed), &input, &target);
    }
}

/// Runs a target once; what fails is made smaller and kept.
fn run(name: &str, seed: Option<u64>, input: &[u8], target: &impl Fn(&[u8])) {
    let fails = |input: &[u8]| {
        IS_QUIET.set(true);
        let mut failed = false;
        let taken = measure(|| failed = catch_unwind(AssertUnwindSafe(|| target(input))).is_err());
        IS_QUIET.set(false);
        failed || taken.bytes_max > MOST_MEMORY
    };
    if !fails(input) {
        return;
    }
    let smallest = shrink(input, &fails);
    let mut hasher = DefaultHasher::new();
    hasher.write(&smallest);
    let file = directory(name).join(format!("found-{:016x}", hasher.finish()));
    let kept = fs::create_dir_all(directory(name)).and_then(|()| fs::write(&file, &smallest));
    let text = smallest.escape_ascii();
    eprintln!("{name} fails on b\"{text}\", kept as {}: {kept:?}; SEED={seed:?}", file.display());
    let taken = measure(|| target(&smallest)).bytes_max;
    assert!(taken <= MOST_MEMORY, "{name} takes {taken} bytes, at most {MOST_MEMORY} are allowed");
    panic!("{name} fails not every time");
}

/// Takes pieces out as long as it still fails.
fn shrink(input: &[u8], fails: &impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut smallest = input.to_vec();
    let (mut piece, mut tries) = (smallest.len().next_power_of_two(), SHRINKING);
    while piece > 0 {
        let mut at = 0;
        while at < smallest.len() && tries > 0 {
            tries -= 1;
            let mut smaller = smallest.clone();
            smaller.drain(at..smallest.len().min(at + piece));
            match fails(&smaller) {
                true => smallest = smaller,
                false => at += piece,
            }
        }
        piece /= 2;
    }
    smallest
}

/// Changes one thing.
fn change(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(input.len() as u64 + 1) as usize;
    let end = input.len().min(at + 1 + random.below(16) as usize);
    match random.below(9) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next() as u8,
        2 => input.truncate(at),
        3 => drop(input.drain(at..end)),
        4 => {
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        5 => {
            let from = random.below(other.len() as u64 + 1) as usize;
            let to = other.len().min(from + 1 + random.below(64) as usize);
            input.splice(at..end, other[from..to].iter().copied());
        }
        6 => {
            // A number becomes another one.
            let digits = |byte: &u8| byte.is_ascii_digit();
            let start = input.iter().skip(at).position(digits).map_or(at, |found| at + found);
            let count = input[start..].iter().take_while(|byte| digits(byte)).count();
            input.splice(start..start + count, random.pick(&NUMBERS).bytes());
        }
        7 => {
            let byte =
                random.pick(&[0, b'"', b'\\', b'[', b']', b'{', b'}', b',', b' ', 0x80, 0xff]);
            input.insert(at, byte);
        }
        _ => {
            let more = (0..1 + random.below(8)).map(|_| random.next() as u8).collect::<Vec<_>>();
            input.splice(at..at, more);
        }
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let Ok(files) = fs::read_dir(directory(name)) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = files.map(|file| file.expect("it can be listed").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("it can be read")).collect()
}

fn directory(name: &str) -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = [here.join("tests/fuzz"), here.join("../tests/fuzz")].into_iter();
    let fuzz = root.into_iter().find(|fuzz| fuzz.is_dir()).expect("this file is in it");
    fuzz.join("corpus").join(name)
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_QUIET.get() {
                hook(info);
            }
        }));
    });
}
