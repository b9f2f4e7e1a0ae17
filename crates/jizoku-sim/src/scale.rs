//! A large cluster at rest, and how fast a death gets around: figures, not checks.
//!
//! There are no services, no clients and no trouble but one death. What is counted is what nodes
//! say to each other all the time.
//!
//! What it does not know: the mesh's own heartbeats and the headers of frames: they don't pass
//! through the simulator.
//!
//! Units: a frame counts once for each link that it passes, with the bytes of its body.

use std::collections::BTreeMap;
use std::fmt;

use jizoku_types::event::LinkDownCause;
use jizoku_types::{Channel, Event, Instant, NodeId, Span, encode};

use crate::life::Body;
use crate::net::HostId;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::traffic::Frame;
use crate::world::World;

/// The cluster must have formed by then.
const FORMED_WITHIN: Span = Span::secs(120);
/// How often it is looked at while it forms.
const LOOK_EVERY: Span = Span::millis(10);
/// It is left alone for so long before anything is counted.
const CALM: Span = Span::secs(15);
/// What is said in this time is counted.
const COUNTED: Span = Span::secs(20);
/// Who has not noticed a death by then has missed it.
const HEARD_WITHIN: Span = Span::secs(10);

/// What was measured.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Machines.
    pub nodes: usize,
    /// How long it took until all knew all and had a way to all.
    pub formed: Span,
    /// For each channel, frames and bytes of all nodes within [`Figures::counted`].
    pub traffic: BTreeMap<Channel, (u64, u64)>,
    /// For how long they were counted.
    pub counted: Span,
    /// After the power of one failed: when each of the others called it unreachable, in order.
    pub heard: Vec<Span>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { nodes, formed, traffic, counted, heard } = self;
        writeln!(f, "{nodes} nodes: all know all after {formed}")?;
        let per = *nodes as f64 * counted.as_millis() as f64 / 1000.0;
        for (channel, (frames, bytes)) in traffic {
            let (frames, bytes) = (*frames as f64 / per, *bytes as f64 / per);
            writeln!(f, "  {channel:?}: {frames:.1} frames, {bytes:.0} bytes a node and second")?;
        }
        let at = |part: usize| heard.get((heard.len() * part / 100).min(heard.len() - 1));
        match (heard.is_empty(), heard.last()) {
            (false, Some(last)) => write!(
                f,
                "  a death: {} of {} know; half after {}, the last after {last}",
                heard.len(),
                nodes - 1,
                at(50).copied().unwrap_or_default()
            ),
            _ => write!(f, "  a death: nobody noticed"),
        }
    }
}

/// Counts frames, and waits for the news of one death.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    traffic: BTreeMap<Channel, (u64, u64)>,
    dead: Option<(NodeId, Instant)>,
    heard: BTreeMap<HostId, Span>,
}

impl Meter {
    /// A frame passes a link.
    pub(crate) fn count(&mut self, frame: &Frame) {
        let bytes = match &frame.body {
            Body::Consensus(bytes) => bytes.len(),
            Body::Control(message) => encode(message).len(),
            Body::Stream(message) => encode(message).len(),
            Body::State(message) => encode(message).len(),
        };
        let (frames, sum) = self.traffic.entry(frame.channel).or_default();
        *frames += 1;
        *sum += bytes as u64;
    }

    /// Something happened at a machine.
    pub(crate) fn saw(&mut self, now: Instant, host: HostId, event: &Event) {
        let Some((dead, since)) = self.dead else { return };
        if matches!(event, Event::NodeUnreachable { node } if *node == dead) {
            self.heard.entry(host).or_insert(now.since(since));
        }
    }
}

/// Lets a cluster of so many machines form, rest, and lose one.
///
/// # Errors
/// If it does not form, or does what must not be.
pub fn measure(seed: u64, nodes: usize) -> Result<Figures, String> {
    let mut world = World::of(seed, Rng::new(seed), Plan::idle(nodes), None, false);
    let mut formed = Span::ZERO;
    while !world.make() || !world.is_formed() {
        world.run_for(LOOK_EVERY)?;
        formed = world.now.since(Instant::ORIGIN);
        if formed > FORMED_WITHIN {
            return Err(format!("{nodes} nodes have not formed a cluster after {formed}"));
        }
    }
    world.run_for(CALM)?;
    world.meter = Some(Meter::default());
    world.run_for(COUNTED)?;
    let traffic = world.meter.take().map(|meter| meter.traffic).unwrap_or_default();
    let last = nodes - 1;
    let dead = Some((world.machines[last].key, world.now));
    world.meter = Some(Meter { dead, ..Meter::default() });
    world.crash(last, LinkDownCause::Silence, HEARD_WITHIN * 2);
    world.run_for(HEARD_WITHIN)?;
    let heard = world.meter.take().map(|meter| meter.heard).unwrap_or_default();
    let mut heard: Vec<Span> = heard.into_values().collect();
    heard.sort_unstable();
    Ok(Figures { nodes, formed, traffic, counted: COUNTED, heard })
}

impl World {
    fn run_for(&mut self, span: Span) -> Result<(), String> {
        let until = self.now + span;
        while self.next_at().is_some_and(|at| at <= until) {
            self.step();
            if let Some(violation) = &self.violation {
                return Err(violation.clone());
            }
        }
        self.now = until;
        Ok(())
    }

    /// Whether everybody knows everybody, and has a way to everybody.
    fn is_formed(&self) -> bool {
        let all = self.machines.len();
        self.machines
            .iter()
            .filter_map(|machine| machine.life.as_ref())
            .all(|life| life.node.catalog().members().len() == all && life.routes.len() + 1 == all)
    }
}

#[cfg(test)]
mod tests {
    use super::measure;

    #[test]
    fn all_hear_of_a_death() {
        let figures = measure(1, 5).expect("it forms");
        assert_eq!(figures.heard.len(), 4);
        assert!(figures.traffic.values().all(|(frames, bytes)| *frames > 0 && bytes > frames));
    }
}
