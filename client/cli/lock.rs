//! `lock`.

use std::{ffi::OsString, io, pin::pin, time::Duration};

use clap::Args;
use holdfast_client::{Acquired, Error, LockGuard, LockInfo, LockLoss};
use serde::Serialize;
use tokio::time;

use crate::{
    Session, Verdict,
    failure::Failure,
    locks::{LockShape, held_by},
    parse::{self, OwnerArgs},
    process::{Process, Signals, ended_by},
};

/// The status of what goes wrong without being the command's doing.
pub const OWN_STATUS: u8 = 125;

pub const HELP: &str = "\
The command runs with the standard input and output of this program, and finds HOLDFAST_LOCK_NAME and
HOLDFAST_LOCK_TOKEN in its environment, HOLDFAST_ADDR and HOLDFAST_NAMESPACE too. What it writes is
protected if it says which hold it relies on:

  holdfast lock report -- sh -c \\
    'holdfast set k v --guard \"$HOLDFAST_LOCK_NAME=$HOLDFAST_LOCK_TOKEN\"'

SIGHUP, SIGINT, SIGQUIT and SIGTERM are passed on to it. The lock is released once it has ended. If the lock
is lost meanwhile, the command is ended; if it can no longer be renewed, before another can have it. Without a command, the token is printed and the lock held until
Ctrl-C or SIGTERM.

Exit status:
  that of the command; 128 + N if the signal N has ended it
  1         another holds the lock (or --conflict-exit-code)
  125       any other failure: wrong usage, say, or nobody answers, or the command was ended because of the
            lock
  126, 127  the command cannot be run, or is not there
  128 + N   the signal N came before the lock was granted";

#[derive(Args)]
pub struct LockArgs {
    name: String,
    /// How long the lock stays taken should this program die; it is renewed meanwhile
    #[arg(long, value_parser = parse::duration, default_value = "30s")]
    ttl: Duration,
    /// Wait for the lock at the most so long; without a duration, as long as it takes
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    wait: Option<Option<Duration>>,
    #[command(flatten)]
    owner: OwnerArgs,
    /// The status if another holds the lock
    #[arg(long, value_name = "STATUS", default_value_t = 1)]
    conflict_exit_code: u8,
    /// If the lock is lost or about to be, how long the command may take to end before it is killed
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, default_value = "5s")]
    kill_after: Duration,
    /// What to run, and its arguments
    #[arg(last = true)]
    command: Vec<OsString>,
}

pub async fn lock(session: &mut Session, args: Box<LockArgs>) -> Result<Verdict, Failure> {
    let mut signals = Signals::listen()?;
    let asked = tokio::select! {
        asked = ask(session, &args) => asked?,
        signal = signals.next() => return Ok(Verdict::Status(ended_by(signal))),
    };
    match asked {
        Acquired::Taken(holder) => session.taken(&args, &holder),
        Acquired::Held(hold) if args.command.is_empty() => stay(session, hold, &mut signals).await,
        Acquired::Held(hold) => run(session, &args, hold, &mut signals).await,
    }
}

async fn ask(session: &Session, args: &LockArgs) -> Result<Acquired, Error> {
    let lock = session.namespace.lock(&args.name).ttl(args.ttl).owner(args.owner.owner());
    let acquired = match args.wait {
        None => return lock.try_acquire().await,
        Some(None) => lock.acquire().await,
        Some(Some(limit)) => lock.wait(limit).acquire().await,
    };
    match acquired {
        Err(Error::LockTaken { holder }) => Ok(Acquired::Taken(*holder)),
        acquired => acquired.map(Acquired::Held),
    }
}

/// Holds the lock until this program is asked to end.
async fn stay(
    session: &mut Session,
    hold: LockGuard,
    signals: &mut Signals,
) -> Result<Verdict, Failure> {
    if let Err(failure) = tell_held(session, &hold) {
        // Nobody knows of it. Where this fails, the TTL ends the hold.
        let _ = hold.release().await;
        return Err(failure);
    }
    tokio::select! {
        loss = hold.lost() => return Err(lost(hold.name(), &loss)),
        _ = signals.next() => {}
    }
    session.release(hold).await?;
    Ok(Verdict::Yes)
}

fn tell_held(session: &mut Session, hold: &LockGuard) -> Result<(), Failure> {
    if session.out.is_json() {
        session.out.json(&HeldShape { acquired: true, lock: LockShape::new(&hold.info()) })?;
    } else {
        session.out.line(&hold.token().to_string())?;
    }
    session.out.flush()
}

