//! The way into a function when rewinding: at the start of each region, the choice of where to go
//! on, and the loading of locals for those who go on there.
//!
//! Locals are loaded only by the last choice on the way. So nothing but the state is alive across
//! the head of a loop because of rewinding, and normal execution keeps its registers.

use super::Emitter;
use super::regions::{EventKind, I32, Region};
use crate::binary::{Code, op, write_u32};
use crate::body::Block;

/// Most entries of a branch table for one inner region; one with more sites is found by comparing,
/// or nested loops would have tables of quadratic size.
const TABLE_ENTRIES_MAX: u32 = 8;

/// One way to go on at a region's start when rewinding.
enum Target {
    /// To the entry of a site: event index, site.
    Site(u32, u32),
    /// To an inner region: event index, its first site, the site after its last.
    Inner(u32, u32, u32),
    /// To a last call: index in `Body::last_callees`.
    LastCall(u32),
}

/// A run of call numbers that one table or one branch decides.
struct Segment {
    first: u32,
    count: u32,
    /// Where to branch: one for all, or one for each.
    depths: Vec<u32>,
}

impl Emitter<'_> {
    /// The choice at a region's start: if rewinding, go where the top frame was left.
    pub(super) fn choice(&mut self, region: &Region) -> Code {
        let mut code = Code::default();
        let targets = self.targets(region);
        code.op_u32(op::GLOBAL_GET, self.runtime.state());
        if let [Target::Inner(event, ..)] = targets[..] {
            code.op_u32(op::BR_IF, event);
            return code;
        }
        code.open(op::IF);
        let events = region.events.len() as u32;
        let mut stubs = targets.iter().filter(|t| !matches!(t, Target::Inner(..))).count() as u32;
        if targets.len() > 1 {
            for _ in 0..stubs {
                code.open(op::BLOCK);
            }
            self.branch_on_call_number(&targets, stubs, &mut code);
        }
        for target in &targets {
            // Labels between here and the region's own: the stubs after this one, and the `if`.
            if !matches!(target, Target::Inner(..)) {
                stubs -= 1;
                if targets.len() > 1 {
                    code.op(op::END);
                }
            }
            match *target {
                Target::Inner(..) => {}
                Target::Site(event, site) => {
                    self.load_frame(site, &mut code);
                    code.op_u32(op::BR, stubs + 1 + event);
                }
                Target::LastCall(callee) => {
                    self.repeat_last_call(callee, &mut code);
                    code.op_u32(op::BR, stubs + 1 + events);
                }
            }
        }
        code.op(op::END);
        code
    }

    fn targets(&self, region: &Region) -> Vec<Target> {
        let mut targets = Vec::new();
        for (index, event) in (0..).zip(&region.events) {
            match event.kind {
                EventKind::Site(site) => targets.push(Target::Site(index, site)),
                EventKind::Loop(block) => {
                    let Block { start, end, .. } = self.body.blocks[block as usize];
                    let before = |at| self.body.sites.partition_point(|site| site.at < at) as u32;
                    targets.push(Target::Inner(index, before(start), before(end)));
                }
                EventKind::Else(_) | EventKind::End(_) => {}
            }
        }
        if region.block == 0 {
            let callees = 0..self.body.last_callees.len() as u32;
            targets.extend(callees.map(Target::LastCall));
        }
        targets
    }

    /// Branches by the number of the call at which the top frame was left: to the stub of a site
    /// or last call, or to the start of the inner region that has it.
    fn branch_on_call_number(&mut self, targets: &[Target], stubs: u32, code: &mut Code) {
        let mut segments = self.segments(targets, stubs).into_iter().peekable();
        while let Some(Segment { first, count, depths }) = segments.next() {
            let last = segments.peek().is_none();
            if !last {
                self.call_number_above(first, code);
                code.i32_const(count as i32);
                code.op(op::I32_LT_U);
            }
            match depths[..] {
                [depth] => code.op_u32(if last { op::BR } else { op::BR_IF }, depth),
                _ => {
                    let inside = u32::from(!last);
                    if !last {
                        code.open(op::IF);
                    }
                    self.call_number_above(first, code);
                    code.op_u32(op::BR_TABLE, depths.len() as u32 - 1);
                    for depth in &depths {
                        write_u32(&mut code.bytes, depth + inside);
                    }
                    if !last {
                        code.op(op::END);
                    }
                }
            }
        }
    }

    /// Pushes the call number of the top frame, counted from `first`.
    fn call_number_above(&mut self, first: u32, code: &mut Code) {
        let top = self.runtime.top();
        code.op_u32(op::CALL, top);
        if first > 0 {
            code.i32_const(first as i32);
            code.op(op::I32_SUB);
        }
    }

    fn segments(&self, targets: &[Target], stubs: u32) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        let mut joinable = false;
        let mut stub = 0;
        for target in targets {
            let (first, count, depth) = match *target {
                Target::Inner(event, from, to) => (from, to - from, stubs + 1 + event),
                Target::Site(_, site) => (site, 1, stub),
                Target::LastCall(callee) => (self.body.sites.len() as u32 + callee, 1, stub),
            };
            stub += u32::from(!matches!(target, Target::Inner(..)));
            let small = count <= TABLE_ENTRIES_MAX;
            match segments.last_mut() {
                Some(segment) if small && joinable => {
                    segment.count += count;
                    segment.depths.extend((0..count).map(|_| depth));
                }
                _ => {
                    let depths = if small { vec![depth; count as usize] } else { vec![depth] };
                    segments.push(Segment { first, count, depths });
                }
            }
            joinable = small;
        }
        segments
    }

    fn load_frame(&mut self, site: u32, code: &mut Code) {
        let mut last = true;
        for (ty, locals) in self.chunks(site).into_iter().rev() {
            let load = self.runtime.load(ty, locals.len(), std::mem::take(&mut last));
            code.op_u32(op::CALL, load);
            for local in locals.iter().rev() {
                code.op_u32(op::LOCAL_SET, *local);
            }
        }
    }

    /// Calls the function of a last call again, with any arguments: it is only entered to rewind.
    fn repeat_last_call(&mut self, callee: u32, code: &mut Code) {
        let load = self.runtime.load(I32, 0, true);
        code.op_u32(op::CALL, load);
        let function = self.body.last_callees[callee as usize];
        for ty in self.module.type_of(function).params() {
            code.zero(*ty);
        }
        code.op_u32(op::CALL, function);
        code.i32_const((self.body.sites.len() as u32 + callee) as i32);
    }
}
