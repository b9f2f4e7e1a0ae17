//! How much room is left on the disk of the data folder.
//!
//! What it does not know: what the room is for.

use std::io;
use std::path::Path;

use jizoku_types::ByteCount;

/// Bytes that the agent's user could still write where `path` is.
pub fn free_at(path: &Path) -> io::Result<ByteCount> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(ByteCount(stat.f_bavail.saturating_mul(stat.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_some_room_where_tests_run() {
        assert!(free_at(&std::env::temp_dir()).unwrap() > ByteCount(0));
        assert!(free_at(Path::new("/no/such/folder")).is_err());
    }
}
