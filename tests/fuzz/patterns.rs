//! Globs against a matcher that is as simple as can be, and what selectors resolve to.

use holdfast_server::{
    backend::Key,
    store::{glob::Glob, selector::Selector},
};

use crate::harness::fuzz;

/// Patterns and keys, parted by a line feed.
const EXAMPLES: [&str; 10] = [
    "user:*\nuser:ann",
    "*:name\nuser:name",
    "a?c\nabc",
    "[a-c]x[!d-f]\nbxg",
    "[^]a]\nb",
    "\\*\\[\n*[",
    "[]-a]*\n]",
    "**a*b**\nxaxb",
    "\u{e9}?\u{10ffff}\n\u{e9}a\u{10ffff}",
    "[a\\-z\\]]\n-",
];

#[test]
fn globs_match_what_they_say() {
    let examples = EXAMPLES.map(|example| example.as_bytes().to_vec());
    fuzz("globs", &examples, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (pattern, key) = text.split_once('\n').unwrap_or((&text, "a"));
        let (pattern, key): (String, String) =
            (pattern.chars().take(24).collect(), key.chars().take(24).collect());
        let glob = Glob::parse(&pattern);
        let parts = parts(&pattern);
        assert_eq!(glob.is_ok(), parts.is_some(), "{pattern:?}");
        let (Ok(glob), Some(parts)) = (glob, parts) else { return };
        let keys: Vec<_> = key.chars().collect();
        let expected = matches(&parts, &keys);
        assert_eq!(glob.matches(&key), expected, "{pattern:?} and {key:?}");
        // What is looked at must hold all that matches; and no internal key, whatever the pattern.
        let selector = Selector::glob(&pattern).expect("the pattern is one");
        let named = Key::new(key.as_bytes());
        assert_eq!(selector.contains(&named), expected && !excluded(&key), "{pattern:?} {key:?}");
        assert!(!selector.contains(&Key::new(b"\0settings")), "{pattern:?}");
        let (prefix, _) = glob.literal_prefix();
        assert!(!expected || key.starts_with(&prefix), "{pattern:?} and {key:?}");
    });
}

#[test]
fn selectors_select_what_they_say() {
    let examples =
        [&b"a\nb\nab"[..], b"\xff\n\xff\xff\n\xff", b"\n\n\0lock", b"a\n\na", b"\0\n\x01\n\0"];
    fuzz("selectors", &examples.map(<[u8]>::to_vec), |bytes| {
        let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
        let mut part = || parts.next().unwrap_or_default();
        let (start, end, key) = (part(), part(), Key::new(part()));
        let end = (!end.is_empty()).then_some(end);
        let is_inside = key.as_bytes() >= start && end.is_none_or(|end| key.as_bytes() < end);
        let range = Selector::range(start, end);
        assert_eq!(
            range.contains(&key),
            is_inside && !key.is_internal() && !key.as_bytes().is_empty()
        );
        assert!(!range.bounds().start.is_internal());
        let one = Selector::key(&key);
        assert!(one.contains(&key) && !one.contains(&key.successor()));
        if let Ok(prefix) = std::str::from_utf8(start)
            && !prefix.is_empty()
        {
            let selector = Selector::prefix(prefix);
            assert_eq!(selector.contains(&key), key.as_bytes().starts_with(start));
            let extended = Key::new(&[start, key.as_bytes()].concat());
            assert!(selector.contains(&extended));
        }
    });
}

/// Selectors of patterns select keys of users: those without a first zero byte, and not the empty one.
fn excluded(key: &str) -> bool {
    key.is_empty() || key.starts_with('\0')
}

/// A part of a pattern: what a character must be, or any run of characters.
enum Part {
    Run,
    One(Class),
}

/// The parts of a pattern; nothing if it is none.
fn parts(pattern: &str) -> Option<Vec<Part>> {
    let chars: Vec<_> = pattern.chars().collect();
    let (mut parts, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        let char = chars[at];
        at += 1;
        parts.push(match char {
            '*' => Part::Run,
            '?' => Part::One(Box::new(|_| true)),
            '\\' => {
                let escaped = *chars.get(at)?;
                at += 1;
                Part::One(Box::new(move |it| it == escaped))
            }
            '[' => {
                let (class, end) = class(&chars, at)?;
                at = end;
                Part::One(class)
            }
            literal => Part::One(Box::new(move |it| it == literal)),
        });
    }
    Some(parts)
}

/// Whether a character is one of a class.
type Class = Box<dyn Fn(char) -> bool>;

/// A class that begins after its bracket, and where it ends.
fn class(chars: &[char], mut at: usize) -> Option<(Class, usize)> {
    let is_negated = matches!(chars.get(at)?, '!' | '^');
    at += usize::from(is_negated);
    let mut ranges = Vec::new();
    let first = at;
    loop {
        let one = |at: &mut usize| {
            let char = *chars.get(*at)?;
            *at += 1;
            if char != '\\' {
                return Some(char);
            }
            let escaped = *chars.get(*at)?;
            *at += 1;
            Some(escaped)
        };
        if *chars.get(at)? == ']' && at > first {
            break;
        }
        let low = one(&mut at)?;
        let is_range =
            chars.get(at) == Some(&'-') && chars.get(at + 1).is_some_and(|it| *it != ']');
        let high = if is_range {
            at += 1;
            one(&mut at)?
        } else {
            low
        };
        ranges.push((low, high));
    }
    let class =
        move |it| ranges.iter().any(|(low, high)| (*low..=*high).contains(&it)) != is_negated;
    Some((Box::new(class), at + 1))
}

fn matches(parts: &[Part], key: &[char]) -> bool {
    match parts.split_first() {
        None => key.is_empty(),
        Some((Part::Run, rest)) => {
            // A second run adds nothing but work.
            if let Some(Part::Run) = rest.first() {
                return matches(rest, key);
            }
            (0..=key.len()).any(|skipped| matches(rest, &key[skipped..]))
        }
        Some((Part::One(is_it), rest)) => match key.split_first() {
            Some((first, others)) => is_it(*first) && matches(rest, others),
            None => false,
        },
    }
}
