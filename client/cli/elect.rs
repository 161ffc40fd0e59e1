//! `elect`.

use std::{fmt, time::Duration};

use clap::Args;
use futures::StreamExt as _;
use holdfast_client::{Election, Error, Leader, Leadership, LockOwner, Token};
use serde::Serialize;

use crate::{
    Session, Verdict,
    failure::Failure,
    locks::{OwnerShape, in_words},
    parse::{self, OwnerArgs},
    process::Signals,
    shape::{ValueShape, printable},
};

pub const HELP: &str = "\
An election is a lock with a value: who holds the lock NAME leads, and the value says who or where that is.
Once elected, the token of the hold is printed, and this program leads until Ctrl-C or SIGTERM; then it
resigns. Asked to end before it is elected, it ends with the status 1; deposed, with the status 3.

With --listen, every leader is printed as TOKEN VALUE between tabs, the present one first; `-` means that
nobody leads.";

#[derive(Args)]
pub struct ElectArgs {
    /// The election: the name of a lock
    name: String,
    /// What the leader shows
    #[arg(required_unless_present = "listen")]
    value: Option<String>,
    /// Only follow who leads
    #[arg(long, conflicts_with_all = ["value", "ttl", "wait", "who", "reason"])]
    listen: bool,
    /// How long the office stays taken should this program die; it is renewed meanwhile
    #[arg(long, value_parser = parse::duration, default_value = "30s")]
    ttl: Duration,
    /// Wait at the most so long; as long as it takes unless given
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    owner: OwnerArgs,
}

impl ElectArgs {
    pub fn only_reads(&self) -> bool {
        self.listen
    }
}

pub async fn elect(session: &mut Session, args: ElectArgs) -> Result<Verdict, Failure> {
    let mut signals = Signals::listen()?;
    let election = session.namespace.election(&args.name);
    let Some(value) = &args.value else {
        return tokio::select! {
            verdict = listen(session, &election) => verdict,
            _ = signals.next() => Ok(Verdict::Yes),
        };
    };
    let election = election.ttl(args.ttl).owner(args.owner.owner());
    let elected = tokio::select! {
        elected = campaign(&election, value, args.wait) => elected,
        // Nobody was elected, and nobody asks for that any more.
        _ = signals.next() => return Ok(Verdict::No),
    };
    match elected {
        Ok(leadership) => lead(session, &args.name, leadership, &mut signals).await,
        Err(Error::LockTaken { holder }) => {
            if session.out.is_json() {
                let leader = LeaderShape::new(holder.token, &holder.value, &holder.owner);
                session.out.json(&NotElectedShape { elected: false, leader })?;
            }
            let (value, owner) = (printable(&holder.value), in_words(&holder.owner));
            session.out.remark(format_args!("not elected: {value} leads, which is {owner}"))?;
            Ok(Verdict::No)
        }
        Err(error) => Err(error.into()),
    }
}

async fn campaign(
    election: &Election,
    value: &str,
    wait: Option<Duration>,
) -> Result<Leadership, Error> {
    let campaign = election.campaign(value.to_owned());
    match wait {
        Some(limit) => campaign.wait(limit).await,
        None => campaign.await,
    }
}

/// Leads until this program is asked to end.
async fn lead(
    session: &mut Session,
    name: &str,
    leadership: Leadership,
    signals: &mut Signals,
) -> Result<Verdict, Failure> {
    let token = leadership.token().get();
    let told = session.out.print(&ElectedShape { elected: true, name, token });
    if let Err(failure) = told.and_then(|()| session.out.flush()) {
        // Nobody knows of it. Where this fails, the TTL ends it.
        let _ = leadership.resign().await;
        return Err(failure);
    }
    let lost = |loss: &dyn fmt::Display| {
        Failure::Lost(format!("the election {name:?} was lost after it was won: {loss}"))
    };
    tokio::select! {
        loss = leadership.lost() => return Err(lost(&loss)),
        _ = signals.next() => {}
    }
    match leadership.resign().await? {
        true => Ok(Verdict::Yes),
        false => Err(lost(&"another leads by now")),
    }
}

/// Prints the present leader, then each change.
async fn listen(session: &mut Session, election: &Election) -> Result<Verdict, Failure> {
    let mut leaders = election.observe().await?;
    while let Some(leader) = leaders.next().await {
        let leader = leader?;
        session.out.print(&NowShape::new(leader.as_ref()))?;
        // Whoever follows wants to see each change at once.
        session.out.flush()?;
    }
    Ok(Verdict::Yes)
}

#[derive(Serialize)]
struct ElectedShape<'a> {
    elected: bool,
    name: &'a str,
    token: u64,
}

impl fmt::Display for ElectedShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "elected, token {}", self.token)
    }
}

#[derive(Serialize)]
struct NotElectedShape<'a> {
    elected: bool,
    leader: LeaderShape<'a>,
}

/// Who leads from now on; none: nobody.
#[derive(Serialize)]
struct NowShape<'a> {
    leader: Option<LeaderShape<'a>>,
    #[serde(skip)]
    now: Option<&'a Leader>,
}

impl<'a> NowShape<'a> {
    fn new(now: Option<&'a Leader>) -> Self {
        let leader = now.map(|now| LeaderShape::new(now.token, &now.value, &now.owner));
        Self { leader, now }
    }
}

impl fmt::Display for NowShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.now {
            Some(leader) => write!(f, "{}\t{}", leader.token, printable(&leader.value)),
            None => f.write_str("-"),
        }
    }
}

#[derive(Serialize)]
struct LeaderShape<'a> {
    token: u64,
    #[serde(flatten)]
    value: ValueShape<'a>,
    owner: OwnerShape<'a>,
}

impl<'a> LeaderShape<'a> {
    fn new(token: Token, value: &'a [u8], owner: &'a LockOwner) -> Self {
        Self { token: token.get(), value: ValueShape::new(value), owner: OwnerShape::new(owner) }
    }
}
