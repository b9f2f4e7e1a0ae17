//! A file system for each node, that can be full, slow, or lose what wasn't flushed.
//!
//! An ext4 image is mounted through a loop device. To lose its power it is shut down by ioctl
//! without a flush of its journal (as xfstests does), unmounted and mounted again: what had not
//! reached the device is gone, and the journal is replayed.
//!
//! Slow means frozen for most of the time: writes wait in the kernel, as for a device that hangs.
//! The device-mapper's delay and blkio's throttle would be nearer to a slow disk; the first is
//! missing in many kernels, the second in all that have control groups of version 2 only.
//!
//! What it needs: root, and a mount namespace of its own, with which all of it ends.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::ioctl::{Setter, ioctl, opcode};

/// Room on each: more than the agent's reserve, and nothing is taken before it is written.
const SIZE: &str = "2G";
/// How long processes may keep files open after their agent was killed.
const FREE_WITHIN: Duration = Duration::from_secs(10);
/// Shut down, and don't even flush the journal.
const GOING_NOLOGFLUSH: u32 = 2;
/// `FS_IOC_SHUTDOWN`.
const SHUTDOWN: u32 = opcode::read::<u32>(b'X', 125);

/// One node's file system.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mounted: PathBuf,
}

impl Disk {
    /// An empty one, mounted at `mounted`.
    ///
    /// # Errors
    /// It can't be made here.
    pub fn new(image: PathBuf, mounted: PathBuf) -> io::Result<Disk> {
        fs::create_dir_all(&mounted)?;
        run("truncate", &["-s", SIZE, text(&image)])?;
        // No blocks for root alone: the agent is root here, and shall see a full disk.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", "nodiscard", text(&image)])?;
        let disk = Disk { image, mounted };
        disk.mount()?;
        fs::remove_dir(disk.mounted.join("lost+found"))?;
        Ok(disk)
    }

    fn mount(&self) -> io::Result<()> {
        run("mount", &["-o", "loop,noatime", text(&self.image), text(&self.mounted)])
    }

    /// All that wasn't flushed is gone, from now on nothing can be written.
    ///
    /// # Errors
    /// Those of the system.
    pub fn lose_power(&self) -> io::Result<()> {
        let folder = File::open(&self.mounted)?;
        // SAFETY: this request reads one u32, and changes nothing in this process.
        unsafe { ioctl(&folder, Setter::<SHUTDOWN, u32>::new(GOING_NOLOGFLUSH))? };
        Ok(())
    }

    /// Mounts it again after [`Disk::lose_power`]; nobody may have a file open on it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn power_again(&self) -> io::Result<()> {
        // What an agent had started may take a moment to end after it.
        let began = Instant::now();
        while let Err(error) = run("umount", &[text(&self.mounted)]) {
            if began.elapsed() > FREE_WITHIN {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.mount()
    }

    /// How long a small file takes to reach the device now.
    ///
    /// # Errors
    /// Those of the system.
    pub fn flush_takes(&self) -> io::Result<Duration> {
        let path = self.mounted.join("probe");
        let began = Instant::now();
        let mut file = File::create(&path)?;
        io::Write::write_all(&mut file, b"probe")?;
        file.sync_all()?;
        let took = began.elapsed();
        fs::remove_file(path)?;
        Ok(took)
    }

    /// Takes every free byte.
    ///
    /// # Errors
    /// Those of the system.
    pub fn fill(&self) -> io::Result<()> {
        let file = File::create(self.filler())?;
        // What others free or take meanwhile is taken in the next rounds.
        for _ in 0..5 {
            let stat = rustix::fs::statvfs(&self.mounted)?;
            let free = stat.f_bavail * stat.f_frsize;
            let size = file.metadata()?.len();
            let flags = rustix::fs::FallocateFlags::empty();
            match rustix::fs::fallocate(&file, flags, size, free.max(1)) {
                Ok(()) | Err(rustix::io::Errno::NOSPC) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Frees them, for good: a loss of power soon after must not bring the filler back.
    ///
    /// # Errors
    /// Those of the system.
    pub fn empty(&self) -> io::Result<()> {
        fs::remove_file(self.filler())?;
        File::open(&self.mounted)?.sync_all()
    }

    fn filler(&self) -> PathBuf {
        self.mounted.join("filler")
    }

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        &self.mounted
    }

    /// Writes wait from now on.
    ///
    /// # Errors
    /// Those of the system.
    pub fn freeze(folder: &Path) -> io::Result<()> {
        run("fsfreeze", &["--freeze", text(folder)])
    }

    /// They go on.
    ///
    /// # Errors
    /// Those of the system.
    pub fn thaw(folder: &Path) -> io::Result<()> {
        run("fsfreeze", &["--unfreeze", text(folder)])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The mount namespace ends with the campaign, and takes along what can't be unmounted.
        let _ = run("umount", &[text(&self.mounted)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of campaigns are text")
}

fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(io::Error::other(format!("{program} {arguments:?}: {}", said.trim())))
}
