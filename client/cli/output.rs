//! Where results go.

use std::{
    fmt::Display,
    io::{self, BufWriter, Stdout, Write as _},
};

use serde::Serialize;

use crate::{args::Format, failure::Failure};

/// The standard output in the form asked for, and remarks on standard error.
pub struct Output {
    format: Format,
    stdout: BufWriter<Stdout>,
}

impl Output {
    pub fn new(format: Format) -> Self {
        Self { format, stdout: BufWriter::new(io::stdout()) }
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints a result: its JSON or its text, and a line break.
    pub fn print(&mut self, result: &(impl Serialize + Display)) -> Result<(), Failure> {
        match self.format {
            Format::Text => writeln!(self.stdout, "{result}").map_err(Failure::Output),
            Format::Json => self.json(result),
        }
    }

    /// Prints a line of text.
    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.stdout, "{line}").map_err(Failure::Output)
    }

    /// Prints a line of JSON.
    pub fn json(&mut self, result: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.stdout, result)
            .map_err(|error| Failure::Output(error.into()))?;
        self.bytes(b"\n")
    }

    /// Prints a line of JSON on standard error, where the standard output belongs to others.
    pub fn json_error(&self, result: &impl Serialize) {
        // Where standard error is closed there is nobody to tell.
        let _ = serde_json::to_string(result).map(|line| writeln!(io::stderr(), "{line}"));
    }

    /// Prints bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stdout.write_all(bytes).map_err(Failure::Output)
    }

    /// Shows what has been printed.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(Failure::Output)
    }

    /// Tells people something that is not the result; programs find it in the JSON.
    pub fn remark(&mut self, remark: impl Display) -> Result<(), Failure> {
        if self.format == Format::Text {
            // In the order of the results where both go to one terminal.
            self.flush()?;
            let _ = writeln!(io::stderr(), "holdfast: {remark}");
        }
        Ok(())
    }
}
