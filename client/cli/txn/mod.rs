//! `txn`.

mod draft;
mod outcome;

use clap::Args;
use holdfast_client::Transaction;

use crate::{
    Session, Verdict,
    failure::Failure,
    parse::{self, GuardArgs},
};
use draft::Draft;
use outcome::OutcomeShape;

pub const HELP: &str = r#"A transaction is a JSON object:

  {
    "compare": [
      {"key": "stock:42", "exists": true},
      {"key": "stock:42", "value": {"!=": "0"}},
      {"key": "order:7", "exists": false}
    ],
    "then": [
      {"incr": {"key": "stock:42", "delta": -1}},
      {"set": {"key": "order:7", "value": "ann", "ttl": "15m"}}
    ],
    "otherwise": [
      {"get": {"key": "stock:42"}}
    ]
  }

If every compare holds, the operations of `then` are run, else those of `otherwise`: in order, atomically,
in one revision. The status is 0 if `then` was run and 1 if not. Each of the three may be left out.

A compare is about one property of a key: `exists` (true or false), `version`, `mod_revision`,
`create_revision`, `value`, `value_base64` or `lease` (0: none; a number, or text); or about the `token` of a lock:
{"lock": "report", "token": 7}. That is a value it must be equal to, or {"=": …}, {"!=": …}, {"<": …},
{">": …}. Of a key that is missing, or a lock that nobody holds, only != holds.

  get     {"key"}
  set     {"key", "value" or "value_base64", "ttl" or "lease", "content_type"}; ttl may be "never" or "keep"
  del     {"key"}, or {"prefix"} for at most 10,000 keys
  expire  {"key", "ttl"}; "never" lets the key stay
  incr    {"key", "delta", "initial", "ttl"}; ttl if this creates the key
  list    {"glob"} or {"prefix"}, and "keys": true, "reverse": true, "limit" (100 unless given)"#;

#[derive(Args)]
pub struct TxnArgs {
    /// A file with the transaction; `-` takes it from the standard input
    file: String,
    #[command(flatten)]
    guards: GuardArgs,
}

/// No, if a compare does not hold.
pub async fn txn(session: &mut Session, args: TxnArgs) -> Result<Verdict, Failure> {
    let text = parse::file_or_stdin(&args.file)?;
    let draft = Draft::parse(&text).map_err(|error| {
        let name = if args.file == "-" { "standard input" } else { &args.file };
        Failure::usage(format!("{name}: {error}"))
    })?;
    let transaction = prepared(session, &draft)?;
    let outcome = args.guards.on(transaction, |call, guard| call.guard(guard)).await?;
    session.out.print(&OutcomeShape::new(&draft, &outcome)?)?;
    Ok(Verdict::of(outcome.succeeded))
}

fn prepared(
    session: &Session,
    draft: &Draft,
) -> Result<Transaction<holdfast_client::Raw>, Failure> {
    let mut transaction = session.namespace.transaction();
    for compare in &draft.compare {
        transaction = transaction.compare(compare.to_compare()?);
    }
    for operation in &draft.then {
        transaction = transaction.then(operation.to_operation()?);
    }
    for operation in &draft.otherwise {
        transaction = transaction.otherwise(operation.to_operation()?);
    }
    Ok(transaction)
}
