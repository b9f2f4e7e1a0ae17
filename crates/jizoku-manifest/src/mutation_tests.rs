//! Random damage to good files: whatever comes out, it is a value or a report, never a panic.

use jizoku_types::NodeId;

use crate::{Manifest, NodeConfig, Problems, UnknownNode};

/// A small generator of numbers that is the same everywhere (xorshift).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

const MANIFEST: &str = r#"name = "kv"
[engine]
kind = "wasm"
program = "kv.wasm"
args = ["-v"]
env = { A = "b" }
memory = "256MiB"
[[port]]
name = "resp"
listen = 6379
[state]
output = "held"
copies = 2
interval = "50ms"
[succession]
policy = "priority"
order = ["é", "beta"]
[[check]]
kind = "http"
path = "/"
[placement]
require = { zone = "a" }
"#;

const PIECES: [&str; 22] = [
    "=",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "\"",
    "\"\"\"",
    "\n",
    "\r\n",
    "\0",
    "é",
    "\u{202e}",
    "9",
    "-1",
    "1e999",
    "exec",
    "wasm",
    "name",
    ".",
    "#",
    "99999999999999999999",
];

fn mutate(text: &str, random: &mut Seeded) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=random.below(4) {
        let at = random.below(chars.len() + 1);
        match random.below(4) {
            0 if at < chars.len() => {
                chars.remove(at);
            }
            1 => {
                let end = (at + random.below(20)).min(chars.len());
                chars.drain(at..end);
            }
            2 => {
                let from = random.below(chars.len() + 1);
                let end = (from + random.below(30)).min(chars.len());
                let copied: Vec<char> = chars[from..end].to_vec();
                chars.splice(at..at, copied);
            }
            _ => {
                let piece = PIECES[random.below(PIECES.len())];
                chars.splice(at..at, piece.chars());
            }
        }
    }
    chars.into_iter().collect()
}

fn check_report(text: &str, problems: &Problems) {
    assert!(!problems.list().is_empty());
    let lines = text.split('\n').count();
    let mut before = 0;
    for problem in problems.list() {
        assert!((1..=lines).contains(&problem.line), "{text:?}");
        assert!(problem.bytes.start >= before && problem.bytes.end <= text.len(), "{text:?}");
        before = problem.bytes.start;
    }
    let shown = problems.to_string();
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
}

#[test]
fn damaged_files_lead_to_reports_and_never_to_panics() {
    let nodes = |name: &str| match name {
        "é" => Ok(NodeId([1; 32])),
        "beta" => Ok(NodeId([2; 32])),
        _ => Err(UnknownNode::default()),
    };
    let config = NodeConfig::default().to_toml();
    let mut random = Seeded(0x6a69_7a6f_6b75);
    let (mut right, mut wrong) = (0, 0);
    for _ in 0..4_000 {
        let text = mutate(MANIFEST, &mut random);
        match Manifest::parse("m", &text, &nodes) {
            Ok(manifest) => {
                assert_eq!(manifest.spec.check(), Ok(()));
                right += 1;
            }
            Err(problems) => {
                check_report(&text, &problems);
                wrong += 1;
            }
        }
        let text = mutate(&config, &mut random);
        match NodeConfig::parse("c", &text) {
            Ok(read) => assert_eq!(NodeConfig::parse("c", &read.to_toml()), Ok(read)),
            Err(problems) => check_report(&text, &problems),
        }
    }
    // Both happened often, so both paths were tried.
    assert!(right > 50 && wrong > 1_000, "{right} right, {wrong} wrong");
}
