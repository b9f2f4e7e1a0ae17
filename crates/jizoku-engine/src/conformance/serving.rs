//! Properties of every engine: serving, ending, being looked at.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use jizoku_types::limits::INPUT_WINDOW;
use jizoku_types::{ByteCount, Span};

use super::stage::{Draw, Stage, hold};
use super::{Subject, verb};
use crate::{Exit, Input, Stuck};

type Held = Result<(), String>;

/// Round trips after which what is still open is taken for open for ever.
const ROUNDS: usize = 200;
/// More than any buffer between a client and a program that does not read.
const FLOOD: usize = 16 << 20;

pub(super) fn serves(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    stage.round_trip(b"hello")?;
    stage.tell(Input::Stop);
    let exit = stage.until_exit()?;
    hold(exit == Exit::Stopped, "what was told to stop did not say that it stopped")
}

pub(super) fn echoes(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    let mut draw = Draw(1);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push((stage.ask(verb::ECHO, b"")?, Vec::new()));
    }
    for _ in 0..60 {
        let (conn, sent) = &mut clients[draw.below(4) as usize];
        let count = 1 + draw.below(20_000);
        let bytes = draw.bytes(count);
        stage.say(*conn, &bytes);
        sent.extend(bytes);
        if draw.below(3) == 0 {
            stage.pump();
        }
    }
    for (conn, sent) in &clients {
        stage.until("all echoes", |stage| stage.got(*conn) >= sent.len())?;
        hold(stage.client(*conn).received == *sent, "echoes are not what was sent")?;
    }
    Ok(())
}

pub(super) fn client_ends_first(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    let bytes = Draw(2).bytes(100_000);
    let conn = stage.ask(verb::KEEP, &bytes)?;
    stage.finish(conn);
    stage.until("an end after the client's end", |stage| {
        let client = stage.client(conn);
        client.ended || client.reset
    })?;
    hold(!stage.client(conn).reset, "the client's end was answered with a reset")?;
    hold(stage.client(conn).received == bytes, "what came after the client's end is wrong")
}

pub(super) fn program_ends_first(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    let conn = stage.ask(verb::FINISH, b"")?;
    stage.until("the program's end", |stage| stage.client(conn).ended)?;
    // The other direction is still open, and the program reads it: three windows are taken.
    stage.say(conn, &vec![1; 3 * INPUT_WINDOW]);
    stage.until("input after the program's end", |stage| stage.unsent(conn) == 0)?;
    hold(!stage.client(conn).closed, "both directions were closed with the one")?;
    stage.finish(conn);
    stage.until("both ends", |stage| stage.client(conn).closed)
}

pub(super) fn resets(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    let conn = stage.ask(verb::ECHO, b"before")?;
    stage.until("an echo", |stage| stage.got(conn) == 6)?;
    stage.reset(conn);
    stage.round_trip(b"others go on")?;
    until_alone(&mut stage)
}

/// Until the program has no connection but the one that asks.
pub(super) fn until_alone(stage: &mut Stage<'_>) -> Held {
    let mut count = 0;
    for _ in 0..ROUNDS {
        let conn = stage.ask(verb::COUNT, b"")?;
        stage.until("a count", |stage| stage.got(conn) == 8)?;
        stage.finish(conn);
        let bytes = stage.client(conn).received.first_chunk::<8>().copied().unwrap_or_default();
        count = u64::from_le_bytes(bytes);
        if count == 1 {
            return Ok(());
        }
    }
    Err(format!("{count} connections are open for the program instead of 1"))
}

pub(super) fn window(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    let deaf = stage.ask(verb::DEAF, &vec![0; FLOOD])?;
    let bytes = Draw(3).bytes(10_000);
    let most = INPUT_WINDOW * 5 / 4 + subject.capabilities().buffers;
    let (mut taken, mut before) = (0, None);
    // While others are served nothing more of it is taken, in the end.
    while before != Some(taken) {
        before = Some(taken);
        for _ in 0..20 {
            stage.round_trip(&bytes)?;
        }
        taken = FLOOD - stage.unsent(deaf);
        if taken > most {
            return Err(format!("{taken} bytes were taken that the program does not read"));
        }
    }
    hold(taken > 0, "nothing was taken")
}

pub(super) fn stops_once(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    stage.ask(verb::ECHO, b"something")?;
    stage.tell(Input::Stop);
    stage.tell(Input::Stop);
    let exit = stage.until_exit()?;
    hold(exit == Exit::Stopped, "what was told to stop did not say that it stopped")?;
    for input in [Input::Stop, Input::Capture { seq: 1 }, Input::Committed { seq: 0 }, Input::Tick]
    {
        stage.tell(input);
    }
    stage.pump();
    stage.breach.take().map_or(Ok(()), Err)
}

