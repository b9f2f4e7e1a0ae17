//! The data folder: its lock, its layout, its small files.
//!
//! What it does not know: what the small files hold.
//!
//! Invariants
//! - One agent at a time: the lock is the system's, so it ends with the process that holds it.
//! - The folder is 0700 and every file in it 0600.
//! - The incarnation only grows. If its file is damaged the node can't know what it was before,
//!   and must not start: it has to join as a new one.
//!
//! All calls block on the disk; they are made when an agent starts, or by commands.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jizoku_types::Incarnation;

use crate::small::{self, SmallError};

/// The number of the folder's layout.
pub const FOLDER_FORMAT: u32 = 1;
/// Damaged things that are kept; the oldest are deleted when there are more.
pub const QUARANTINE_MAX: usize = 8;
/// What is left to do when a node's own files are damaged.
pub(crate) const JOIN_ANEW: &str =
    "the node can't go on as it was: remove the folder and join as a new one";

/// An open data folder. Closing it lets another agent use it.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// Held while this lives.
    _lock: File,
}

/// One of the folder's small files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Small {
    /// To which cluster the node belongs.
    Cluster,
    /// The members as they were last known: how to find the others.
    Members,
}

impl Small {
    fn name(self) -> &'static str {
        match self {
            Small::Cluster => "cluster",
            Small::Members => "members",
        }
    }
}

/// Why a data folder can't be used. Nothing in it was changed.
#[derive(Debug)]
pub enum FolderError {
    /// The system refused.
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another agent uses it.
    Locked {
        /// Which folder.
        path: PathBuf,
    },
    /// It is somebody's folder, but not a data folder.
    NotEmpty {
        /// Which folder.
        path: PathBuf,
    },
    /// A newer build made it.
    NewerFormat {
        /// Which folder.
        path: PathBuf,
        /// Its format; this build knows [`FOLDER_FORMAT`].
        found: u32,
    },
    /// A small file is damaged or of a newer format.
    Small(SmallError),
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FolderError::Io { path, cause } => write!(f, "{}: {cause}", path.display()),
            FolderError::Locked { path } => {
                write!(f, "{}: another agent uses this folder", path.display())
            }
            FolderError::NotEmpty { path } => write!(
                f,
                "{}: has other files in it; a new data folder must be empty",
                path.display()
            ),
            FolderError::NewerFormat { path, found } => write!(
                f,
                "{}: has format {found}, this build reads up to {FOLDER_FORMAT}: \
                 use a newer jizoku",
                path.display()
            ),
            FolderError::Small(error) => write!(f, "{error}; {JOIN_ANEW}"),
        }
    }
}

impl std::error::Error for FolderError {}

