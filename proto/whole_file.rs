//! A file that is there whole or not at all.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// What is written stands beside the file, in one that ends with `.tmp`, until it is [finished](WholeFile::finish);
/// unless it is, nothing is left of it.
#[derive(Debug)]
pub struct WholeFile {
    file: File,
    /// Nothing can take the place of a pipe or a terminal.
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    temporary: PathBuf,
}

impl WholeFile {
    /// Begins a file, which only its owner can read, or as whoever could read the one in its place. What is there and is
    /// no file, such as `/dev/stdout`, is written straight into.
    ///
    /// # Errors
    /// What the system says; and if the same file is being written already.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let found = match fs::metadata(path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let path = match &found {
            Some(found) if !found.is_file() => {
                let file = OpenOptions::new().write(true).open(path)?;
                return Ok(Self { file, place: None });
            }
            // A link stays, and leads to the new file.
            Some(_) => fs::canonicalize(path)?,
            None => path.to_owned(),
        };
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = open(&temporary)?;
        let whole = Self { file, place: Some(Place { path, temporary }) };
        if let Some(found) = found {
            whole.file.set_permissions(found.permissions())?;
        }
        Ok(whole)
    }

    /// Where to write.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts what was written in its place, for good when this returns.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(mut self) -> io::Result<()> {
        let Some(place) = &self.place else {
            return Ok(());
        };
        self.file.sync_all()?;
        fs::rename(&place.temporary, &place.path)?;
        let synced = sync_directory_of(&place.path);
        self.place = None;
        synced
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            // What stays is written over the next time.
            let _ = fs::remove_file(&place.temporary);
        }
    }
}

/// Opens a file that may be left from before, unless another process has it.
fn open(temporary: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", temporary.display()))
    };
    let file = options.open(temporary).map_err(named)?;
    let is_taken = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
    // The other may have finished it before it was locked here.
    if is_taken || !temporary.exists() {
        return Err(named(io::Error::new(io::ErrorKind::ResourceBusy, "another is writing it")));
    }
    file.set_len(0).map_err(named)?;
    Ok(file)
}

/// Without that a rename may not last.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn write(whole: &WholeFile) {
        whole.file().write_all(b"new").expect("it can be written");
    }

    fn names(directory: &Path) -> Vec<String> {
        let files = fs::read_dir(directory).expect("it is there");
        let name = |file: io::Result<fs::DirEntry>| file.expect("it is there").file_name();
        let mut names: Vec<_> =
            files.map(|file| name(file).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_former_file_is_there_until_the_new_one_is_whole() {
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().join("a");
        fs::write(&path, "old").expect("there is room");
        let read = || fs::read_to_string(&path).expect("it is there");
        let given_up = WholeFile::create(&path).expect("it can be made");
        write(&given_up);
        assert_eq!(read(), "old");
        drop(given_up);
        assert_eq!((read().as_str(), names(directory.path())), ("old", vec!["a".to_owned()]));
        let whole = WholeFile::create(&path).expect("it can be made");
        write(&whole);
        assert_eq!(read(), "old");
        whole.finish().expect("it takes its place");
        assert_eq!((read().as_str(), names(directory.path())), ("new", vec!["a".to_owned()]));
    }

    #[test]
    fn what_a_killed_process_left_is_written_over_but_not_what_another_writes() {
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().join("a");
        fs::write(directory.path().join("a.tmp"), "longer than what is new")
            .expect("there is room");
        let whole = WholeFile::create(&path).expect("it can be made");
        write(&whole);
        let refused = WholeFile::create(&path).expect_err("it is being written");
        assert!(refused.to_string().ends_with("a.tmp: another is writing it"), "{refused}");
        whole.finish().expect("it takes its place");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "new");
    }

    #[cfg(unix)]
    #[test]
    fn links_and_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};

        let directory = tempfile::tempdir().expect("there is room");
        let [path, link] = ["a", "link"].map(|name| directory.path().join(name));
        let mode = || fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        let make = |path: &Path| {
            let whole = WholeFile::create(path).expect("it can be made");
            write(&whole);
            whole.finish().expect("it takes its place");
        };
        make(&path);
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
        symlink("a", &link).expect("there is room");
        make(&link);
        assert_eq!(
            (mode(), names(directory.path())),
            (0o644, vec!["a".to_owned(), "link".to_owned()])
        );
        assert!(link.is_symlink());
    }
}
