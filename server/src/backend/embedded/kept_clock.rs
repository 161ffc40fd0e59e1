//! How far the clock may come is kept before it comes so far.
//!
//! Readers are told times that no commit has. Killed while the clock of the machine is set back, a process would be
//! followed by one whose time is behind what they were told, and what had ended for them would be there again. So a
//! journal has a file beside it with the latest time of the machine's start by which the clock goes: as long as the
//! machine is not started again, all time is counted from there. It is written anew only when that clock is set forward.
//! Since it is of use until the machine ends, it is not synced.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::task;
use tokio_util::task::AbortOnDropHandle;

use super::files::FileLayer;
use crate::clock::{Clock, boot_id};

/// How much later than what was seen may be gone by: it is seen anew each time, not always to the nanosecond.
const MARGIN_NS: i64 = 1_000_000;
/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The file, in a place where a journal is.
pub struct ClockFile {
    /// Where to.
    pub layer: Arc<dyn FileLayer>,
    /// Its path.
    pub path: PathBuf,
}

/// What is in it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Which start of the machine it is about.
    boot_id: String,
    /// When that was at the latest, in nanoseconds since the Unix epoch.
    boot_time_ns: i64,
    /// CRC-32 of both: a time that goes too far is not taken back for as long as the machine runs.
    checksum: u32,
}

impl Kept {
    fn new(boot_id: &str, boot_time_ns: i64) -> Self {
        let checksum = crc32fast::hash(format!("{boot_id} {boot_time_ns}").as_bytes());
        Self { boot_id: boot_id.to_owned(), boot_time_ns, checksum }
    }

    /// What is not as it was written is as good as nothing.
    fn read(text: &[u8]) -> Option<Self> {
        let kept: Self = serde_json::from_slice(text).ok()?;
        let sound = Self::new(&kept.boot_id, kept.boot_time_ns);
        (kept == sound).then_some(kept)
    }

    fn write(&self) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// Goes on from what a former process has kept, and keeps what this one goes by until the answer is dropped. Blocks the
/// caller's thread, which is to be within a runtime. Where the clock or the machine has nothing to keep, it does nothing.
pub(super) fn keep(clock: &Arc<dyn Clock>, file: ClockFile) -> Option<AbortOnDropHandle<()>> {
    let boot_time = clock.boot_time()?;
    let boot_id = boot_id()?;
    let kept_ns = file.read(&boot_id);
    if let Some(kept_ns) = kept_ns {
        boot_time.resume_from(kept_ns);
    }
    let latest_ns = boot_time.latest_ns();
    let (limit_ns, kept) = match kept_ns {
        Some(kept_ns) if latest_ns <= kept_ns => (kept_ns, Ok(())),
        _ => (latest_ns + MARGIN_NS, file.write(&boot_id, latest_ns + MARGIN_NS)),
    };
    // Whether it could be kept or not: the clock has to begin somewhere.
    boot_time.limit_to(limit_ns);
    let unkept_ns = kept.inspect_err(tell).err().map(|_| limit_ns);
    let follow = follow(clock.clone(), Arc::new(file), boot_id, unkept_ns);
    Some(AbortOnDropHandle::new(task::spawn(follow)))
}

/// Keeps each limit, then lets the clock go so far.
async fn follow(
    clock: Arc<dyn Clock>,
    file: Arc<ClockFile>,
    boot_id: String,
    mut unkept_ns: Option<i64>,
) {
    let Some(boot_time) = clock.boot_time() else { return };
    loop {
        let limit_ns = match unkept_ns {
            Some(limit_ns) => limit_ns,
            None => boot_time.exceeded().await + MARGIN_NS,
        };
        let (to, id) = (file.clone(), boot_id.clone());
        let kept = task::spawn_blocking(move || to.write(&id, limit_ns)).await;
        match kept.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(()) => {
                boot_time.limit_to(limit_ns);
                unkept_ns = None;
            }
            Err(error) => {
                if unkept_ns.is_none() {
                    tell(&error);
                }
                unkept_ns = Some(limit_ns);
                clock.sleep(PAUSE).await;
            }
        }
    }
}

