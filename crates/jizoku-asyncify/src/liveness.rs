//! Which locals are still to be read after each call that may unwind.
//!
//! Backward data flow over basic blocks, with one bit for each local. Only these locals need
//! saving; anything less would lose state, anything more costs time and space.
//!
//! Limits: `CELLS_MAX` bounds the memory and `WORK_MAX` the time. Beyond them every local counts
//! as live, which is correct and merely larger.

use crate::body::{BlockKind, Body, Kind};

/// Limit of the bit sets, in words of 64 locals (three sets for each basic block).
const CELLS_MAX: usize = 1 << 23;
/// Limit of word operations while looking for the fixed point.
const WORK_MAX: usize = 1 << 29;

/// The live locals after each site.
pub(crate) struct Liveness {
    words: usize,
    /// `None`: all locals are taken as live.
    rows: Option<Vec<u64>>,
    locals: u32,
}

impl Liveness {
    /// Analyses `body`.
    pub(crate) fn new(body: &Body<'_>) -> Self {
        let words = body.locals.len().div_ceil(64);
        let locals = body.locals.len() as u32;
        let graph = Graph::new(body);
        let cells = graph.starts.len().saturating_add(body.sites.len()).saturating_mul(3 * words);
        let rows = if cells > CELLS_MAX { None } else { Flow::new(body, &graph, words).solve() };
        Self { words, rows, locals }
    }

    /// The locals that may be read after `site` returns, in ascending order.
    pub(crate) fn after(&self, site: u32) -> impl Iterator<Item = u32> + '_ {
        let from = site as usize * self.words;
        let words = self.rows.as_ref().map(|rows| &rows[from..from + self.words]);
        (0..self.words)
            .flat_map(move |word| {
                let bits = words.map_or(u64::MAX, |words| words[word]);
                Bits(bits).map(move |bit| word as u32 * 64 + bit)
            })
            .take_while(|local| *local < self.locals)
    }
}

/// The positions of the ones in a word, ascending.
struct Bits(u64);

impl Iterator for Bits {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let bit = (self.0 != 0).then(|| self.0.trailing_zeros())?;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

/// The basic blocks. One starts wherever control can arrive by other means than falling through.
struct Graph {
    /// First instruction of each, ascending.
    starts: Vec<u32>,
    /// Successors of block `i` are `successors[bounds[i]..bounds[i + 1]]`.
    bounds: Vec<u32>,
    successors: Vec<u32>,
}

impl Graph {
    fn new(body: &Body<'_>) -> Self {
        let mut builder = GraphBuilder {
            starts: vec![0],
            edges: Vec::new(),
            branches: Vec::new(),
            labels: vec![0; body.blocks.len()],
            forks: vec![0; body.blocks.len()],
            current: Some(0),
        };
        for (at, instr) in (0..).zip(&body.instrs) {
            builder.instr(body, at, instr.kind);
        }
        let GraphBuilder { starts, mut edges, branches, labels, .. } = builder;
        edges.extend(branches.iter().map(|(from, block)| (*from, labels[*block as usize])));
        edges.sort_unstable();
        edges.dedup();
        let mut bounds = vec![0; starts.len() + 1];
        for (from, _) in &edges {
            bounds[*from as usize + 1] += 1;
        }
        for i in 1..bounds.len() {
            bounds[i] += bounds[i - 1];
        }
        Self { starts, bounds, successors: edges.into_iter().map(|(_, to)| to).collect() }
    }
}

struct GraphBuilder {
    starts: Vec<u32>,
    edges: Vec<(u32, u32)>,
    /// Branches to blocks whose label is not placed yet.
    branches: Vec<(u32, u32)>,
    /// The basic block at the label of each block.
    labels: Vec<u32>,
    /// For each `if`: the basic block that ends with it.
    forks: Vec<u32>,
    current: Option<u32>,
}

impl GraphBuilder {
    fn instr(&mut self, body: &Body<'_>, at: u32, kind: Kind) {
        match kind {
            Kind::Loop(block) => {
                self.fall(at + 1);
                self.labels[block as usize] = self.starts.len() as u32 - 1;
            }
            Kind::If(block) => {
                self.forks[block as usize] = self.current.unwrap_or(0);
                self.fall(at + 1);
            }
            Kind::Else(block) => {
                self.branch(block);
                self.current = Some(self.forks[block as usize]);
                self.fall(at + 1);
            }
            Kind::End(block) => {
                let info = &body.blocks[block as usize];
                if info.kind == BlockKind::Loop {
                    return self.fall(at + 1);
                }
                self.branch(block);
                if info.kind == BlockKind::If && info.else_at.is_none() {
                    self.branches.push((self.forks[block as usize], block));
                }
                self.current = None;
                self.fall(at + 1);
                self.labels[block as usize] = self.starts.len() as u32 - 1;
            }
            Kind::Br(block) => {
                self.branch(block);
                self.current = None;
            }
            Kind::BrIf(block) => {
                self.branch(block);
                self.fall(at + 1);
            }
            Kind::BrTable { first, count } => {
                for target in &body.table_targets[first as usize..(first + count) as usize] {
                    self.branch(*target);
                }
                self.current = None;
            }
            Kind::Leave | Kind::Trap | Kind::LastCall(_) => self.current = None,
            _ => {}
        }
    }