pub(super) fn crashes(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    stage.ask(verb::CRASH, b"")?;
    let exit = stage.until_exit()?;
    let told = matches!(&exit, Exit::Crashed(why) if !why.is_empty());
    hold(told, &format!("a crash was told as {exit:?}"))?;
    stage.tell(Input::Stop);
    stage.pump();
    stage.breach.take().map_or(Ok(()), Err)
}

pub(super) fn status(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    stage.ask(verb::STATUS, &[42])?;
    let exit = stage.until_exit()?;
    hold(exit == Exit::Status(42), &format!("status 42 was told as {exit:?}"))
}

pub(super) fn loops(subject: &dyn Subject) -> Held {
    let mut quiet = Stage::running(subject, false)?;
    let mut stage = Stage::running(subject, false)?;
    stage.keeps_safe = false;
    stage.ask(verb::LOOP, b"")?;
    stage.pump();
    quiet.round_trip(b"beside a loop")?;
    if subject.capabilities().state {
        // Nothing can come of it, and it stands in nobody's way.
        stage.ask_capture();
    }
    stage.tell(Input::Stop);
    let exit = stage.until_exit()?;
    hold(exit == Exit::Stopped, &format!("a stopped loop was told as {exit:?}"))?;
    quiet.round_trip(b"after a loop")
}

pub(super) fn loop_is_seen(subject: &dyn Subject) -> Held {
    let patience = Span::millis(30);
    let mut stage = Stage::running(subject, false)?;
    stage.round_trip(b"well")?;
    stage.until("a program that waits", |stage| check(stage, patience) == Ok(()))?;
    stage.ask(verb::LOOP, b"")?;
    stage.until("a loop that is seen", |stage| {
        matches!(check(stage, patience), Err(Stuck::Silent(_)))
    })?;
    // A client who comes now waits, and that is seen too.
    stage.ask(verb::ECHO, b"")?;
    stage.until("a client who waits", |stage| {
        let (now, instance) = (stage.now(), stage.instance.as_ref());
        instance.is_some_and(|instance| instance.pulse(now).unaccepted[0] > patience)
    })
}

fn check(stage: &Stage<'_>, patience: Span) -> Result<(), Stuck> {
    let instance = stage.instance.as_ref().ok_or(Stuck::NotRunning)?;
    instance.pulse(stage.now()).check(0, patience)
}

pub(super) fn hogs(subject: &dyn Subject) -> Held {
    let mut quiet = Stage::running(subject, false)?;
    let mut stage = Stage::running(subject, false)?;
    stage.ask(verb::HOG, b"")?;
    let exit = stage.until_exit()?;
    hold(matches!(exit, Exit::Crashed(_)), &format!("too much memory was told as {exit:?}"))?;
    quiet.round_trip(b"beside a hog")
}

pub(super) fn prints(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    stage.ask(verb::PRINT, "a line, with \u{fc}\n".as_bytes())?;
    let line = "a line, with \u{fc}";
    stage.until("a printed line", |stage| stage.printed.iter().any(|printed| printed == line))
}

pub(super) fn usage(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    let used = |stage: &Stage<'_>| {
        stage.instance.as_ref().map(|instance| instance.usage()).unwrap_or_default()
    };
    let before = used(&stage);
    hold(before.memory > ByteCount(0), "a running program takes no memory")?;
    stage.ask(verb::LOOP, b"")?;
    stage.pump();
    let more = before.cpu + Span::millis(50);
    stage.until("processor time", |stage| used(stage).cpu >= more)?;
    stage.tell(Input::Stop);
    stage.until_exit()?;
    hold(used(&stage).cpu >= more, "the processor time is forgotten at the end")
}

pub(super) fn captures_once(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    for _ in 0..3 {
        stage.round_trip(b"between captures")?;
        stage.capture()?;
    }
    stage.round_trip(b"after all captures")
}

pub(super) fn captures_nothing(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    stage.round_trip(b"no state")?;
    stage.capture()?;
    hold(stage.last_diff.is_empty(), "something was captured of what has no state")?;
    hold(stage.changes == 0, "a change was told of what has no state")
}

pub(super) fn pulse(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    stage.round_trip(b"alive")?;
    let patience = subject.capabilities().patience;
    let patience = Span::millis(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
    stage.without_change("being looked at left a trace", |stage| {
        for _ in 0..100 {
            check(stage, patience).map_err(|why| format!("a program that serves: {why}"))?;
            stage.instance.as_ref().map(|instance| instance.usage());
            stage.pump();
        }
        Ok(())
    })?;
    stage.tell(Input::Stop);
    stage.until_exit()?;
    hold(check(&stage, patience) == Err(Stuck::NotRunning), "what has ended seems to run")
}
