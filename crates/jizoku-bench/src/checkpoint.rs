//! A checkpoint of 64 MiB of which one page in a hundred changed: how long the program stands
//! still for it, and how much is shipped for what changed.
//!
//! The values don't compress, so that what is shipped is what would be without compression. Bytes
//! are those of all parts to all holders, repetitions included, for each holder and each byte of a
//! changed block.

use jizoku_e2e::cluster::Cluster;
use jizoku_e2e::resp::Connection;
use serde_json::json;

use crate::Bench;
use crate::clients::{self, Noise, VALUE};
use crate::figure::{Figure, Limit};
use crate::stage::{Place, STATE, Stage, conditions};

pub(crate) const BENCH: Bench = Bench {
    name: "checkpoint",
    what: "pause and bytes of a checkpoint, 64 MiB, 1 % dirty",
    seconds: 50,
    run,
};
const ROUNDS: usize = 20;
const PAGE: usize = 4096;
/// Pages that are written between two checkpoints.
const DIRTY: usize = STATE / PAGE / 100;

fn run() -> Vec<Figure> {
    let stage = Stage::new(Cluster::empty());
    let address = stage.gateways()[0];
    let mut connection = Connection::open(address).expect("the service can be reached");
    let mut figures = Vec::new();
    let mut rounds = 0;
    for place in Place::ALL {
        let roles = stage.arrange(place);
        let before = Bytes::read(&stage, roles.active);
        let mut pauses = Vec::new();
        let mut shipped = Vec::new();
        for round in 0..ROUNDS {
            // Never the same values again: what is written as it was doesn't change a block.
            rounds += 1;
            write(&mut connection, &stage, round, rounds);
            let (pause, bytes) = last(&stage, roles.active);
            pauses.push(pause);
            shipped.push(bytes);
        }
        let after = Bytes::read(&stage, roles.active);
        figures.push(
            Figure::new("pause of the program", "ms", pauses, Limit::Most(2.0, 0.5))
                .under(&conditions("164 values in as many pages written at once", place))
                .with(json!({ "place": place.text(), "shipped_bytes": shipped })),
        );
        let (sent, changed) = (after.sent - before.sent, after.changed - before.changed);
        let ratio = sent as f64 / (changed as f64 * 2.0);
        figures.push(
            Figure::new("bytes shipped per dirty byte", "", vec![ratio], Limit::Most(1.3, 1.05))
                .under(&conditions("the same; values that don't compress", place))
                .with(json!({ "place": place.text(), "sent": sent, "changed": changed })),
        );
    }
    figures
}

/// Writes one value in each of so many pages, all in one request.
fn write(connection: &mut Connection, stage: &Stage, round: usize, seed: u64) {
    // Values lie behind one another, about four in a page: these lie apart.
    let step = stage.keys / DIRTY;
    assert!(step * VALUE > PAGE, "no two of them share a page");
    let keys = (0..DIRTY).map(|number| number * step + round % step);
    let mut noise = Noise::new(seed + 1);
    clients::write_keys(connection, keys, DIRTY, &mut noise).expect("an answer");
}

/// Pause in milliseconds and bytes of the newest large checkpoint.
fn last(stage: &Stage, active: usize) -> (f64, u64) {
    let large = (DIRTY * VALUE / 2) as u64;
    jizoku_e2e::wait_for("a large checkpoint", std::time::Duration::from_secs(10), || {
        let status = stage.cluster.service(active, "kv");
        let checkpoint = &status["checkpoint"];
        let shipped = checkpoint["shipped_bytes"].as_u64()?;
        let pause = checkpoint["pause_us"].as_f64()? / 1000.0;
        (shipped >= large).then_some((pause, shipped))
    })
}

/// What the active node counts.
struct Bytes {
    changed: u64,
    sent: u64,
}

impl Bytes {
    fn read(stage: &Stage, active: usize) -> Bytes {
        let metric =
            |name: &str| stage.cluster.metric(active, &format!("{name}{{service=\"kv\"}}"));
        Bytes {
            changed: metric("jizoku_checkpoint_changed_bytes_total"),
            sent: metric("jizoku_checkpoint_sent_bytes_total"),
        }
    }
}
