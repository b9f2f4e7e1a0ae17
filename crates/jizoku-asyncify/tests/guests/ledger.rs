//! A guest for the tests: an ordinary program that waits (yields, sleeps, prints) in the middle
//! of everything: recursion, trait objects, closures, comparators, hashing, formatting, drops.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::thread::{sleep, yield_now};
use std::time::Duration;

trait Account {
    fn name(&self) -> String;
    fn apply(&mut self, amount: i64) -> Result<i64, String>;
}

struct Plain(String, i64);
struct Limited {
    inner: Box<dyn Account>,
    left: u32,
}

impl Account for Plain {
    fn name(&self) -> String {
        self.0.clone()
    }
    fn apply(&mut self, amount: i64) -> Result<i64, String> {
        let before = self.1;
        yield_now();
        self.1 = before.checked_add(amount).ok_or_else(|| format!("{} overflows", self.0))?;
        Ok(self.1)
    }
}

impl Account for Limited {
    fn name(&self) -> String {
        format!("limited {}", self.inner.name())
    }
    fn apply(&mut self, amount: i64) -> Result<i64, String> {
        if self.left == 0 {
            sleep(Duration::from_millis(1));
            return Err(format!("{} is used up", self.name()));
        }
        self.left -= 1;
        self.inner.apply(amount / 2)
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        yield_now();
        println!("closed {} at {}", self.0, self.1);
    }
}

#[derive(PartialEq, Eq, Clone)]
struct Key(u32);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if self.0 % 5 == 0 {
            yield_now();
        }
        self.0.hash(state);
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        yield_now();
        write!(f, "<{:>4}|{:.3}>", self.0, f64::from(self.0).sqrt())
    }
}

fn tree(depth: u32, seed: u64, log: &mut Vec<String>) -> (u64, f32, i128) {
    if depth == 0 {
        sleep(Duration::from_micros(seed % 7));
        return (seed, seed as f32 / 3.0, i128::from(seed) << 40);
    }
    let (a, x, p) = tree(depth - 1, seed.wrapping_mul(6364136223846793005).wrapping_add(1), log);
    let middle = format!("{depth}:{a:x}");
    let (b, y, q) = tree(depth - 1, a ^ seed.rotate_left(depth), log);
    if b % 3 == 0 {
        log.push(middle);
    }
    (a.wrapping_add(b), x * 0.5 + y, p - q)
}

fn sorted(mut keys: Vec<Key>) -> Vec<Key> {
    let mut compared = 0;
    keys.sort_by(|a, b| {
        compared += 1;
        if compared % 4 == 0 {
            yield_now();
        }
        (a.0 % 7, a.0).cmp(&(b.0 % 7, b.0))
    });
    keys
}

fn main() {
    let mut log = Vec::new();
    let sums = tree(5, 42, &mut log);
    println!("{sums:?} {}", log.join(" "));

    let mut counts: HashMap<Key, Rc<str>> = HashMap::new();
    for i in 0..40u32 {
        counts.insert(Key(i * 7 % 31), format!("v{i}").into());
    }
    let keys = sorted(counts.keys().cloned().collect());
    let shown: Vec<String> = keys.iter().filter(|k| k.0 % 3 == 0).map(|k| k.to_string()).collect();
    println!("{} {}", shown.join(","), counts[&Key(10)]);

    let mut accounts: Vec<Box<dyn Account>> = vec![
        Box::new(Plain("a".into(), 5)),
        Box::new(Limited { inner: Box::new(Plain("b".into(), i64::MAX - 10)), left: 3 }),
    ];
    let mut failures = BTreeMap::new();
    for round in 1..=5i64 {
        for account in &mut accounts {
            match account.apply(round * 7) {
                Ok(balance) => println!("{} {balance}", account.name()),
                Err(why) => *failures.entry(why).or_insert(0) += round,
            }
        }
    }
    println!("{failures:?}");
}
