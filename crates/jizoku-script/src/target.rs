//! Targets: which nodes a step runs on, as it stands behind `on`.
//!
//! ```text
//! "all"                        every node
//! "role:web"                   nodes with the label role = web
//! "role:web zone:a -disk:slow" with both labels, and without the third
//! "node:web1"                  that node
//! "service:kv"                 the node where the service is active
//! "one role:web"               one of them: the first by name that can be reached
//! ```
//!
//! What it does not know: which nodes there are; whoever does, asks [`Target::matches`].

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

/// Most conditions of one target.
pub const TERMS_MAX: usize = 8;

/// Which nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Only one of them.
    pub one: bool,
    /// What holds for each of them.
    pub terms: Vec<Term>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// It must not hold.
    pub not: bool,
    /// `node`, `service`, or a label's key.
    pub key: String,
    /// The name, or the label's value.
    pub value: String,
}

/// What is known of a node.
pub trait Facts {
    /// Its name.
    fn name(&self) -> &str;
    /// Its label with this key.
    fn label(&self, key: &str) -> Option<&str>;
    /// Whether a service is active there.
    fn runs(&self, service: &str) -> bool;
}

impl Target {
    /// Reads a target. What is wrong is said for people.
    pub fn parse(text: &str) -> Result<Target, String> {
        let mut words = text.split_ascii_whitespace().peekable();
        let one = words.next_if_eq(&"one").is_some();
        let mut terms = Vec::new();
        let mut all = false;
        for word in words {
            if word == "all" {
                all = true;
                continue;
            }
            let (not, word) = word.strip_prefix('-').map_or((false, word), |word| (true, word));
            let Some((key, value)) = word.split_once(':').filter(|(k, v)| fit(k) && fit(v)) else {
                let what =
                    "a target is \"all\", \"node:NAME\", \"service:NAME\" or \"LABEL:VALUE\"";
                return Err(format!("`{}` is no target: {what}", &word[..word.len().min(40)]));
            };
            terms.push(Term { not, key: key.to_string(), value: value.to_string() });
        }
        if terms.len() > TERMS_MAX {
            return Err(format!("more than {TERMS_MAX} conditions"));
        }
        if terms.is_empty() && !all {
            return Err("no target: \"all\" means every node".to_string());
        }
        Ok(Target { one, terms })
    }

    /// Whether a node is meant; of a target with `one`, whether it may be.
    pub fn matches(&self, node: &dyn Facts) -> bool {
        self.terms.iter().all(|term| {
            let holds = match term.key.as_str() {
                "node" => node.name() == term.value,
                "service" => node.runs(&term.value),
                key => node.label(key) == Some(&term.value),
            };
            holds != term.not
        })
    }
}

fn fit(word: &str) -> bool {
    let clean = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    !word.is_empty() && word.len() <= 64 && word.bytes().all(clean)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut blank = "";
        if self.one {
            f.write_str("one")?;
            blank = " ";
        }
        if self.terms.is_empty() {
            return write!(f, "{blank}all");
        }
        for Term { not, key, value } in &self.terms {
            write!(f, "{blank}{}{key}:{value}", if *not { "-" } else { "" })?;
            blank = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Web;

    impl Facts for Web {
        fn name(&self) -> &str {
            "web1"
        }

        fn label(&self, key: &str) -> Option<&str> {
            (key == "role").then_some("web")
        }

        fn runs(&self, service: &str) -> bool {
            service == "kv"
        }
    }

    #[test]
    fn nodes_are_found_by_name_label_and_service() {
        for (text, expected) in [
            ("all", true),
            ("role:web", true),
            ("one role:web service:kv", true),
            ("node:web1 -role:db", true),
            ("-role:web", false),
            ("role:web node:web2", false),
            ("service:other", false),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!(target.matches(&Web), expected, "{text}");
            assert_eq!(target.to_string(), text);
        }
    }

    #[test]
    fn wrong_targets_are_refused() {
        let long = "a:b ".repeat(9);
        for text in ["", "one", "web", "role:", ":web", "a:b:c", "role:w*b", &long, "ü"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
