//! How numbers, times and tables look.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process;

use jizoku_types::ByteCount;
use serde::Serialize;

use super::Failure;

/// How a program ends whose reader has gone: as one that SIGPIPE ended.
const READER_GONE: i32 = 128 + 13;

/// As `print!`, for a reader that may go away early, as `head` does: then nobody is left to be
/// told anything.
macro_rules! out {
    ($($words:tt)*) => { $crate::cli::print(format_args!($($words)*)) };
}

/// As `println!`; see [`out!`].
macro_rules! outln {
    ($($words:tt)*) => { $crate::cli::print(format_args!("{}\n", format_args!($($words)*))) };
}

pub(crate) use {out, outln};

/// Writes to standard output, see [`out!`].
pub(crate) fn print(words: fmt::Arguments<'_>) {
    let mut output = io::stdout().lock();
    match output.write_fmt(words).and_then(|()| output.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => process::exit(READER_GONE),
        Err(error) => {
            eprintln!("jizoku: can't write: {error}");
            process::exit(1);
        }
    }
}

/// Prints a value as JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    outln!("{text}");
    Ok(())
}

/// Prints a value as JSON on one line: many of them are read line by line.
pub(super) fn json_line<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| error.to_string())?;
    outln!("{text}");
    Ok(())
}

/// A span that is given in milliseconds: `340 ms`, `12 s`, `3 min`, `5 h`, `2 d`.
pub(super) fn span(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{ms} ms"),
        10_000..120_000 => format!("{} s", ms / 1000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// A span that is given in microseconds.
pub(super) fn micros(us: u64) -> String {
    if us < 10_000 { format!("{us} us") } else { span(us / 1000) }
}

/// A number of bytes.
pub(super) fn bytes(count: u64) -> String {
    ByteCount(count).to_string()
}

/// A table: columns as wide as their widest cell, two blanks between, nothing at the end.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [vec!["a".into(), "long cell".into()], vec!["bb".into(), "é".into()]];
        let text = table(&["X", "Y"], &rows);
        assert_eq!(text, "X   Y\na   long cell\nbb  é\n");
    }

    #[test]
    fn spans_are_short() {
        for (ms, text) in [(9_999, "9999 ms"), (10_000, "10 s"), (120_000, "2 min")] {
            assert_eq!(span(ms), text);
        }
    }
}
