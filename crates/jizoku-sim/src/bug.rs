//! Bugs that the simulator can plant, to show that its checkers find them.
//!
//! What it does not know: what finds them, and when.
//!
//! Left out, since a second defence makes them harmless here or the runs don't reach them:
//! - blocks that aren't verified when they are fetched: no simulated holder lies;
//! - the end of a program's output that isn't captured: the simulated program never ends it;
//! - checkpoints folded before they are committed: only an adopted lower one could tell, and the
//!   highest report is adopted.

use jizoku_checkpoint::fault::Fault as CheckpointFault;
use jizoku_checkpoint::holder::Holder;
use jizoku_core::catalog::Fault as CatalogFault;
use jizoku_core::lease::Fault as LeaseFault;
use jizoku_core::reach::Fault as ReachFault;
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
    /// The log hears that a write is done when it begins.
    LogUnflushed,
}

const fn lease(fault: LeaseFault) -> Bug {
    Bug::Node(NodeFault::Lease(fault))
}

const fn catalog(fault: CatalogFault) -> Bug {
    Bug::Node(NodeFault::Catalog(fault))
}

const fn reach(fault: ReachFault) -> Bug {
    Bug::Node(NodeFault::Reach(fault))
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
];

/// Bugs that no seed has been seen to find yet: for `--bug`, which counts them after the proven
/// ones. A second defence may stand behind some.
pub const OPEN: &[(&str, Bug)] = &[
    ("holder takes old epochs", Bug::Checkpoint(CheckpointFault::TakesOldEpoch)),
    ("holder keeps what is above", Bug::Checkpoint(CheckpointFault::AdoptKeepsLater)),
    ("holder acknowledges unflushed", Bug::Checkpoint(CheckpointFault::AcksBeforeFlush)),
    ("holder reports unflushed seal", Bug::Checkpoint(CheckpointFault::ReportsBeforeFlush)),
    ("joining holder not awaited", Bug::Checkpoint(CheckpointFault::JoiningNotAwaited)),
    ("restarted holder trusted", Bug::Checkpoint(CheckpointFault::TrustsRestarted)),
    ("lowest report taken", Bug::Checkpoint(CheckpointFault::TakesLowest)),
    ("instance takes any epoch", Bug::Streams(StreamFaults::INSTANCE_TAKES_ANY_EPOCH)),
    ("gateway takes any epoch", Bug::Streams(StreamFaults::GATEWAY_TAKES_ANY_EPOCH)),
    ("lineage ignored", Bug::Streams(StreamFaults::LINEAGE_IGNORED)),
    ("capture forgets the highest", Bug::Streams(StreamFaults::CAPTURE_FORGETS_HIGHEST)),
    ("lease ignores a pause", lease(LeaseFault::CountFromReceipt)),
    ("lease voter forgets at restart", lease(LeaseFault::ForgetAtRestart)),
    ("lease renewed after a newer one", lease(LeaseFault::RenewAfterNewer)),
    ("takeover without compare", catalog(CatalogFault::TakeOverWithoutCompare)),
    ("set of an old epoch accepted", catalog(CatalogFault::SetHoldersOfOldEpoch)),
    ("one end of a link is enough", reach(ReachFault::OneEndIsEnough)),
    ("news not passed on", reach(ReachFault::KeepNews)),
    ("released unadopted", Bug::Node(NodeFault::ReleasesUnadopted)),
    ("cold start rule ignored", Bug::Node(NodeFault::ColdAlways)),
    ("unready holder added", Bug::Node(NodeFault::AddsUnready)),
    ("instance not dismissed", Bug::Node(NodeFault::NotDismissed)),
    ("log unflushed", Bug::LogUnflushed),
];

/// The bug with this number.
pub fn numbered(index: usize) -> Option<Bug> {
    PROVEN.iter().chain(OPEN).nth(index).map(|(_, bug)| *bug)
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
            Bug::Streams(_) | Bug::LogUnflushed => {}
        }
    }
}
