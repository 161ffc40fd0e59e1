//! What is in a journal from the first line on that is not sound: nothing, what was torn, or damage.
//!
//! Records that were written together, and became durable together, are one *write*: its first line begins with `{`, those
//! that belong to it with a space. A write begins only once the one before is durable. So when the process or the machine
//! stops, at most the last write is there in part. A disk writes a *sector* whole or not at all, in any order. So of each
//! sector of that write there is what was written, or what was there before: ends of lines with which the file was filled
//! ahead, zeros where it had grown, or nothing where it ends. A sector into which was written twice before a sync may also
//! be there as it was in between, as lines and nothing after them.
//!
//! What can have come about in that way, and only that, is torn:
//!
//! 1. No line of it is sound and begins a write: what was written later tells that what is before it was durable.
//! 2. Its first line is cut where a sector begins that has nothing, or where the file ends; or it is not there at all, to the
//!    end of its sector.
//! 3. In each sector, after the first that is nothing there is nothing.
//! 4. A line that is there from its beginning to its end is sound, and one whose beginning is not there ends as lines do.
//!
//! All else is damage.

use std::io::{self, Read};

use super::{decode, line::CHECKSUM_BYTES};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remains {
    /// Ends of lines, with which the file was filled ahead.
    Nothing,
    /// What was written last, in part: so many bytes.
    Torn(u64),
    /// Something else: the line, and what is wrong.
    Damage(u64, String),
}

/// Where a line begins.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub offset: u64,
    pub line: u64,
}

impl Remains {
    /// Reads to the end, from the first line that is not sound.
    pub fn read(mut rest: impl Read, place: Place) -> io::Result<Self> {
        let Place { offset, line } = place;
        let mut reading = Reading {
            first: line,
            number: line,
            line: Vec::new(),
            begins: true,
            bytes: 0,
            written: 0,
            damage: None,
        };
        let mut piece = Vec::with_capacity(SECTOR_BYTES);
        let mut length = SECTOR_BYTES as u64 - offset % SECTOR_BYTES as u64;
        while reading.damage.is_none() {
            piece.clear();
            if rest.by_ref().take(length).read_to_end(&mut piece)? == 0 {
                break;
            }
            reading.piece(&piece);
            length = SECTOR_BYTES as u64;
        }
        Ok(reading.end())
    }
}

/// How far the remains were read.
struct Reading {
    /// The number of the first line.
    first: u64,
    /// The number of the line that is being read.
    number: u64,
    /// What was read of it.
    line: Vec<u8>,
    /// Whether that is from its beginning on.
    begins: bool,
    /// How much was read, and how much until the end of the last sector that was written to.
    bytes: u64,
    written: u64,
    damage: Option<(u64, String)>,
}

impl Reading {
    /// Takes what lies in one sector.
    fn piece(&mut self, mut piece: &[u8]) {
        self.bytes += piece.len() as u64;
        if piece.iter().any(|byte| *byte != b'\n') {
            self.written = self.bytes;
        }
        while !piece.is_empty() && self.damage.is_none() {
            let is_blank = self.begins && self.line.is_empty() && piece[0] == b'\n';
            if is_blank || is_nothing(piece) {
                return self.nothing(piece);
            }
            let end = piece.iter().position(|byte| *byte == b'\n');
            let (content, rest) = piece.split_at(end.unwrap_or(piece.len()));
            if content.contains(&0) {
                return self.damaged(self.number, "it has a zero byte");
            }
            self.line.extend_from_slice(content);
            piece = rest;
            if let Some(after) = rest.strip_prefix(b"\n") {
                self.whole_line();
                (self.number, self.begins) = (self.number + 1, true);
                self.line.clear();
                piece = after;
            }
        }
    }

    /// Takes what was not written, which is all to the end of the sector.
    fn nothing(&mut self, piece: &[u8]) {
        if !self.line.is_empty() {
            self.cut_line();
        }
        if let Some(until) = piece.iter().position(|byte| *byte != piece[0]) {
            let line = self.number + count_lines(&piece[..until]);
            self.damaged(line, "it comes after what nothing was written to");
        }
        self.number += count_lines(piece);
        self.line.clear();
        self.begins = false;
    }

    /// The line goes on where nothing was written.
    fn cut_line(&mut self) {
        if ends_like_a_line(&self.line) == Ends::Whole {
            // All that lacks is the end of the line, which is what is there.
            self.whole_line();
        } else if self.begins {
            self.check_beginning();
        }
    }

    /// The line is there to its end.
    fn whole_line(&mut self) {
        let sound = check(&self.line);
        let begins_write = self.line.first() == Some(&b'{');
        match sound {
            Ok(()) if begins_write => self.damaged(self.first, FOLLOWED),
            Err(why) if self.begins => self.damaged(self.number, &why),
            Err(why) if ends_like_a_line(&self.line) == Ends::Otherwise => {
                self.damaged(self.number, &why);
            }
            _ => {}
        }
    }

    /// Of a line that is not there to its end.
    fn check_beginning(&mut self) {
        let without_last = self.line.split_last().map_or(&[][..], |(_, rest)| rest);
        if check(without_last).is_ok() {
            self.damaged(self.number, "it does not end as lines do");
        } else if !begins_like_a_line(&self.line) {
            self.damaged(self.number, "it does not begin as lines do");
        }
    }

    /// The file ends.
    fn end(mut self) -> Remains {
        let is_whole = check(&self.line).is_ok();
        if is_whole && self.line[0] == b'{' && self.number > self.first {
            self.damaged(self.first, FOLLOWED);
        } else if !is_whole && self.begins && !self.line.is_empty() {
            self.check_beginning();
        }
        match self.damage {
            Some((line, why)) => Remains::Damage(line, why),
            None if self.written > 0 => Remains::Torn(self.written),
            None => Remains::Nothing,
        }
    }

    fn damaged(&mut self, line: u64, why: &str) {
        self.damage.get_or_insert_with(|| (line, why.to_owned()));
    }
}

const FOLLOWED: &str = "it is not whole, and what was written later follows";

fn is_nothing(piece: &[u8]) -> bool {
    let first = piece[0];
    matches!(first, b'\n' | 0) && piece.iter().all(|byte| *byte == first)
}

fn count_lines(piece: &[u8]) -> u64 {
    piece.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn check(line: &[u8]) -> Result<(), String> {
    decode::check(line.strip_prefix(b" ").unwrap_or(line))
}

fn begins_like_a_line(line: &[u8]) -> bool {
    let line = line.strip_prefix(b" ").unwrap_or(line);
    line.iter().zip(b"{\"").all(|(byte, expected)| byte == expected)
}

#[derive(PartialEq, Eq)]
enum Ends {
    /// With all that a checksum is written with, or all but one byte of that.
    Whole,
    /// In a way that the end of a checksum can have.
    InPart,
    Otherwise,
}

fn ends_like_a_line(line: &[u8]) -> Ends {
    const FRAME: &[u8; CHECKSUM_BYTES] = b",\"crc\":\"--------\"}";
    let is_like = |(byte, expected): (&u8, &u8)| match expected {
        b'-' => byte.is_ascii_hexdigit(),
        _ => byte == expected,
    };
    let likeness = line.iter().rev().zip(FRAME.iter().rev());
    let (compared, alike) = (likeness.len(), likeness.filter(|pair| is_like(*pair)).count());
    match compared {
        CHECKSUM_BYTES if alike + 1 >= CHECKSUM_BYTES => Ends::Whole,
        _ if alike == compared => Ends::InPart,
        _ => Ends::Otherwise,
    }
}
