//! Properties of engines that capture state: checkpoints, held output, going on elsewhere.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_checkpoint::image::{DiffBuilder, Image};
use jizoku_types::ConnId;

use super::serving::until_alone;
use super::stage::{Draw, Stage, hold};
use super::{Subject, verb};
use crate::Exit;

type Held = Result<(), String>;

pub(super) fn idle_diff(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    stage.round_trip(b"something to remember")?;
    stage.without_change("nothing happened", |_| Ok(()))
}

pub(super) fn tells_changes(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    for _ in 0..3 {
        stage.checkpoint()?;
        let before = stage.changes;
        stage.round_trip(b"a change")?;
        stage.until("a change that is told", |stage| stage.changes > before)?;
    }
    Ok(())
}

pub(super) fn holds_output(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, true)?;
    stage.keeps_safe = false;
    let conn = stage.ask(verb::ECHO, b"held")?;
    stage.until("output at the gateway", |stage| {
        stage.emitted.values().flatten().any(|emitted| emitted.end >= 4)
    })?;
    hold(stage.got(conn) == 0, "output was released before its capture")?;
    stage.until("a change that is told", |stage| stage.changes > 0)?;
    stage.capture()?;
    stage.pump();
    hold(stage.got(conn) == 0, "output was released before its commit")?;
    stage.commit();
    stage.until("released output", |stage| stage.got(conn) == 4)
}

pub(super) fn goes_on_in_place(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    let conn = stage.ask(verb::ECHO, b"")?;
    let mut draw = Draw(4);
    let mut sent = Vec::new();
    for _ in 0..30 {
        let count = 1 + draw.below(30_000);
        let bytes = draw.bytes(count);
        stage.say(conn, &bytes);
        sent.extend(bytes);
        stage.checkpoint()?;
    }
    stage.until("all echoes", |stage| stage.got(conn) >= sent.len())?;
    hold(stage.client(conn).received == sent, "echoes are not what was sent")
}

pub(super) fn goes_on_elsewhere(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, true)?;
    let mut draw = Draw(5);
    let mut clients: Vec<(ConnId, Vec<u8>)> = Vec::new();
    for number in 0..4 {
        let conn = stage.ask(verb::ECHO, b"")?;
        clients.push((conn, Vec::new()));
        // One doesn't take what it gets, so that output stays in the program.
        if number == 0 {
            let bytes = draw.bytes(3 << 20);
            stage.slow(conn);
            stage.say(conn, &bytes);
            clients[0].1.extend(bytes);
        }
    }
    stage.checkpoint()?;
    for _ in 0..40 {
        let (conn, sent) = &mut clients[1 + draw.below(3) as usize];
        let count = 1 + draw.below(20_000);
        let bytes = draw.bytes(count);
        stage.say(*conn, &bytes);
        sent.extend(bytes);
        match draw.below(6) {
            0 | 1 => stage.checkpoint()?,
            2 => stage.ask_capture_if_none(),
            3 => stage.fail_over(),
            _ => stage.pump(),
        }
    }
    stage.until("it runs", |stage| stage.running)?;
    stage.took(clients[0].0);
    for (conn, sent) in &clients {
        stage.until("all echoes", |stage| stage.got(*conn) >= sent.len())?;
        let client = stage.client(*conn);
        hold(!client.reset && !client.ended, "an open connection was ended")?;
        hold(client.received == *sent, "bytes were lost, doubled or changed")?;
    }
    Ok(())
}

pub(super) fn marks_output(subject: &dyn Subject) -> Held {
    const ROUNDS: u64 = 6;
    for restored in [2, ROUNDS - 1] {
        let mut stage = Stage::running(subject, true)?;
        stage.keeps_safe = false;
        let conn = stage.ask(verb::ECHO, b"")?;
        let mut draw = Draw(6);
        let mut sent = Vec::new();
        for round in 0..ROUNDS {
            let count = 1 + draw.below(30_000);
            let bytes = draw.bytes(count);
            stage.say(conn, &bytes);
            sent.extend(bytes);
            // Every other capture comes while there still is something to do.
            if round % 2 == 0 {
                let total = sent.len() as u64;
                stage.until("output at the gateway", |stage| reached(stage, conn) == total)?;
            }
            stage.capture()?;
        }
        let total = sent.len() as u64;
        stage.until("output at the gateway", |stage| reached(stage, conn) == total)?;
        let emitted = stage.emitted.remove(&conn.counter).unwrap_or_default();
        stage.restore(restored);
        stage.until("an attached gateway", |stage| stage.attached.is_some())?;
        let attached = stage.attached.clone().unwrap_or_default();
        let produced = attached.get(&conn.counter).copied().unwrap_or(0);
        for one in emitted {
            if one.cover <= restored && one.end > produced {
                return Err(format!("{one:?} is not in checkpoint {restored}: {produced} bytes"));
            }
            if one.cover > restored && one.start < produced {
                return Err(format!("{one:?} is in checkpoint {restored}: {produced} bytes"));
            }
        }
        stage.keeps_safe = true;
        stage.until("all echoes", |stage| stage.got(conn) >= sent.len())?;
        hold(stage.client(conn).received == sent, "echoes are not what was sent")?;
    }
    Ok(())
}

