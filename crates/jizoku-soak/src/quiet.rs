//! Nothing happens, on a machine that is busy: nobody may take anything over, and no connection
//! may break.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::campaign::{Campaign, load};
use crate::check::Violation;
use crate::plan::Step;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Watches for so long, while so many threads compute.
pub fn run(campaign: &mut Campaign, lasts: Duration, threads: usize) {
    let step = Step { number: 0, faults: Vec::new(), between: Duration::ZERO };
    let Some(before) = campaign.look() else { return };
    let stop = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..threads)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut sum = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
                }
            })
        })
        .collect();
    let until = campaign.now() + lasts;
    while campaign.now() < until {
        std::thread::sleep(LOOK_EVERY.min(until.saturating_sub(campaign.now())));
        let answers: u64 = campaign.services.iter().map(|one| one.seen().answers).sum();
        println!(
            "{:>7.1} s  quiet: {answers} answers, load {}",
            campaign.now().as_secs_f64(),
            load()
        );
        campaign.judge_calm(&step);
        if !campaign.report.violations.is_empty() {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().expect("it only computes"));
    let epochs = |look: &crate::machines::Look| {
        campaign.services.iter().map(|one| look.epoch(one.name)).collect::<Vec<_>>()
    };
    match campaign.look() {
        Some(after) if epochs(&after) == epochs(&before) => {}
        _ => campaign.violation(&step, Violation::Other("somebody took something over".into())),
    }
}
