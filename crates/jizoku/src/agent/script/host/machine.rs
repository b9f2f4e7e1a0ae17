//! Facts of this host, its files and its processes.
//!
//! What it does not know: the cluster, but for this node's name and labels.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use jizoku_script::run::HostCall;
use jizoku_script::value::Value;
use rustix::process::{Pid, Signal, kill_process};

use super::super::super::load::CpuTime;
use super::super::super::user::name_of;
use super::{Answer, Host, TEXT_MAX, as_text, duration, int, text, unknown, whole};

/// Ticks of a processor clock in a second, as /proc counts them on all Linux systems.
const TICKS: u64 = 100;
/// How long the first question for the processors' use looks at them.
const FIRST_LOOK: Duration = Duration::from_millis(200);
/// Most names and processes that a list holds.
const LIST_MAX: usize = 4096;

/// The processors at the last question, and what was answered.
static LAST: Mutex<Option<(CpuTime, f64)>> = Mutex::new(None);

/// Does a call that may wait for the disk.
pub(super) async fn blocking(call: &HostCall) -> Answer {
    let call = call.clone();
    let done = tokio::task::spawn_blocking(move || match call.function {
        "process.list" => processes(text(&call, 0).ok()),
        "process.signal" => signal(&call),
        _ => file(&call),
    });
    done.await.unwrap_or_else(|_| Err("this failed within the agent".into()))
}

impl Host {
    /// `host.*`
    pub(super) async fn facts(&self, name: &str, call: &HostCall) -> Answer {
        match name {
            "cpu" => cpu().await.map(Value::Float),
            "cores" => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                Ok(whole(cores as u64))
            }
            "load" => {
                let load = read("/proc/loadavg")?;
                let first = load.split_whitespace().next().and_then(|word| word.parse().ok());
                first.map(Value::Float).ok_or_else(|| "/proc/loadavg can't be read".into())
            }
            "uptime" => {
                let uptime = read("/proc/uptime")?;
                let first = uptime.split_whitespace().next().and_then(|word| word.parse().ok());
                let time = first.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                time.map(duration).ok_or_else(|| "/proc/uptime can't be read".into())
            }
            "memory" => memory(&read("/proc/meminfo")?),
            "disk" => {
                let path = text(call, 0)?.to_string();
                let done = tokio::task::spawn_blocking(move || disk(&path)).await;
                done.unwrap_or_else(|_| Err("this failed within the agent".into()))
            }
            "name" => Ok(Value::text(self.wiring.log.host())),
            "label" => {
                let view = self.view().await?;
                let own = view.nodes.iter().find(|node| node.node == view.me.node);
                let label = own.and_then(|own| own.record.labels.get(text(call, 0).ok()?));
                Ok(label.map_or(Value::None, |label| Value::text(label.as_str())))
            }
            _ => Err(unknown(call)),
        }
    }
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

async fn cpu() -> Result<f64, String> {
    let unreadable = || "/proc/stat can't be read".to_string();
    let known = *LAST.lock().expect("no panic while locked");
    let (before, answered) = match known {
        Some(known) => known,
        None => {
            let first = CpuTime::now().ok_or_else(unreadable)?;
            tokio::time::sleep(FIRST_LOOK).await;
            (first, 0.0)
        }
    };
    let now = CpuTime::now().ok_or_else(unreadable)?;
    // Two questions within one tick have one answer.
    let Some(busy) = now.busy_since(before) else { return Ok(answered) };
    *LAST.lock().expect("no panic while locked") = Some((now, busy));
    Ok(busy)
}

#[allow(clippy::cast_precision_loss, reason = "a share is wanted")]
fn share(free: u64, total: u64) -> Value {
    let used = total.saturating_sub(free);
    Value::Float(if total == 0 { 0.0 } else { used as f64 * 100.0 / total as f64 })
}

