//! RESP2: requests out of bytes, replies into bytes.
//!
//! A request is an array of bulk strings, or one line of words ("inline", for people with telnet).
//!
//! Invariants
//! - No bytes make anything here panic, or take more memory than they have themselves.
//! - A request that is not complete is looked at again only when the bytes that it is known to
//!   lack have come: a value that comes in many pieces is not scanned many times.

/// Longest inline request, and longest line that announces a length.
const LINE_MAX: usize = 64 << 10;
/// Most words of one request.
const WORDS_MAX: usize = 1 << 20;
/// Longest single word.
const WORD_MAX: usize = 512 << 20;

/// What the bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'b> {
    /// A request, and how many bytes it took. It may have no words.
    Request(Vec<&'b [u8]>, usize),
    /// The beginning of a request: there must be at least so many bytes.
    Incomplete(usize),
    /// Nothing that can be understood; nothing after it can be, either.
    Garbage(&'static str),
}

/// Reads the request that `bytes` begin with.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    match bytes.first() {
        None => Parsed::Incomplete(1),
        Some(b'*') => parse_array(bytes).unwrap_or_else(|stopped| stopped),
        Some(_) => parse_inline(bytes).unwrap_or_else(|stopped| stopped),
    }
}

fn parse_array(bytes: &[u8]) -> Result<Parsed<'_>, Parsed<'_>> {
    let (count, mut at) = length(bytes, 0)?;
    let count = count.max(0) as usize;
    if count > WORDS_MAX {
        return Err(Parsed::Garbage("invalid multibulk length"));
    }
    // Each word takes at least the six bytes of "$0\r\n\r\n".
    let mut words = Vec::with_capacity(count.min(bytes.len() / 6 + 1));
    for _ in 0..count {
        match bytes.get(at) {
            Some(b'$') => {}
            Some(_) => return Err(Parsed::Garbage("expected '$'")),
            None => return Err(Parsed::Incomplete(at + 1)),
        }
        let (size, start) = length(bytes, at)?;
        let size = usize::try_from(size).ok().filter(|&size| size <= WORD_MAX);
        let size = size.ok_or(Parsed::Garbage("invalid bulk length"))?;
        let end = start + size;
        if bytes.len() < end + 2 {
            return Err(Parsed::Incomplete(end + 2));
        }
        if &bytes[end..end + 2] != b"\r\n" {
            return Err(Parsed::Garbage("expected the end of a bulk string"));
        }
        words.push(&bytes[start..end]);
        at = end + 2;
    }
    Ok(Parsed::Request(words, at))
}

fn parse_inline(bytes: &[u8]) -> Result<Parsed<'_>, Parsed<'_>> {
    let end = line_end(bytes, 0)?;
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let words = line.split(|&byte| byte == b' ' || byte == b'\t');
    Ok(Parsed::Request(words.filter(|word| !word.is_empty()).collect(), end + 1))
}

/// The number of the line at `at`, after its first byte, and where the next line begins.
fn length<'b>(bytes: &'b [u8], at: usize) -> Result<(i64, usize), Parsed<'b>> {
    let end = line_end(bytes, at)?;
    let digits = bytes[at + 1..end].strip_suffix(b"\r");
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    Ok((number.ok_or(Parsed::Garbage("invalid length"))?, end + 1))
}

/// Where the line that begins at `at` ends.
fn line_end<'b>(bytes: &'b [u8], at: usize) -> Result<usize, Parsed<'b>> {
    let rest = &bytes[at..bytes.len().min(at + LINE_MAX)];
    match rest.iter().position(|&byte| byte == b'\n') {
        // The first byte says what kind of line it is, and is no end.
        Some(position) if position > 0 || bytes[at] != b'*' => Ok(at + position),
        None if rest.len() < LINE_MAX => Err(Parsed::Incomplete(bytes.len() + 1)),
        _ => Err(Parsed::Garbage("too big a line")),
    }
}

/// A status.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    line(out, b'+', text);
}

/// An error; the first word of `text` is its code.
pub fn error(out: &mut Vec<u8>, text: &str) {
    line(out, b'-', text);
}

/// A number.
pub fn integer(out: &mut Vec<u8>, number: i64) {
    line(out, b':', &number.to_string());
}

/// How many replies follow as one array.
pub fn array(out: &mut Vec<u8>, length: usize) {
    line(out, b'*', &length.to_string());
}

/// A string of bytes.
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    line(out, b'$', &bytes.len().to_string());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Nothing, where a string would be.
pub fn nil(out: &mut Vec<u8>) {
    out.extend_from_slice(b"$-1\r\n");
}

fn line(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'b>(words: &[&'b str]) -> Vec<&'b [u8]> {
        words.iter().map(|word| word.as_bytes()).collect()
    }

    #[test]
    fn arrays_and_lines_are_requests() {
        let array = b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\nrest";
        assert_eq!(parse(array), Parsed::Request(words(&["GET", "\r\n"]), 21));
        assert_eq!(parse(b"*0\r\n"), Parsed::Request(vec![], 4));
        assert_eq!(parse(b"*-1\r\n"), Parsed::Request(vec![], 5));
        let line = b"  set a\tb \r\nrest";
        assert_eq!(parse(line), Parsed::Request(words(&["set", "a", "b"]), 12));
        assert_eq!(parse(b"\n"), Parsed::Request(vec![], 1));
    }

    #[test]
    fn every_beginning_of_a_request_is_incomplete_and_says_how_far() {
        let whole = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nhello\r\n";
        for cut in 0..whole.len() {
            match parse(&whole[..cut]) {
                Parsed::Incomplete(least) => assert!(cut < least && least <= whole.len(), "{cut}"),
                other => panic!("{cut}: {other:?}"),
            }
        }
    }

    #[test]
    fn garbage_is_told() {
        for bytes in [
            &b"*x\r\n"[..],
            b"*1\r\n+a\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\r\n$99999999999\r\n",
            b"*99999999\r\n",
            b"*1\r\n$1\r\nabc",
            b"*\n",
            &[b'x'; LINE_MAX],
        ] {
            assert!(matches!(parse(bytes), Parsed::Garbage(_)), "{bytes:?}");
        }
    }
}
