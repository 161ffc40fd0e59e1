//! The rules of the house, as tests: who may import whom, lengths, leftovers, dead links, and documents that
//! must agree with the code. Each failure says where and what to do.

#[path = "tidy/source.rs"]
mod source;

use std::{fs, path::Path};

use source::{
    all_rust_files, begins_word, directories, file_extension, files_with_extension, has_word,
    headings, links, numbered, read, root, rust_files, strip,
};

/// The modules of the server's crate from the top to the bottom, each with those it may name. Every module
/// of `server/src` must stand here.
const LAYERS: [(&str, &[&str]); 9] = [
    ("serve", &["rpc", "store", "backend", "config", "clock", "busy_poll"]),
    ("offline", &["rpc", "store", "backend", "config", "clock"]),
    ("rpc", &["store", "backend", "config", "clock"]),
    ("store", &["backend", "config", "clock"]),
    ("backend", &["config", "clock", "busy_poll"]),
    ("config", &[]),
    ("clock", &[]),
    ("busy_poll", &[]),
    ("memory", &[]),
];

/// What a layer may not name besides, in the code that is not tests.
const FORBIDDEN: [(&str, &[&str], &str); 6] = [
    (
        "server/src/store/command",
        &[
            "async",
            "await",
            "tokio",
            "std::fs",
            "std::net",
            "SystemTime",
            "Instant",
            "rand",
            "crate::clock",
        ],
        "commands are pure: what they need comes in as an argument",
    ),
    (
        "server/src/store",
        &["holdfast_proto", "tonic", "prost"],
        "only rpc knows protobuf: use the types of the store",
    ),
    (
        "server/src/backend",
        &["holdfast_proto", "tonic", "prost"],
        "only rpc knows protobuf: use the types of the backend",
    ),
    (
        "client/src",
        &["pub use holdfast_proto"],
        "no generated type shows in the client's API: wrap it",
    ),
    (
        "client/cli",
        &["holdfast_proto", "tonic"],
        "the command line uses the typed client alone: add to the client what it lacks",
    ),
    (
        "server/src/rpc",
        &["std::fs", "std::net"],
        "rpc only translates: leave I/O to the layers below",
    ),
];

/// The only file that names concrete backends.
const REGISTRY: &str = "server/src/backend/registry.rs";

/// Lines of code that a file may have, without tests, comments and blank lines.
const MAX_LINES: usize = 500;
const MAX_MAIN_LINES: usize = 60;

/// Files that may be longer than `MAX_LINES`, each with the reason.
const LONGER: [(&str, &str); 0] = [];

#[test]
fn layers_import_downwards_only() {
    let mut problems = Vec::new();
    for file in rust_files("server/src") {
        let Some(module) = file.top_module() else {
            continue;
        };
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            problems.push(format!("{file}: give the module `{module}` a place in LAYERS"));
            continue;
        };
        for named in file.crate_modules() {
            let known = LAYERS.iter().any(|(name, _)| *name == named);
            if known && named != module && !allowed.contains(&named.as_str()) {
                problems.push(format!(
                    "{file}: `{module}` must not import `{named}`; it may import {allowed:?}"
                ));
            }
        }
    }
    assert_tidy(&problems);
}

#[test]
fn layers_keep_to_their_business() {
    let mut problems = Vec::new();
    for (directory, words, why) in FORBIDDEN {
        for file in rust_files(directory) {
            let code = file.product_code();
            for (number, line) in numbered(&code) {
                for word in words.iter().filter(|word| has_word(line, word)) {
                    problems.push(format!("{file}:{number}: `{word}` does not belong here: {why}"));
                }
            }
        }
    }
    assert_tidy(&problems);
}

#[test]
fn only_the_registry_names_concrete_backends() {
    let mut problems = Vec::new();
    for kind in directories("server/src/backend") {
        let path = format!("{kind}::");
        for file in rust_files("server/src") {
            let is_its_own = file.path.starts_with(&format!("server/src/backend/{kind}/"));
            if is_its_own || file.path == REGISTRY {
                continue;
            }
            for (number, line) in numbered(&file.product_code()) {
                if begins_word(line, &path) {
                    problems.push(format!(
                        "{file}:{number}: `{path}` is for {REGISTRY} alone: open backends by their URL"
                    ));
                }
            }
        }
    }
    assert_tidy(&problems);
}

