//! The file system, as far as journals need it.
//!
//! It is a trait so that tests can put one in its place that fails, tears writes, or loses what was not synced.

use std::{
    any::Any,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek as _, SeekFrom, Write as _},
    path::Path,
};

/// What a journal does with files.
pub trait FileLayer: Send + Sync {
    /// Makes a directory, and those above it, if it is not there.
    fn make_directory(&self, path: &Path) -> io::Result<()>;

    /// The names of the files in a directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Reads a file from its beginning.
    fn read(&self, path: &Path) -> io::Result<Box<dyn Read + Send>>;

    /// A new file, or one that is emptied first.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>>;

    /// A file that is there, to be written to at its end.
    fn append(&self, path: &Path) -> io::Result<Box<dyn Output>>;

    /// Gives a file another name, in one step; a file that has that is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes durable which files a directory has.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// Takes a lock for as long as the guard lives, and leaves `text` in the file for others to read. `Err` inside: what
    /// the one who has it left there.
    fn lock(&self, path: &Path, text: &str) -> io::Result<Result<Box<dyn Any + Send>, String>>;
}

/// A file that is written from one place on, at first its end.
pub trait Output: Send {
    /// Writes all bytes, and goes on after them. After an error, some of them may have been written.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Goes to another place in the file.
    fn go_to(&mut self, offset: u64) -> io::Result<()>;

    /// Makes durable what was written.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file, and goes to its end.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// The mode of files; directories can be entered by whoever can read them.
    pub permissions: u32,
}

impl Disk {
    fn options(self) -> OpenOptions {
        let mut options = OpenOptions::new();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, self.permissions);
        options
    }
}

impl FileLayer for Disk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        {
            let readable = self.permissions & 0o444;
            let mode = self.permissions | readable >> 2;
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, mode);
        }
        builder.create(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().ok());
        fs::read_dir(directory)?.map(name).filter_map(Result::transpose).collect()
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        Ok(Box::new(self.options().write(true).create(true).truncate(true).open(path)?))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        let mut file = self.options().write(true).open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn lock(&self, path: &Path, text: &str) -> io::Result<Result<Box<dyn Any + Send>, String>> {
        let mut file =
            self.options().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                file.read_to_string(&mut owner)?;
                return Ok(Err(owner));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(text.as_bytes())?;
        Ok(Ok(Box::new(file)))
    }
}

impl Output for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn go_to(&mut self, offset: u64) -> io::Result<()> {
        self.seek(SeekFrom::Start(offset)).map(drop)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.go_to(length)
    }
}