fn memory(meminfo: &str) -> Answer {
    let size = |name: &str| {
        let line = meminfo.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    let (total, free) = size("MemTotal:").zip(size("MemAvailable:")).ok_or("no /proc/meminfo")?;
    Ok(Value::record([
        ("total", Value::Size(total)),
        ("free", Value::Size(free)),
        ("used_pct", share(free, total)),
    ]))
}

fn disk(path: &str) -> Answer {
    let stat = rustix::fs::statvfs(path).map_err(|error| format!("{path}: {error}"))?;
    let (total, free) = (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize);
    // What only root could still get is in use for everybody else; as df(1) counts.
    let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
    Ok(Value::record([
        ("total", Value::Size(total)),
        ("free", Value::Size(free)),
        ("used_pct", share(free, used + free)),
    ]))
}

fn file(call: &HostCall) -> Answer {
    let path = Path::new(text(call, 0)?);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    match call.function {
        "file.exists" => Ok(Value::Bool(path.try_exists().map_err(failed)?)),
        "file.info" => match fs::metadata(path) {
            Ok(meta) => Ok(info(&meta)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::None),
            Err(error) => Err(failed(error)),
        },
        "file.list" => {
            let names = fs::read_dir(path).map_err(failed)?.filter_map(Result::ok);
            let mut names: Vec<String> = names
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .take(LIST_MAX + 1)
                .collect();
            if names.len() > LIST_MAX {
                return Err(format!("{}: more than {LIST_MAX} names", path.display()));
            }
            names.sort();
            Ok(Value::list(names.into_iter().map(Value::text).collect()))
        }
        "file.read" => {
            let mut bytes = Vec::new();
            let file = fs::File::open(path).map_err(failed)?;
            file.take(TEXT_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
            if bytes.len() > TEXT_MAX {
                return Err(format!("{}: longer than {TEXT_MAX} bytes", path.display()));
            }
            let text = String::from_utf8(bytes);
            text.map(Value::text).map_err(|_| format!("{}: no text in UTF-8", path.display()))
        }
        "file.append" => {
            let mut file =
                fs::OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
            file.write_all(text(call, 1)?.as_bytes()).map_err(failed)?;
            Ok(Value::None)
        }
        "file.write" => {
            replace(path, text(call, 1)?).map_err(failed)?;
            Ok(Value::None)
        }
        "file.remove" => {
            let folder = fs::symlink_metadata(path).map_err(failed)?.is_dir();
            let removed = if folder { fs::remove_dir(path) } else { fs::remove_file(path) };
            removed.map_err(failed)?;
            Ok(Value::None)
        }
        _ => Err(unknown(call)),
    }
}

fn info(meta: &fs::Metadata) -> Value {
    let changed = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let age = SystemTime::now().duration_since(changed).unwrap_or_default();
    Value::record([
        ("size", Value::Size(meta.len())),
        ("folder", Value::Bool(meta.is_dir())),
        ("age", duration(age)),
        ("mode", Value::text(format!("{:04o}", meta.permissions().mode() & 0o7777))),
    ])
}

/// Writes a file beside, and puts it in the place of the old one with its owner and mode.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    // Through a link, the file that it leads to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut beside = path.clone().into_os_string();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = (|| {
        let mut file = fs::File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        if let Ok(old) = fs::metadata(&path) {
            file.set_permissions(old.permissions())?;
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.sync_all()?;
        fs::rename(&beside, &path)
    })();
    if written.is_err() {
        // What is left of it is of no use; that it may not be there is fine.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn processes(name: Option<&str>) -> Answer {
    let uptime = read("/proc/uptime")?;
    let uptime = uptime.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    let up = uptime.and_then(|up| Duration::try_from_secs_f64(up).ok()).unwrap_or_default();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let all = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<(u32, Value)> = Vec::new();
    // One that has ended meanwhile isn't shown.
    for (pid, own, value) in pids.filter_map(|pid| process(pid, up, &users)) {
        if name.is_none_or(|name| name == own) {
            found.push((pid, value));
        }
    }
    if found.len() > LIST_MAX {
        return Err(format!("more than {LIST_MAX} processes"));
    }
    found.sort_by_key(|(pid, _)| *pid);
    Ok(Value::list(found.into_iter().map(|(_, value)| value).collect()))
}

fn process(pid: u32, up: Duration, users: &str) -> Option<(u32, String, Value)> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // The name may hold blanks and brackets: what follows the last bracket doesn't.
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_string();
    let started: u64 = rest.split_whitespace().nth(19)?.parse().ok()?;
    let age = up.saturating_sub(Duration::from_millis(started * 1000 / TICKS));
    let command = fs::read(folder.join("cmdline")).ok()?;
    let command = command.strip_suffix(&[0]).unwrap_or(&command);
    let command: Vec<u8> =
        command.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
    let uid = fs::metadata(&folder).ok()?.uid();
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let resident = status.lines().find(|line| line.starts_with("VmRSS:"));
    let resident = resident.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let value = Value::record([
        ("pid", Value::Int(pid.into())),
        ("name", Value::text(name.as_str())),
        ("command", as_text(&command)),
        ("user", Value::text(name_of(users, uid))),
        ("memory", Value::Size(resident.unwrap_or(0) << 10)),
        ("age", duration(age)),
    ]);
    Some((pid, name, value))
}

