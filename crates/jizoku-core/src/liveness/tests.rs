//! Detection times, adaptation, and the excuse of a late node.

use super::*;

const A: NodeId = NodeId([1; 32]);
const B: NodeId = NodeId([2; 32]);

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn beat(detector: &mut Detector, now: u64) {
    detector.handle(at(now), Heard::Something { rtt: None });
}

/// Beats with these gaps from time 0; gives the time of the last beat.
fn beats(detector: &mut Detector, gaps: impl IntoIterator<Item = u64>) -> u64 {
    let mut now = 0;
    for gap in gaps {
        now += gap;
        beat(detector, now);
    }
    now
}

fn regular(detector: &mut Detector) -> u64 {
    beats(detector, core::iter::repeat_n(40, 500))
}

#[test]
fn a_regular_link_is_silent_after_the_shortest_timeout() {
    let mut detector = Detector::new(at(0), Timing::default());
    let last = regular(&mut detector);
    assert_eq!(detector.timeout(), TIMEOUT_MIN);
    assert_eq!(detector.poll(), None);

    assert_eq!(detector.deadline(), Some(at(last + 90)));
    detector.handle(at(last + 89), Heard::Nothing);
    assert_eq!(detector.verdict(), Verdict::Alive);
    detector.handle(at(last + 90), Heard::Nothing);
    assert_eq!(detector.poll(), Some(Verdict::Suspect));
    assert_eq!(detector.deadline(), Some(at(last + 150)));
    detector.handle(at(last + 150), Heard::Nothing);
    assert_eq!(detector.poll(), Some(Verdict::Silent));
    assert_eq!(detector.poll(), None);
    assert_eq!(detector.deadline(), None);
}

#[test]
fn a_new_link_is_given_more_time() {
    let mut detector = Detector::new(at(0), Timing::default());
    assert_eq!(detector.timeout(), TIMEOUT_MAX);
    detector.handle(at(999), Heard::Nothing);
    assert_eq!(detector.verdict(), Verdict::Suspect);
    beat(&mut detector, 999);
    assert_eq!(detector.timeout(), Span::millis(640));
    let mut mute = Detector::new(at(0), Timing::default());
    mute.handle(at(1_000), Heard::Nothing);
    assert_eq!(mute.verdict(), Verdict::Silent);
}

#[test]
fn the_timeout_grows_with_jitter_and_shrinks_when_it_is_over() {
    let mut detector = Detector::new(at(0), Timing::default());
    let mut now = regular(&mut detector);
    for gap in [40, 140, 10, 130, 40, 145, 20, 120] {
        now += gap;
        beat(&mut detector, now);
    }
    let jittery = detector.timeout();
    assert!(jittery > Span::millis(250), "{jittery}");
    assert!(jittery <= TIMEOUT_MAX);
    for _ in 0..500 {
        now += 40;
        beat(&mut detector, now);
    }
    assert_eq!(detector.timeout(), TIMEOUT_MIN);
}

#[test]
fn the_timeout_is_bounded_above_by_any_gaps() {
    let mut detector = Detector::new(at(0), Timing::default());
    beats(&mut detector, [5_000, 1, 60_000, 1, 999_999, 0, 0, 3_600_000]);
    assert!(detector.timeout() <= TIMEOUT_MAX);
    assert!(detector.timeout() >= Span::millis(500));
}

#[test]
fn a_sound_revives() {
    let mut detector = Detector::new(at(0), Timing::default());
    let last = regular(&mut detector);
    detector.handle(at(last + 2_000), Heard::Nothing);
    assert_eq!(detector.poll(), Some(Verdict::Silent));
    beat(&mut detector, last + 2_001);
    assert_eq!(detector.poll(), Some(Verdict::Alive));
}

#[test]
fn time_that_runs_backwards_does_no_harm() {
    let mut detector = Detector::new(at(1_000), Timing::default());
    beat(&mut detector, 2_000);
    beat(&mut detector, 500);
    detector.handle(at(2_000), Heard::Nothing);
    assert_eq!(detector.verdict(), Verdict::Alive);
}

#[test]
fn round_trips_are_smoothed() {
    let mut detector = Detector::new(at(0), Timing::default());
    assert_eq!(detector.rtt(), None);
    detector.handle(at(1), Heard::Something { rtt: Some(Span::micros(100)) });
    assert_eq!(detector.rtt(), Some(Span::micros(100)));
    detector.handle(at(2), Heard::Something { rtt: Some(Span::micros(900)) });
    assert_eq!(detector.rtt(), Some(Span::micros(200)));
    detector.handle(at(3), Heard::Something { rtt: None });
    assert_eq!(detector.rtt(), Some(Span::micros(200)));
}

/// A node with links to A and B that beat regularly until `until`.
fn node(until: u64) -> Liveness {
    let mut node = Liveness::new(Timing::default());
    node.handle(at(0), Input::Up(A));
    node.handle(at(0), Input::Up(B));
    for now in (0..=until).step_by(40) {
        node.handle(at(now), Input::Woke { due: at(now) });
        node.handle(at(now), Input::Heard { peer: A, rtt: None });
        node.handle(at(now), Input::Heard { peer: B, rtt: None });
        node.handle(at(now), Input::Tick);
    }
    assert_eq!(node.poll(), None);
    node
}

