//! Every control shape by hand: one small program each, interrupted at every call.

use wasmtime::OptLevel;

use crate::harness::{check, engine};

const PRELUDE: &str = r#"
  (import "host" "u0" (func $u0 (param i32) (result i32)))
  (import "host" "u1" (func $u1 (param i64 f64) (result i64)))
  (import "host" "u2" (func $u2))
  (import "host" "u3" (func $u3 (param i32) (result i32 f64)))
  (import "host" "p0" (func $p0 (param i32) (result i32)))
  (memory (export "memory") 2)
  (global $g (export "g") (mut i32) (i32.const 7))
"#;

/// Interrupts `program` and returns how often.
fn program(name: &str, program: &str) -> u32 {
    let text = format!("(module {PRELUDE} {program})");
    let wasm = wat::parse_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    check(&engine(OptLevel::Speed), &wasm, name)
}

/// A test for each program; every one must have been interrupted at least once.
macro_rules! shapes {
    ($($name:ident: $text:literal)*) => {
        $(
            #[test]
            fn $name() {
                assert!(program(stringify!($name), $text) > 0, "nothing was interrupted");
            }
        )*
    };
}

shapes! {
    straight: r#"(func (export "run") (param i32) (result i32)
        (i32.add (call $u0 (local.get 0)) (call $u0 (i32.const 5))))"#

    values_below_a_call: r#"(func (export "run") (param i32 i64 f32 f64) (result i32 i64 f32 f64)
        local.get 0 i32.const 3 i32.mul
        local.get 1 i64.const 9 i64.add
        local.get 2 f32.const 2 f32.mul
        local.get 3
        i32.const 1 call $u0 local.set 0
        i64.const 4 local.get 3 call $u1 local.set 1
        call $u2
        f64.const 0.5 f64.add)"#

    local_changed_under_a_kept_value: r#"(func (export "run") (param i32) (result i32)
        local.get 0
        i32.const 4 call $u0 local.set 0
        local.get 0 call $u0
        i32.sub local.get 0 i32.sub)"#

    tee_kept_over_a_call: r#"(func (export "run") (param i32) (result i32) (local i32)
        local.get 0 i32.const 11 i32.add local.tee 1
        i32.const 4 call $u0
        i32.sub local.get 1 i32.xor)"#

    several_results: r#"(func (export "run") (param i32) (result i32 f64)
        (local i32 f64)
        local.get 0 call $u3 local.set 2 local.set 1
        local.get 1 call $u3 local.get 2 f64.add)"#

    loop_with_state: r#"(func (export "run") (param i32) (result i32) (local i32 i64)
        (loop $l
          (local.set 2 (i64.add (local.get 2) (i64.extend_i32_s (call $u0 (local.get 1)))))
          (local.set 1 (i32.add (local.get 1) (i32.const 1)))
          (br_if $l (i32.lt_s (local.get 1) (i32.const 10))))
        (i32.wrap_i64 (local.get 2)))"#

    loop_with_parameters: r#"(func (export "run") (param i32) (result i32) (local $n i32)
        i32.const 100
        i32.const 1 i64.const 2
        loop $l (param i32 i64) (result i32)
          i64.const 3 i64.mul
          f64.const 1.5 call $u1
          i32.wrap_i64 i32.add
          local.tee 0
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (i64.extend_i32_u (local.get 0))
          (br_if $l (i32.lt_s (local.get $n) (i32.const 6)))
          drop
        end
        i32.sub)"#

    nested_loops: r#"(func (export "run") (param i32) (result i32) (local i32 i32 i32)
        (loop $a
          (local.set 2 (i32.const 0))
          (local.set 3 (i32.add (local.get 3) (call $u0 (local.get 1))))
          (loop $b
            (local.set 3 (i32.xor (local.get 3) (call $u0 (local.get 2))))
            (call $u2)
            (local.set 2 (i32.add (local.get 2) (i32.const 1)))
            (br_if $b (i32.lt_s (local.get 2) (i32.const 3))))
          (local.set 1 (i32.add (local.get 1) (i32.const 1)))
          (br_if $a (i32.lt_s (local.get 1) (i32.const 4))))
        (local.get 3))"#

    loops_one_after_another: r#"(func (export "run") (param i32) (result i32) (local i32)
        (loop $a
          (local.set 1 (i32.add (local.get 1) (i32.const 1)))
          (call $u2)
          (br_if $a (i32.lt_s (local.get 1) (i32.const 3))))
        (loop $b
          (local.set 1 (i32.add (local.get 1) (i32.const 1)))
          (call $u2)
          (br_if $b (i32.lt_s (local.get 1) (i32.const 6))))
        (call $u0 (local.get 1)))"#

    if_without_else: r#"(func $f (param i32) (result i32)
        (if (i32.and (local.get 0) (i32.const 1))
          (then (local.set 0 (call $u0 (local.get 0)))))
        (local.get 0))
      (func (export "run") (param i32) (result i32)
        (i32.add (call $f (i32.const 4)) (call $f (i32.const 5))))"#

    if_with_else: r#"(func $f (param i32) (result i32)
        i32.const 1000
        (if (result i32) (i32.and (local.get 0) (i32.const 1))
          (then (call $u0 (local.get 0)))
          (else (i32.sub (call $u0 (i32.const 3)) (call $u0 (local.get 0)))))
        i32.sub)
      (func (export "run") (param i32) (result i32)
        (i32.add (call $f (i32.const 4)) (call $f (i32.const 5))))"#

    if_with_parameters: r#"(func $f (param i32) (result i32)
        local.get 0 i32.const 17
        local.get 0 i32.const 1 i32.and
        if (param i32 i32) (result i32)
          local.set 0 call $u0 local.get 0 i32.add
        else
          i32.sub call $u0
        end
        local.get 0 i32.const 2 i32.and
        if (param i32) (result i32)
          call $u0
        end)
      (func (export "run") (param i32) (result i32)
        call $u2
        (i32.add (i32.add (call $f (i32.const 4)) (call $f (i32.const 5)))
          (i32.add (call $f (i32.const 6)) (call $f (i32.const 7)))))"#

    if_condition_over_spilled_values: r#"(func (export "run") (param i32) (result i32)
        local.get 0 i32.load8_u
        local.get 0 i32.load8_u offset=1
        i32.const 30
        call $u0
        if (result i32) call $u2 i32.const 4 else i32.const 9 call $u0 end
        i32.add i32.sub)"#

    blocks_and_branches: r#"(func $f (param i32) (result i32) (local i32)
        (block $out (result i32)
          (block $b
            (block $a
              (br_if $a (i32.eqz (local.get 0)))
              (br_if $b (i32.eq (local.get 0) (call $u0 (i32.const 1))))
              (local.set 1 (call $u0 (local.get 0)))
              (br $out (i32.add (local.get 1) (i32.const 3))))
            (local.set 1 (call $u0 (i32.const 8)))
            (drop (br_if $out (local.get 1) (i32.and (local.get 1) (i32.const 1)))))
          (call $u0 (local.get 1))))
      (func (export "run") (param i32) (result i32)
        (i32.add (call $f (i32.const 0)) (call $f (i32.const 5))))"#

    branch_table: r#"(func $f (param i32) (result i32)
        (block $c (result i32)
          (block $b (result i32)
            (block $a (result i32)
              (br_table $a $b $c $a (call $u0 (local.get 0)) (local.get 0)))
            (call $u0))
          (i32.add (call $u0 (i32.const 2)))))
      (func (export "run") (param i32) (result i32)
        (i32.add (i32.add (call $f (i32.const 0)) (call $f (i32.const 1)))
          (i32.add (call $f (i32.const 2)) (call $f (i32.const 3)))))"#

    early_return: r#"(func $f (param i32) (result i32)
        (if (i32.lt_s (call $u0 (local.get 0)) (i32.const 0)) (then (return (i32.const 5))))
        (call $u2)
        (return (call $u0 (i32.const 1))) unreachable)
      (func (export "run") (param i32) (result i32)
        (i32.add (i32.add (call $f (i32.const 0)) (call $f (i32.const 1)))
          (i32.add (call $f (i32.const 2)) (call $f (i32.const 3)))))"#

    dead_code: r#"(func (export "run") (param i32) (result i32)
        (block $a (result i32)
          (br $a (call $u0 (local.get 0)))
          (block $x (call $u2) (br $x) (loop $l (br $l)))
          (i32.add (call $u0 (i32.const 1)))
          (if (result i32) (then (i32.const 1)) (else (unreachable))))
        (loop $l (result i32) (call $u2) (br 1 (i32.const 4)) (br $l))
        i32.add)"#

    endless_loop_left_by_return: r#"(func (export "run") (param i32) (result i32) (local i32)
        (block
          (loop $l
            (local.set 1 (i32.add (local.get 1) (i32.const 1)))
            (call $u2)
            (if (i32.gt_s (local.get 1) (i32.const 4)) (then (return (call $u0 (local.get 1)))))
            (br $l)))
        unreachable)"#

    recursion: r#"(func $fib (param i32) (result i32)
        (if (i32.lt_s (local.get 0) (i32.const 2)) (then (call $u2) (return (local.get 0))))
        (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1)))
          (call $fib (i32.sub (local.get 0) (i32.const 2)))))
      (func (export "run") (param i32) (result i32) (call $fib (local.get 0)))"#

    mutual_recursion_with_many_types: r#"
      (func $a (param i32 i64 f32 f64) (result f64)
        (if (i32.eqz (local.get 0)) (then (return (local.get 3))))
        (f64.add (f64.promote_f32 (local.get 2))
          (call $b (f64.add (local.get 3) (f64.const 1)) (local.get 2)
            (call $u1 (local.get 1) (local.get 3)) (i32.sub (local.get 0) (i32.const 1)))))
      (func $b (param f64 f32 i64 i32) (result f64)
        (local $v v128)
        (local.set $v (i64x2.splat (local.get 2)))
        (drop (call $u0 (local.get 3)))
        (f64.sub (call $a (local.get 3) (local.get 2) (local.get 1) (local.get 0))
          (f64.convert_i64_s (i64x2.extract_lane 1 (local.get $v)))))
      (func (export "run") (param i32 i64 f32 f64) (result f64)
        (call $a (i32.const 6) (local.get 1) (local.get 2) (local.get 3)))"#

    vectors: r#"(func (export "run") (param i32) (result i32 v128) (local v128 v128)
        (local.set 1 (i32x4.splat (call $u0 (local.get 0))))
        (local.set 2 (i8x16.splat (call $u0 (local.get 0))))
        i32.const 2
        local.get 1 local.get 2 i8x16.add
        call $u2
        local.get 2 i64x2.sub
        local.get 1 i64x2.sub)"#

    more_locals_than_one_helper_saves: r#"(func (export "run") (param i32) (result i32)
        (local i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)
        (local i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64)
        (local.set 1 (call $u0 (i32.const 1))) (local.set 2 (call $u0 (i32.const 2)))
        (local.set 3 (call $u0 (i32.const 3))) (local.set 4 (call $u0 (i32.const 4)))
        (local.set 5 (call $u0 (i32.const 5))) (local.set 6 (call $u0 (i32.const 6)))
        (local.set 7 (call $u0 (i32.const 7))) (local.set 8 (call $u0 (i32.const 8)))
        (local.set 9 (call $u0 (i32.const 9))) (local.set 10 (call $u0 (i32.const 10)))
        (local.set 11 (call $u0 (i32.const 1))) (local.set 12 (call $u0 (i32.const 2)))
        (local.set 13 (call $u0 (i32.const 3))) (local.set 14 (call $u0 (i32.const 4)))
        (local.set 15 (call $u0 (i32.const 5))) (local.set 16 (call $u0 (i32.const 6)))
        (local.set 17 (call $u0 (i32.const 7))) (local.set 18 (call $u0 (i32.const 8)))
        (local.set 19 (call $u0 (i32.const 9))) (local.set 20 (call $u0 (i32.const 10)))
        (local.set 21 (i64.extend_i32_s (local.get 20)))
        (local.set 38 (i64.extend_i32_s (local.get 19)))
        call $u2
        local.get 0 local.get 1 i32.add local.get 2 i32.sub local.get 3 i32.add local.get 4 i32.sub
        local.get 5 i32.add local.get 6 i32.sub local.get 7 i32.add local.get 8 i32.sub
        local.get 9 i32.add local.get 10 i32.sub local.get 11 i32.add local.get 12 i32.sub
        local.get 13 i32.add local.get 14 i32.sub local.get 15 i32.add local.get 16 i32.sub
        local.get 17 i32.add local.get 18 i32.sub local.get 19 i32.add local.get 20 i32.sub
        local.get 21 i64.const 3 i64.mul local.get 38 i64.sub local.get 40 i64.add i32.wrap_i64
        i32.sub)"#

    through_a_table: r#"(type $t (func (param i32) (result i32)))
      (table funcref (elem $a $b $u0 $plain))
      (func $a (type $t) (i32.add (call $u0 (local.get 0)) (local.get 0)))
      (func $b (type $t) (i32.sub (call $a (local.get 0)) (call $u0 (i32.const 9))))
      (func $plain (type $t) (i32.mul (local.get 0) (i32.const 3)))
      (func (export "run") (param i32) (result i32) (local i32)
        (i32.store (i32.const 64) (i32.const 2))
        (loop $l
          (local.set 0 (i32.add (i32.const 40)
            (call_indirect (type $t) (i32.add (local.get 0) (local.get 1))
              (i32.and (local.get 1) (i32.const 3)))))
          (local.set 1 (i32.add (local.get 1) (i32.const 1)))
          (br_if $l (i32.lt_s (local.get 1) (i32.const 9))))
        (i32.add (local.get 0)
          (call_indirect (type $t) (i32.load (i32.const 64)) (i32.load (i32.const 64)))))"#

    table_index_from_a_global: r#"(type $t (func (param i32 i32) (result i32)))
      (table funcref (elem $a $b))
      (func $a (type $t) (global.set $g (i32.const 1)) (i32.add (call $u0 (local.get 0))
        (local.get 1)))
      (func $b (type $t) (i32.sub (call $u0 (local.get 0)) (call $u0 (local.get 1))))
      (func (export "run") (param i32) (result i32)
        (global.set $g (i32.const 0))
        (i32.add
          (call_indirect (type $t) (local.get 0) (i32.const 3) (global.get $g))
          (call_indirect (type $t) (local.get 0) (i32.const 3) (global.get $g))))"#

    argument_from_memory: r#"(func (export "run") (param i32) (result i32)
        (i32.store (i32.const 100) (i32.const 3))
        (i32.store (i32.const 104) (i32.const 5))
        (i32.add
          (call $u0 (i32.load (i32.const 100)))
          (call $u0 (i32.add (i32.load (i32.const 100)) (i32.load (i32.const 104))))))"#

    memory_grows: r#"(func (export "run") (param i32) (result i32)
        (drop (memory.grow (i32.const 1)))
        (call $u2)
        (i32.store (i32.const 150000) (call $u0 (i32.const 6)))
        (call $u2)
        (i32.add (i32.load (i32.const 150000)) (memory.size)))"#

    calls_that_do_not_return: r#"(func $panic (param i32)
        (drop (call $u0 (local.get 0))) (call $u2) unreachable)
      (func $checked (param i32) (result i32)
        (if (i32.ge_u (local.get 0) (i32.const 4)) (then (call $panic (local.get 0)) unreachable))
        (i32.load (i32.mul (local.get 0) (i32.const 4))))
      (func (export "run") (param i32) (result i32) (local i32)
        (loop $l
          (local.set 1 (i32.add (call $checked (local.get 0)) (call $u0 (local.get 1))))
          (local.set 0 (i32.add (local.get 0) (i32.const 1)))
          (if (i32.gt_s (local.get 0) (i32.const 100))
            (then (call $panic (i32.const 3)) unreachable))
          (br_if $l (i32.lt_s (local.get 0) (i32.const 8))))
        (local.get 1))"#

    last_call_in_a_deep_block: r#"(func $panic (param i64 f32 f64 v128) (result i64)
        (drop (call $u0 (i32.const 4))) unreachable)
      (func (export "run") (param i32) (result i32 i64)
        i32.const 4
        (block (loop (if (local.get 0) (then
          i64.const 5
          (call $panic (i64.const 1) (f32.const 2) (f64.const 3)
            (v128.const i64x2 1 2)) unreachable))))
        i64.const 3)"#

    a_loop_without_calls_stays: r#"(func (export "run") (param i32) (result i32) (local i32)
        (drop (call $u0 (i32.const 1)))
        (block $done
          (loop $l
            (br_if $done (i32.gt_u (local.get 1) (i32.const 1000)))
            (local.set 1 (i32.add (local.get 1) (call $p0 (i32.const 3))))
            (br $l)))
        (i32.add (call $u0 (i32.const 1)) (local.get 1)))"#

    commuting_operands: r#"(func (export "run") (param i32) (result i32 i32 i64 i32)
        (i32.add (i32.load (i32.const 4)) (call $u0 (i32.const 1)))
        (i32.sub (i32.load (i32.const 4)) (call $u0 (i32.const 1)))
        (i64.mul (i64.load (i32.const 4)) (call $u1 (i64.const 1) (f64.const 2)))
        (i32.lt_s (i32.load (i32.const 4)) (call $u0 (i32.const 1))))"#

    store_of_a_result: r#"(func (export "run") (param i32)
        (i32.store offset=8 (i32.add (local.get 0) (i32.load (i32.const 0))) (call $u0
          (i32.const 2)))
        (i64.store offset=16 (local.get 0) (call $u1 (i64.const 2) (f64.const 2))))"#

    trap_after_resuming: r#"(func (export "run") (param i32) (result i32)
        (i32.store (i32.const 8) (call $u0 (i32.const 2)))
        (i32.div_u (call $u0 (i32.const 2)) (i32.const 0)))"#

    select_and_globals: r#"(func (export "run") (param i32) (result i32)
        (global.set $g (call $u0 (global.get $g)))
        (select (call $u0 (global.get $g)) (i32.const 4) (i32.and (global.get $g) (i32.const 1)))
        (global.set $g (i32.add (global.get $g) (i32.const 1))))"#

    results_of_a_block_over_a_call: r#"(func (export "run") (param i32) (result i32)
        i32.const 50 i32.load
        block $b (param i32) (result i32 i32)
          i32.const 3
          local.get 0 br_if $b
          call $u0
          call $u2
          local.get 0 call $u0 i32.mul local.get 0 br_if $b
        end
        i32.sub
        block $c (result i32 i32 i32)
          i32.const 1 call $u0
          i32.const 2 call $u0
          i32.const 3 call $u0
        end
        i32.mul i32.sub i32.sub)"#

    local_read_only_in_the_next_round: r#"(func (export "run") (param i32) (result i32)
        (local $x i32) (local $sum i32) (local $n i32) (local $m i32)
        (local.set $x (i32.mul (local.get 0) (i32.const 77)))
        (loop $l
          (local.set $sum (i32.add (local.get $sum) (local.get $x)))
          (local.set $m (i32.const 0))
          (loop $k
            (call $u2)
            (local.set $m (i32.add (local.get $m) (i32.const 1)))
            (br_if $k (i32.lt_s (local.get $m) (i32.const 3))))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $l (i32.lt_s (local.get $n) (i32.const 4))))
        (local.get $sum))"#

    locals_read_only_in_one_arm: r#"(func $f (param i32) (result i32) (local $x i32) (local $y i32)
        (local.set $x (i32.mul (local.get 0) (i32.const 77)))
        (local.set $y (i32.mul (local.get 0) (i32.const 78)))
        (call $u2)
        (if (result i32) (i32.and (local.get 0) (i32.const 1))
          (then (local.get $x)) (else (local.get $y))))
      (func (export "run") (param i32) (result i32)
        (i32.sub (call $f (i32.const 4)) (call $f (i32.const 5))))"#

    local_read_only_where_a_branch_leads: r#"
      (func $f (param i32) (result i32) (local $x i32)
        (local.set $x (i32.mul (local.get 0) (i32.const 77)))
        (block $b
          (call $u2)
          (br_if $b (i32.and (local.get 0) (i32.const 1)))
          (local.set $x (i32.const 4)))
        (local.get $x))
      (func $g (param i32) (result i32) (local $x i32)
        (local.set $x (i32.mul (local.get 0) (i32.const 77)))
        (block $b (block $a
          (call $u2)
          (br_table $a $b (local.get 0)))
          (local.set $x (i32.const 4)))
        (local.get $x))
      (func (export "run") (param i32) (result i32)
        (i32.sub (i32.sub (call $f (i32.const 4)) (call $f (i32.const 5)))
          (i32.mul (call $g (i32.const 0)) (call $g (i32.const 1)))))"#

    argument_whose_address_is_gone: r#"(func $f (param i32) (result i32) (call $u0 (local.get 0)))
      (func (export "run") (param i32) (result i32) (local $at i32)
        (local.set $at (i32.add (local.get 0) (i32.const 3000)))
        (i32.store (i32.const 2007) (i32.const 5))
        (call $f (i32.load (i32.sub (local.get $at) (i32.const 1000)))))"#

    several_last_calls_that_wait_twice: r#"
      (func $a (drop (call $u0 (i32.const 1))) (call $u2) unreachable)
      (func $b (drop (call $u0 (i32.const 2))) (call $u2) unreachable)
      (func $c (drop (call $u0 (i32.const 3))) (call $u2) unreachable)
      (func (export "run") (param i32)
        (call $u2)
        (if (i32.eq (local.get 0) (i32.const 1)) (then (call $a) unreachable))
        (if (i32.eq (local.get 0) (i32.const 7)) (then (call $b) unreachable))
        (call $c) unreachable)"#

    loops_with_many_calls_one_after_another: r#"(func $f (param i32) (result i32) (local i32)
        (loop $a
          (call $u2) (call $u2) (call $u2) (call $u2) (call $u2)
          (loop $b
            (call $u2) (call $u2) (call $u2) (call $u2) (call $u2) (call $u2) (call $u2)
            (call $u2) (call $u2) (drop (call $u0 (local.get 1)))
            (local.set 1 (i32.add (local.get 1) (i32.const 1)))
            (br_if $b (i32.and (local.get 1) (i32.const 1))))
          (drop (call $u0 (local.get 1)))
          (br_if $a (i32.lt_s (local.get 1) (local.get 0))))
        (loop $c
          (call $u2)
          (loop $d (call $u2) (drop (call $u0 (local.get 1))))
          (loop $d (call $u2) (drop (call $u0 (local.get 1)))))
        (loop $c
          (call $u2) (call $u2) (call $u2) (call $u2) (call $u2) (call $u2) (call $u2) (call $u2)
          (call $u2) (call $u2) (call $u2) (call $u2) (call $u2) (call $u2) (call $u2) (call $u2)
          (drop (call $u0 (local.get 1))))
        (call $u0 (local.get 1)))
      (func (export "run") (param i32) (result i32)
        (i32.add (call $f (i32.const 1)) (call $f (i32.const 4))))"#
}
