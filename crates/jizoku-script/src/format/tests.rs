//! Formatting: what it makes of a text, and that it keeps what the text means.

use alloc::string::String;
use alloc::vec::Vec;

use super::format;
use crate::dice::Dice;
use crate::problem::{Place, Problems};
use crate::syntax::lexer::{Kind, tokens};

const CROOKED: &str = r#"
jizoku   1
event cpu{pct:float,core : int ?}
# restarts
task  restart ( port:int=8080 )idempotent{   # now
service.restart( "nginx" )


      let r=http.get( "http://127.0.0.1:{port}/" ,within :3s )
  ensure r . status==200&&!( r.body has"error" )
      && port>-1,"web"
  let list:[int ?] =[ 1,2 , - 3 ]
if port==1{return}else if list[0]==none{

   fail """
  as it is
"""

  }
  for x in( list ){ break }
  log.emit(
  "cpu",
    pct:1.5,
  )
}
flow f within 5m{
  run restart(1)on"role:web"
  within 30s
  on failure{
  pause 1s
  }
  par limit 2{ }
}
on log "cpu" where pct>90.0 &&core !=-2
for 30s
do f
"#;

const STRAIGHT: &str = r#"jizoku 1
event cpu { pct: float, core: int? }
# restarts
task restart(port: int = 8080) idempotent {  # now
    service.restart("nginx")

    let r = http.get("http://127.0.0.1:{port}/", within: 3s)
    ensure r.status == 200 && !(r.body has "error")
        && port > -1, "web"
    let list: [int?] = [1, 2, -3]
    if port == 1 { return } else if list[0] == none {
        fail """
  as it is
"""
    }
    for x in (list) { break }
    log.emit(
        "cpu",
        pct: 1.5,
    )
}
flow f within 5m {
    run restart(1) on "role:web"
        within 30s
        on failure {
            pause 1s
        }
    par limit 2 {}
}
on log "cpu" where pct > 90.0 && core != -2
    for 30s
    do f
"#;

#[test]
fn crooked_lines_are_made_straight() {
    let made = format(CROOKED).unwrap();
    assert_eq!(made, STRAIGHT, "\n{made}");
    assert_eq!(format(STRAIGHT).unwrap(), STRAIGHT);
}

#[test]
fn what_cannot_be_read_is_refused() {
    assert!(format("task a( {").is_err());
    assert_eq!(format("").unwrap(), "");
    assert_eq!(format("\n\n# only\n").unwrap(), "# only\n");
}

fn parts(text: &str) -> (Vec<(Kind, String, bool)>, Vec<String>) {
    let mut problems = Problems::default();
    let read = tokens(text, Place::new(0, text.len()), &mut problems);
    let token = |t: &crate::syntax::lexer::Token| (t.kind, t.place.of(text).into(), t.newline);
    let comment = |place: &Place| place.of(text).trim_end().into();
    let mut list: Vec<_> = read.tokens.iter().map(token).collect();
    if let Some(last) = list.last_mut() {
        last.2 = false;
    }
    (list, read.comments.iter().map(comment).collect())
}

/// Scripts with blanks, newlines and comments strewn in, pieces moved and lost: whatever can
/// still be read keeps its tokens, its lines and its comments, and is formatted once for all.
#[test]
fn formatting_keeps_the_meaning_and_happens_once() {
    let mut dice = Dice::new(7);
    let mut formatted = 0;
    for _ in 0..6_000 {
        let mut text = String::from(*dice.pick(&[CROOKED, STRAIGHT]));
        for _ in 0..dice.below(12) {
            let at = text.floor_char_boundary(dice.below(text.len()));
            let to = text.floor_char_boundary((at + dice.below(8)).min(text.len()));
            match dice.below(4) {
                0 => text.replace_range(at..to, ""),
                1 => text.insert_str(
                    at,
                    dice.pick::<&str>(&[" ", "\n", "\t", "  \n\n", " # x \n", "\r\n"]),
                ),
                2 => text.insert_str(
                    at,
                    dice.pick::<&str>(&["-", "!", ".", "?", "(x)", "[1]", ";", "$a", "1"]),
                ),
                _ => {
                    let piece: String = text[at..to].into();
                    let other = text.floor_char_boundary(dice.below(text.len()));
                    text.insert_str(other, &piece);
                }
            }
        }
        let Ok(made) = format(&text) else { continue };
        formatted += 1;
        assert_eq!(parts(&made), parts(&text), "{text}\n---\n{made}");
        assert_eq!(format(&made).as_deref(), Ok(&*made), "{text}");
    }
    assert!(formatted > 500, "{formatted}");
}
