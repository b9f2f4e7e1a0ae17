//! Any order of deaths, cuts, crashes, moves and drains: none of it goes round in circles, and
//! what was cut, killed or drained is served again when all is well.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use alloc::vec::Vec;

use jizoku_core::catalog::Command;
use jizoku_types::Span;
use jizoku_types::spec::{OutputMode, PartitionPolicy, ServiceSpec};

use super::super::{Input, Request};
use super::world::{SERVICE, World, id, nodes, spec};

const NODES: u8 = 5;

#[derive(Clone, Debug)]
enum Trouble {
    Kill(u8),
    Start(u8),
    Crash(u8),
    Drain(u8, bool),
    Move(u8, u8),
    Cut(u8, u8),
    Meet,
    Run(u64),
}

fn trouble(dice: &mut ChaCha8Rng) -> Trouble {
    let mut below = |n: u64| dice.next_u64() % n;
    let a = u8::try_from(1 + below(u64::from(NODES))).expect("few nodes");
    let b = u8::try_from(1 + below(u64::from(NODES))).expect("few nodes");
    match below(14) {
        0 | 1 => Trouble::Kill(a),
        2 | 3 => Trouble::Start(a),
        4 | 5 => Trouble::Crash(a),
        6 | 7 => Trouble::Drain(a, below(2) == 0),
        8 => Trouble::Move(a, b),
        9 => Trouble::Cut(a, b),
        10 => Trouble::Meet,
        _ => Trouble::Run(below(3_000)),
    }
}

fn spell(world: &mut World, trouble: &Trouble) {
    let up = |world: &World, n: u8| world.is_up(n);
    match *trouble {
        Trouble::Kill(n) if up(world, n) && world.count_up() > 1 => world.kill(n),
        Trouble::Start(n) if !up(world, n) => world.start(n),
        Trouble::Crash(n) if world.runs(n).is_some() => world.crash(n),
        Trouble::Drain(n, draining) => {
            let asked = (1..=NODES).find(|n| up(world, *n)).expect("one is up");
            world.request(asked, Command::SetDraining { node: id(n), draining });
        }
        Trouble::Move(n, to) => {
            let request = Request::Move { service: SERVICE, to: Some(id(to)) };
            world.give(n, Input::Request { id: 1, request });
        }
        Trouble::Cut(a, b) => {
            world.split(&[nodes([a, b]), (1..=NODES).filter(|n| *n != a && *n != b).collect()])
        }
        Trouble::Meet => world.meet(),
        Trouble::Run(ms) => world.run(Span::millis(ms)),
        _ => {}
    }
}

#[test]
fn whatever_happens_it_is_served_again() {
    for seed in 0..600 {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let count = 1 + dice.next_u64() % 25;
        let troubles: Vec<Trouble> = (0..count).map(|_| trouble(&mut dice)).collect();
        let pick = dice.next_u64() % 4;
        let partition =
            if pick % 2 == 0 { PartitionPolicy::Continue } else { PartitionPolicy::Stop };
        let output = if pick < 2 { OutputMode::Held } else { OutputMode::Free };
        let mut world = World::serving(NODES, ServiceSpec { partition, output, ..spec() });
        for one in &troubles {
            spell(&mut world, one);
        }
        world.meet();
        for n in 1..=NODES {
            if !world.is_up(n) {
                world.start(n);
            }
        }
        for n in 1..=NODES {
            world.request(1, Command::SetDraining { node: id(n), draining: false });
        }
        world.run(Span::secs(120));
        let (record, running) = (world.record(), world.running());
        let active = record.active.map(|active| (active.node.0[0], record.epoch));
        assert_eq!(active.into_iter().collect::<Vec<_>>(), running, "seed {seed}: {troubles:?}");
    }
}
