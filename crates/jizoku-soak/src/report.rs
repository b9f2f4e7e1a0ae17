//! What a campaign came to: one table, the violations, and the same as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

/// What was counted for one kind of fault.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// How often it was made.
    pub injected: u64,
    /// How often as the first of two.
    pub double: u64,
    /// How often it could not be made as things were.
    pub skipped: u64,
    /// New epochs of all services.
    pub takeovers: u64,
    /// Answers on connections that stay open.
    pub answers: u64,
    /// Connections that broke for a reason.
    pub resets: u64,
    /// Per fault the longest wait for an answer of a `held` service through an undisturbed node.
    pub outages: Vec<Duration>,
    /// Per fault how long after it was healed all clients were answered.
    pub back: Vec<Duration>,
    /// Acknowledged writes that were lost as far as it is allowed: for how long before the fault.
    pub lost: BTreeMap<&'static str, Duration>,
}

/// See the module's header.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By kind of fault, in which the first of two counts.
    pub rows: BTreeMap<&'static str, Row>,
    /// What was found, each with the command that does the same again.
    pub violations: Vec<(String, String)>,
    /// Kinds that can't be made here, and why.
    pub impossible: Vec<String>,
    /// How long it ran.
    pub took: Duration,
    /// The load of the machine at the end.
    pub load: String,
}

fn worst(spans: &[Duration]) -> Option<Duration> {
    spans.iter().max().copied()
}

fn median(spans: &[Duration]) -> Option<Duration> {
    let mut sorted = spans.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied()
}

/// For people. None: every node was disturbed, so there was nobody to wait undisturbed.
fn seconds(span: Option<Duration>) -> String {
    span.map_or("-".into(), |span| format!("{:.2} s", span.as_secs_f64()))
}

impl Report {
    /// How many faults were made, and how many of the steps were double.
    pub fn counts(&self) -> (u64, u64) {
        let injected = self.rows.values().map(|row| row.injected).sum();
        (injected, self.rows.values().map(|row| row.double).sum())
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<17}{:>6}{:>7}{:>7}{:>10}{:>9}{:>7}{:>12}{:>9}{:>9}  {}\n",
            "fault",
            "times",
            "double",
            "n/a",
            "takeovers",
            "answers",
            "resets",
            "outage p50",
            "worst",
            "back",
            "lost as allowed"
        );
        for (kind, row) in &self.rows {
            let lost: Vec<String> = row
                .lost
                .iter()
                .map(|(service, span)| format!("{service} {:.2} s", span.as_secs_f64()))
                .collect();
            let _ = writeln!(
                text,
                "{kind:<17}{:>6}{:>7}{:>7}{:>10}{:>9}{:>7}{:>12}{:>9}{:>9}  {}",
                row.injected,
                row.double,
                row.skipped,
                row.takeovers,
                row.answers,
                row.resets,
                seconds(median(&row.outages)),
                seconds(worst(&row.outages)),
                seconds(worst(&row.back)),
                lost.join(", ")
            );
        }
        let (injected, double) = self.counts();
        let _ = writeln!(
            text,
            "{injected} faults, {double} of them double, in {:.0} s; load average {}",
            self.took.as_secs_f64(),
            self.load
        );
        for what in &self.impossible {
            let _ = writeln!(text, "not here: {what}");
        }
        for (what, again) in &self.violations {
            let _ = writeln!(text, "VIOLATION {what}\n  again: {again}");
        }
        let _ = writeln!(text, "{} violations", self.violations.len());
        text
    }

    /// For programs: times in milliseconds.
    pub fn json(&self) -> Value {
        let millis = |span: Duration| (span.as_secs_f64() * 1e4).round() / 10.0;
        let rows = self.rows.iter().map(|(kind, row)| {
            let lost: BTreeMap<&str, f64> =
                row.lost.iter().map(|(service, span)| (*service, millis(*span))).collect();
            json!({
                "fault": kind, "injected": row.injected, "double": row.double,
                "skipped": row.skipped, "takeovers": row.takeovers, "answers": row.answers,
                "resets_allowed": row.resets,
                "outage_median_ms": median(&row.outages).map(millis),
                "outage_worst_ms": worst(&row.outages).map(millis),
                "back_worst_ms": worst(&row.back).map(millis), "lost_as_allowed_ms": lost,
            })
        });
        let violations = self.violations.iter();
        let violations = violations.map(|(what, again)| json!({ "what": what, "again": again }));
        let (injected, double) = self.counts();
        json!({
            "ok": self.violations.is_empty(), "faults": injected, "double": double,
            "seconds": self.took.as_secs(), "load": self.load, "not_here": self.impossible,
            "rows": rows.collect::<Vec<Value>>(), "violations": violations.collect::<Vec<Value>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_has_what_was_found() {
        let mut report = Report::default();
        let seconds = [3, 1, 2].map(Duration::from_secs).to_vec();
        let row = Row { injected: 3, double: 1, outages: seconds, ..Row::default() };
        report.rows.insert("kill", row);
        assert_eq!(report.json()["ok"], true);
        report.violations.push(("LOST".into(), "cargo xtask soak --seed 1".into()));
        assert_eq!(report.json()["ok"], false);
        assert_eq!(report.json()["rows"][0]["outage_median_ms"], 2000.0);
        assert_eq!(report.json()["rows"][0]["outage_worst_ms"], 3000.0);
        for word in ["kill", "LOST", "--seed 1", "2.00 s", "3.00 s", "3 faults, 1 of them double"] {
            assert!(report.table().contains(word), "{word} in {}", report.table());
        }
    }
}
