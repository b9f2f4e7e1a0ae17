//! Records that programs and people send over the API: one object of JSON in a line.
//!
//! What it does not know: HTTP.
//!
//! Limits: `EMIT_MAX` bytes at once; [`COUNTS_WITHIN`] until important records count.

use std::time::Duration;

use jizoku_api::log::Emitted;
use jizoku_log::intake::json;

use super::{LogPool, Taken};

/// How long an answer waits until important records count.
const COUNTS_WITHIN: Duration = Duration::from_secs(5);
/// The source of records that don't name one.
const SOURCE: &str = "api";

impl LogPool {
    /// Takes lines; says what became of them, once the important ones count.
    pub(crate) async fn emit(&self, bytes: &[u8]) -> Emitted {
        let mut emitted = Emitted::default();
        let mut place = None;
        for line in bytes.split(|byte| *byte == b'\n') {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let parsed = std::str::from_utf8(line).map_err(|_| "a line isn't UTF-8".to_string());
            let parsed = parsed.and_then(|line| json::parse(line).map_err(|why| why.to_string()));
            let taken = match &parsed {
                Ok(parsed) => parsed.draft(&self.host, SOURCE, |draft| self.append(draft)),
                Err(why) => {
                    emitted.refused += 1;
                    emitted.why.get_or_insert_with(|| why.clone());
                    continue;
                }
            };
            match taken {
                Taken::As(seq, own) => {
                    emitted.taken += 1;
                    emitted.last = Some(seq);
                    place = own.or(place);
                }
                Taken::Dropped => emitted.dropped += 1,
                Taken::Full => {
                    emitted.refused += 1;
                    let why = "too many important records wait for a second node";
                    emitted.why.get_or_insert_with(|| why.into());
                }
            }
        }
        if let Some(place) = place {
            emitted.counts = Some(self.counts(place, COUNTS_WITHIN).await);
        }
        emitted
    }

    /// Takes a line that a service wrote: its fields if it is an object of JSON, else its text.
    pub(crate) fn printed(&self, service: &str, line: &str) {
        let parsed = json::parse(line);
        let parsed = parsed.unwrap_or_else(|_| jizoku_log::intake::Parsed::text(line));
        // Dropped or not, that is counted where it happens.
        parsed.draft(&self.host, service, |draft| self.append(draft));
    }
}
