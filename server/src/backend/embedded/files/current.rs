//! The journal that is written to.

use std::io;

use super::{ahead::Prepared, layer::Output};
use crate::backend::embedded::journal::AppendError;

/// The journal that is written to.
pub struct Current {
    file: Box<dyn Output>,
    pub number: u64,
    /// How long it is, with all that was appended.
    pub length: u64,
    /// How much of it is durable.
    synced: u64,
    /// Up to where it is filled, with blank lines after what was appended; 0: it ends there.
    filled: u64,
    pub condition: Condition,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It can be appended to.
    Fit,
    /// It could not take so many bytes, but is as it was before.
    Full(usize),
    /// Nobody knows what is in it.
    Abandoned,
}

impl Current {
    /// One that ends with what was appended, so far.
    pub fn new(file: Box<dyn Output>, number: u64, length: u64) -> Self {
        Self { file, number, length, synced: length, filled: 0, condition: Condition::Fit }
    }

    /// One that was filled.
    pub fn prepared(prepared: Prepared) -> Self {
        let Prepared { file, number, length, filled } = prepared;
        Self { filled, ..Self::new(file, number, length) }
    }

    /// Whether something was appended that may not be durable.
    pub fn is_unsynced(&self) -> bool {
        self.synced < self.length
    }

    /// Whether so much can be written without making it longer.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.length + bytes as u64 <= self.filled
    }

    /// How much has been appended at the half of what it was filled with.
    pub fn half(&self) -> u64 {
        self.filled / 2
    }

    /// Writes after what was appended. What is written in part is cut off again.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        let Err(error) = self.file.write(bytes) else {
            self.length += bytes.len() as u64;
            return Ok(());
        };
        match self.cut() {
            Ok(()) => {
                self.condition = Condition::Full(bytes.len());
                Err(AppendError::NotKept(format!("the journal cannot be written: {error}")))
            }
            Err(also) => {
                self.condition = Condition::Abandoned;
                Err(AppendError::Unknown(format!(
                    "the journal cannot be written: {error}; nor what was written be cut off: {also}"
                )))
            }
        }
    }

    /// Cuts off what is after the last write that succeeded.
    fn cut(&mut self) -> io::Result<()> {
        self.filled = 0;
        self.file.truncate(self.length)?;
        self.file.sync()?;
        self.synced = self.length;
        Ok(())
    }

    /// Makes it durable. After a failure nobody knows what of it is: the system may say the next time that all is well,
    /// though what it could not write is lost. So the file is abandoned.
    pub fn sync(&mut self) -> Result<(), AppendError> {
        self.file.sync().map_err(|error| {
            self.condition = Condition::Abandoned;
            AppendError::Unknown(format!("the journal cannot be made durable: {error}"))
        })?;
        self.synced = self.length;
        Ok(())
    }

    /// Cuts off what could not be made durable, as far as the system lets it.
    pub fn cut_unsynced(&mut self) {
        let _ = self.file.truncate(self.synced);
    }

    /// Gives back what is not used of what it was filled with. If that cannot be done, blank lines stay.
    pub fn trim(&mut self) {
        if self.condition == Condition::Fit && self.filled > self.length {
            self.filled = 0;
            let _ = self.file.truncate(self.length);
        }
    }
}
