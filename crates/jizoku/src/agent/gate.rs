//! What the gateway tells the agent.

use std::sync::Arc;

use jizoku_gateway::Owner;
use jizoku_node::wire::StreamMessage;
use jizoku_streams::ToInstance;
use jizoku_types::event::ResetCause;
use jizoku_types::{Epoch, Event, GatewayId, Instant, NodeId, ServiceId};

use super::wiring::Wiring;

/// See the module's header.
pub(crate) struct GatewayOwner {
    pub(crate) wiring: Arc<Wiring>,
}

impl Owner for GatewayOwner {
    fn now(&self) -> Instant {
        self.wiring.now()
    }

    fn send(&self, to: NodeId, gateway: GatewayId, message: ToInstance) {
        self.wiring.send_stream(to, StreamMessage::ToInstance { gateway, message });
    }

    fn first_output(&self, service: ServiceId, epoch: Epoch) {
        self.wiring.event(Event::FirstOutput { service, epoch });
    }

    fn reset(&self, service: ServiceId, cause: ResetCause) {
        self.wiring.event(Event::ConnectionReset { service, cause });
    }

    fn trouble(&self, service: ServiceId, what: String) {
        self.wiring.event(Event::Trouble { what: format!("{service}: {what}") });
    }
}