const SIGNALS: [(&str, Signal); 9] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("TERM", Signal::TERM),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
];

fn signal(call: &HostCall) -> Answer {
    let name = text(call, 1)?;
    let plain = name.strip_prefix("SIG").unwrap_or(name);
    let known = SIGNALS.iter().find(|(known, _)| *known == plain);
    let (_, signal) = known.ok_or_else(|| {
        let names: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
        format!("no signal `{name}`; there are {}", names.join(", "))
    })?;
    // 0 and negative numbers would mean groups of processes.
    let pid = i32::try_from(int(call, 0)?).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw);
    let pid = pid.ok_or("a process has a positive number")?;
    kill_process(pid, *signal).map_err(|error| format!("{}: {error}", pid.as_raw_nonzero()))?;
    Ok(Value::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jizoku_script::types::{DISK, FILE, MEMORY, PROCESS, Type};

    fn call(function: &'static str, args: Vec<Value>) -> HostCall {
        HostCall { function, args, named: Vec::new(), filter: None }
    }

    fn is(value: &Value, kind: Type) -> bool {
        value.is_a(kind, &|_| Vec::new())
    }

    #[test]
    fn files_are_written_as_a_whole_and_read_back() {
        let folder = std::env::temp_dir().join(format!("jizoku-files-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let path = Value::text(folder.join("a").to_string_lossy());
        let place = Value::text(folder.to_string_lossy());
        let one = |function, more: &[Value]| {
            file(&call(function, [std::slice::from_ref(&path), more].concat()))
        };
        assert_eq!(one("file.info", &[]), Ok(Value::None));
        assert_eq!(one("file.write", &[Value::text("x\n")]), Ok(Value::None));
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(folder.join("a"), mode).expect("a mode");
        assert_eq!(one("file.append", &[Value::text("y")]), Ok(Value::None));
        assert_eq!(one("file.read", &[]), Ok(Value::text("x\ny")));
        assert_eq!(one("file.write", &[Value::text("z")]), Ok(Value::None));
        let info = one("file.info", &[]).expect("it is there");
        assert!(is(&info, Type::shape(&FILE)));
        let Value::Record(info) = info else { panic!("a record") };
        assert_eq!(info.get("mode"), Some(&Value::text("0640")), "the mode stays");
        let names = file(&call("file.list", vec![place.clone()]));
        assert_eq!(names, Ok(Value::list(vec![Value::text("a")])), "nothing lies beside it");
        assert_eq!(one("file.remove", &[]), Ok(Value::None));
        assert!(one("file.read", &[]).is_err());
        assert_eq!(file(&call("file.remove", vec![place])), Ok(Value::None));
    }

    #[test]
    fn processes_are_listed_and_signalled() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("sleep");
        let listed = processes(Some("sleep")).expect("a list");
        assert!(is(&listed, Type::shape(&PROCESS).list()));
        let Value::List(listed) = listed else { panic!("a list") };
        let own = Value::Int(child.id().into());
        let pid = |value: &Value| match value {
            Value::Record(record) => record.get("pid").cloned(),
            _ => None,
        };
        assert!(listed.values().iter().any(|one| pid(one) == Some(own.clone())));
        let term = call("process.signal", vec![own, Value::text("TERM")]);
        assert_eq!(signal(&term), Ok(Value::None));
        let status = child.wait().expect("it ends");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
        let group = call("process.signal", vec![Value::Int(-1), Value::text("TERM")]);
        assert!(signal(&group).is_err(), "never a group");
    }

    #[test]
    fn facts_are_of_their_types() {
        let meminfo = read("/proc/meminfo").expect("meminfo");
        assert!(is(&memory(&meminfo).expect("memory"), Type::shape(&MEMORY)));
        assert!(is(&disk("/").expect("a disk"), Type::shape(&DISK)));
        assert!(disk("/no/such/path").is_err());
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let busy = runtime.block_on(cpu()).expect("cpu");
        assert!((0.0..=100.0).contains(&busy), "{busy}");
    }
}
