//! A figure: samples, the limits that they are held against, and the conditions.
//!
//! What it does not know: how anything is measured.
//!
//! Invariant: less is better unless the limit says otherwise; a limit counts as met when the worst
//! sample meets it. Whether the median does is said beside it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jizoku_e2e::build;
use serde_json::{Value, json};

use crate::usage;

/// What a figure must and should reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// At most so much: must, aim.
    Most(f64, f64),
    /// The median at most so much; the worst is shown only.
    MedianMost(f64, f64),
    /// The median at least so much.
    MedianLeast(f64, f64),
    /// There is none: the figure is for comparing.
    None,
}

/// See the module's header.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    what: String,
    unit: &'static str,
    samples: Vec<f64>,
    limit: Limit,
    conditions: String,
    more: Value,
    broken: Option<String>,
}

impl Figure {
    /// A figure of these samples.
    ///
    /// # Panics
    /// If there are none.
    pub(crate) fn new(what: &str, unit: &'static str, samples: Vec<f64>, limit: Limit) -> Figure {
        assert!(!samples.is_empty(), "{what}: nothing was measured");
        let (conditions, more, broken) = (String::new(), Value::Null, None);
        Figure { what: what.into(), unit, samples, limit, conditions, more, broken }
    }

    /// Says under which conditions; the machine's processors are added.
    pub(crate) fn under(mut self, conditions: &str) -> Figure {
        self.conditions = conditions.into();
        self
    }

    /// Says what else was seen.
    pub(crate) fn with(mut self, more: Value) -> Figure {
        self.more = more;
        self
    }

    /// A bench that came to no figure.
    pub(crate) fn broken(why: String) -> Figure {
        Figure {
            what: "no figure".into(),
            unit: "",
            samples: Vec::new(),
            limit: Limit::None,
            conditions: String::new(),
            more: Value::Null,
            broken: Some(why),
        }
    }

    /// Whether it is a figure, and within what it must be.
    pub(crate) fn is_met(&self) -> bool {
        self.broken.is_none() && self.keeps(true).unwrap_or(true)
    }

    /// Whether the limit `must`, or else `aim`, is kept.
    fn keeps(&self, must: bool) -> Option<bool> {
        let choose = |limit: (f64, f64)| if must { limit.0 } else { limit.1 };
        Some(match self.limit {
            Limit::Most(a, b) => self.worst() <= choose((a, b)),
            Limit::MedianMost(a, b) => self.median() <= choose((a, b)),
            Limit::MedianLeast(a, b) => self.median() >= choose((a, b)),
            Limit::None => return None,
        })
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    fn median(&self) -> f64 {
        median(&self.samples)
    }

    fn worst(&self) -> f64 {
        let sorted = self.sorted();
        let most = !matches!(self.limit, Limit::MedianLeast(..));
        if most { sorted[sorted.len() - 1] } else { sorted[0] }
    }

    /// The figure as it is printed.
    pub(crate) fn line(&self, bench: &str, load: f64, took: Duration) -> Value {
        let took = took.as_secs();
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let load = json!({ "before": load, "after": usage::load() });
        if let Some(why) = &self.broken {
            return json!({
                "bench": bench, "broken": why, "load": load, "took_s": took, "at": at,
                "commit": commit(),
            });
        }
        let limit = match self.limit {
            Limit::Most(must, aim) => {
                let keeps = |limit| self.median() <= limit;
                json!({ "must": must, "aim": aim, "by": "worst", "met": self.keeps(true),
                        "aim_met": self.keeps(false), "met_by_median": keeps(must),
                        "aim_met_by_median": keeps(aim) })
            }
            Limit::MedianMost(must, aim) | Limit::MedianLeast(must, aim) => {
                json!({ "must": must, "aim": aim, "by": "median", "met": self.keeps(true),
                        "aim_met": self.keeps(false) })
            }
            Limit::None => Value::Null,
        };
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        json!({
            "bench": bench,
            "what": self.what,
            "value": {
                "median": round(self.median()), "worst": round(self.worst()), "unit": self.unit,
                "samples": self.samples.len(),
                "all": self.sorted().into_iter().map(round).collect::<Vec<_>>(),
            },
            "limit": limit,
            "more": self.more,
            "load": load,
            "conditions": format!("{}; {processors} processors", self.conditions),
            "took_s": took,
            "at": at,
            "commit": commit(),
        })
    }
}

/// The middle one.
///
/// # Panics
/// If there is none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

/// To four digits: more are noise.
pub(crate) fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

/// Of the sources that are measured; a mark says that they were changed since.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    let mark = if changed.is_none_or(|text| text.is_empty()) { "" } else { "+" };
    git(&["rev-parse", "--short", "HEAD"]).map_or("unknown".into(), |commit| commit + mark)
}

/// Where figures are kept.
#[derive(Debug)]
pub(crate) struct History {
    path: PathBuf,
}

impl History {
    /// The history that the environment names, or that of the target folder.
    pub(crate) fn open() -> History {
        let named = std::env::var_os("JIZOKU_BENCH_HISTORY").map(PathBuf::from);
        let path = named.unwrap_or_else(|| build::target().join("bench/history.jsonl"));
        eprintln!("bench: figures are added to {}", path.display());
        History { path }
    }

    /// Prints a figure, and adds it.
    pub(crate) fn add(&self, figure: &Value) {
        println!("{figure}");
        let written = self.file().and_then(|mut file| writeln!(file, "{figure}"));
        if let Err(error) = written {
            eprintln!("bench: {}: {error}", self.path.display());
        }
    }

    fn file(&self) -> std::io::Result<File> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        OpenOptions::new().create(true).append(true).open(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Figure, Limit, median, round};

    #[test]
    fn a_limit_is_met_by_the_worst_unless_it_is_of_the_median() {
        let figure = |limit| Figure::new("it", "s", vec![3.0, 1.0, 2.0], limit);
        assert!(figure(Limit::Most(3.0, 2.0)).is_met());
        assert!(!figure(Limit::Most(2.9, 2.0)).is_met());
        assert!(figure(Limit::MedianMost(2.0, 1.0)).is_met());
        assert!(!figure(Limit::MedianMost(1.9, 1.0)).is_met());
        assert!(figure(Limit::MedianLeast(2.0, 3.0)).is_met());
        assert!(!figure(Limit::MedianLeast(2.1, 3.0)).is_met());
        assert!(figure(Limit::None).is_met() && !Figure::broken("so".into()).is_met());
        let line = figure(Limit::Most(2.9, 2.0)).line("x", 0.0, Duration::ZERO);
        assert_eq!(line["limit"]["met"], false);
        assert_eq!(line["limit"]["aim_met_by_median"], true);
        assert_eq!(line["value"]["worst"], 3.0);
        let least = figure(Limit::MedianLeast(2.0, 3.0)).line("x", 0.0, Duration::ZERO);
        assert_eq!(least["value"]["worst"], 1.0);
    }

    #[test]
    fn figures_are_rounded_and_halved() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(
            (round(0.000_123_456), round(123_456.0), round(0.0)),
            (0.000_123_5, 123_500.0, 0.0)
        );
    }
}
