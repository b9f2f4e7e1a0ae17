//! Random structured programs, interrupted at every call and at every third one.
//!
//! The generator keeps the types of the operand stack, so every program is valid: blocks, loops
//! and `if`s with parameters and results, branches of all kinds with values left below them, dead
//! code, calls of every sort in the middle of expressions, all numeric types. A counter in a global
//! makes every program end.
//!
//! `ASYNCIFY_SEEDS=from..to` runs other seeds than the default ones.

use std::fmt::Write;

use wasmtime::OptLevel;

use crate::harness::{check, engine};

const SEEDS: std::ops::Range<u64> = 0..25;

/// Function calls and loop rounds that each part of a program may make.
const FUEL: u32 = 25;

/// Where `run` stores the results of the functions.
const RESULTS_AT: usize = 4096;

#[test]
fn random_programs_do_not_notice_interruptions() {
    let seeds = std::env::var("ASYNCIFY_SEEDS").ok().and_then(|range| {
        let (from, to) = range.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    let engine = engine(OptLevel::None);
    let mut interruptions = 0;
    let mut silent = 0;
    let seeds = seeds.unwrap_or(SEEDS);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let text = program(seed);
        let wasm = wat::parse_str(&text).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{text}"));
        if let Err(error) = wasmparser::validate(&wasm) {
            panic!("seed {seed}: the generator is wrong: {error}\n{text}");
        }
        let found = check(&engine, &wasm, &format!("seed {seed}"));
        interruptions += found;
        silent += u64::from(found == 0);
    }
    assert!(interruptions as u64 > count * 5, "too few interruptions: {interruptions}");
    assert!(silent * 4 < count, "too many programs without an interruption: {silent}");
}

/// SplitMix64.
pub(crate) struct Rng(pub u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ty {
    I32,
    I64,
    F32,
    F64,
    V128,
}

use Ty::{F32, F64, I32, I64, V128};

impl Ty {
    fn name(self) -> &'static str {
        match self {
            I32 => "i32",
            I64 => "i64",
            F32 => "f32",
            F64 => "f64",
            V128 => "v128",
        }
    }
}

#[derive(Clone, Debug)]
struct Signature {
    params: Vec<Ty>,
    results: Vec<Ty>,
}

/// The imports: name and type.
fn imports() -> Vec<(&'static str, Signature)> {
    let sig = |params: &[Ty], results: &[Ty]| Signature {
        params: params.to_vec(),
        results: results.to_vec(),
    };
    vec![
        ("u0", sig(&[I32], &[I32])),
        ("u1", sig(&[I64, F64], &[I64])),
        ("u2", sig(&[], &[])),
        ("u3", sig(&[I32, F32], &[I32, F64])),
        ("u4", sig(&[V128], &[V128, I32])),
        ("p0", sig(&[I32], &[I32])),
    ]
}

pub(crate) fn program(seed: u64) -> String {
    let mut rng = Rng(seed.wrapping_mul(0x5851_f42d_4c95_7f2d) ^ 0x1405_7b7e_f767_814f);
    let mut functions: Vec<(String, Signature)> =
        imports().into_iter().map(|(name, sig)| (name.to_owned(), sig)).collect();
    let own = 3 + rng.below(5);
    for index in 0..own {
        let types = |rng: &mut Rng, most: usize| -> Vec<Ty> {
            (0..rng.below(most + 1)).map(|_| any_type(rng)).collect()
        };
        let sig = Signature { params: types(&mut rng, 4), results: types(&mut rng, 2) };
        functions.push((format!("f{index}"), sig));
    }
    let mut text = String::from("(module\n");
    for (name, sig) in &functions[..imports().len()] {
        writeln!(text, "(import \"host\" \"{name}\" (func ${name} {}))", types(sig)).unwrap();
    }
    writeln!(
        text,
        "(memory (export \"memory\") 2)
(global $fuel (export \"fuel\") (mut i32) (i32.const {FUEL}))
(global $g0 (export \"g0\") (mut i64) (i64.const 5))\n(global $g1 (mut f64) (f64.const 5))
(data (i32.const 0) \"the quick brown fox jumps over the lazy dog\")"
    )
    .unwrap();
    let table: Vec<usize> = (0..functions.len()).filter(|_| rng.chance(60)).collect();
    let names: Vec<String> = table.iter().map(|i| format!("${}", functions[*i].0)).collect();
    writeln!(text, "(table funcref (elem {}))", names.join(" ")).unwrap();
    for (index, (name, sig)) in functions.iter().enumerate() {
        writeln!(text, "(type $t{index} (func {}))", types(sig)).unwrap();
        if index >= imports().len() {
            let mut function = Function::new(&mut rng, &functions, &table, sig);
            function.body();
            writeln!(text, "(func ${name} {}", types(sig)).unwrap();
            for ty in &function.locals[sig.params.len()..] {
                writeln!(text, "(local {})", ty.name()).unwrap();
            }
            text += &function.text;
            text += ")\n";
        }
    }
    text += &run(&mut rng, &functions);
    text + ")\n"
}

/// The export: calls every function, twice, each time with new fuel, and stores the results.
fn run(rng: &mut Rng, functions: &[(String, Signature)]) -> String {
    let mut text = String::from("(func (export \"run\") (local $i32 i32) (local $i64 i64)");
    text += "(local $f32 f32) (local $f64 f64) (local $v128 v128)\n";
    let own = &functions[imports().len()..];
    let mut address = RESULTS_AT;
    for (name, sig) in own.iter().chain(own) {
        writeln!(text, "(global.set $fuel (i32.const {FUEL}))").unwrap();
        for ty in &sig.params {
            text += &constant(rng, *ty);
        }
        writeln!(text, "call ${name}").unwrap();
        for ty in sig.results.iter().rev() {
            let ty = ty.name();
            writeln!(text, "local.set ${ty}\n({ty}.store (i32.const {address}) (local.get ${ty}))")
                .unwrap();
            address += 16;
        }
    }
    text + ")\n"
}

fn constant(rng: &mut Rng, ty: Ty) -> String {
    let number = rng.below(2000) as i64 - 1000;
    match ty {
        V128 => format!("v128.const i64x2 {number} 7\n"),
        _ => format!("{}.const {number}\n", ty.name()),
    }
}

fn any_type(rng: &mut Rng) -> Ty {
    rng.pick(&[I32, I32, I32, I32, I64, I64, F32, F64, F64, V128])
}

fn types(sig: &Signature) -> String {
    let list = |word: &str, types: &[Ty]| match types {
        [] => String::new(),
        _ => {
            let names: Vec<_> = types.iter().map(|ty| ty.name()).collect();
            format!("({word} {})", names.join(" "))
        }
    };
    list("param", &sig.params) + &list("result", &sig.results)
}

/// A function being written.
struct Function<'r> {
    rng: &'r mut Rng,
    functions: &'r [(String, Signature)],
    table: &'r [usize],
    results: Vec<Ty>,
    locals: Vec<Ty>,
    text: String,
    /// Types of the operand stack above the innermost block's bottom.
    stack: Vec<Ty>,
    /// What a branch to each enclosing label carries, innermost last.
    labels: Vec<Vec<Ty>>,
    /// Instructions that may still be written.
    budget: u32,
}

impl<'r> Function<'r> {
    fn new(
        rng: &'r mut Rng,
        functions: &'r [(String, Signature)],
        table: &'r [usize],
        sig: &Signature,
    ) -> Self {
        let mut locals = sig.params.clone();
        for _ in 0..1 + rng.below(6) {
            locals.push(any_type(rng));
        }
        locals.push(I32);
        Self {
            rng,
            functions,
            table,
            results: sig.results.clone(),
            locals,
            text: String::new(),
            stack: Vec::new(),
            labels: vec![sig.results.clone()],
            budget: 150,
        }
    }

    fn line(&mut self, text: &str) {
        self.text += text;
        self.text += "\n";
    }

    fn body(&mut self) {
        self.burn_fuel();
        let results = self.results.clone();
        self.sequence(&results, 0);
    }

    /// Returns if the program has used its fuel.
    fn burn_fuel(&mut self) {
        self.line("(global.set $fuel (i32.sub (global.get $fuel) (i32.const 1)))");
        self.line("(if (i32.le_s (global.get $fuel) (i32.const 0)) (then");
        for ty in self.results.clone() {
            self.constant(ty);
        }
        self.line("return))");
    }

    /// Instructions that turn the stack as it is into exactly `end`, or leave otherwise.
    fn sequence(&mut self, end: &[Ty], depth: usize) {
        for _ in 0..2 + self.rng.below(10) {
            self.budget = self.budget.saturating_sub(1);
            if self.budget == 0 {
                break;
            }
            if self.step(depth) {
                return;
            }
        }
        self.settle(end);
    }

    /// Makes the stack end in exactly `end`: drops what does not fit and pushes the rest.
    fn settle(&mut self, end: &[Ty]) {
        let fits = |stack: &[Ty]| end.starts_with(stack);
        while !fits(&self.stack) {
            self.line("drop");
            self.stack.pop();
        }
        for ty in end[self.stack.len()..].iter().copied() {
            self.value(ty);
        }
    }

    /// Makes the top of the stack end in `types`, leaving what is below.
    fn supply(&mut self, types: &[Ty]) {
        // Use what is there as the first operands if it happens to fit.
        let most = types.len().min(self.stack.len());
        let there = (0..=most).rev().find(|n| self.stack[self.stack.len() - n..] == types[..*n]);
        for ty in types[there.unwrap_or(0)..].iter().copied() {
            self.value(ty);
        }
    }

    fn pop(&mut self, count: usize) {
        self.stack.truncate(self.stack.len() - count);
    }

    fn constant(&mut self, ty: Ty) {
        let text = constant(self.rng, ty);
        self.text += &text;
    }

    /// Pushes some value of `ty`.
    fn value(&mut self, ty: Ty) {
        let locals: Vec<usize> = (0..self.locals.len()).filter(|i| self.locals[*i] == ty).collect();
        match self.rng.below(10) {
            0..=5 if !locals.is_empty() => {
                let local = self.rng.pick(&locals);
                self.line(&format!("local.get {local}"));
            }
            6 if ty == I32 => self.line("global.get $fuel"),
            6 if ty == I64 => self.line("global.get $g0"),
            6 if ty == F64 => self.line("global.get $g1"),
            7 if ty != V128 => {
                let address = self.rng.below(64);
                self.line(&format!("i32.const {address}\n{}.load", ty.name()));
            }
            8 if ty == I32 => {
                self.line("i32.const 3\ncall $u0");
            }
            _ => self.constant(ty),
        }
        self.stack.push(ty);
    }

    /// One random step; true if what follows in this block cannot be reached.
    fn step(&mut self, depth: usize) -> bool {
        match self.rng.below(30) {
            0..=3 => {
                let ty = any_type(self.rng);
                self.value(ty);
            }
            4..=6 => self.write_local(),
            7..=9 => self.arithmetic(),
            10 => self.store(),
            11 => self.select(),
            12..=15 => self.call(),
            16 => self.call_indirect(),
            17 => self.last_call(),
            18..=23 if depth < 4 => self.block(depth),
            24..=26 => self.branch_if(),
            27 if depth > 0 => {
                self.leave();
                return true;
            }
            28 => {
                self.supply(&[I64, F64]);
                self.line("global.set $g1\nglobal.set $g0");
                self.pop(2);
            }
            _ => {}
        }
        false
    }

    fn write_local(&mut self) {
        let local = self.rng.below(self.locals.len());
        let ty = self.locals[local];
        self.supply(&[ty]);
        if self.rng.chance(50) {
            self.line(&format!("local.tee {local}"));
        } else {
            self.line(&format!("local.set {local}"));
            self.pop(1);
        }
    }

    fn arithmetic(&mut self) {
        let (operands, result, instruction) = self.rng.pick(&[
            (&[I32, I32][..], I32, "i32.add"),
            (&[I32, I32], I32, "i32.sub"),
            (&[I32, I32], I32, "i32.xor"),
            (&[I32, I32], I32, "i32.lt_s"),
            (&[I32, I32], I32, "i32.div_u"),
            (&[I32], I32, "i32.eqz"),
            (&[I32], I64, "i64.extend_i32_s"),
            (&[I64, I64], I64, "i64.sub"),
            (&[I64, I64], I64, "i64.mul"),
            (&[I64, I64], I32, "i64.eq"),
            (&[I64], I32, "i32.wrap_i64"),
            (&[F32, F32], F32, "f32.add"),
            (&[F64, F64], F64, "f64.sub"),
            (&[F64, F64], I32, "f64.le"),
            (&[F32], F64, "f64.promote_f32"),
            (&[F64], I32, "i32.trunc_sat_f64_s"),
            (&[I64], V128, "i64x2.splat"),
            (&[V128, V128], V128, "i32x4.sub"),
            (&[V128], I64, "i64x2.extract_lane 1"),
        ]);
        // A division traps now and then; most of the time its divisor is not zero.
        self.supply(operands);
        if instruction == "i32.div_u" && self.rng.chance(95) {
            self.line("i32.const 1\ni32.or");
        }
        self.line(instruction);
        self.pop(operands.len());
        self.stack.push(result);
    }

    fn store(&mut self) {
        let ty = self.rng.pick(&[I32, I64, F32, F64]);
        self.supply(&[I32]);
        self.line("i32.const 1023\ni32.and");
        self.value(ty);
        self.line(&format!("{}.store", ty.name()));
        self.pop(2);
    }

    fn select(&mut self) {
        let ty = any_type(self.rng);
        self.supply(&[ty, ty, I32]);
        self.line(&format!("select (result {})", ty.name()));
        self.pop(2);
    }

    fn call(&mut self) {
        let (name, sig) = self.rng.pick(self.functions);
        self.supply(&sig.params);
        self.line(&format!("call ${name}"));
        self.pop(sig.params.len());
        self.stack.extend(sig.results);
    }

    fn call_indirect(&mut self) {
        if self.table.is_empty() {
            return;
        }
        let slot = self.rng.below(self.table.len());
        let function = self.table[slot];
        let sig = self.functions[function].1.clone();
        self.supply(&sig.params);
        // The index comes from an expression that is sometimes not a mere constant.
        match self.rng.below(3) {
            0 => self.line(&format!("i32.const {slot}")),
            1 => self.line(&format!(
                "(i32.add (i32.const {slot}) (i32.eqz (i32.load8_u (i32.const 1))))"
            )),
            _ => self.line(&format!(
                "(i32.sub (i32.const {slot}) (i32.gt_s (global.get $fuel) (i32.const {FUEL})))"
            )),
        }
        self.line(&format!("call_indirect (type $t{function})"));
        self.pop(sig.params.len());
        self.stack.extend(sig.results);
    }

    /// A call that is not expected to return, taken rarely.
    fn last_call(&mut self) {
        let (name, sig) = self.rng.pick(self.functions);
        let when = self.rng.below(64);
        self.line(&format!("(if (i32.eq (global.get $fuel) (i32.const {when})) (then"));
        for ty in sig.params {
            self.value(ty);
            self.stack.pop();
        }
        self.line(&format!("call ${name}\nunreachable))"));
    }

    fn block(&mut self, depth: usize) {
        let kind = self.rng.pick(&["block", "block", "loop", "if", "if"]);
        if kind == "if" {
            self.supply(&[I32]);
            self.pop(1);
            // Spill order: the condition is on top of whatever is there.
        }
        let params_count = self.rng.below(self.stack.len().min(2) + 1);
        let params = self.stack.split_off(self.stack.len() - params_count);
        let no_else = kind == "if" && self.rng.chance(30);
        let results: Vec<Ty> = if no_else {
            params.clone()
        } else {
            (0..self.rng.below(3)).map(|_| any_type(self.rng)).collect()
        };
        let sig = Signature { params: params.clone(), results: results.clone() };
        self.line(&format!("{kind} {}", types(&sig)));
        let below = std::mem::replace(&mut self.stack, params.clone());
        self.labels.push(if kind == "loop" { params.clone() } else { results.clone() });
        if kind == "loop" {
            self.burn_fuel();
        }
        self.sequence(&results, depth + 1);
        if kind == "if" && !no_else {
            self.line("else");
            self.stack = params;
            self.sequence(&results, depth + 1);
        }
        self.line("end");
        self.labels.pop();
        self.stack = below;
        self.stack.extend(results);
    }

    fn branch_if(&mut self) {
        let depth = self.rng.below(self.labels.len());
        let carried = self.labels[self.labels.len() - 1 - depth].clone();
        self.supply(&carried);
        self.value(I32);
        if self.rng.chance(60) {
            self.line("i32.const 3\ni32.and\ni32.eqz");
        }
        self.line(&format!("br_if {depth}"));
        self.pop(1);
    }

    /// Leaves the block for good, and writes some dead code.
    fn leave(&mut self) {
        let depth = self.rng.below(self.labels.len());
        let carried = self.labels[self.labels.len() - 1 - depth].clone();
        match self.rng.below(8) {
            0 => {
                let results = self.results.clone();
                self.supply(&results);
                self.line("return");
            }
            1..=3 => {
                let same: Vec<String> = (0..self.labels.len())
                    .filter(|d| self.labels[self.labels.len() - 1 - d] == carried)
                    .map(|d| d.to_string())
                    .collect();
                self.supply(&carried);
                self.value(I32);
                self.line("i32.const 3\ni32.and");
                let count = 1 + self.rng.below(4);
                let targets: Vec<String> = (0..count).map(|_| self.rng.pick(&same)).collect();
                self.line(&format!("br_table {}", targets.join(" ")));
            }
            _ => {
                self.supply(&carried);
                self.line(&format!("br {depth}"));
            }
        }
        let dead = self.rng.pick(&[
            "",
            "",
            "unreachable",
            "call $u2",
            "i32.const 1\ncall $u0\ndrop",
            "block\nloop\ncall $u2\nbr 1\nend\nend",
            "if\ncall $u2\nelse\ncall $u2\nend",
            "br 0\ni32.add\ndrop",
        ]);
        self.line(dead);
        self.stack.clear();
    }
}
