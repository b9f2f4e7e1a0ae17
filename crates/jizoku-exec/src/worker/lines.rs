//! What a program prints, line by line.
//!
//! What it does not know: which of the two pipes it reads.
//!
//! Invariant: a line has at most [`PRINTED_LINE_MAX`] bytes; the rest of a longer one is left out.

use std::io::{self, PipeReader, Read};

use jizoku_engine::PRINTED_LINE_MAX;

/// Bytes that are read in one round: a program that floods its output must not stop the rest.
const SHARE: usize = 256 << 10;

/// A pipe from which lines are read.
pub(super) struct Lines {
    pipe: PipeReader,
    /// The beginning of a line.
    partial: Vec<u8>,
    /// The rest of the line is left out.
    skipping: bool,
    more: More,
}

/// Whether there may be more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum More {
    /// The share of this round was used up.
    Yes,
    /// There is nothing now.
    Later,
    /// There will never be more.
    Never,
}

impl Lines {
    pub(super) fn new(pipe: PipeReader) -> Lines {
        Lines { pipe, partial: Vec::new(), skipping: false, more: More::Yes }
    }

    /// The system says that there is something.
    pub(super) fn note(&mut self) {
        if self.more == More::Later {
            self.more = More::Yes;
        }
    }

    /// Whether there may be more, which will not be announced again.
    pub(super) fn has_more(&self) -> bool {
        self.more == More::Yes
    }

    /// Reads this round's share, and gives each whole line to `print`.
    pub(super) fn read(&mut self, print: &mut dyn FnMut(String)) -> More {
        if self.more != More::Yes {
            return self.more;
        }
        let mut room = [0; 16 << 10];
        let mut left = SHARE;
        self.more = loop {
            match self.pipe.read(&mut room) {
                Ok(0) => break More::Never,
                Ok(length) => {
                    self.take(&room[..length], print);
                    left = left.saturating_sub(length);
                    if left == 0 {
                        break More::Yes;
                    }
                }
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => break More::Later,
                Err(_) => break More::Never,
            }
        };
        self.more
    }

    /// Nothing more will come: gives the last line, if it had no end.
    pub(super) fn end(&mut self, print: &mut dyn FnMut(String)) {
        if !self.partial.is_empty() {
            self.finish_line(print);
        }
    }

    fn take(&mut self, bytes: &[u8], print: &mut dyn FnMut(String)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            if !self.skipping {
                let room = PRINTED_LINE_MAX - self.partial.len();
                self.skipping = text.len() > room;
                self.partial.extend_from_slice(&text[..text.len().min(room)]);
            }
            if ends {
                self.finish_line(print);
            }
        }
    }

    fn finish_line(&mut self, print: &mut dyn FnMut(String)) {
        self.skipping = false;
        let mut line = String::from_utf8_lossy(&self.partial).into_owned();
        // What isn't UTF-8 takes more bytes than it had.
        line.truncate(line.floor_char_boundary(PRINTED_LINE_MAX));
        self.partial.clear();
        print(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let (reader, mut writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let mut lines = Lines::new(reader);
        let mut found = Vec::new();
        for piece in pieces {
            writer.write_all(piece).unwrap();
            lines.note();
            assert_eq!(lines.read(&mut |line| found.push(line)), More::Later);
        }
        drop(writer);
        lines.note();
        assert_eq!(lines.read(&mut |line| found.push(line)), More::Never);
        lines.end(&mut |line| found.push(line));
        found
    }

    #[test]
    fn lines_are_found_however_they_are_cut() {
        assert_eq!(lines_of(&[b"a", b"b\nc\n\n", b"d"]), ["ab", "c", "", "d"]);
        assert_eq!(lines_of(&[]), Vec::<String>::new());
    }

    #[test]
    fn long_lines_are_cut_and_what_is_no_text_is_marked() {
        let long = [vec![b'x'; PRINTED_LINE_MAX + 100], b"\nnext\n".to_vec()].concat();
        let found = lines_of(&[&long]);
        assert_eq!((found[0].len(), found[1].as_str()), (PRINTED_LINE_MAX, "next"));
        let found = lines_of(&[&[vec![0xff; PRINTED_LINE_MAX], b"\n".to_vec()].concat()]);
        assert!(found[0].len() <= PRINTED_LINE_MAX && found[0].starts_with('\u{fffd}'));
    }
}
