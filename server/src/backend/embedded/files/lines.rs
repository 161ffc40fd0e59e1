//! Lines of files, one at a time.

use std::{
    io::{BufRead as _, BufReader, Read},
    path::PathBuf,
};

use super::{
    decode,
    layer::FileLayer,
    line::{FORMAT, Header},
    load::{damaged, io_error},
    remains::{Place, Remains},
};
use crate::backend::embedded::journal::LoadError;

const READ_BYTES: usize = 1 << 20;

/// The lines of a file.
pub struct Lines {
    pub path: PathBuf,
    reader: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    /// The number of the line, from 1.
    pub number: u64,
    /// Where it begins and ends.
    pub start: u64,
    pub end: u64,
}

impl Lines {
    pub fn open(layer: &dyn FileLayer, path: PathBuf) -> Result<Self, LoadError> {
        let file = layer.read(&path).map_err(|error| io_error(&path, error))?;
        let reader = BufReader::with_capacity(READ_BYTES, file);
        Ok(Self { path, reader, line: Vec::new(), number: 0, start: 0, end: 0 })
    }

    /// Reads the next line; answers whether there is one.
    pub fn next(&mut self) -> Result<bool, LoadError> {
        self.line.clear();
        let read = self.reader.read_until(b'\n', &mut self.line);
        let bytes = read.map_err(|error| io_error(&self.path, error))?;
        self.start = self.end;
        self.end += bytes as u64;
        self.number += u64::from(bytes > 0);
        Ok(bytes > 0)
    }

    /// Goes on to the next line that is not blank; answers whether there is one.
    pub fn next_with_content(&mut self) -> Result<bool, LoadError> {
        loop {
            let buffer = self.reader.fill_buf().map_err(|error| io_error(&self.path, error))?;
            let blank = buffer.iter().take_while(|byte| **byte == b'\n').count();
            if blank == 0 {
                return self.next();
            }
            self.reader.consume(blank);
            self.end += blank as u64;
            self.number += blank as u64;
        }
    }

    /// The line without its end, and without the mark of what was written together with the line before.
    pub fn content(&self) -> &[u8] {
        let content = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        content.strip_prefix(b" ").unwrap_or(content)
    }

    pub fn check(&self) -> Result<(), String> {
        if self.line.ends_with(b"\n") {
            decode::check(self.content())
        } else {
            Err("it is not whole".into())
        }
    }

    /// What the file has from this line on, which is not a sound one. Nothing is read after that.
    pub fn remains(&mut self) -> Result<Remains, LoadError> {
        let place = Place { offset: self.start, line: self.number.max(1) };
        let rest = self.line.as_slice().chain(&mut self.reader);
        Remains::read(rest, place).map_err(|error| io_error(&self.path, error))
    }

    pub fn header(
        &self,
        kind: &str,
        number: u64,
        advice: &'static str,
    ) -> Result<Header, LoadError> {
        let (format, header) =
            decode::header(self.content(), kind).map_err(|why| self.damaged_at(1, why, advice))?;
        if format != FORMAT {
            let place = self.path.display().to_string();
            return Err(LoadError::Format { place, found: format, known: FORMAT });
        }
        if header.number != number {
            let why = format!("it says that its number is {}", header.number);
            return Err(self.damaged_at(1, why, advice));
        }
        Ok(header)
    }

    /// That the line is damaged.
    pub fn damaged(&self, why: String, advice: &str) -> LoadError {
        self.damaged_at(self.number, why, advice)
    }

    pub fn damaged_at(&self, line: u64, why: String, advice: &str) -> LoadError {
        damaged(&self.path, line, why, advice)
    }
}
