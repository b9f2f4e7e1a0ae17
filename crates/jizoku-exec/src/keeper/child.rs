//! Starting the program: as whom, with which limits, with nothing inherited.
//!
//! What it does not know: what happens to it afterwards.
//!
//! Invariants
//! - A program never runs as root unless its manifest says so.
//! - It can't gain rights by running a set-uid program, and it dies when the keeper does.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getpid, getppid, getrlimit, set_parent_process_death_signal,
    setrlimit, setsid,
};
use rustix::thread::set_no_new_privs;

use crate::message::Start;

/// Files and connections that a program may have open, if the system lets it.
const OPEN_FILES_MAX: u64 = 65_536;
/// Largest list of users that is read.
const USERS_MAX: u64 = 16 << 20;

/// Starts the program; an error says why not, for people.
pub(super) fn start(start: &Start) -> Result<Pid, String> {
    let (program, args) = start.command.split_first().ok_or("no command")?;
    let user = user_of(start.user.as_deref())?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(&start.env).current_dir(&start.folder);
    // Output and errors go where the keeper's own go: into the agent's pipes.
    command.stdin(Stdio::null()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    if let Some((uid, gid)) = user {
        command.gid(gid).uid(uid);
    }
    let keeper = getpid();
    let hard = getrlimit(Resource::Nofile).maximum;
    let files = hard.map_or(OPEN_FILES_MAX, |hard| hard.min(OPEN_FILES_MAX));
    let restrict = move || -> io::Result<()> {
        setsid()?;
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: hard })?;
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        set_no_new_privs(true)?;
        // After the change of user, which would undo it.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The keeper may have died before that.
        if getppid() == Some(keeper) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    // SAFETY: between fork and exec the closure makes system calls only; it takes no lock and no
    // memory, and the process had one thread.
    unsafe { command.pre_exec(restrict) };
    let child = command.spawn().map_err(|cause| format!("can't run `{program}`: {cause}"))?;
    // From here on the process is known by its number; the tree reaps it.
    Pid::from_raw(child.id().cast_signed()).ok_or_else(|| "the program has no number".to_owned())
}

/// User and group to change to; none: stay who we are.
fn user_of(wanted: Option<&str>) -> Result<Option<(u32, u32)>, String> {
    let own = rustix::process::geteuid();
    let Some(name) = wanted else {
        if own.is_root() {
            let hint = "name another user in the manifest (user = \"root\" allows it)";
            return Err(format!("it would run as root: {hint}"));
        }
        return Ok(None);
    };
    let users = read_users().map_err(|cause| format!("can't read the users: {cause}"))?;
    let (uid, gid) = find_user(&users, name)
        .ok_or_else(|| format!("there is no user `{name}` in /etc/passwd on this node"))?;
    match own.is_root() {
        true => Ok(Some((uid, gid))),
        false if uid == own.as_raw() => Ok(None),
        false => Err(format!("only an agent that runs as root can run a program as `{name}`")),
    }
}

fn read_users() -> io::Result<String> {
    use std::io::Read;
    let mut users = Vec::new();
    std::fs::File::open("/etc/passwd")?.take(USERS_MAX).read_to_end(&mut users)?;
    Ok(String::from_utf8_lossy(&users).into_owned())
}

fn find_user(users: &str, name: &str) -> Option<(u32, u32)> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        found.then_some((uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbad line\nkv:x:12:34::/:/bin/false\n";
        assert_eq!(find_user(users, "kv"), Some((12, 34)));
        assert_eq!(find_user(users, "k"), None);
        assert_eq!(find_user(users, "bad line"), None);
        assert_eq!(find_user(users, ""), None);
    }

    #[test]
    fn nobody_becomes_root_by_saying_nothing() {
        let root = rustix::process::geteuid().is_root();
        assert_eq!(user_of(None).is_err(), root);
        assert!(user_of(Some("no such user")).is_err());
    }
}
