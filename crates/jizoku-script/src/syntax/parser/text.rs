//! What stands between quotes: escapes, and values between braces.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use super::{Parsed, Parser};
use crate::problem::Place;
use crate::syntax::lexer::{self, Kind};
use crate::syntax::tree::{Expr, ExprKind, Piece};

impl Parser<'_> {
    /// A text's pieces: what stands between its quotes, with escapes replaced and values read.
    pub(super) fn pieces(&mut self, place: Place) -> Vec<Piece> {
        let (start, end) = (place.start as usize + 1, place.end as usize - 1);
        let inner = &self.text[start..end];
        if !inner.contains(['\\', '{', '}']) {
            return [Piece::Text(inner.into())].into();
        }
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut at = 0;
        while let Some(c) = inner[at..].chars().next() {
            let here = start + at;
            at += c.len_utf8();
            match c {
                '\\' => {
                    let escaped = inner[at..].chars().next();
                    at += escaped.map_or(0, char::len_utf8);
                    match escaped.and_then(unescaped) {
                        Some(c) => text.push(c),
                        None => self.problems.hint(
                            Place::new(here, start + at),
                            "an escape that isn't known",
                            r#"there are \n \t \" \\ \{ \}"#,
                        ),
                    }
                }
                '}' => {
                    let place = Place::new(here, here + 1);
                    self.problems.hint(place, "a `}` without its `{`", r"a plain one is `\}`");
                }
                '{' => {
                    let Some(length) = inner[at..].find('}') else {
                        let place = Place::new(here, here + 1);
                        let hint = r"close it with `}`; a plain one is `\{`";
                        self.problems.hint(place, "a `{` without its `}`", hint);
                        break;
                    };
                    if !text.is_empty() {
                        pieces.push(Piece::Text(mem::take(&mut text)));
                    }
                    let place = Place::new(start + at, start + at + length);
                    pieces.push(Piece::Value(self.inner(place)));
                    at += length + 1;
                }
                c => text.push(c),
            }
        }
        if !text.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Text(text));
        }
        pieces
    }

    /// The value between `{` and `}` of a text.
    fn inner(&mut self, place: Place) -> Expr {
        let tokens = lexer::tokens(self.text, place, self.problems).tokens;
        let problems = &mut *self.problems;
        let (text, depth) = (self.text, self.depth);
        let mut inner = Parser { text, tokens, at: 0, depth, parens: 1, problems };
        let wrong = Expr { kind: ExprKind::Wrong, place };
        if inner.kind() == Kind::End {
            let hint = r"name a value: `{port}`; a plain brace is `\{`";
            inner.problems.hint(place, "nothing between `{` and `}`", hint);
            return wrong;
        }
        let value = inner.expr();
        if value.is_ok() && inner.kind() != Kind::End {
            let _: Parsed<()> = inner.expected("`}`");
        }
        value.unwrap_or(wrong)
    }
}

fn unescaped(c: char) -> Option<char> {
    match c {
        'n' => Some('\n'),
        't' => Some('\t'),
        '"' | '\\' | '{' | '}' => Some(c),
        _ => None,
    }
}