#[test]
fn client_and_server_do_not_depend_on_each_other() {
    let mut problems = Vec::new();
    for (manifest, other) in
        [("client/Cargo.toml", "holdfast-server"), ("server/Cargo.toml", "holdfast-client")]
    {
        if read(manifest).contains(other) {
            problems.push(format!(
                "{manifest}: no dependency on {other}, not even for tests: they belong in tests/"
            ));
        }
    }
    assert_tidy(&problems);
}

#[test]
fn files_are_short() {
    let mut problems = Vec::new();
    for file in all_rust_files() {
        let (length, limit) = match file.path.as_str() {
            "server/src/main.rs" => (file.text.lines().count(), MAX_MAIN_LINES),
            _ => (file.product_lines(), MAX_LINES),
        };
        let excepted = LONGER.iter().any(|(path, _)| *path == file.path);
        if length > limit && !excepted {
            problems.push(format!(
                "{file}: {length} lines of code, at most {limit}: split it by what it is about"
            ));
        }
        if length <= limit && excepted {
            problems.push(format!("{file}: short enough by now, take it out of LONGER"));
        }
    }
    for (path, _) in LONGER {
        if !root().join(path).exists() {
            problems.push(format!("{path}: gone, take it out of LONGER"));
        }
    }
    assert_tidy(&problems);
}

#[test]
fn nothing_is_left_over() {
    // Put together here, so that this file does not find itself.
    let leftovers = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!"));
    let mut problems = Vec::new();
    for file in all_rust_files() {
        let code = strip(&file.text);
        for (number, line) in numbered(&code) {
            for word in leftovers.iter().filter(|word| has_word(line, word)) {
                problems.push(format!("{file}:{number}: `{word}` is left over"));
            }
            if line.contains("#[ignore") {
                problems.push(format!(
                    "{file}:{number}: an ignored test tests nothing: mend it or delete it"
                ));
            }
        }
    }
    assert_tidy(&problems);
}

#[test]
fn tests_wait_for_conditions() {
    let mut problems = Vec::new();
    for file in all_rust_files() {
        let is_test = file.path.split('/').any(|part| part == "tests");
        if !is_test {
            continue;
        }
        let code = strip(&file.text);
        let mut before = "";
        for ((number, line), whole) in numbered(&code).zip(file.text.lines()) {
            let sleeps = ["thread::sleep(", "time::sleep("].iter().any(|call| line.contains(call));
            if sleeps && !whole.contains("//") && !before.trim_start().starts_with("//") {
                problems.push(format!(
                    "{file}:{number}: wait for a condition instead of sleeping; where there is none, say \
                     why in a comment on this line or above it"
                ));
            }
            before = whole;
        }
    }
    assert_tidy(&problems);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut problems = Vec::new();
    for path in files_with_extension("md") {
        let text = read(&path);
        let directory = Path::new(&path).parent().expect("a file has a parent");
        for (number, link) in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => root().join(&path),
                _ => root().join(directory).join(file),
            };
            if !target.exists() {
                problems.push(format!("{path}:{number}: there is no {file}: mend the link"));
            } else if !anchor.is_empty() && file_extension(&target) == "md" {
                let text = fs::read_to_string(&target).expect("a Markdown file is text");
                if !headings(&text).contains(anchor) {
                    problems.push(format!("{path}:{number}: {link} has no such heading"));
                }
            }
        }
    }
    assert_tidy(&problems);
}

#[test]
fn every_proto_is_compiled_and_presented() {
    let build = read("build.rs");
    let guides = read("docs/clients.md") + &read("README.md");
    let mut problems = Vec::new();
    for path in files_with_extension("proto") {
        let name =
            path.strip_prefix("proto/holdfast/v1/").and_then(|name| name.strip_suffix(".proto"));
        match name {
            Some(name) if build.contains(&format!("\"{name}\"")) => {}
            Some(name) => problems.push(format!("{path}: add \"{name}\" to PROTOS in build.rs")),
            None => problems.push(format!("{path}: protos belong in proto/holdfast/v1/")),
        }
        for line in read(&path).lines() {
            if let Some(service) = line.strip_prefix("service ").and_then(|l| l.split(' ').next())
                && !guides.contains(service)
            {
                problems.push(format!("{path}: say what {service} is for in docs/clients.md"));
            }
        }
    }
    assert_tidy(&problems);
}

#[test]
fn the_python_example_in_the_guide_is_the_tested_one() {
    let script = read("tests/python/example.py");
    let guide = read("docs/clients.md");
    assert!(
        guide.contains(&format!("```python\n{script}```")),
        "docs/clients.md: put tests/python/example.py as it is between ```python and ```"
    );
}

fn assert_tidy(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}