impl DataFolder {
    /// Opens the folder, after making it if it isn't there.
    pub fn open(path: &Path) -> Result<DataFolder, FolderError> {
        let io_error = |cause| FolderError::Io { path: path.to_owned(), cause };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(io_error)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io_error)?;
        let format_file = path.join("format");
        if !format_file.exists() && !is_fresh(path).map_err(io_error)? {
            return Err(FolderError::NotEmpty { path: path.to_owned() });
        }
        let lock = take_lock(path)?;
        match read_format(&format_file).map_err(io_error)? {
            None => {
                let text = format!("{FOLDER_FORMAT}\n");
                small::replace(&format_file, text.as_bytes()).map_err(io_error)?;
            }
            Some(found) if found > FOLDER_FORMAT => {
                return Err(FolderError::NewerFormat { path: path.to_owned(), found });
            }
            Some(_) => {}
        }
        let folder = DataFolder { path: path.to_owned(), _lock: lock };
        for name in ["consensus", "state", "blobs", "quarantine"] {
            folder.make(name)?;
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the operator's `config.toml` is, or would be.
    pub fn config_path(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// Where the node's secret key is, or would be. Who makes it keeps it 0600.
    pub fn key_path(&self) -> PathBuf {
        self.path.join("key")
    }

    /// Replaces `config.toml`.
    pub fn write_config(&self, text: &str) -> Result<(), FolderError> {
        let path = self.config_path();
        small::replace(&path, text.as_bytes()).map_err(|cause| FolderError::Io { path, cause })
    }

    /// Reads a small file; `None` if it was never written.
    pub fn read(&self, file: Small) -> Result<Option<Vec<u8>>, FolderError> {
        small::read(&self.path.join(file.name())).map_err(FolderError::Small)
    }

    /// Replaces a small file: after a crash it is the old one or the new one.
    ///
    /// # Panics
    /// If `content` is longer than [`small::SMALL_MAX`].
    pub fn write(&self, file: Small, content: &[u8]) -> Result<(), FolderError> {
        let path = self.path.join(file.name());
        small::write(&path, content).map_err(|cause| FolderError::Io { path, cause })
    }

    /// Forgets a small file; nothing happens if it isn't there.
    pub fn forget(&self, file: Small) -> Result<(), FolderError> {
        let path = self.path.join(file.name());
        match fs::remove_file(&path).and_then(|()| small::flush_folder(&path)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(FolderError::Io { path, cause })
            }
            _ => Ok(()),
        }
    }

    /// Counts one start of an agent, and gives its number: 1 for the first. It is on the disk
    /// before this returns.
    pub fn next_incarnation(&self) -> Result<Incarnation, FolderError> {
        let path = self.path.join("incarnation");
        let before = match small::read(&path).map_err(FolderError::Small)? {
            None => 0,
            Some(bytes) => {
                let bytes = bytes
                    .try_into()
                    .map_err(|_| FolderError::Small(SmallError::Damaged { file: path.clone() }))?;
                u64::from_le_bytes(bytes)
            }
        };
        let next = before.checked_add(1).expect("no node is started so often");
        small::write(&path, &next.to_le_bytes())
            .map_err(|cause| FolderError::Io { path, cause })?;
        Ok(Incarnation(next))
    }

    /// Where the consensus journal is.
    pub(crate) fn consensus_path(&self) -> PathBuf {
        self.path.join("consensus").join("journal")
    }

    pub(crate) fn state_path(&self) -> PathBuf {
        self.path.join("state")
    }

    pub(crate) fn blobs_path(&self) -> PathBuf {
        self.path.join("blobs")
    }

    pub(crate) fn quarantine_path(&self) -> PathBuf {
        self.path.join("quarantine")
    }

    fn make(&self, name: &str) -> Result<(), FolderError> {
        let path = self.path.join(name);
        let made = make_folder(&path);
        made.map_err(|cause| FolderError::Io { path, cause })
    }
}

/// Makes a folder that only its owner can enter, if it isn't there.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => small::flush_folder(path),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(cause) => Err(cause),
    }
}

/// Moves something damaged aside, under a name that isn't taken, and gives its new place.
pub(crate) fn quarantine(aside: &Path, damaged: &Path) -> io::Result<PathBuf> {
    let name = damaged.file_name().expect("it has a name").to_string_lossy().into_owned();
    let mut kept: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(aside)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| {
            name.to_string_lossy().split_once('-').and_then(|(number, _)| number.parse().ok())
        });
        kept.extend(number.map(|number| (number, path)));
    }
    kept.sort();
    let number = kept.last().map_or(1, |(number, _)| number.saturating_add(1));
    let place = aside.join(format!("{number}-{name}"));
    fs::rename(damaged, &place)?;
    small::flush_folder(damaged)?;
    let surplus = (kept.len() + 1).saturating_sub(QUARANTINE_MAX);
    for (_, old) in kept.iter().take(surplus) {
        // Only room is at stake: the next time tries again.
        let _ = if old.is_dir() { fs::remove_dir_all(old) } else { fs::remove_file(old) };
    }
    Ok(place)
}

fn take_lock(path: &Path) -> Result<File, FolderError> {
    let file = path.join("lock");
    let io_error = |cause| FolderError::Io { path: file.clone(), cause };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(&file).map_err(io_error)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(FolderError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(cause)) => Err(io_error(cause)),
    }
}

