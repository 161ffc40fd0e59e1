//! The benchmark program: `cargo bench` runs all of it, `cargo bench -- heart` a part.
//!
//! Machines are noisy: every figure stands beside a bare baseline measured in the same run, with their ratio.
//! `HOLDFAST_BENCH_SCALE=0.01` cuts what takes long to a hundredth, to see that everything works.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod measure;
mod peer;
mod server;

mod compare;
mod coordination;
mod durable;
mod expiry;
mod heart;
mod scan;
mod shared;

/// The server's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Each part with its name.
const PARTS: [(&str, fn()); 7] = [
    ("heart", heart::run),
    ("compare", compare::run),
    ("expiry", expiry::run),
    ("scan", scan::run),
    ("coordination", coordination::run),
    ("durable", durable::run),
    ("shared", shared::run),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, url] = &args[..]
        && flag == server::SERVE
    {
        return server::serve(url);
    }
    if args == [peer::echo::SERVE] {
        return peer::echo::serve();
    }
    let asked: Vec<String> = args.into_iter().filter(|arg| !arg.starts_with('-')).collect();
    let known = |name: &String| PARTS.iter().any(|(part, _)| part == name);
    if let Some(unknown) = asked.iter().find(|name| !known(name)) {
        let parts = PARTS.map(|(part, _)| part).join(", ");
        println!("there is no part `{unknown}`; there are: {parts}");
        std::process::exit(2);
    }
    for (name, run) in PARTS {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            println!("== {name}");
            run();
        }
    }
}