    /// Starts a basic block at `at`, entered from the current one if that can fall through.
    fn fall(&mut self, at: u32) {
        let new = self.starts.len() as u32;
        self.starts.push(at);
        if let Some(current) = self.current {
            self.edges.push((current, new));
        }
        self.current = Some(new);
    }

    fn branch(&mut self, block: u32) {
        if let Some(current) = self.current {
            self.branches.push((current, block));
        }
    }
}

struct Flow<'b> {
    body: &'b Body<'b>,
    graph: &'b Graph,
    words: usize,
    /// Locals read before they are written, by basic block.
    reads: Vec<u64>,
    /// Locals written, by basic block.
    writes: Vec<u64>,
    live_in: Vec<u64>,
}

impl<'b> Flow<'b> {
    fn new(body: &'b Body<'b>, graph: &'b Graph, words: usize) -> Self {
        let cells = graph.starts.len() * words;
        let zeros = || vec![0; cells];
        let mut flow =
            Self { body, graph, words, reads: zeros(), writes: zeros(), live_in: zeros() };
        for block in 0..graph.starts.len() {
            let row = block * words;
            for instr in &body.instrs[flow.range(block)] {
                match instr.kind {
                    Kind::Get(local) => {
                        let (word, bit) = (row + local as usize / 64, 1 << (local % 64));
                        flow.reads[word] |= bit & !flow.writes[word];
                    }
                    Kind::Set(local) | Kind::Tee(local) => {
                        flow.writes[row + local as usize / 64] |= 1 << (local % 64);
                    }
                    _ => {}
                }
            }
        }
        flow
    }

    fn range(&self, block: usize) -> std::ops::Range<usize> {
        let end = self.graph.starts.get(block + 1).map_or(self.body.instrs.len(), |s| *s as usize);
        self.graph.starts[block] as usize..end
    }

    /// Iterates to the fixed point; `None` if that is too much work.
    fn solve(mut self) -> Option<Vec<u64>> {
        let blocks = self.graph.starts.len();
        let sweep = (blocks + self.graph.successors.len()) * self.words + 1;
        let mut live = vec![0; self.words];
        for _ in 0..WORK_MAX / sweep {
            let mut changed = false;
            for block in (0..blocks).rev() {
                self.live_out(block, &mut live);
                let row = block * self.words;
                for (word, out) in live.iter().enumerate() {
                    let new = self.reads[row + word] | (out & !self.writes[row + word]);
                    changed |= new != self.live_in[row + word];
                    self.live_in[row + word] = new;
                }
            }
            if !changed {
                return Some(self.at_sites());
            }
        }
        None
    }

    fn live_out(&self, block: usize, live: &mut [u64]) {
        live.fill(0);
        let [from, to] = [self.graph.bounds[block], self.graph.bounds[block + 1]];
        for successor in &self.graph.successors[from as usize..to as usize] {
            let row = *successor as usize * self.words;
            for (word, into) in live.iter_mut().zip(&self.live_in[row..]) {
                *word |= into;
            }
        }
    }

    fn at_sites(&self) -> Vec<u64> {
        let mut rows = vec![0; self.body.sites.len() * self.words];
        let mut live = vec![0; self.words];
        for block in 0..self.graph.starts.len() {
            let instrs = &self.body.instrs[self.range(block)];
            if !instrs.iter().any(|instr| matches!(instr.kind, Kind::Site(_))) {
                continue;
            }
            self.live_out(block, &mut live);
            for instr in instrs.iter().rev() {
                match instr.kind {
                    Kind::Get(local) => live[local as usize / 64] |= 1 << (local % 64),
                    Kind::Set(local) | Kind::Tee(local) => {
                        live[local as usize / 64] &= !(1 << (local % 64));
                    }
                    Kind::Site(site) => {
                        let row = site as usize * self.words;
                        rows[row..row + self.words].copy_from_slice(&live);
                    }
                    _ => {}
                }
            }
        }
        rows
    }
}