/// Runs the command, and gives the lock up when it has ended and not before.
async fn run(
    session: &mut Session,
    args: &LockArgs,
    hold: LockGuard,
    signals: &mut Signals,
) -> Result<Verdict, Failure> {
    let environment = session.environment.iter().cloned().chain([
        ("HOLDFAST_LOCK_NAME", hold.name().to_owned()),
        ("HOLDFAST_LOCK_TOKEN", hold.token().to_string()),
    ]);
    let process = match Process::start(&args.command, environment) {
        Ok(process) => process,
        Err(error) => {
            session.release(hold).await?;
            let program = args.command[0].to_string_lossy().into_owned();
            return Err(Failure::Command { program, error });
        }
    };
    let ended = until_ended(args, process, &hold, signals).await;
    match ended.map_err(|error| Failure::io("cannot wait for the command", error))? {
        Ended::ByItself(status) => {
            session.release(hold).await?;
            Ok(Verdict::Status(status))
        }
        Ended::Lost(loss) => Err(lost(hold.name(), &loss)),
        Ended::NotRenewed => Err(given_up(hold).await),
    }
}

/// How a command came to its end.
enum Ended {
    ByItself(u8),
    /// It was ended, for the hold was lost.
    Lost(LockLoss),
    /// It was ended, for the hold was about to be lost.
    NotRenewed,
}

async fn until_ended(
    args: &LockArgs,
    mut process: Process,
    hold: &LockGuard,
    signals: &mut Signals,
) -> io::Result<Ended> {
    let margin = args.kill_after.min(args.ttl / 3);
    let mut loss = pin!(hold.lost());
    let mut last_call = pin!(last_call(hold, margin));
    loop {
        tokio::select! {
            biased;
            status = process.status() => return status.map(Ended::ByItself),
            loss = &mut loss => {
                process.end(args.kill_after).await?;
                return Ok(Ended::Lost(loss));
            }
            () = &mut last_call => {
                // It is to be gone a little before the hold ends rather than with it.
                process.end(margin.mul_f64(0.9)).await?;
                return Ok(Ended::NotRenewed);
            }
            signal = signals.next() => process.pass_on(signal),
        }
    }
}

/// Resolves when no more than this is left of a hold that should have been renewed long before.
async fn last_call(hold: &LockGuard, margin: Duration) {
    loop {
        let spare = hold.remaining().saturating_sub(margin);
        if spare.is_zero() {
            return;
        }
        time::sleep(spare).await;
    }
}

/// Gives up, if there is time, a hold that could not be renewed.
async fn given_up(hold: LockGuard) -> Failure {
    let name = hold.name().to_owned();
    // Where this fails, the TTL ends the hold.
    let _ = time::timeout(hold.remaining(), hold.release()).await;
    Failure::Lost(format!(
        "the lock {name:?} was about to be lost: it could not be renewed in time"
    ))
}

fn lost(name: &str, loss: &LockLoss) -> Failure {
    Failure::Lost(format!("the lock {name:?} was lost: {loss}"))
}

impl Session {
    /// Gives a hold up, which must be current to the end.
    async fn release(&mut self, hold: LockGuard) -> Result<(), Failure> {
        let name = hold.name().to_owned();
        if let Some(loss) = hold.loss() {
            return Err(lost(&name, &loss));
        }
        match hold.release().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::Lost(format!("the lock {name:?} was lost before the end"))),
            // What was done under the lock is done all the same.
            Err(error) => self.out.remark(format_args!(
                "the lock {name:?} could not be released, and stays taken until its TTL ends: {error}"
            )),
        }
    }

    /// The verdict where another holds the lock. The standard output is for the command, if there is one.
    fn taken(&mut self, args: &LockArgs, holder: &LockInfo) -> Result<Verdict, Failure> {
        if self.out.is_json() {
            let shape = TakenShape { acquired: false, holder: LockShape::new(holder) };
            match args.command.is_empty() {
                true => self.out.json(&shape)?,
                false => self.out.json_error(&shape),
            }
        }
        self.out.remark(held_by(holder))?;
        Ok(Verdict::Status(args.conflict_exit_code))
    }
}

#[derive(Serialize)]
struct HeldShape<'a> {
    acquired: bool,
    lock: LockShape<'a>,
}

#[derive(Serialize)]
struct TakenShape<'a> {
    acquired: bool,
    holder: LockShape<'a>,
}
