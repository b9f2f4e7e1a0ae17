//! As whom the agent runs other people's commands: never as root, unless they say so.
//!
//! What it does not know: what is run.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

/// As whom a program runs where the agent is root and the manifest names nobody.
pub(crate) const UNPRIVILEGED: &str = "nobody";
/// Largest list of users that is read.
const USERS_MAX: u64 = 16 << 20;

/// Whether this process may become any user.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// User and group of what the manifest wants run as `wanted`; none: as the agent itself. An error
/// says why it can't be run.
pub(crate) fn ids_of(wanted: Option<&str>) -> Result<Option<(u32, u32)>, String> {
    if !is_root() {
        return Ok(None);
    }
    let name = wanted.unwrap_or(UNPRIVILEGED);
    let mut users = String::new();
    fs::File::open("/etc/passwd")
        .and_then(|file| file.take(USERS_MAX).read_to_string(&mut users))
        .map_err(|cause| format!("can't read the users: {cause}"))?;
    let found = find(&users, name);
    found.map(Some).ok_or_else(|| format!("there is no user `{name}` in /etc/passwd on this node"))
}

/// What the user with this number is called here; the number, if nobody has it.
pub(crate) fn called(uid: Option<u32>) -> String {
    let Some(uid) = uid else { return "somebody".into() };
    let mut users = String::new();
    let read = fs::File::open("/etc/passwd")
        .and_then(|file| file.take(USERS_MAX).read_to_string(&mut users));
    match read {
        Ok(_) => name_of(&users, uid),
        Err(_) => uid.to_string(),
    }
}

/// The name of a user in a list of users, or its number.
pub(crate) fn name_of(users: &str, uid: u32) -> String {
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_string())
    });
    named.unwrap_or_else(|| uid.to_string())
}

/// See passwd(5).
fn find(users: &str, name: &str) -> Option<(u32, u32)> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let mut ids = fields.skip(1).map(|id| id.parse().ok());
        Some((ids.next()??, ids.next()??))
    })
}

#[cfg(test)]
mod tests {
    use super::{find, name_of};

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\nno:x:1:2::/:\nnobody:x:65534:65533::/:\n";
        assert_eq!(find(users, "nobody"), Some((65534, 65533)));
        assert_eq!(find(users, "no"), Some((1, 2)));
        assert_eq!(find(users, "nob"), None);
        assert_eq!(name_of(users, 1), "no");
        assert_eq!(name_of(users, 7), "7");
        assert_eq!(find("broken:x:one:2", "broken"), None);
    }
}
