//! Shell texts: whether one is a POSIX shell text at all, and what it uses.
//!
//! Decided: a reader of our own instead of `sh -n`, so that a script can be checked where it is
//! written, in an editor, and on a target, alike and without starting anything. It reads the
//! grammar of POSIX (lists, pipelines, redirections, here-documents, `if for while until case`,
//! functions, subshells, quotes and expansions) and refuses what `sh` would refuse, and `[[`,
//! which `sh` would take for a program.
//!
//! What it does not know: what programs do, which of them exist, aliases.
//!
//! Invariants
//! - The first mistake is reported, with its place; no input panics.
//! - The work grows with the length of the text only; nesting is bounded by [`DEPTH_MAX`].

#[cfg(test)]
mod tests;
mod word;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::DEPTH_MAX;

/// A mistake: the bytes of the text that it is about, and what it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) what: String,
}

type Read<T> = Result<T, Mistake>;

/// What a shell text uses.
#[derive(Debug, Default)]
pub(crate) struct Uses<'a> {
    /// Programs by name, where they are called; no builtins, no paths, no functions of the text.
    pub(crate) programs: Vec<(usize, &'a str)>,
    /// Variables that must come from outside.
    pub(crate) variables: Vec<(usize, &'a str)>,
    set: BTreeSet<&'a str>,
    functions: BTreeSet<&'a str>,
    /// It runs text that isn't known here: nothing can be said of its variables.
    dynamic: bool,
}

/// Reads a shell text.
pub(crate) fn read(text: &str) -> Read<Uses<'_>> {
    let mut shell = Shell { text, at: 0, depth: 0, heredocs: Vec::new(), uses: Uses::default() };
    shell.list(&[])?;
    if shell.at < text.len() {
        return shell.unexpected();
    }
    shell.bodies()?;
    let Uses { mut programs, mut variables, set, functions, dynamic } = shell.uses;
    programs.retain(|(_, name)| !functions.contains(name) && !BUILTINS.contains(name));
    variables.retain(|(_, name)| !dynamic && !set.contains(name) && !GIVEN.contains(name));
    Ok(Uses { programs, variables, set, functions, dynamic })
}

const BUILTINS: [&str; 43] = [
    ":", ".", "[", "alias", "bg", "break", "cd", "command", "continue", "echo", "eval", "exec",
    "exit", "export", "false", "fc", "fg", "getopts", "hash", "jobs", "kill", "local", "newgrp",
    "printf", "pwd", "read", "readonly", "return", "set", "shift", "test", "times", "trap", "true",
    "type", "ulimit", "umask", "unalias", "unset", "wait", "fi", "done", "esac",
];

/// Variables that every shell text finds set.
const GIVEN: [&str; 14] = [
    "PATH", "HOME", "LANG", "LC_ALL", "USER", "LOGNAME", "SHELL", "TMPDIR", "PWD", "OLDPWD", "IFS",
    "OPTARG", "OPTIND", "PPID",
];

const RESERVED: [&str; 9] = ["then", "elif", "else", "fi", "do", "done", "esac", "}", "in"];

struct Shell<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    /// Here-documents whose bodies begin at the next line: the word, whether blanks before it
    /// are cut, whether the body is taken as it is.
    heredocs: Vec<(String, bool, bool)>,
    uses: Uses<'a>,
}

