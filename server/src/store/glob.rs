//! Glob patterns over keys, by Unicode scalar value.

/// Why a pattern is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// A `[` without its `]`.
    #[error("`[` is not closed")]
    UnclosedClass,
    /// A `\` at the end.
    #[error("`\\` has nothing to escape")]
    DanglingEscape,
}

/// A pattern that a whole key matches or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Any,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`GlobError`] where it is not closed.
    pub fn parse(pattern: &str) -> Result<Self, GlobError> {
        let mut chars = pattern.chars();
        let mut parts = Vec::new();
        while let Some(char) = chars.next() {
            parts.push(match char {
                '*' => Part::Any,
                '?' => Part::One,
                '[' => parse_class(&mut chars)?,
                '\\' => Part::Literal(chars.next().ok_or(GlobError::DanglingEscape)?),
                literal => Part::Literal(literal),
            });
        }
        // `**` matches what `*` does, and would only cost steps.
        parts.dedup_by(|next, part| *next == Part::Any && *part == Part::Any);
        Ok(Self { parts })
    }

    /// How many characters, wildcards and classes it has.
    pub fn part_count(&self) -> usize {
        self.parts.len()
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        let class = |part: &Part| match part {
            Part::Class { ranges, .. } => size_of_val(&ranges[..]),
            _ => 0,
        };
        size_of_val(&self.parts[..]) + self.parts.iter().map(class).sum::<usize>()
    }

    /// What every matching key begins with, and whether that is all there is to the pattern.
    pub fn literal_prefix(&self) -> (String, bool) {
        let literals = self.parts.iter().map_while(|part| match part {
            Part::Literal(char) => Some(*char),
            _ => None,
        });
        let prefix: String = literals.collect();
        let whole = prefix.chars().count() == self.parts.len();
        (prefix, whole)
    }

    /// Whether the whole text matches. Takes at most (length of the text × parts) steps.
    pub fn matches(&self, text: &str) -> bool {
        let (mut part, mut rest) = (0, text.chars());
        // Where to go on if what follows the last `*` does not fit: one character further.
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            if self.parts.get(part) == Some(&Part::Any) {
                part += 1;
                retry = Some((part, rest.clone()));
                continue;
            }
            let mut after = rest.clone();
            match (self.parts.get(part), after.next()) {
                (None, None) => return true,
                (Some(expected), Some(char)) if expected.matches(char) => {
                    part += 1;
                    rest = after;
                }
                _ => {
                    let Some((after_star, from)) = &mut retry else {
                        return false;
                    };
                    if from.next().is_none() {
                        return false;
                    }
                    part = *after_star;
                    rest = from.clone();
                }
            }
        }
    }
}

impl Part {
    fn matches(&self, char: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == char,
            Self::One | Self::Any => true,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&char)) != *negated
            }
        }
    }
}

/// What follows a `[`. As in the shell, a `]` right after it stands for itself, and so does a `-` that is no range: at the
/// beginning, at the end, and right after a range.
fn parse_class(chars: &mut std::str::Chars<'_>) -> Result<Part, GlobError> {
    let negated = matches!(chars.clone().next(), Some('!' | '^'));
    if negated {
        chars.next();
    }
    let mut ranges: Vec<(char, char)> = Vec::new();
    loop {
        if !ranges.is_empty() && chars.clone().next() == Some(']') {
            chars.next();
            return Ok(Part::Class { negated, ranges });
        }
        let first = class_member(chars)?;
        let mut after = chars.clone();
        let is_range = after.next() == Some('-') && after.next() != Some(']');
        let last = match is_range {
            true => {
                chars.next();
                class_member(chars)?
            }
            false => first,
        };
        ranges.push((first, last));
    }
}

fn class_member(chars: &mut std::str::Chars<'_>) -> Result<char, GlobError> {
    let mut next = || chars.next().ok_or(GlobError::UnclosedClass);
    match next()? {
        '\\' => next(),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_whole_texts() {
        let cases = [
            ("*", "", true),
            ("*", "a/b", true),
            ("?", "ä", true),
            ("?", "", false),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("a*b*c", "aXbYbZc", true),
            ("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]]", "]", true),
            ("[!]]", "]", false),
            ("[a-]", "-", true),
            ("[-a]", "-", true),
            ("[a\\]b]", "]", true),
            ("[a-cx-z]", "y", true),
            ("[z-a]", "m", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("user:*:name", "user:1:name", true),
            ("[α-ω]", "λ", true),
        ];
        for (pattern, text, expected) in cases {
            let glob = Glob::parse(pattern).unwrap();
            assert_eq!(glob.matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn refuses_what_is_not_closed() {
        assert_eq!(Glob::parse("a["), Err(GlobError::UnclosedClass));
        assert_eq!(Glob::parse("[]"), Err(GlobError::UnclosedClass));
        assert_eq!(Glob::parse("[!"), Err(GlobError::UnclosedClass));
        assert_eq!(Glob::parse("[a\\"), Err(GlobError::UnclosedClass));
        assert_eq!(Glob::parse("a\\"), Err(GlobError::DanglingEscape));
    }

    #[test]
    fn knows_its_literal_prefix() {
        let prefix = |pattern| Glob::parse(pattern).unwrap().literal_prefix();
        assert_eq!(prefix("user:*"), ("user:".into(), false));
        assert_eq!(prefix("a\\*b"), ("a*b".into(), true));
        assert_eq!(prefix("[a]b"), (String::new(), false));
    }
}
