//! Bugs that the simulator can plant, to show that its checkers find them.
//!
//! What it does not know: what finds them, and when.
//!
//! Bugs that other defences hide, or that runs don't reach, are not here:
//! docs/internals/simulator.md says which, and why.

use jizoku_checkpoint::fault::Fault as CheckpointFault;
use jizoku_checkpoint::holder::Holder;
use jizoku_engine::fake::FakeInstance;
use jizoku_node::Node;
use jizoku_node::fault::Fault as NodeFault;
use jizoku_node::runner::Runner;
use jizoku_streams::GatewayEnd;
use jizoku_streams::faults::Faults as StreamFaults;

/// One planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// In every holder, collector and shipper.
    Checkpoint(CheckpointFault),
    /// In every gateway and instance.
    Streams(StreamFaults),
    /// In every Node and Runner.
    Node(NodeFault),
}

/// Bugs that a campaign with `--faults` must find, with their names.
pub const PROVEN: &[(&str, Bug)] = &[
    ("commit without one holder", Bug::Checkpoint(CheckpointFault::CommitsWithoutOne)),
    ("restarted holder still counts", Bug::Checkpoint(CheckpointFault::CountsRestarted)),
    ("gateway forgets an offset", Bug::Streams(StreamFaults::GATEWAY_FORGETS_OFFSET)),
    ("gateway releases early", Bug::Streams(StreamFaults::GATEWAY_RELEASES_EARLY)),
    ("capture forgets output", Bug::Streams(StreamFaults::CAPTURE_FORGETS_OUTPUT)),
    ("gateway keeps uncommitted", Bug::Streams(StreamFaults::GATEWAY_KEEPS_UNCOMMITTED)),
    ("input dropped when consumed", Bug::Streams(StreamFaults::INPUT_DROPPED_AT_CONSUMPTION)),
    ("confirmed at arrival", Bug::Streams(StreamFaults::CONFIRMS_AT_ARRIVAL)),
    ("cover too low", Bug::Streams(StreamFaults::COVER_TOO_LOW)),
    ("gaps ignored", Bug::Streams(StreamFaults::GAPS_IGNORED)),
    ("released uncommitted", Bug::Node(NodeFault::ReleasesUncommitted)),
    ("min_copies ignored", Bug::Node(NodeFault::CopiesIgnored)),
    ("lease ignored", Bug::Node(NodeFault::LeaseIgnored)),
    ("birth forgotten", Bug::Node(NodeFault::BirthForgotten)),
    ("set told early", Bug::Node(NodeFault::SetToldEarly)),
    ("restart of the active unseen", Bug::Node(NodeFault::RestartUnseen)),
    ("gateway given up early", Bug::Node(NodeFault::GatewayGivenUpEarly)),
    ("epoch used twice", Bug::Node(NodeFault::RestartsInPlace)),
    ("deadline never met", Bug::Node(NodeFault::DeadlineStuck)),
    ("late nodes skip commands", Bug::Node(NodeFault::LateSkips)),
    ("fork forgotten", Bug::Node(NodeFault::ForkForgotten)),
    ("loser goes on", Bug::Node(NodeFault::LoserGoesOn)),
    ("holder takes old epochs", Bug::Checkpoint(CheckpointFault::TakesOldEpoch)),
    ("holder acknowledges unflushed", Bug::Checkpoint(CheckpointFault::AcksBeforeFlush)),
    ("holder reports unflushed seal", Bug::Checkpoint(CheckpointFault::ReportsBeforeFlush)),
    ("unready holder added", Bug::Node(NodeFault::AddsUnready)),
];

/// Bugs that it takes takeover upon takeover to find, with their names: `--faults` looks for them
/// with the kinds of trouble in [`SHARP`] only. `--bug` counts them after the proven ones.
pub const RARE: &[(&str, Bug)] = &[
    ("restarted holder trusted", Bug::Checkpoint(CheckpointFault::TrustsRestarted)),
    ("cold start rule ignored", Bug::Node(NodeFault::ColdAlways)),
];

/// Kinds of trouble around takeovers.
pub const SHARP: &[&str] = &["server", "flap", "overtaken", "again"];

/// The bug with this number.
pub fn numbered(index: usize) -> Option<Bug> {
    PROVEN.iter().chain(RARE).nth(index).map(|(_, bug)| *bug)
}

impl Bug {
    /// Plants it in a holder, if it belongs there.
    pub fn plant_in_holder(self, holder: &mut Holder) {
        if let Bug::Checkpoint(fault) = self {
            holder.plant(fault);
        }
    }

    /// Plants it in a gateway, if it belongs there.
    pub fn plant_in_gateway(self, gateway: &mut GatewayEnd) {
        if let Bug::Streams(faults) = self {
            gateway.set_faults(faults);
        }
    }

    /// Plants it in an instance, if it belongs there.
    pub fn plant_in_instance(self, instance: &mut FakeInstance) {
        if let Bug::Streams(faults) = self {
            instance.plant_in_streams(faults);
        }
    }

    /// Plants it in a Node, if it belongs there.
    pub fn plant_in_node(self, node: &mut Node) {
        if let Bug::Node(fault) = self {
            node.plant(fault);
        }
    }

    /// Plants it in a Runner, if it belongs there.
    pub fn plant_in_runner(self, runner: &mut Runner) {
        match self {
            Bug::Checkpoint(fault) => runner.plant(NodeFault::Checkpoint(fault)),
            Bug::Node(fault) => runner.plant(fault),
            Bug::Streams(_) => {}
        }
    }
}
