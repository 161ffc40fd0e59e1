//! A clock for Redis that is moved by hand: a library, loaded before all others, that reads the time from a file.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{Arc, LazyLock},
};

use tempfile::TempDir;

/// A clock that moves only when told to.
#[derive(Clone)]
pub struct RedisClock {
    directory: Arc<TempDir>,
    file: Arc<File>,
}

/// The library; `None` where it cannot be made.
static LIBRARY: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/redis/clock.c");
    if !cfg!(target_os = "linux") {
        return None;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join("redis-clock.so");
    // Tests of other programs may need it at the same time.
    let unfinished = directory.join(format!("redis-clock.{}", process::id()));
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&unfinished).arg(SOURCE);
    if !command.status().is_ok_and(|status| status.success()) {
        eprintln!("no C compiler here: the cases that move the clock of Redis are ignored");
        return None;
    }
    fs::rename(&unfinished, &path).expect("a file can be renamed");
    Some(path)
});

impl RedisClock {
    /// Whether Redis can be given one on this machine.
    pub fn is_here() -> bool {
        LIBRARY.is_some()
    }

    /// A clock that stands at so many milliseconds since 1970; `None` where Redis cannot be given one.
    pub fn at(now_ms: i64) -> Option<Self> {
        LIBRARY.as_ref()?;
        let directory = tempfile::tempdir().expect("a directory can be made");
        let path = directory.path().join("now");
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let file = file.expect("a file can be made");
        let clock = Self { directory: Arc::new(directory), file: Arc::new(file) };
        clock.set(now_ms);
        Some(clock)
    }

    /// Moves it. Whatever Redis does from now on happens then.
    pub fn set(&self, now_ms: i64) {
        let now_us = (now_ms * 1000).to_ne_bytes();
        self.file.write_all_at(&now_us, 0).expect("a file can be written");
    }

    /// When it is.
    pub fn now_ms(&self) -> i64 {
        let mut now_us = [0; 8];
        self.file.read_exact_at(&mut now_us, 0).expect("it has been set");
        i64::from_ne_bytes(now_us) / 1000
    }

    /// The variables by which a program goes by this clock.
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        let library = LIBRARY.as_ref().expect("there is no clock without");
        let file = self.directory.path().join("now");
        [("LD_PRELOAD", library.into()), ("HOLDFAST_TEST_CLOCK", file.into())]
    }
}
