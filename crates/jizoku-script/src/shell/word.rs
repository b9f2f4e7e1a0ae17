//! Words of a shell text: quotes, escapes and expansions.

use super::{Read, Shell};

/// Characters that end a word.
const ENDS: &[u8] = b" \t\r\n;&|()<>";

impl<'a> Shell<'a> {
    /// A word, if one is here; its text, if it says the same to the shell as it reads.
    pub(super) fn word(&mut self) -> Read<Option<Option<&'a str>>> {
        let start = self.at;
        let mut plain = true;
        while self.at < self.text.len() && !ENDS.contains(&self.byte(0)) {
            plain &= !b"'\"\\$`*?[~".contains(&self.byte(0)) || self.rest() == b"[";
            self.part()?;
        }
        if self.at == start {
            return Ok(None);
        }
        let text = &self.text[start..self.at];
        Ok(Some((plain || text == "[").then_some(text)))
    }

    fn part(&mut self) -> Read<()> {
        let start = self.at;
        match self.byte(0) {
            b'\'' => {
                let Some(length) = self.text[start + 1..].find('\'') else {
                    self.at += 1;
                    return self.wrong(start, "a `'` that isn't closed");
                };
                self.at += length + 2;
            }
            b'"' => {
                self.at += 1;
                self.quoted(start)?;
            }
            b'\\' => self.escape(),
            b'$' => self.dollar()?,
            b'`' => self.backquoted()?,
            _ => self.at += 1,
        }
        Ok(())
    }

    fn escape(&mut self) {
        let escaped = self.text[self.at + 1..].chars().next();
        self.at += 1 + escaped.map_or(0, char::len_utf8);
    }

    /// What stands between double quotes, and the closing one.
    fn quoted(&mut self, start: usize) -> Read<()> {
        while self.at < self.text.len() {
            match self.byte(0) {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape(),
                b'$' => self.dollar()?,
                b'`' => self.backquoted()?,
                _ => self.at += 1,
            }
        }
        self.at = start + 1;
        self.wrong(start, "a `\"` that isn't closed")
    }

    /// Expansions within a here-document.
    pub(super) fn expansions_of(&mut self, from: usize, to: usize) -> Read<()> {
        let after = self.at;
        self.at = from;
        while self.at < to {
            match self.byte(0) {
                b'\\' => self.escape(),
                b'$' => self.dollar()?,
                b'`' => self.backquoted()?,
                _ => self.at += 1,
            }
        }
        self.at = after.max(self.at);
        Ok(())
    }

    fn backquoted(&mut self) -> Read<()> {
        let start = self.at;
        self.at += 1;
        while self.at < self.text.len() {
            match self.byte(0) {
                b'`' => {
                    self.at += 1;
                    // What stands inside isn't read: its quoting is another.
                    self.uses.dynamic = true;
                    return Ok(());
                }
                b'\\' => self.escape(),
                _ => self.at += 1,
            }
        }
        self.at = start + 1;
        self.wrong(start, "a backquote that isn't closed")
    }

    /// `$name`, `${...}`, `$(...)`, `$((...))`, or a plain `$`.
    fn dollar(&mut self) -> Read<()> {
        let start = self.at;
        self.at += 1;
        match self.byte(0) {
            b'(' if self.byte(1) == b'(' && self.arithmetic_ends() => {
                self.at += 2;
                self.deeper(|shell| shell.arithmetic(start))
            }
            b'(' => {
                self.at += 1;
                self.deeper(|shell| shell.list(&[")"]))?;
                if self.byte(0) != b')' {
                    self.at = start + 2;
                    return self.wrong(start, "a `$(` that isn't closed");
                }
                self.at += 1;
                Ok(())
            }
            b'{' => {
                self.at += 1;
                self.deeper(|shell| shell.braced(start))
            }
            byte if byte.is_ascii_alphabetic() || byte == b'_' => {
                let name = self.name();
                self.uses.variables.push((start, name));
                Ok(())
            }
            byte if byte.is_ascii_digit() || (byte != 0 && b"@*#?-$!".contains(&byte)) => {
                self.at += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn name(&mut self) -> &'a str {
        let word = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
        let length = self.rest().iter().take_while(word).count();
        self.at += length;
        &self.text[self.at - length..self.at]
    }

    /// Whether `$((` is closed by `))`; else it is a subshell within a substitution.
    fn arithmetic_ends(&self) -> bool {
        let mut depth = 0u32;
        for (at, byte) in self.rest().iter().enumerate() {
            match byte {
                b'(' => depth += 1,
                b')' if depth == 2 => return self.rest().get(at + 1) == Some(&b')'),
                b')' => depth = depth.saturating_sub(1),
                b'\'' | b'"' | b';' | b'\n' => return false,
                _ => {}
            }
        }
        false
    }

    fn arithmetic(&mut self, start: usize) -> Read<()> {
        let mut depth = 0u32;
        while self.at < self.text.len() {
            match self.byte(0) {
                b')' if depth == 0 => {
                    self.at += 2;
                    return Ok(());
                }
                b'(' => depth += 1,
                b')' => depth -= 1,
                b'$' => {
                    self.dollar()?;
                    continue;
                }
                byte if byte.is_ascii_alphabetic() || byte == b'_' => {
                    let from = self.at;
                    let name = self.name();
                    self.uses.variables.push((from, name));
                    continue;
                }
                byte if byte.is_ascii_digit() => {
                    self.name();
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
        self.at = start + 3;
        self.wrong(start, "a `$((` that isn't closed")
    }

    /// `${name}`, `${name:-word}` and its like, after the `{`.
    fn braced(&mut self, start: usize) -> Read<()> {
        if self.byte(0) == b'#' && self.byte(1) != b'}' {
            self.at += 1;
        }
        let from = self.at;
        let name = self.name();
        if name.is_empty() {
            if !b"@*#?-$!".contains(&self.byte(0)) || self.byte(0) == 0 {
                return self.wrong(start, "expected the name of a variable after `${`");
            }
            self.at += 1;
        }
        let next = if self.byte(0) == b':' { self.byte(1) } else { self.byte(0) };
        match next {
            // These say what happens if it isn't set.
            b'-' | b'+' | b'?' => {}
            b'=' => {
                self.uses.set.insert(name);
            }
            b'}' | b'%' | b'#' => {
                let numbered = name.bytes().all(|byte| byte.is_ascii_digit());
                if !numbered {
                    self.uses.variables.push((from, name));
                }
            }
            0 => {}
            _ => return self.wrong(start, "an expansion that the POSIX shell doesn't know"),
        }
        while self.at < self.text.len() {
            match self.byte(0) {
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => self.part()?,
            }
        }
        self.at = start + 2;
        self.wrong(start, "a `${` that isn't closed")
    }
}
