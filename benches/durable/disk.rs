//! The bare baseline of a durable write: a line appended to a file, and synced.

use std::{fs::File, io::Write as _, path::Path, time::Instant};

use super::measure::{micros, scaled};

const SYNCS: usize = 200;

/// How long an `fdatasync` after an append took, each in microseconds.
pub fn sync_latencies_us(directory: &Path) -> Vec<f64> {
    let mut file = File::create(directory.join("bare")).expect("a file can be made");
    let append = |_| {
        let start = Instant::now();
        file.write_all(&[b'x'; 400]).expect("a file can be written");
        file.sync_data().expect("a file can be synced");
        micros(start.elapsed())
    };
    (0..scaled(SYNCS)).map(append).collect()
}