/// Whether nothing is in the folder that a first start would not have put there: `config.toml`
/// may be prepared, and a start may have been interrupted.
fn is_fresh(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let ours = ["config.toml", "lock", "format.new", "lost+found"];
        if !ours.iter().any(|known| name == *known) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn read_format(path: &Path) -> io::Result<Option<u32>> {
    match fs::read_to_string(path) {
        Ok(text) => match text.trim().parse() {
            Ok(format) => Ok(Some(format)),
            Err(_) => Err(io::Error::other("the file `format` doesn't hold a number")),
        },
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_folder_is_made_and_only_its_owner_can_enter() {
        let scratch = Scratch::new();
        let path = scratch.path().join("deep/data");
        let folder = DataFolder::open(&path).unwrap();
        folder.write(Small::Members, b"some").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("members")), 0o600);
        assert_eq!(mode(&path.join("state")), 0o700);
        drop(folder);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        DataFolder::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn two_agents_cannot_use_one_folder() {
        let scratch = Scratch::new();
        let first = DataFolder::open(scratch.path()).unwrap();
        let second = DataFolder::open(scratch.path()).unwrap_err();
        assert!(second.to_string().ends_with("another agent uses this folder"));
        drop(first);
        DataFolder::open(scratch.path()).unwrap();
    }

    #[test]
    fn a_newer_layout_and_other_peoples_folders_are_refused() {
        let scratch = Scratch::new();
        fs::write(scratch.path().join("thesis.txt"), "x").unwrap();
        let error = DataFolder::open(scratch.path()).unwrap_err();
        assert!(matches!(error, FolderError::NotEmpty { .. }), "{error}");
        fs::remove_file(scratch.path().join("thesis.txt")).unwrap();
        fs::write(scratch.path().join("config.toml"), "").unwrap();
        drop(DataFolder::open(scratch.path()).unwrap());
        fs::write(scratch.path().join("format"), "2\n").unwrap();
        let error = DataFolder::open(scratch.path()).unwrap_err();
        assert!(matches!(error, FolderError::NewerFormat { found: 2, .. }), "{error}");
        fs::write(scratch.path().join("format"), "what\n").unwrap();
        assert!(matches!(DataFolder::open(scratch.path()), Err(FolderError::Io { .. })));
    }

    #[test]
    fn incarnations_grow_and_never_go_back() {
        let scratch = Scratch::new();
        for expected in 1..4 {
            let folder = DataFolder::open(scratch.path()).unwrap();
            assert_eq!(folder.next_incarnation().unwrap(), Incarnation(expected));
        }
        let folder = DataFolder::open(scratch.path()).unwrap();
        let file = scratch.path().join("incarnation");
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, &bytes).unwrap();
        let error = folder.next_incarnation().unwrap_err();
        assert!(error.to_string().ends_with("join as a new one"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }

    #[test]
    fn small_files_are_kept_and_forgotten() {
        let scratch = Scratch::new();
        let folder = DataFolder::open(scratch.path()).unwrap();
        assert_eq!(folder.read(Small::Cluster).unwrap(), None);
        folder.write(Small::Cluster, b"abc").unwrap();
        assert_eq!(folder.read(Small::Cluster).unwrap().unwrap(), b"abc");
        folder.forget(Small::Cluster).unwrap();
        folder.forget(Small::Cluster).unwrap();
        assert_eq!(folder.read(Small::Cluster).unwrap(), None);
        folder.write_config("name = \"a\"\n").unwrap();
        assert_eq!(fs::read_to_string(folder.config_path()).unwrap(), "name = \"a\"\n");
    }

    #[test]
    fn the_newest_damaged_things_are_kept() {
        let scratch = Scratch::new();
        let folder = DataFolder::open(scratch.path()).unwrap();
        let aside = folder.quarantine_path();
        for number in 0..QUARANTINE_MAX + 3 {
            let damaged = scratch.path().join("state/svc_7");
            make_folder(&damaged).unwrap();
            fs::write(damaged.join("journal"), number.to_string()).unwrap();
            let place = quarantine(&aside, &damaged).unwrap();
            assert!(place.join("journal").exists() && !damaged.exists());
        }
        let names: Vec<_> = fs::read_dir(&aside).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), QUARANTINE_MAX);
        assert!(names.iter().any(|name| name == "11-svc_7"));
        assert!(!names.iter().any(|name| name == "1-svc_7"));
    }
}
