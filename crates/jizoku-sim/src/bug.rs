//! Bugs that the simulator can plant, to show that its checkers find them.

use jizoku_checkpoint::fault::Fault as HolderFault;
use jizoku_checkpoint::holder::Holder;
use jizoku_engine::fake::FakeInstance;
use jizoku_node::runner::Runner;
use jizoku_streams::GatewayEnd;
use jizoku_streams::faults::Faults as StreamFaults;

/// One planted bug.
#[derive(Clone, Copy, Debug)]
pub enum Bug {
    /// In every holder.
    Holder(HolderFault),
    /// In every gateway.
    Gateway(StreamFaults),
}

/// Bugs that every campaign with `--faults` must find.
pub const PROVEN: &[(&str, Bug)] = &[
    ("gateway forgets an offset", Bug::Gateway(StreamFaults::GATEWAY_FORGETS_OFFSET)),
    ("gateway keeps uncommitted output", Bug::Gateway(StreamFaults::GATEWAY_KEEPS_UNCOMMITTED)),
];

/// All bugs, with their names: for `--bug`.
pub const ALL: &[(&str, Bug)] = &[
    ("holder takes old epochs", Bug::Holder(HolderFault::TakesOldEpoch)),
    ("holder keeps what is above an adopted checkpoint", Bug::Holder(HolderFault::AdoptKeepsLater)),
    ("holder acknowledges before the flush", Bug::Holder(HolderFault::AcksBeforeFlush)),
    ("gateway forgets an offset", Bug::Gateway(StreamFaults::GATEWAY_FORGETS_OFFSET)),
    ("gateway releases early", Bug::Gateway(StreamFaults::GATEWAY_RELEASES_EARLY)),
    ("gateway keeps uncommitted output", Bug::Gateway(StreamFaults::GATEWAY_KEEPS_UNCOMMITTED)),
    ("gateway takes any epoch", Bug::Gateway(StreamFaults::GATEWAY_TAKES_ANY_EPOCH)),
    ("gateway ignores the lineage", Bug::Gateway(StreamFaults::LINEAGE_IGNORED)),
];

impl Bug {
    /// Plants it in a holder, if it belongs there.
    pub fn plant_in_holder(self, holder: &mut Holder) {
        if let Bug::Holder(fault) = self {
            holder.plant(fault);
        }
    }

    /// Plants it in a gateway, if it belongs there.
    pub fn plant_in_gateway(self, gateway: &mut GatewayEnd) {
        if let Bug::Gateway(faults) = self {
            gateway.set_faults(faults);
        }
    }

    /// Plants it in an instance, if it belongs there.
    pub fn plant_in_instance(self, _instance: &mut FakeInstance) {}

    /// Plants it in a Runner, if it belongs there.
    pub fn plant_in_runner(self, _runner: &mut Runner) {}
}
