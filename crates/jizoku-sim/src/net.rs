//! The simulated network: which frames arrive, when, and in what order.
//!
//! It stands for the mesh's links. Between each two nodes there may be a link; a link that works
//! carries frames of each channel in order, unless the weather says otherwise. A cut takes the
//! frames under way with it. Both ends learn of a cut after a while, as heartbeats would tell
//! them, and of a crashed process almost at once, as a reset would.
//!
//! What it does not know: what frames mean; routes (the nodes relay by themselves).

use std::collections::BTreeSet;

use jizoku_types::{Channel, Instant, Span};

use crate::rng::Rng;

/// A simulated machine's number.
pub type HostId = usize;

/// What a direction of a link does to frames.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Least time under way.
    pub latency: Span,
    /// Most time added to it.
    pub jitter: Span,
    /// Frames lost, per thousand.
    pub lost: u64,
    /// Frames that arrive twice, per thousand.
    pub doubled: u64,
    /// Frames that overtake others, per thousand.
    pub overtaking: u64,
}

impl Weather {
    /// A good local network.
    pub const CLEAR: Weather = Weather {
        latency: Span::micros(50),
        jitter: Span::micros(100),
        lost: 0,
        doubled: 0,
        overtaking: 0,
    };

    /// Nothing is lost, but much arrives twice, the second time late.
    pub const DOUBLING: Weather = Weather {
        latency: Span::micros(50),
        jitter: Span::millis(5),
        lost: 0,
        doubled: 300,
        overtaking: 100,
    };

    /// Slow, lossy, doubling and reordering.
    pub const FOUL: Weather = Weather {
        latency: Span::millis(1),
        jitter: Span::millis(20),
        lost: 20,
        doubled: 20,
        overtaking: 50,
    };
}

/// Something for each direction between two machines. Each frame asks for some of it.
#[derive(Debug)]
pub struct Ways<T>(Vec<Vec<T>>);

impl<T> Default for Ways<T> {
    fn default() -> Ways<T> {
        Ways(Vec::new())
    }
}

impl<T: Copy + Default> Ways<T> {
    /// What there is for this direction; if nothing was put there, what there is by default.
    pub fn get(&self, from: HostId, to: HostId) -> T {
        self.0.get(from).and_then(|row| row.get(to)).copied().unwrap_or_default()
    }

    /// The place for this direction.
    pub fn get_mut(&mut self, from: HostId, to: HostId) -> &mut T {
        if self.0.len() <= from {
            self.0.resize_with(from + 1, Vec::new);
        }
        let row = &mut self.0[from];
        if row.len() <= to {
            row.resize(to + 1, T::default());
        }
        &mut row[to]
    }
}

/// How many channels there are.
const CHANNELS: usize = Channel::Bulk as usize + 1;

/// All links.
#[derive(Debug)]
pub struct Net {
    cut: BTreeSet<(HostId, HostId)>,
    /// Pairs that never have a link: others must relay.
    apart: BTreeSet<(HostId, HostId)>,
    /// What is usual between two machines.
    climate: Ways<Option<Weather>>,
    weather: Ways<Option<Weather>>,
    /// When the last frame arrives that keeps its order, by channel.
    last: Ways<[Instant; CHANNELS]>,
    rng: Rng,
}

impl Net {
    /// Everyone linked to everyone, in clear weather.
    pub fn new(rng: Rng) -> Net {
        Net {
            cut: BTreeSet::new(),
            apart: BTreeSet::new(),
            climate: Ways::default(),
            weather: Ways::default(),
            last: Ways::default(),
            rng,
        }
    }

    /// Sets what one direction is like when nothing is wrong.
    pub fn set_climate(&mut self, from: HostId, to: HostId, weather: Weather) {
        *self.climate.get_mut(from, to) = Some(weather);
    }

    /// Two machines that never have a link.
    pub fn part(&mut self, a: HostId, b: HostId) {
        self.apart.extend([(a, b), (b, a)]);
    }

    /// Whether two machines could ever have a link.
    pub fn is_linkable(&self, a: HostId, b: HostId) -> bool {
        !self.apart.contains(&(a, b))
    }

    /// Stops all frames from `from` to `to`.
    pub fn cut(&mut self, from: HostId, to: HostId) {
        self.cut.insert((from, to));
    }

    /// Lets frames from `from` to `to` through again.
    pub fn heal(&mut self, from: HostId, to: HostId) {
        self.cut.remove(&(from, to));
    }

    /// Lets everything through again, in clear weather.
    pub fn heal_all(&mut self) {
        self.cut.clear();
        self.weather = Ways::default();
    }

    /// Clear weather everywhere.
    pub fn clear_weather(&mut self) {
        self.weather = Ways::default();
    }

    /// Whether frames pass both ways.
    pub fn works(&self, a: HostId, b: HostId) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    /// Whether frames pass from `from` to `to`.
    pub fn passes(&self, from: HostId, to: HostId) -> bool {
        !self.cut.contains(&(from, to)) && self.is_linkable(from, to)
    }

    /// Sets the weather of one direction.
    pub fn set_weather(&mut self, from: HostId, to: HostId, weather: Weather) {
        *self.weather.get_mut(from, to) = Some(weather);
    }

    /// When copies of a frame sent now arrive: none, one or two times.
    pub fn send(
        &mut self,
        now: Instant,
        from: HostId,
        to: HostId,
        channel: Channel,
    ) -> Vec<Instant> {
        if from == to {
            return vec![now + Span::micros(1)];
        }
        if !self.passes(from, to) {
            return Vec::new();
        }
        let weather = self.weather.get(from, to).or_else(|| self.climate.get(from, to));
        let weather = weather.unwrap_or(Weather::CLEAR);
        if self.rng.permille(weather.lost) {
            return Vec::new();
        }
        let mut at = now + self.rng.span(weather.latency, weather.latency + weather.jitter);
        let last = &mut self.last.get_mut(from, to)[channel as usize];
        if !self.rng.permille(weather.overtaking) {
            at = at.max(*last + Span::nanos(1));
            *last = at;
        }
        let mut arrivals = vec![at];
        if self.rng.permille(weather.doubled) {
            arrivals.push(at + self.rng.span(Span::nanos(1), weather.jitter + Span::micros(1)));
        }
        arrivals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_keeps_its_order_in_clear_weather() {
        let mut net = Net::new(Rng::new(1));
        let mut last = Instant::ORIGIN;
        for step in 0..1000 {
            let now = Instant::from_nanos(step * 10_000);
            let arrivals = net.send(now, 0, 1, Channel::State);
            assert_eq!(arrivals.len(), 1);
            assert!(arrivals[0] > last);
            last = arrivals[0];
        }
    }

    #[test]
    fn a_cut_stops_one_direction() {
        let mut net = Net::new(Rng::new(1));
        net.cut(0, 1);
        assert!(net.send(Instant::ORIGIN, 0, 1, Channel::Control).is_empty());
        assert!(!net.send(Instant::ORIGIN, 1, 0, Channel::Control).is_empty());
        assert!(!net.works(0, 1));
    }
}
