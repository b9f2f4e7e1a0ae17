//! Compiled code on disk: an agent that starts again needs not compile what it had compiled, and
//! can go on with a service at once.
//!
//! A file is named by its module's hash, and begins with a BLAKE3 hash of that and of the code.
//!
//! What it does not know: who uses the code; where the folder is and who else may write there.
//!
//! Invariants
//! - Code that is damaged, or made by another version of wasmtime or for another machine, is not
//!   used: it is compiled anew, and replaced.
//! - That nothing can be kept is no reason not to run.
//!
//! Limit: [`FILES_MAX`] files; the oldest go first.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use wasmtime::{Engine, Module};

/// Files that are kept.
const FILES_MAX: usize = 64;
/// Length of what a file begins with.
const SUM: usize = 32;

/// Makes the folder if it isn't there, and makes sure that it is this process's user's alone.
pub(crate) fn make_private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let (found, own) = (fs::metadata(folder)?, fs::metadata("/proc/self")?);
    if found.uid() != own.uid() || found.mode() & 0o077 != 0 {
        let why = format!("{} must be its owner's alone (mode 0700)", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

/// The code of the module with this hash, if it was kept and can be used.
///
/// # Safety
/// Nobody but the user of this process may be able to write into `folder`: the code is run.
pub(crate) unsafe fn read(engine: &Engine, folder: &Path, hash: &[u8; 32]) -> Option<Module> {
    let bytes = fs::read(place(folder, hash)).ok()?;
    let (sum, code) = bytes.split_at_checked(SUM)?;
    if sum != checksum(hash, code) {
        return None;
    }
    // SAFETY: these bytes were made by `Module::serialize` in `write`: the checksum says that they
    // are whole and belong to this module, and the caller that nobody else wrote them. Whether
    // they fit this engine is checked by wasmtime.
    unsafe { Module::deserialize(engine, code) }.ok()
}

/// Keeps a module's code, if that is possible.
pub(crate) fn write(folder: &Path, hash: &[u8; 32], module: &Module) {
    let Ok(code) = module.serialize() else { return };
    let mut bytes = checksum(hash, &code).to_vec();
    bytes.extend_from_slice(&code);
    // What fails here is done again at the next start. No flush: damage is found.
    let _ = put(folder, hash, &bytes);
}

fn put(folder: &Path, hash: &[u8; 32], bytes: &[u8]) -> io::Result<()> {
    let file = place(folder, hash);
    let new = file.with_extension("new");
    fs::write(&new, bytes)?;
    fs::rename(&new, &file)?;
    let mut all: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        all.push((entry.metadata()?.modified()?, entry.path()));
    }
    all.sort();
    all.iter()
        .take(all.len().saturating_sub(FILES_MAX))
        .try_for_each(|(_, path)| fs::remove_file(path))
}

fn place(folder: &Path, hash: &[u8; 32]) -> PathBuf {
    folder.join(blake3::Hash::from_bytes(*hash).to_hex().as_str())
}

fn checksum(hash: &[u8; 32], code: &[u8]) -> [u8; SUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(hash);
    hasher.update(code);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn whole_code_is_used_and_damaged_or_foreign_code_is_not() {
        let own = format!("jizoku-kept-{}", std::process::id());
        let folder = std::env::temp_dir().join(own);
        let engine = Engine::default();
        let bytes = wat::parse_str("(module (func (export \"f\")))").expect("it is right");
        let module = Module::from_binary(&engine, &bytes).expect("it can be compiled");
        let (hash, other) = ([1; 32], [2; 32]);
        // SAFETY: the folder is this test's own.
        let known = |hash: &[u8; 32]| unsafe { read(&engine, &folder, hash) }.is_some();
        make_private(&folder).expect("a folder can be made");
        assert!(!known(&hash));
        write(&folder, &hash, &module);
        assert!(known(&hash));
        fs::copy(place(&folder, &hash), place(&folder, &other)).expect("a copy");
        assert!(!known(&other), "it belongs to another module");
        let whole = fs::read(place(&folder, &hash)).expect("a file");
        for bad in [&whole[..0], &whole[..SUM], &whole[..whole.len() - 1]] {
            fs::write(place(&folder, &hash), bad).expect("a file");
            assert!(!known(&hash));
        }
        let mut bad = whole.clone();
        *bad.last_mut().expect("it is long") ^= 1;
        fs::write(place(&folder, &hash), bad).expect("a file");
        assert!(!known(&hash));
        write(&folder, &hash, &module);
        assert!(known(&hash));
        for n in 0..u8::try_from(FILES_MAX).expect("few") {
            write(&folder, &[n; 32], &module);
        }
        let left = fs::read_dir(&folder).expect("a folder").count();
        assert_eq!(left, FILES_MAX);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).expect("it is ours");
        assert!(make_private(&folder).is_err(), "others may write there");
        fs::remove_dir_all(&folder).expect("it is there");
    }
}
