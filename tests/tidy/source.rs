//! What the rules look at: the files of the project, and code as opposed to comments, strings and tests.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A Rust file of the project.
pub struct RustFile {
    /// From the root of the repository, with `/`.
    pub path: String,
    pub text: String,
}

impl std::fmt::Display for RustFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path)
    }
}

impl RustFile {
    /// The module of the server's crate that this file belongs to; none for its two roots.
    pub fn top_module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("server/src/")?;
        let name = inside.split('/').next()?.trim_end_matches(".rs");
        (!["main", "lib"].contains(&name)).then_some(name)
    }

    /// The code without comments, the contents of strings, and `#[cfg(test)]` items; lines stay lines.
    pub fn product_code(&self) -> String {
        without_tests(&strip(&self.text))
    }

    /// How many lines of code there are outside `#[cfg(test)]` items, comments and blanks apart.
    pub fn product_lines(&self) -> usize {
        let code = self.product_code();
        code.lines().filter(|line| !line.trim().is_empty()).count()
    }

    /// The top-level modules named by `crate::…`, or by enough `super::` to reach the root of the crate.
    pub fn crate_modules(&self) -> BTreeSet<String> {
        let code = self.product_code();
        let inside = self.path.trim_start_matches("server/src/");
        let depth = inside.split('/').count() - usize::from(inside.ends_with("/mod.rs"));
        let mut modules = BTreeSet::new();
        for path in ["crate::".to_owned(), "super::".repeat(depth)] {
            for (at, _) in code.match_indices(&path) {
                let before = code[..at].chars().next_back();
                if !before.is_some_and(|c| is_word(c) || c == ':') {
                    modules.extend(first_names(&code[at + path.len()..]));
                }
            }
        }
        modules
    }
}

/// The names that a path goes on with: one, or those of a group `{a::x, b}`.
fn first_names(rest: &str) -> Vec<String> {
    let name =
        |text: &str| -> String { text.trim_start().chars().take_while(|&c| is_word(c)).collect() };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let mut names = vec![name(group)];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&group[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Blanks out comments and the contents of strings and characters.
pub fn strip(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest),
            '\'' => character(rest),
            'r' if !code.ends_with(is_word) || code.ends_with('b') => raw_string(rest),
            _ => 0,
        };
        if length == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().filter(|&c| c == '\n'));
            code.push(' ');
            rest = &rest[length..];
        }
    }
    code
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character in quotes; 0 for a lifetime.
fn character(text: &str) -> usize {
    let inside = &text[1..];
    if inside.starts_with('\\') {
        return inside[2..].find('\'').map_or(0, |end| end + 4);
    }
    let length = inside.chars().next().map_or(0, char::len_utf8);
    if inside[length..].starts_with('\'') { length + 2 } else { 0 }
}

/// `r"…"` or `r#"…"#`; 0 for what only begins with an r.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|&c| c == '#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let start = hashes + 2;
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}

/// Where the items marked `#[cfg(test)]` begin and end, in code that was stripped.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(test)]") {
        let start = from + at;
        let end = item_end(&code[start..]).map_or(code.len(), |length| start + length);
        items.push((start, end));
        from = end;
    }
    items
}

/// Where the item that begins here ends: at its closing brace, or at its semicolon.
fn item_end(code: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 && (c == '}' || c == ';') {
            return Some(at + 1);
        }
    }
    None
}

fn without_tests(code: &str) -> String {
    let mut left = String::with_capacity(code.len());
    let mut from = 0;
    for (start, end) in test_items(code) {
        left.push_str(&code[from..start]);
        left.extend(code[start..end].chars().filter(|&c| c == '\n'));
        from = end;
    }
    left.push_str(&code[from..]);
    left
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in the text by itself, not as a part of a longer name.
pub fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_word) && !text[at + word.len()..].starts_with(is_word)
    })
}

/// Whether `start` stands in the text as the beginning of a name or path, not inside a longer one.
pub fn begins_word(text: &str, start: &str) -> bool {
    text.match_indices(start).any(|(at, _)| !text[..at].ends_with(is_word))
}

/// The lines with their numbers, from 1.
pub fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// The targets of `[…](target)` with their lines, without what stands in code.
pub fn links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    let mut in_code = false;
    for (number, line) in numbered(text) {
        in_code ^= line.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        // What stands between backticks has odd numbers.
        for part in line.split('`').step_by(2) {
            for (at, _) in part.match_indices("](") {
                let target = &part[at + 2..];
                links.push((number, &target[..target.find(')').unwrap_or(target.len())]));
            }
        }
    }
    links
}

/// The anchors of the headings, made as GitHub makes them.
pub fn headings(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|&c| is_word(c) || c == ' ' || c == '-')
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

pub fn all_rust_files() -> Vec<RustFile> {
    rust_files("")
}

pub fn rust_files(directory: &str) -> Vec<RustFile> {
    let inside = |path: &String| directory.is_empty() || path.starts_with(&format!("{directory}/"));
    files_with_extension("rs")
        .into_iter()
        .filter(inside)
        .map(|path| RustFile { text: read(&path), path })
        .collect()
}

/// The names of the directories in a directory.
pub fn directories(directory: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root().join(directory)) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.expect("the directory is readable"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The files of the project, from its root, without what is made by building and running it.
pub fn files_with_extension(extension: &str) -> Vec<String> {
    const MADE: [&str; 3] = ["target", "holdfast-data", "node_modules"];
    let mut found = Vec::new();
    let mut directories = vec![root().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("the directory is readable") {
            let path = entry.expect("the directory is readable").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && !MADE.contains(&&*name) {
                directories.push(path);
            } else if path.is_file() && file_extension(&path) == extension {
                let inside = path.strip_prefix(root()).expect("the walk began at the root");
                found.push(inside.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}

pub fn file_extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

pub fn read(path: &str) -> String {
    let whole: PathBuf = root().join(path);
    fs::read_to_string(&whole).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn code_is_told_from_comments_strings_and_tests() {
    let text = r##"
        // std::fs in a comment
        /* and /* nested */ tokio */
        const A: &str = "tokio \" // ";
        const B: &str = r#"tokio"#;
        const C: char = '"';
        fn f<'a>(x: &'a str) { use crate::{rpc::Kv, store}; super::super::clock::now() }
        #[cfg(test)]
        mod tests { fn g() { crate::serve::run() } }
        fn after() {}
    "##;
    let file = RustFile {
        path: "server/src/backend/embedded/memory.rs".to_owned(),
        text: text.to_owned(),
    };
    let code = file.product_code();
    assert!(!has_word(&code, "tokio") && !has_word(&code, "std::fs"));
    assert!(has_word(&code, "after"));
    let modules = file.crate_modules();
    let expected = ["rpc", "store"].map(str::to_owned);
    assert_eq!(modules, BTreeSet::from(expected), "{code}");
    assert_eq!(file.product_lines(), 5);
    assert_eq!(code.lines().count(), text.lines().count());
}
