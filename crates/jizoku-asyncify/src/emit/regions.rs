//! Regions, and the way out of them when unwinding; `choice` is the way in.
//!
//! A region is the function or a loop with sites inside. At its start, the labels of all its
//! *events* are opened, so that one choice at the start can branch to each of them: the entry of a
//! site, the start of an inner region, and the ends of blocks that hold such. An event is where
//! such a label ends; events are in the order of their places in the code.

use wasmparser::ValType;

use super::Emitter;
use crate::binary::op;
use crate::body::{Block, BlockKind, Body};
use crate::plan::Plan;
use crate::runtime::{CHUNK_MAX, SAVE_ORDER};

/// Position of `i32` in `SAVE_ORDER`.
pub(super) const I32: usize = SAVE_ORDER.len() - 1;

/// What ends at an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// The block that leads to the entry of this site.
    Site(u32),
    /// The block that leads to this loop, an inner region.
    Loop(u32),
    /// The block that leads to the second part of this `if`.
    Else(u32),
    /// This block (or `if`).
    End(u32),
}

/// A label that ends inside a region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// The instruction before which it ends.
    at: u32,
    pub(super) kind: EventKind,
}

/// A region that is open, or was.
pub(crate) struct Region {
    pub(super) block: u32,
    pub(super) events: Vec<Event>,
    /// The next event.
    next: usize,
    /// Where in the code the choice goes.
    pub(crate) choice_at: usize,
}

/// Whether an `if` with a site inside needs a label for its second part.
pub(crate) fn has_else_label(block: &Block) -> bool {
    block.else_at.is_some() || !block.params.is_empty()
}

/// The events of each region, by the block that it is.
pub(crate) fn events(body: &Body<'_>, plan: &Plan) -> Vec<Vec<Event>> {
    let mut events = vec![Vec::new(); body.blocks.len()];
    let mut add = |around: u32, at: u32, kind| {
        events[plan.regions[around as usize] as usize].push(Event { at, kind });
    };
    for (index, site) in (0..).zip(&body.sites) {
        add(site.block, plan.entries[index as usize], EventKind::Site(index));
    }
    for (index, block) in (0..).zip(&body.blocks).skip(1) {
        if !plan.holds_site[index as usize] {
            continue;
        }
        match block.kind {
            BlockKind::Loop => add(block.parent, block.start, EventKind::Loop(index)),
            BlockKind::If => {
                if has_else_label(block) {
                    let at = block.else_at.unwrap_or(block.end);
                    add(index, at, EventKind::Else(index));
                }
                add(index, block.end, EventKind::End(index));
            }
            BlockKind::Block | BlockKind::Function => {
                if block.targeted {
                    add(index, block.end, EventKind::End(index));
                }
            }
        }
    }
    for list in &mut events {
        // At one `end`, the second part of an `if` ends inside the `if`.
        list.sort_by_key(|event| (event.at, matches!(event.kind, EventKind::End(_))));
    }
    events
}

