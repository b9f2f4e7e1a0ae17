//! Standard output and error: bytes become lines, and there are never too many of them.
//!
//! Invariants
//! - A line is at most `PRINTED_LINE_MAX` bytes; the rest of a longer one is left out.
//! - No more than [`BURST`] lines at once and [`LINES_PER_SECOND`] in the long run; the others are
//!   counted, and the count is printed.
//! - The program is never held up by its printing.

use jizoku_engine::PRINTED_LINE_MAX;

/// Lines that may be printed at once.
const BURST: u64 = 1000;
/// Lines that may be printed in the long run.
const LINES_PER_SECOND: u64 = 200;
const NANOS_PER_LINE: u64 = 1_000_000_000 / LINES_PER_SECOND;

/// The unfinished line of one stream.
#[derive(Debug, Default)]
pub(crate) struct Partial(pub(crate) Vec<u8>);

/// How many lines may still be printed.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// When, on the node's clock, the allowance would be full again.
    full_at: u64,
    left_out: u64,
}

impl Partial {
    /// Takes bytes in and gives each line that they finish to `line`.
    pub(crate) fn take(&mut self, mut bytes: &[u8], mut line: impl FnMut(String)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.append(&bytes[..end]);
            let mut text = String::from_utf8_lossy(&self.0).into_owned();
            // Replacing what is not UTF-8 may have made it longer.
            text.truncate(text.floor_char_boundary(PRINTED_LINE_MAX));
            line(text);
            self.0.clear();
            bytes = &bytes[end + 1..];
        }
        self.append(bytes);
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = PRINTED_LINE_MAX - self.0.len();
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl Allowance {
    pub(crate) fn new() -> Allowance {
        Allowance { full_at: 0, left_out: 0 }
    }

    /// Passes `line` on, or leaves it out.
    pub(crate) fn pass(&mut self, now: u64, line: String, mut print: impl FnMut(String)) {
        let full_at = self.full_at.max(now) + NANOS_PER_LINE;
        if full_at - now > BURST * NANOS_PER_LINE {
            self.left_out += 1;
            return;
        }
        self.full_at = full_at;
        if self.left_out > 0 {
            print(format!("({} lines were left out)", self.left_out));
            self.left_out = 0;
        }
        print(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(partial: &mut Partial, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        partial.take(bytes, |line| lines.push(line));
        lines
    }

    #[test]
    fn lines_are_put_together_and_cut() {
        let mut partial = Partial::default();
        assert!(lines(&mut partial, b"hel").is_empty());
        assert_eq!(lines(&mut partial, b"lo\n\nnext"), ["hello", ""]);
        assert_eq!(lines(&mut partial, b"\xff\n"), ["next\u{fffd}"]);
        assert!(lines(&mut partial, &[b'x'; PRINTED_LINE_MAX + 5]).is_empty());
        assert_eq!(lines(&mut partial, b"y\n"), ["x".repeat(PRINTED_LINE_MAX)]);
    }

    #[test]
    fn too_many_lines_are_counted() {
        let mut allowance = Allowance::new();
        let mut printed = Vec::new();
        for number in 0..BURST + 10 {
            allowance.pass(5, number.to_string(), |line| printed.push(line));
        }
        assert_eq!(printed.len() as u64, BURST);
        allowance.pass(5 + NANOS_PER_LINE, "late".into(), |line| printed.push(line));
        assert_eq!(printed[BURST as usize..], ["(10 lines were left out)", "late"]);
    }
}
