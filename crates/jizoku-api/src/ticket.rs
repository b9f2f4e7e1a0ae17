//! The text that lets one node into a cluster: who issued it, where that one is, and a secret.
//!
//! ```text
//! jz1   then base64 (URL, no padding) of the ticket as postcard writes it
//! ```
//!
//! What it does not know: whether it is still good; the catalog keeps its secret's hash.
//!
//! Invariant: any text either reads as a ticket that writes the same text, or is refused.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use data_encoding::BASE64URL_NOPAD;
use jizoku_types::{ClusterId, NodeId, decode, encode};
use serde::{Deserialize, Serialize};

/// What stands before a ticket's text.
const PREFIX: &str = "jz1";

/// What a ticket says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Which cluster it lets in.
    pub cluster: ClusterId,
    /// Who issued it.
    pub issuer: NodeId,
    /// Where the issuer listens.
    pub addresses: Vec<SocketAddr>,
    /// What only its bearer knows.
    pub secret: [u8; 32],
}

impl core::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Ticket({}, by {}, at {:?})", self.cluster, self.issuer, self.addresses)
    }
}

impl Ticket {
    /// The form that people copy.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&encode(self)))
    }

    /// Reads that form; none if the text is something else.
    pub fn parse(text: &str) -> Option<Ticket> {
        let rest = text.trim().strip_prefix(PREFIX)?;
        decode(&BASE64URL_NOPAD.decode(rest.as_bytes()).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn tickets_read_back_and_other_text_is_refused() {
        let addresses = vec!["[::1]:7171".parse().expect("an address")];
        let (cluster, issuer) = (ClusterId([3; 16]), NodeId([4; 32]));
        let ticket = Ticket { cluster, issuer, addresses, secret: [5; 32] };
        assert_eq!(Ticket::parse(&ticket.text()), Some(ticket.clone()));
        assert_eq!(Ticket::parse(&format!(" {}\n", ticket.text())), Some(ticket.clone()));
        let cut = &ticket.text()[..20];
        for text in ["", "jz1", "jz1!!!", cut, "hello"] {
            assert_eq!(Ticket::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_ticket_that_is_printed_by_mistake_keeps_its_secret() {
        let (cluster, issuer) = (ClusterId([3; 16]), NodeId([4; 32]));
        let ticket = Ticket { cluster, issuer, addresses: Vec::new(), secret: [99; 32] };
        assert!(!format!("{ticket:?}").contains("99"));
    }
}