impl Emitter<'_> {
    /// Opens the labels that lead to the code that saves locals, around the whole function.
    pub(super) fn open_unwinding(&mut self) {
        for _ in 0..self.body.sites.len() {
            self.open_block(&[]);
        }
        if !self.body.last_callees.is_empty() {
            self.open_block(&[ValType::I32]);
        }
    }

    /// After the call of a site: leaves if it is unwinding.
    pub(super) fn leave_if_unwinding(&mut self, site: u32) {
        self.code.op_u32(op::GLOBAL_GET, self.runtime.state());
        // Labels from outside: the function, then those of the sites, last first.
        let label = self.body.sites.len() as u32 - site;
        self.code.op_u32(op::BR_IF, self.labels - 1 - label);
    }

    /// After a last call: leaves, or traps.
    pub(super) fn leave_by_last_call(&mut self, callee: u32) {
        let sites = self.body.sites.len() as u32;
        self.code.i32_const((sites + callee) as i32);
        self.code.op_u32(op::BR, self.labels - 1 - (sites + 1));
    }

    /// Ends the labels of `open_unwinding`, each with the code that saves what it is for.
    pub(super) fn close_unwinding(&mut self) {
        let sites = self.body.sites.len() as u32;
        if !self.body.last_callees.is_empty() {
            self.code.op(op::END);
            let last_call = self.runtime.last_call();
            self.code.op_u32(op::CALL, last_call);
            self.leave(sites == 0);
        }
        for site in 0..sites {
            self.code.op(op::END);
            self.save_frame(site);
            self.leave(site + 1 == sites);
        }
        self.code.op(op::END);
    }

    /// Returns with any results; they are never looked at. At the end, falling off does it.
    fn leave(&mut self, at_end: bool) {
        for ty in &self.body.blocks[0].results {
            self.code.zero(*ty);
        }
        if !at_end {
            self.code.op(op::RETURN);
        }
    }

    fn save_frame(&mut self, site: u32) {
        let mut chunks = self.chunks(site).into_iter().peekable();
        while let Some((ty, locals)) = chunks.next() {
            for local in &locals {
                self.code.op_u32(op::LOCAL_GET, *local);
            }
            let mut count = locals.len();
            if chunks.peek().is_none() {
                self.code.i32_const(site as i32);
                count += 1;
            }
            let save = self.runtime.save(ty, count);
            self.code.op_u32(op::CALL, save);
        }
    }

    /// The saved locals of a site in runs of one type, in the order of saving. The last run, of
    /// `i32`, has room for the call number.
    pub(super) fn chunks(&self, site: u32) -> Vec<(usize, Vec<u32>)> {
        let saved = &self.saved[site as usize];
        let mut chunks = Vec::new();
        for (ty, val_type) in SAVE_ORDER.iter().enumerate() {
            let of_type: Vec<u32> = saved
                .iter()
                .copied()
                .filter(|local| self.local_type(*local) == *val_type)
                .collect();
            let mut rest = of_type.as_slice();
            let room = if ty == I32 { CHUNK_MAX - 1 } else { 0 };
            while rest.len() > room {
                let (chunk, after) = rest.split_at(rest.len().min(CHUNK_MAX));
                chunks.push((ty, chunk.to_vec()));
                rest = after;
            }
            if ty == I32 {
                chunks.push((ty, rest.to_vec()));
            }
        }
        chunks
    }

    /// Opens the labels of a region at its start.
    pub(super) fn open_region(&mut self, block: u32) {
        let events = std::mem::take(&mut self.events[block as usize]);
        for event in events.iter().rev() {
            let results = match event.kind {
                EventKind::End(block) => {
                    self.label_of[block as usize] = self.labels;
                    self.body.blocks[block as usize].results.as_slice()
                }
                EventKind::Else(block) => {
                    self.else_label_of[block as usize] = self.labels;
                    &[]
                }
                EventKind::Site(_) | EventKind::Loop(_) => &[],
            };
            self.open_block(results);
        }
        let choice_at = self.code.bytes.len();
        self.regions.push(Region { block, events, next: 0, choice_at });
    }

    /// The end of a region; all its labels have ended.
    pub(super) fn close_region(&mut self) {
        let region = self.regions.pop().expect("regions nest");
        assert_eq!(region.next, region.events.len(), "all events are behind");
        self.closed_regions.push(region);
    }

    /// The next event, if it is before instruction `at`.
    pub(super) fn next_event_at(&self, at: u32) -> Option<EventKind> {
        let region = self.regions.last()?;
        let event = region.events.get(region.next)?;
        (event.at == at).then_some(event.kind)
    }

    /// Ends the label of the next event, which must be `kind`.
    pub(super) fn close_event(&mut self, kind: EventKind) {
        let region = self.regions.last_mut().expect("events are in regions");
        assert_eq!(region.events.get(region.next).map(|event| event.kind), Some(kind));
        region.next += 1;
        self.code.op(op::END);
        self.labels -= 1;
    }
}