/// How much output of a connection has come to the gateway.
fn reached(stage: &Stage<'_>, conn: ConnId) -> u64 {
    let emitted = stage.emitted.get(&conn.counter);
    emitted.into_iter().flatten().map(|emitted| emitted.end).max().unwrap_or(0)
}

pub(super) fn ends_survive(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, true)?;
    let bytes = Draw(7).bytes(50_000);
    let keeps = stage.ask(verb::KEEP, &bytes)?;
    let finished = stage.ask(verb::FINISH, b"")?;
    let gone = stage.ask(verb::ECHO, b"x")?;
    stage.until("the program's end", |stage| stage.client(finished).ended)?;
    stage.until("an echo", |stage| stage.got(gone) == 1)?;
    stage.checkpoint()?;
    stage.fail_over();
    stage.reset(gone);
    stage.finish(keeps);
    stage.finish(finished);
    stage.until("what came before the end", |stage| stage.client(keeps).ended)?;
    hold(stage.client(keeps).received == bytes, "what came after the client's end is wrong")?;
    stage.until("both ends", |stage| stage.client(finished).closed)?;
    hold(stage.client(finished).received.is_empty(), "an ended output went on")?;
    until_alone(&mut stage)
}

pub(super) fn clock(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, true)?;
    let conn = stage.ask(verb::CLOCK, b"")?;
    let mut last = 0;
    for round in 0..6 {
        let before = stage.got(conn);
        stage.say(conn, b".");
        stage.until("the time", |stage| stage.got(conn) >= before + 8)?;
        let eight = stage.client(conn).received.last_chunk::<8>().copied().unwrap_or_default();
        let now = u64::from_le_bytes(eight);
        if now < last {
            return Err(format!("after {last} ns the clock showed {now}"));
        }
        hold(last == 0 || now - last < 600_000_000_000, "the clock leapt")?;
        last = now;
        stage.checkpoint()?;
        if round % 2 == 0 {
            stage.fail_over();
        }
    }
    Ok(())
}

pub(super) fn timers(subject: &dyn Subject) -> Held {
    const MILLIS: u32 = 300;
    let mut stage = Stage::running(subject, true)?;
    let conn = stage.ask(verb::TIMER, &MILLIS.to_le_bytes())?;
    // By then the program has seen it.
    stage.round_trip(b"beside a timer")?;
    stage.checkpoint()?;
    stage.fail_over();
    stage.until("a timer's end", |stage| stage.got(conn) == 1)?;
    let conn = stage.ask(verb::TIMER, &MILLIS.to_le_bytes())?;
    stage.round_trip(b"beside a timer")?;
    stage.checkpoint()?;
    stage.until("a timer's end after a capture", |stage| stage.got(conn) == 1)
}

pub(super) fn refuses_damage(subject: &dyn Subject) -> Held {
    let mut stage = Stage::running(subject, false)?;
    stage.ask(verb::KEEP, b"something to be damaged")?;
    stage.round_trip(b"beside it")?;
    stage.checkpoint()?;
    stage.keeps_safe = false;
    let good = stage.images.get(&stage.captured).cloned().unwrap_or_default();
    let mut foreign = DiffBuilder::new(None);
    foreign.bytes("another", b"engine's state");
    let mut wrong = Image::empty();
    wrong.apply_unrooted(&foreign.finish()).map_err(|why| format!("{why}"))?;
    for (image, what) in [(Image::empty(), "an empty state"), (wrong, "a foreign state")] {
        let exit = outcome(&mut stage, image)?;
        let refused = matches!(exit, Some(Exit::CannotStart(_)));
        hold(refused, &format!("{what} led to {exit:?}"))?;
    }
    let names: Vec<String> = good.spaces().map(|(name, _)| name.as_str().to_owned()).collect();
    for name in &names {
        let bytes = good.read_all(name).unwrap_or_default();
        let half = &bytes[..bytes.len() / 2];
        for (content, what) in [
            (None, "missing"),
            (Some(&[0xa5; 5000][..]), "junk"),
            (Some(&[][..]), "empty"),
            (Some(half), "cut"),
        ] {
            let mut builder = DiffBuilder::new(Some(good.clone()));
            match content {
                Some(bytes) => builder.bytes(name, bytes),
                None => builder.drop_space(name),
            };
            let mut image = good.clone();
            image.apply_unrooted(&builder.finish()).map_err(|why| format!("{why}"))?;
            // Nobody can tell what a program's bytes must be: damage may show late, or never.
            // But it is told as what it is, and not by a panic.
            let exit = outcome(&mut stage, image)?;
            let told = match &exit {
                Some(Exit::CannotStart(_)) => true,
                Some(Exit::Crashed(_)) | None => content.is_some(),
                Some(_) => content.is_some() && name.starts_with("memory"),
            };
            hold(told, &format!("with `{name}` {what} it came to {exit:?}"))?;
            let panicked = format!("{exit:?}").contains("it panicked");
            hold(!panicked, &format!("with `{name}` {what} the engine panicked: {exit:?}"))?;
        }
    }
    stage.keeps_safe = true;
    stage.restore_from(good, 1);
    stage.round_trip(b"the good one still goes")
}

/// How a start from `image` ends; none if it runs.
fn outcome(stage: &mut Stage<'_>, image: Image) -> Result<Option<Exit>, String> {
    stage.restore_from(image, 1);
    stage.until("a verdict on a damaged state", |stage| stage.running || stage.exit.is_some())?;
    Ok(stage.exit.clone())
}
