//! Decisions about one function before it is rewritten: where execution re-enters for each call
//! that may unwind, which blocks have such a call inside, and which stack values need no copy
//! because they can be read again later.

use crate::binary::op;
use crate::body::{BlockKind, Body, Callee, Instr, Kind, NEVER, Site, repeatable};

/// How far before a call its entry point may lie, in instructions.
const ENTRY_DISTANCE_MAX: u32 = 64;

/// The decisions, by index in the lists of `Body`.
pub(crate) struct Plan {
    /// By block: whether a site lies inside. Such blocks are entered in the middle when rewinding.
    pub(crate) holds_site: Vec<bool>,
    /// By block: the innermost loop with a site inside (or the function) that it is in or is. That
    /// is where a rewind chooses between what lies directly inside; a *region*.
    pub(crate) regions: Vec<u32>,
    /// By site: the instruction before which execution re-enters. From there to the call, only
    /// instructions that may be repeated are run, and only arguments of the call are pushed.
    pub(crate) entries: Vec<u32>,
    /// By instruction: it pushes a local or constant which, instead of being kept on the operand
    /// stack over a site, is read again where it is used.
    pub(crate) deferred: Vec<bool>,
}

impl Plan {
    /// Decides for `body`.
    pub(crate) fn new(body: &Body<'_>) -> Self {
        let mut holds_site = vec![false; body.blocks.len()];
        for site in &body.sites {
            let mut block = site.block;
            while !std::mem::replace(&mut holds_site[block as usize], true) {
                block = body.blocks[block as usize].parent;
            }
        }
        let entries: Vec<u32> = body.sites.iter().map(|site| entry(body, site)).collect();
        let starts = body.blocks.iter().zip(&holds_site).skip(1);
        let starts = starts.filter(|(_, holds)| **holds).map(|(block, _)| block.start);
        let mut spills: Vec<u32> = entries.iter().copied().chain(starts).collect();
        spills.sort_unstable();
        let mut regions = Vec::with_capacity(body.blocks.len());
        for (index, block) in (0..).zip(&body.blocks) {
            let is_region = block.kind == BlockKind::Function
                || (block.kind == BlockKind::Loop && holds_site[index as usize]);
            regions.push(if is_region { index } else { regions[block.parent as usize] });
        }
        let deferred = deferred(body, &spills);
        Self { holds_site, regions, entries, deferred }
    }
}

/// The best entry point of a site: where the fewest values are on the operand stack, and as late
/// as possible.
fn entry(body: &Body<'_>, site: &Site) -> u32 {
    let call = &body.instrs[site.at as usize];
    let floor = call.height - call.pops;
    let mut best = site.at;
    let mut best_height = call.height;
    for at in (site.at.saturating_sub(ENTRY_DISTANCE_MAX)..site.at).rev() {
        if best_height == floor {
            break;
        }
        let instr = &body.instrs[at as usize];
        let straight = matches!(instr.kind, Kind::Plain | Kind::Const | Kind::Get(_));
        if !straight || !repeatable(body.opcode(instr), site.callee == Callee::Inner) {
            break;
        }
        if instr.height >= floor && instr.height < best_height {
            (best, best_height) = (at, instr.height);
        }
    }
    best
}

/// Finds the values that cross one of `spills` (sorted) and need not be copied for it.
fn deferred(body: &Body<'_>, spills: &[u32]) -> Vec<bool> {
    let mut writes: Vec<(u32, u32)> = (0..)
        .zip(&body.instrs)
        .filter_map(|(at, instr)| match instr.kind {
            Kind::Set(local) | Kind::Tee(local) => Some((local, at)),
            _ => None,
        })
        .collect();
    writes.sort_unstable();
    let mut deferred = vec![false; body.instrs.len()];
    for value in &body.values {
        let Instr { kind, .. } = body.instrs[value.producer as usize];
        let next_spill = spills.partition_point(|spill| *spill <= value.producer);
        let crosses = spills.get(next_spill).is_some_and(|spill| *spill <= value.consumer);
        if !crosses {
            continue;
        }
        deferred[value.producer as usize] = match kind {
            Kind::Const => true,
            Kind::Get(local) | Kind::Tee(local) => {
                let next = writes.partition_point(|write| *write <= (local, value.producer));
                let written = |&&(l, at): &&(u32, u32)| l == local && at < value.consumer;
                value.consumer != NEVER && writes.get(next).filter(written).is_none()
            }
            _ => false,
        };
    }
    deferred
}

/// The local of a call's site that must be right when it is resumed: the reads between its entry
/// point and the call, as far as they matter to the callee.
pub(crate) fn resumed_reads<'b>(
    body: &'b Body<'_>,
    plan: &Plan,
    site: u32,
) -> impl Iterator<Item = u32> + 'b {
    let Site { at, callee, .. } = body.sites[site as usize];
    let entry = plan.entries[site as usize];
    let call = &body.instrs[at as usize];
    let from = match callee {
        Callee::Host => entry,
        Callee::Inner => at,
        // The table index is the last argument: start where all others are pushed.
        Callee::Table => {
            let full = call.height - 1;
            let index = (entry..at).rev().find(|i| body.instrs[*i as usize].height == full);
            index.unwrap_or(entry)
        }
    };
    let range = &body.instrs[from as usize..at as usize];
    range.iter().filter_map(|instr| match instr.kind {
        Kind::Get(local) => Some(local),
        _ => None,
    })
}

/// Whether the operands of a two-operand instruction may be exchanged.
pub(crate) fn commutes(opcode: u8) -> bool {
    const I32_EQ: u8 = op::I32_NE - 1;
    matches!(
        opcode,
        I32_EQ | op::I32_NE | 0x51 | 0x52 | op::I32_ADD | 0x6c | 0x71..=0x73 | 0x7c | 0x7e
            | 0x83..=0x85
    )
}
