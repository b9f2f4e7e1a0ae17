//! Counters of what the mesh did, and what it dropped and refused.
//!
//! What it does not know: who reads them. They only ever grow.

use std::sync::atomic::{AtomicU64, Ordering};

use jizoku_types::frame::Channel;

use crate::wire::{CHANNELS, channel_index};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// The live counters behind a [`Stats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            sent: [Traffic; CHANNELS.len()],
            received: [Traffic; CHANNELS.len()],
            $(pub(crate) $name: Counter,)+
        }

        /// A snapshot of the counters since the mesh started. Indices are those of [`Channel`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            /// Frames that this node sent, relayed ones included, and their bodies' bytes.
            pub sent: [ChannelStats; CHANNELS.len()],
            /// Frames that arrived for this node, and their bodies' bytes.
            pub received: [ChannelStats; CHANNELS.len()],
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Stats {
                Stats {
                    sent: self.sent.each_ref().map(Traffic::snapshot),
                    received: self.received.each_ref().map(Traffic::snapshot),
                    $($name: self.$name.get(),)+
                }
            }
        }
    };
}

counters! {
    /// Frames for others that this node passed on.
    relayed,
    /// Frames dropped because no way to their node was known, or the link went down.
    dropped_no_route,
    /// Frames dropped because they had passed through too many nodes.
    dropped_hops,
    /// Bulk frames dropped because the next node took nothing for five seconds.
    dropped_relay_full,
    /// Frames dropped because their maker is no member any more.
    dropped_not_member,
    /// Frames dropped because nobody on this node listens to their channel.
    dropped_no_listener,
    /// Frames to this node itself, dropped because its owner reads too slowly.
    dropped_self_full,
    /// Frames that were queued or under way on a link that went down.
    dropped_link_down,
    /// Connections dropped because a frame was longer than frames may be.
    broken_too_long,
    /// Connections dropped because their bytes were no frames.
    broken_malformed,
    /// Connections dropped because TLS failed after the handshake.
    broken_tls,
    /// Links dropped because the peer read too slowly.
    broken_too_slow,
    /// Links that came up.
    links_up,
    /// Links that went down.
    links_down,
    /// Connections of keys that are no members.
    refused_strangers,
    /// Connections of another cluster.
    refused_cluster,
    /// Connections of another generation of this cluster.
    refused_generation,
    /// Connections without a common protocol version.
    refused_version,
    /// Connections of an older incarnation of a member.
    refused_incarnation,
    /// Connections whose handshake or greeting failed or took too long.
    refused_greeting,
    /// Connections dropped because too many were greeting at once.
    refused_busy,
    /// Join requests handed to the owner.
    joins,
    /// Join requests refused because there were too many.
    joins_refused,
    /// How often this node was late and began to judge its links anew.
    late,
    /// Rounds of beats that were not sent because this node's runtime was stuck.
    beats_withheld,
}

/// Frames and bytes of one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelStats {
    /// How many frames.
    pub frames: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn bump(&self) {
        self.add(1);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Traffic {
    frames: Counter,
    bytes: Counter,
}

impl Traffic {
    fn count(&self, bytes: usize) {
        self.frames.bump();
        self.bytes.add(bytes as u64);
    }

    fn snapshot(&self) -> ChannelStats {
        ChannelStats { frames: self.frames.get(), bytes: self.bytes.get() }
    }
}

impl Counters {
    pub(crate) fn sent(&self, channel: Channel, bytes: usize) {
        self.sent[channel_index(channel)].count(bytes);
    }

    pub(crate) fn received(&self, channel: Channel, bytes: usize) {
        self.received[channel_index(channel)].count(bytes);
    }
}
