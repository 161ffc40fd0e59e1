//! The scripts, each joined with what it begins with.

use super::link::Script;

/// What scripts of namespaces begin with.
const PRELUDE: &str = include_str!("scripts/prelude.lua");
/// What those begin with besides that write.
const SETTLED: &str = include_str!("scripts/settled.lua");
/// What those go on with that may be the first of a namespace,
const BEGIN: &str = include_str!("scripts/begin.lua");
/// and those that apply writes.
const APPLY: &str = include_str!("scripts/apply.lua");
/// What comes once deadlines have moved.
const NEXT: &str = include_str!("scripts/next.lua");
/// What makes a commit.
const COMMIT: &[&str] = &[
    include_str!("scripts/commit.lua"),
    BEGIN,
    APPLY,
    NEXT,
    include_str!("scripts/committed.lua"),
];
/// What those begin with that only read, when they have to settle the namespace first.
const SETTLING: &str = include_str!("scripts/settling.lua");
/// What those begin with besides that read at a revision.
const VERSIONS: &str = include_str!("scripts/versions.lua");

/// All scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    pub ancestors: Reading,
    pub changes: Reading,
    pub clear: Script,
    pub commit: Script,
    /// The same, for one that makes room.
    pub commit_removals: Script,
    pub confirm: Script,
    pub delete: Script,
    pub discard: Script,
    pub expired: Reading,
    pub history: Reading,
    pub members: Script,
    pub names: Script,
    pub read: Reading,
    pub read_at: Reading,
    pub register: Script,
    pub replace: Script,
    pub scan: Reading,
    pub stage: Script,
    pub time: Script,
    pub trim: Script,
}

/// A script that reads, in two forms.
#[derive(Debug)]
pub(super) struct Reading {
    /// Changes nothing.
    pub plain: Script,
    /// The same, once it has settled the namespace: for when the plain one says that this has to be done.
    pub settling: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            ancestors: reads("ancestors", include_str!("scripts/ancestors.lua")),
            changes: reads("changes", include_str!("scripts/changes.lua")),
            clear: promises(writes_when_full(
                "clear",
                &[
                    include_str!("scripts/clear.lua"),
                    APPLY,
                    "deadlines_moved = true\n",
                    NEXT,
                    include_str!("scripts/cleared.lua"),
                ],
            )),
            commit: promises(writes("commit", COMMIT)),
            commit_removals: promises(writes_when_full("commit_removals", COMMIT)),
            confirm: promises(writes_when_full("confirm", &[include_str!("scripts/confirm.lua")])),
            delete: promises(writes_when_full("delete", &[include_str!("scripts/delete.lua")])),
            discard: writes_when_full("discard", &[include_str!("scripts/discard.lua")]),
            expired: reads("expired", include_str!("scripts/expired.lua")),
            history: reads_back("history", include_str!("scripts/history.lua")),
            members: script("members", true, "", &[include_str!("scripts/members.lua")]),
            names: script("names", false, "flags=no-writes", &[include_str!("scripts/names.lua")]),
            read: reads("read", include_str!("scripts/read.lua")),
            read_at: reads_back("read_at", include_str!("scripts/read_at.lua")),
            register: script("register", true, "", &[include_str!("scripts/register.lua")]),
            replace: promises(writes(
                "replace",
                &[
                    include_str!("scripts/replace.lua"),
                    BEGIN,
                    include_str!("scripts/replaced.lua"),
                    NEXT,
                    include_str!("scripts/put.lua"),
                ],
            )),
            scan: reads_back("scan", include_str!("scripts/scan.lua")),
            stage: writes("stage", &[include_str!("scripts/stage.lua")]),
            time: script("time", false, "flags=no-writes", &[include_str!("scripts/time.lua")]),
            trim: writes_when_full("trim", &[include_str!("scripts/trim.lua")]),
        }
    }
}

/// One that only reads: it is run also while Redis takes no writes.
fn reads(name: &'static str, source: &str) -> Reading {
    Reading {
        plain: script(name, false, "flags=no-writes", &[PRELUDE, source]),
        settling: script(name, true, "flags=allow-oom", &[PRELUDE, SETTLED, SETTLING, source]),
    }
}

/// One that also reads older versions.
fn reads_back(name: &'static str, source: &str) -> Reading {
    reads(name, &[VERSIONS, source].concat())
}

/// One that writes, of several parts.
fn writes(name: &'static str, parts: &[&str]) -> Script {
    script(name, true, "", &[&[PRELUDE, SETTLED], parts].concat())
}

/// One whose effect is told as done.
fn promises(script: Script) -> Script {
    Script { promises: true, ..script }
}

/// One that writes, and is run also where Redis has no memory left: it is what gives some back, at once or once the log forgets.
fn writes_when_full(name: &'static str, parts: &[&str]) -> Script {
    script(name, true, "flags=allow-oom", &[&[PRELUDE, SETTLED], parts].concat())
}

fn script(name: &'static str, writes: bool, flags: &str, parts: &[&str]) -> Script {
    let source = format!("#!lua {flags}\n{}", parts.concat());
    let sha = redis::Script::new(&source).get_hash().to_owned();
    Script { name, source, sha, writes, promises: false }
}