fn outputs(node: &mut Liveness) -> alloc::vec::Vec<Output> {
    core::iter::from_fn(|| node.poll()).collect()
}

#[test]
fn only_the_quiet_link_is_called_silent() {
    let mut node = node(20_000);
    for now in (20_040..20_400).step_by(40) {
        node.handle(at(now), Input::Woke { due: at(now) });
        node.handle(at(now), Input::Heard { peer: A, rtt: None });
        node.handle(at(now), Input::Tick);
    }
    let said = outputs(&mut node);
    let expected =
        [Verdict::Suspect, Verdict::Silent].map(|verdict| Output::Verdict { peer: B, verdict });
    assert_eq!(said, expected);
    assert_eq!(node.link(A).map(Detector::verdict), Some(Verdict::Alive));
}

#[test]
fn a_late_node_judges_nobody_before_one_more_timeout() {
    let mut node = node(20_000);
    // It meant to wake at 20 040 and was paused for five seconds.
    node.handle(at(25_040), Input::Woke { due: at(20_040) });
    assert!(!node.may_judge());
    node.handle(at(25_040), Input::Tick);
    assert_eq!(outputs(&mut node), [Output::Late { by: Span::secs(5) }]);

    // A is heard again, B is really dead: it is silent one time-out after the wake.
    node.handle(at(25_050), Input::Heard { peer: A, rtt: None });
    assert!(!node.may_judge());
    node.handle(at(25_129), Input::Tick);
    assert_eq!(outputs(&mut node), []);
    node.handle(at(25_140), Input::Heard { peer: A, rtt: None });
    node.handle(at(25_190), Input::Tick);
    assert!(node.may_judge());
    let silent = Output::Verdict { peer: B, verdict: Verdict::Silent };
    assert_eq!(outputs(&mut node), [silent]);
    assert_eq!(node.link(A).map(Detector::timeout), Some(TIMEOUT_MIN), "the pause taught nothing");
}

#[test]
fn a_late_node_may_judge_as_soon_as_it_heard_everybody() {
    let mut node = node(20_000);
    node.handle(at(21_000), Input::Woke { due: at(20_040) });
    node.handle(at(21_000), Input::Heard { peer: A, rtt: None });
    assert!(!node.may_judge());
    node.handle(at(21_001), Input::Heard { peer: B, rtt: None });
    assert!(node.may_judge());
}

#[test]
fn a_suspect_is_cleared_by_lateness() {
    let mut node = node(20_000);
    node.handle(at(20_100), Input::Tick);
    assert_eq!(outputs(&mut node).len(), 2, "both are suspects");
    node.handle(at(20_300), Input::Woke { due: at(20_110) });
    node.handle(at(20_300), Input::Tick);
    let said = outputs(&mut node);
    assert!(said.contains(&Output::Verdict { peer: A, verdict: Verdict::Alive }));
    assert!(
        !said
            .iter()
            .any(|output| { matches!(output, Output::Verdict { verdict: Verdict::Silent, .. }) })
    );
}

#[test]
fn a_link_that_is_down_says_nothing() {
    let mut node = node(20_000);
    node.handle(at(20_010), Input::Down(A));
    node.handle(at(20_010), Input::Down(B));
    assert_eq!(node.deadline(), None);
    node.handle(at(30_000), Input::Heard { peer: A, rtt: None });
    node.handle(at(30_000), Input::Tick);
    assert_eq!(outputs(&mut node), []);
}

#[test]
fn a_little_lateness_is_no_excuse() {
    let mut node = node(20_000);
    node.handle(at(20_100), Input::Woke { due: at(20_040) });
    assert!(node.may_judge());
    assert_eq!(outputs(&mut node), []);
}

#[test]
fn a_link_that_was_wrongly_called_silent_is_given_more_time() {
    let mut node = node(20_000);
    node.handle(at(20_200), Input::Tick);
    assert_eq!(node.link(A).map(Detector::verdict), Some(Verdict::Silent));
    let mut patience = Span::ZERO;
    let mut now = 20_200;
    for _ in 0..5 {
        node.handle(at(now), Input::Down(A));
        node.handle(at(now), Input::Up(A));
        node.handle(at(now), Input::Heard { peer: A, rtt: None });
        let given = node.link(A).expect("up").timeout();
        assert!(given >= patience && given <= TIMEOUT_MAX + BEAT, "{given}");
        patience = given;
        now += given.as_millis();
        node.handle(at(now), Input::Tick);
        assert_eq!(node.link(A).map(Detector::verdict), Some(Verdict::Silent));
    }
    assert_eq!(patience, TIMEOUT_MAX);
}

#[test]
fn a_timing_must_leave_room_for_lost_beats() {
    let millis = Span::millis;
    assert_eq!(Timing::new(BEAT, TIMEOUT_MIN, TIMEOUT_MAX), Ok(Timing::default()));
    for (beat, min, max) in [(50, 150, 1_000), (40, 150, 149), (0, 150, 1_000)] {
        assert_eq!(Timing::new(millis(beat), millis(min), millis(max)), Err(TimingError));
    }
    let slow = Timing::new(millis(400), millis(1_500), millis(3_000)).expect("patient");
    let mut detector = Detector::new(at(0), slow);
    beats(&mut detector, core::iter::repeat_n(400, 500));
    assert_eq!(detector.timeout(), slow.timeout_min());
}