fn tell(error: &io::Error) {
    tracing::warn!(
        %error,
        "how far the clock has come cannot be kept: it does not follow the machine's where that is set forward; it is tried \
         every second"
    );
}

impl ClockFile {
    /// What a former process has kept, if it was after the same start of the machine.
    fn read(&self, boot_id: &str) -> Option<i64> {
        let text = io::read_to_string(self.layer.read(&self.path).ok()?).ok()?;
        let kept = Kept::read(text.as_bytes())?;
        (kept.boot_id == boot_id).then_some(kept.boot_time_ns)
    }

    fn write(&self, boot_id: &str, boot_time_ns: i64) -> io::Result<()> {
        let text = Kept::new(boot_id, boot_time_ns).write()?;
        // In one step: a process that is killed meanwhile has kept what it goes by.
        let mut unfinished = self.path.clone().into_os_string();
        unfinished.push(".tmp");
        let unfinished = PathBuf::from(unfinished);
        self.layer.create(&unfinished)?.write(&text)?;
        self.layer.rename(&unfinished, &self.path)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        backend::{Backend, registry::Registry},
        clock::SystemClock,
        fuzz::fuzz,
    };

    const HOUR_MS: i64 = 3_600_000;

    /// A server's clock and what it keeps state in.
    struct Process(Arc<SystemClock>, Arc<dyn Backend>);

    impl Process {
        async fn start(url: &str) -> Self {
            let clock = Arc::new(SystemClock::default());
            let backend = Registry::default().open(url, clock.clone()).await.unwrap();
            Self(clock, backend)
        }

        async fn now_ms(&self) -> i64 {
            self.1.now_ms().await.unwrap()
        }

        /// As if the clock of the machine were set forward by an hour, and back.
        fn machine_is_set_for_a_moment(&self) {
            let boot_time = self.0.boot_time().unwrap();
            boot_time.resume_from(boot_time.latest_ns() + HOUR_MS * 1_000_000);
        }

        async fn reaches(&self, at_ms: i64) {
            while self.now_ms().await < at_ms {
                self.0.sleep(Duration::from_millis(1)).await;
            }
        }
    }

    #[tokio::test]
    async fn time_that_was_told_is_not_behind_the_next_process() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        for (url, path) in [
            (format!("files:{}", place("state").display()), place("state/clock")),
            (format!("sqlite:{}", place("state.db").display()), place("state.db.clock")),
        ] {
            let first = Process::start(&url).await;
            let began_ms = first.now_ms().await;
            first.machine_is_set_for_a_moment();
            first.reaches(began_ms + HOUR_MS).await;
            let told_ms = first.now_ms().await;
            drop(first);

            let second = Process::start(&url).await;
            assert!(second.now_ms().await >= told_ms, "{url}");
            drop(second);

            let kept = fs::read_to_string(&path).unwrap();
            for unsound in ["", "{}", &kept.replacen("boot_time_ns\":1", "boot_time_ns\":2", 1)] {
                fs::write(&path, unsound).unwrap();
                let next = Process::start(&url).await;
                assert!(next.now_ms().await < told_ms, "{url}, {unsound}");
            }
        }
    }

    #[test]
    fn clock_files_come_back_or_are_refused() {
        let example = Kept::new("5e1c4d27-0d3c-4b7e-9f43-9d2a6a5f6d11 time:[4026531834]", 1 << 60);
        fuzz("clock_files", &[example.write().unwrap()], |bytes| {
            if let Some(kept) = Kept::read(bytes) {
                assert_eq!(Kept::read(&kept.write().unwrap()), Some(kept));
            }
        });
    }

    #[tokio::test]
    async fn what_cannot_be_kept_is_not_told() {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::start(&format!("files:{}", directory.path().display())).await;
        let in_the_way = directory.path().join("clock.tmp");
        fs::create_dir(&in_the_way).unwrap();
        let began_ms = process.now_ms().await;
        process.machine_is_set_for_a_moment();
        process.reaches(began_ms + 20).await;
        assert!(process.now_ms().await < began_ms + HOUR_MS);

        fs::remove_dir(&in_the_way).unwrap();
        process.reaches(began_ms + HOUR_MS).await;
    }
}
