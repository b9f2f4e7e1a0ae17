//! A notebook: the plainest server there is, and its files.
//!
//! One client at a time, calls that block, no library. Each line that a client sends is a request:
//! - `add NAME TEXT` appends a line to the note, and answers with its length in bytes
//! - `show NAME` answers with the note, then a line with a single dot
//! - `list` answers with the names, then a line with a single dot
//! - `remove NAME`
//! - `wait MILLISECONDS` answers after that time
//!
//! Notes are files in `/notes`. Run by jizoku they survive the loss of its machine.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::FromRawFd;
use std::path::PathBuf;
use std::time::Duration;

/// The first inherited descriptor, by the convention of `LISTEN_FDS`.
const LISTENER: i32 = 3;
const FOLDER: &str = "/notes";
/// Longest wait that a client may ask for, in milliseconds.
const WAIT_MAX: u64 = 60_000;

fn main() -> io::Result<()> {
    // SAFETY: the descriptor was opened by whoever started this program, for it alone.
    let listener = unsafe { TcpListener::from_raw_fd(LISTENER) };
    fs::create_dir_all(FOLDER)?;
    println!("the notebook is open");
    loop {
        let (stream, _) = listener.accept()?;
        match serve(stream) {
            Ok(count) => println!("a client is gone after {count} requests"),
            Err(why) => eprintln!("a client was lost: {why}"),
        }
    }
}

fn serve(stream: TcpStream) -> io::Result<usize> {
    let mut reader = BufReader::new(&stream);
    let mut writer = BufWriter::new(&stream);
    let mut line = String::new();
    let mut count = 0;
    while reader.read_line(&mut line)? > 0 {
        if let Err(why) = answer(line.trim_end(), &mut writer) {
            writeln!(writer, "error: {why}")?;
        }
        writer.flush()?;
        line.clear();
        count += 1;
    }
    Ok(count)
}

fn answer(line: &str, out: &mut impl Write) -> io::Result<()> {
    let mut words = line.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some("add"), Some(name), Some(text)) => {
            let mut note = OpenOptions::new().create(true).append(true).open(path(name)?)?;
            writeln!(note, "{text}")?;
            writeln!(out, "{}", note.metadata()?.len())
        }
        (Some("show"), Some(name), None) => {
            out.write_all(&fs::read(path(name)?)?)?;
            writeln!(out, ".")
        }
        (Some("list"), None, None) => {
            let mut names = Vec::new();
            for entry in fs::read_dir(FOLDER)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            names.iter().try_for_each(|name| writeln!(out, "{name}"))?;
            writeln!(out, ".")
        }
        (Some("remove"), Some(name), None) => {
            fs::remove_file(path(name)?)?;
            writeln!(out, "removed")
        }
        (Some("wait"), Some(time), None) => {
            let time = time.parse().map_err(|_| invalid("expected milliseconds"))?;
            std::thread::sleep(Duration::from_millis(WAIT_MAX.min(time)));
            writeln!(out, "waited")
        }
        _ => Err(invalid("expected add, show, list, remove or wait")),
    }
}

/// Where a note is. Names are plain: letters, digits and dashes.
fn path(name: &str) -> io::Result<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(invalid("a name has letters, digits and dashes"));
    }
    Ok(PathBuf::from(FOLDER).join(name))
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}