impl<'a> Shell<'a> {
    fn byte(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at.min(self.text.len())..]
    }

    fn wrong<T>(&self, start: usize, what: impl Into<String>) -> Read<T> {
        let end = self.at.clamp(start, self.text.len()).max((start + 1).min(self.text.len()));
        Err(Mistake { start, end, what: what.into() })
    }

    fn deeper<T>(&mut self, inside: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.depth >= DEPTH_MAX {
            return self.wrong(self.at, format!("nested more than {DEPTH_MAX} deep"));
        }
        self.depth += 1;
        let result = inside(self);
        self.depth -= 1;
        result
    }

    /// Blanks, comments and joined lines; no newlines.
    fn blanks(&mut self) {
        loop {
            match self.byte(0) {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\\' if self.byte(1) == b'\n' => self.at += 2,
                b'#' => {
                    while self.at < self.text.len() && self.byte(0) != b'\n' {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    /// Blanks and newlines, with the here-documents that begin there.
    fn lines(&mut self) -> Read<()> {
        loop {
            self.blanks();
            if self.byte(0) != b'\n' {
                return Ok(());
            }
            self.at += 1;
            self.bodies()?;
        }
    }

    /// Reads the bodies of all here-documents that were announced.
    fn bodies(&mut self) -> Read<()> {
        for (word, cut, plain) in core::mem::take(&mut self.heredocs) {
            let start = self.at;
            loop {
                if self.at >= self.text.len() {
                    self.at = start;
                    return self.wrong(start, format!("a here-document without its `{word}`"));
                }
                let from = self.at;
                let length = self.text[from..].find('\n').unwrap_or(self.text.len() - from);
                let line = &self.text[from..from + length];
                self.at = (from + length + 1).min(self.text.len());
                if (if cut { line.trim_start_matches('\t') } else { line }) == word {
                    break;
                }
                if !plain {
                    self.expansions_of(from, from + length)?;
                }
            }
        }
        Ok(())
    }

    /// The word at this place, if it is one of plain letters alone.
    fn plain_word(&self) -> &'a str {
        let ends = |byte: &u8| b" \t\r\n;&|()<>".contains(byte);
        let length = self.rest().iter().position(ends).unwrap_or(self.rest().len());
        let word = self.text.get(self.at..self.at + length).unwrap_or("");
        if word.contains(['\'', '"', '\\', '$', '`']) { "" } else { word }
    }

    fn ends(&self, until: &[&str]) -> bool {
        let word = self.plain_word();
        until.iter().any(|end| match *end {
            ")" => self.byte(0) == b')',
            ";;" => self.rest().starts_with(b";;"),
            end => end == word,
        })
    }

    /// Commands up to one of the words, which isn't taken. Gives how many.
    fn list(&mut self, until: &[&str]) -> Read<usize> {
        let mut count = 0;
        self.lines()?;
        while self.at < self.text.len() && !self.ends(until) {
            self.pipelines()?;
            count += 1;
            self.blanks();
            match self.byte(0) {
                b'\n' => {}
                b';' if self.byte(1) != b';' => self.at += 1,
                b'&' if self.byte(1) != b'&' => self.at += 1,
                _ if self.at >= self.text.len() || self.ends(until) => break,
                _ => return self.unexpected(),
            }
            self.lines()?;
        }
        Ok(count)
    }

    /// A list that must not be empty, and the word that ends it.
    fn body(&mut self, until: &[&str]) -> Read<()> {
        let start = self.at;
        if self.deeper(|shell| shell.list(until))? == 0 {
            return self.wrong(start, format!("expected a command before `{}`", until[0]));
        }
        if !self.ends(until) {
            return self.wrong(start, format!("`{}` is missing", until[0]));
        }
        Ok(())
    }

    fn unexpected<T>(&self) -> Read<T> {
        let word = self.plain_word();
        let shown = if word.is_empty() {
            let rest = &self.text[self.at..];
            rest.chars().next().map_or("the end".into(), |c| format!("`{c}`"))
        } else {
            format!("`{}`", &word[..word.floor_char_boundary(30)])
        };
        self.wrong(self.at, format!("{shown} isn't expected here"))
    }

    /// `a | b && c || d`
    fn pipelines(&mut self) -> Read<()> {
        loop {
            self.blanks();
            if self.plain_word() == "!" {
                self.at += 1;
                self.blanks();
            }
            self.command()?;
            self.blanks();
            let joins = self.rest().starts_with(b"&&") || self.rest().starts_with(b"||");
            if joins {
                self.at += 2;
            } else if self.byte(0) == b'|' {
                self.at += 1;
            } else {
                return Ok(());
            }
            self.lines()?;
            if self.at >= self.text.len() {
                return self.wrong(self.at.saturating_sub(1), "a command is missing at the end");
            }
        }
    }

    fn command(&mut self) -> Read<()> {
        let start = self.at;
        if self.byte(0) == b'(' {
            self.at += 1;
            self.body(&[")"])?;
            self.at += 1;
            return self.redirections();
        }
        let word = self.plain_word();
        if RESERVED.contains(&word) {
            return self.unexpected();
        }
        match word {
            "{" => {
                self.at += 1;
                self.closed(&["}"])?;
            }
            "if" => self.if_command()?,
            "while" | "until" => {
                self.at += word.len();
                self.body(&["do"])?;
                self.at += 2;
                self.closed(&["done"])?;
            }
            "for" => self.for_command()?,
            "case" => self.case_command()?,
            "[[" => {
                self.at += 2;
                return self.wrong(start, "`[[` is not in the POSIX shell; use `[`");
            }
            _ => return self.simple(),
        }
        self.redirections()
    }

    /// A body and its last word.
    fn closed(&mut self, until: &[&str; 1]) -> Read<()> {
        self.body(until)?;
        self.at += until[0].len();
        Ok(())
    }

    fn if_command(&mut self) -> Read<()> {
        self.at += 2;
        loop {
            self.body(&["then"])?;
            self.at += 4;
            self.body(&["fi", "else", "elif"])?;
            let word = self.plain_word();
            self.at += word.len();
            match word {
                "else" => return self.closed(&["fi"]),
                "elif" => {}
                _ => return Ok(()),
            }
        }
    }

    fn for_command(&mut self) -> Read<()> {
        self.at += 3;
        self.blanks();
        let start = self.at;
        let name = self.plain_word();
        if !is_name(name) {
            return self.wrong(start, "expected the name of a variable after `for`");
        }
        self.uses.set.insert(name);
        self.at += name.len();
        self.lines()?;
        if self.plain_word() == "in" {
            self.at += 2;
            self.blanks();
            while self.word()?.is_some() {
                self.blanks();
            }
        }
        if self.byte(0) == b';' {
            self.at += 1;
        }
        self.lines()?;
        if self.plain_word() != "do" {
            return self.wrong(start, "`do` is missing");
        }
        self.at += 2;
        self.closed(&["done"])
    }

    fn case_command(&mut self) -> Read<()> {
        let start = self.at;
        self.at += 4;
        self.blanks();
        if self.word()?.is_none() {
            return self.wrong(start, "expected a word after `case`");
        }
        self.lines()?;
        if self.plain_word() != "in" {
            return self.wrong(start, "`in` is missing");
        }
        self.at += 2;
        loop {
            self.lines()?;
            if self.plain_word() == "esac" {
                self.at += 4;
                return Ok(());
            }
            if self.at >= self.text.len() {
                self.at = start + 4;
                return self.wrong(start, "`esac` is missing");
            }
            self.case_arm()?;
        }
    }

    /// `a|b) commands ;;`
    fn case_arm(&mut self) -> Read<()> {
        if self.byte(0) == b'(' {
            self.at += 1;
        }
        loop {
            self.blanks();
            if self.word()?.is_none() {
                return self.unexpected();
            }
            self.blanks();
            if self.byte(0) != b'|' {
                break;
            }
            self.at += 1;
        }
        if self.byte(0) != b')' {
            return self.unexpected();
        }
        self.at += 1;
        self.deeper(|shell| shell.list(&[";;", "esac"]))?;
        if self.rest().starts_with(b";;") {
            self.at += 2;
        }
        Ok(())
    }

    /// Assignments, words and redirections; or a function.
    fn simple(&mut self) -> Read<()> {
        let start = self.at;
        let mut name: Option<&'a str> = None;
        let mut parts = 0;
        loop {
            self.blanks();
            if self.redirection()? {
                parts += 1;
                continue;
            }
            let from = self.at;
            let Some(word) = self.word()? else { break };
            parts += 1;
            let whole = &self.text[from..self.at];
            if name.is_none()
                && let Some((variable, _)) = whole.split_once('=')
                && is_name(variable)
            {
                self.uses.set.insert(variable);
                continue;
            }
            if let Some(name) = name {
                self.argument(name, whole);
                continue;
            }
            name = Some(word.unwrap_or(""));
            if self.function(from, word)? {
                return Ok(());
            }
            if let Some(program) = word.filter(|word| !word.contains('/') && !word.is_empty()) {
                self.uses.programs.push((from, program));
                self.uses.dynamic |= matches!(program, "eval" | ".");
            }
        }
        if parts == 0 {
            return if self.at < self.text.len() {
                self.unexpected()
            } else {
                self.wrong(start.saturating_sub(1), "a command is missing at the end")
            };
        }
        Ok(())
    }

    /// An argument of some builtins names a variable that they set.
    fn argument(&mut self, command: &str, word: &'a str) {
        let sets = ["read", "export", "readonly", "local", "getopts", "unset"];
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        if sets.contains(&command) && is_name(name) {
            self.uses.set.insert(name);
        }
    }

    /// `name() command`, if this is one.
    fn function(&mut self, from: usize, word: Option<&'a str>) -> Read<bool> {
        let before = self.at;
        self.blanks();
        if self.byte(0) != b'(' {
            self.at = before;
            return Ok(false);
        }
        let name = word.filter(|name| is_name(name));
        self.at += 1;
        self.blanks();
        let (Some(name), b')') = (name, self.byte(0)) else {
            return self.wrong(from, "`(` isn't expected here");
        };
        self.at += 1;
        self.uses.functions.insert(name);
        self.lines()?;
        self.deeper(Self::command)?;
        Ok(true)
    }

    fn redirections(&mut self) -> Read<()> {
        loop {
            self.blanks();
            if !self.redirection()? {
                return Ok(());
            }
        }
    }

    /// `2>&1`, `<file`, `<<word`; whether there was one.
    fn redirection(&mut self) -> Read<bool> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !matches!(self.byte(digits), b'<' | b'>') {
            return Ok(false);
        }
        let start = self.at;
        self.at += digits;
        let rest = self.rest();
        let signs: [&[u8]; 9] = [b"<<-", b"<<", b"<&", b"<>", b">>", b">&", b">|", b"<", b">"];
        let sign = signs.into_iter().find(|sign| rest.starts_with(sign)).unwrap_or(b"<");
        self.at += sign.len();
        self.blanks();
        let from = self.at;
        if self.word()?.is_none() {
            return self.wrong(start, "where to? a word is missing after the redirection");
        }
        if sign.starts_with(b"<<") {
            let word = &self.text[from..self.at];
            let plain = word.contains(['\'', '"', '\\']);
            let word = word.replace(['\'', '"', '\\'], "");
            self.heredocs.push((word, sign == b"<<-", plain));
        }
        Ok(true)
    }
}

fn is_name(word: &str) -> bool {
    !word.is_empty()
        && !word.as_bytes()[0].is_ascii_digit()
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
