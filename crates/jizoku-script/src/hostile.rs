//! Scripts that were damaged by chance: whatever they became, nothing panics or hangs, every
//! problem has a place, and what passes the check can be run and planned.

use alloc::string::String;
use alloc::vec::Vec;

use jizoku_types::Instant;

use crate::check::{PartKind, check};
use crate::dice::Dice;
use crate::offer::Offer;
use crate::permission::Permissions;
use crate::run::{Input, Output};
use crate::script::Script;

const SCRIPTS: [&str; 3] = [
    include_str!("../../../examples/scripts/heal_web.jz"),
    include_str!("../../../examples/scripts/disks.jz"),
    include_str!("../../../examples/scripts/rolling_restart.jz"),
];

const PIECES: [&str; 20] = [
    "{",
    "}",
    "(",
    ")",
    "\"",
    "\"\"\"",
    "\n",
    " ?? ",
    "[",
    "]",
    "none",
    "try ",
    " where ",
    "$x",
    "9223372036854775807",
    "1.5",
    "30s",
    "if true ",
    "for x in [1] ",
    "run tell(\"a\", \"b\") ",
];

fn damaged(dice: &mut Dice) -> String {
    let mut text = String::from(*dice.pick(&SCRIPTS));
    for _ in 0..=dice.below(6) {
        let at = text.floor_char_boundary(dice.below(text.len() + 1));
        let to = text.floor_char_boundary((at + dice.below(30)).min(text.len()));
        match dice.below(4) {
            0 => text.replace_range(at..to, ""),
            1 => text.insert_str(at, dice.pick::<&str>(&PIECES)),
            2 => text.truncate(at.max(1)),
            _ => {
                let piece: String = text[at..to].into();
                let other = text.floor_char_boundary(dice.below(text.len() + 1));
                text.insert_str(other, &piece);
            }
        }
    }
    text
}

#[test]
fn damaged_scripts_are_told_what_is_wrong_or_run() {
    let mut dice = Dice::new(11);
    let mut passed = 0;
    for _ in 0..8_000 {
        let text = damaged(&mut dice);
        let checked = check(&text, &Offer::unknown(), None);
        for problem in &checked.problems {
            assert!(!problem.message.is_empty());
            assert!(problem.place.start <= problem.place.end, "{problem:?}\n{text}");
            assert!(problem.place.end as usize <= text.len(), "{problem:?}\n{text}");
        }
        let Ok(script) = Script::read(&text, &Offer::unknown(), None) else { continue };
        passed += 1;
        for part in &checked.parts {
            let run = match part.kind {
                PartKind::Task => script.task(&part.name, Vec::new(), Permissions::ALL),
                PartKind::Monitor => script.monitor(&part.name, Permissions::ALL),
                PartKind::Flow => {
                    let _ = script.plan(&part.name, Vec::new());
                    continue;
                }
                PartKind::Trigger => continue,
            };
            // Tasks with parameters lack their arguments here.
            let Ok(mut run) = run else { continue };
            let mut input = Input::Go;
            for _ in 0..3_000 {
                match run.step(Instant::ORIGIN, input) {
                    Output::Ended(_) => break,
                    Output::Call(_) => input = Input::Answer(Err("no".into())),
                    Output::Yield => input = Input::Go,
                }
            }
            assert!(run.ended().is_some(), "{} hangs in\n{text}", part.name);
        }
    }
    assert!(passed > 100, "{passed}");
}
