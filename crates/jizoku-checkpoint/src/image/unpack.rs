//! LZ4 blocks back into bytes.
//!
//! States are full of short patterns that repeat: zeros, tables of small numbers. The library's
//! decoder without `unsafe` writes such a run byte by byte; this one writes it in doubling pieces.
//!
//! What it does not know: what the bytes mean, how long they should be.
//!
//! Invariant: damaged input gives `None`, and never a panic; nothing outside `raw` is touched.

/// Shortest match: lengths are counted from here.
const MATCH_MIN: usize = 4;
/// A length of so much in four bits goes on in the bytes that follow.
const GOES_ON: usize = 15;
/// Runs up to this length are copied as a whole where there is room for it.
const SHORT: usize = 32;
/// Bytes that are copied as one number.
const STEP: usize = 8;

/// Unpacks a block to the front of `raw` and gives how long it was. `None`: the block is damaged,
/// or `raw` is too short for it.
pub(super) fn unpack(packed: &[u8], raw: &mut [u8]) -> Option<usize> {
    let (mut rest, mut at) = (packed, 0_usize);
    loop {
        let (token, after) = rest.split_first()?;
        rest = after;
        if let Some((used, written)) = short(*token, rest, raw, at) {
            rest = &rest[used..];
            at += written;
            continue;
        }
        let literals = length(usize::from(token >> 4), &mut rest)?;
        let end = at.checked_add(literals)?;
        copy(raw, at, rest, literals)?;
        rest = rest.get(literals..)?;
        at = end;
        if rest.is_empty() {
            return Some(at);
        }
        let (offset, after) = rest.split_first_chunk::<2>()?;
        rest = after;
        let offset = usize::from(u16::from_le_bytes(*offset));
        let count = length(usize::from(token & 0xf), &mut rest)? + MATCH_MIN;
        if offset == 0 || offset > at || count > raw.len() - at {
            return None;
        }
        repeat(raw, at, offset, count);
        at += count;
    }
}

/// A token with few literals and a short match that lies not too near, far from both ends: what
/// blocks mostly consist of. Gives how much it read and wrote; `None`: look closer.
#[inline]
fn short(token: u8, rest: &[u8], raw: &mut [u8], at: usize) -> Option<(usize, usize)> {
    const LITERALS: usize = 16;
    const MATCH: usize = 3 * STEP;
    let (literals, more) = (usize::from(token >> 4), usize::from(token & 0xf));
    if literals == GOES_ON || more == GOES_ON {
        return None;
    }
    let from: &[u8; LITERALS + 2] = rest.first_chunk()?;
    let to: &mut [u8; LITERALS + MATCH] = raw.get_mut(at..)?.first_chunk_mut()?;
    to[..LITERALS].copy_from_slice(&from[..LITERALS]);
    let offset = usize::from(u16::from_le_bytes([from[literals], from[literals + 1]]));
    let end = at + literals;
    if offset < STEP || offset > end {
        return None;
    }
    let window = raw.get_mut(end - offset..end + MATCH)?;
    for done in [0, STEP, 2 * STEP] {
        let eight: [u8; STEP] = *window.get(done..)?.first_chunk()?;
        *window.get_mut(offset + done..)?.first_chunk_mut()? = eight;
    }
    Some((literals + 2, literals + more + MATCH_MIN))
}

/// The rest of a length that begins with `first`.
fn length(first: usize, rest: &mut &[u8]) -> Option<usize> {
    let mut length = first;
    if first == GOES_ON {
        loop {
            let (byte, after) = rest.split_first()?;
            *rest = after;
            length = length.checked_add(usize::from(*byte))?;
            if *byte != u8::MAX {
                break;
            }
        }
    }
    Some(length)
}

/// Copies `count` bytes from the front of `from` to `at`.
fn copy(raw: &mut [u8], at: usize, from: &[u8], count: usize) -> Option<()> {
    if count <= SHORT
        && let Some(from) = from.first_chunk::<SHORT>()
        && let Some(to) = raw.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<SHORT>)
    {
        // What is written too much is written over next.
        *to = *from;
        return Some(());
    }
    raw.get_mut(at..at.checked_add(count)?)?.copy_from_slice(from.get(..count)?);
    Some(())
}

/// Continues the last `offset` bytes before `at` over the next `count`. All of it is within `raw`.
fn repeat(raw: &mut [u8], at: usize, offset: usize, count: usize) {
    let from = at - offset;
    if offset == STEP {
        let mut pattern = [0; STEP];
        pattern.copy_from_slice(&raw[from..at]);
        let (whole, end) = raw[at..at + count].as_chunks_mut::<STEP>();
        whole.fill(pattern);
        end.copy_from_slice(&pattern[..end.len()]);
        return;
    }
    // What is there doubles with each step; each begins where the pattern does.
    let mut done = 0;
    while done < count {
        let step = (offset + done).min(count - done);
        raw.copy_within(from..from + step, at + done);
        done += step;
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::unpack;
    use crate::dice::Dice;

    /// Bytes with runs, patterns of many lengths, and noise.
    fn bytes(dice: &mut Dice) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..dice.below(12) {
            let count = dice.below(700) as usize;
            match dice.below(4) {
                0 => bytes.extend(vec![dice.below(256) as u8; count]),
                1 => bytes.extend(dice.bytes(count)),
                _ => {
                    let period = 1 + dice.below(40) as usize;
                    let pattern = dice.bytes(period);
                    bytes.extend(pattern.iter().cycle().take(count));
                }
            }
        }
        bytes
    }

    #[test]
    fn what_was_packed_comes_back() {
        let mut dice = Dice::new(11);
        for _ in 0..2000 {
            let bytes = bytes(&mut dice);
            let packed = lz4_flex::block::compress(&bytes);
            let mut raw = vec![0; bytes.len()];
            assert_eq!(unpack(&packed, &mut raw), Some(bytes.len()));
            assert!(raw == bytes);
            let mut longer = vec![0; bytes.len() + 50];
            assert_eq!(unpack(&packed, &mut longer), Some(bytes.len()));
            if !bytes.is_empty() {
                assert_eq!(unpack(&packed, &mut raw[1..]), None, "no room");
            }
        }
    }

    #[test]
    fn damage_is_taken_as_the_library_takes_it() {
        let mut dice = Dice::new(12);
        for _ in 0..4000 {
            let bytes = bytes(&mut dice);
            let mut packed = lz4_flex::block::compress(&bytes);
            for _ in 0..1 + dice.below(4) {
                let at = dice.below(packed.len() as u64) as usize;
                packed[at] = dice.below(256) as u8;
            }
            packed.truncate(1 + dice.below(packed.len() as u64) as usize);
            let (mut ours, mut theirs) = (vec![0; bytes.len()], vec![0; bytes.len()]);
            let got = unpack(&packed, &mut ours);
            if let Ok(count) = lz4_flex::block::decompress_into(&packed, &mut theirs) {
                assert_eq!(got, Some(count));
                assert!(ours[..count] == theirs[..count]);
            }
        }
    }
}
