//! Private calls: whoever waits for one asks for it by its id, and nobody else hears of it. Source: homa-protocol.md 2.7.

use std::net::SocketAddr;

#[cfg(feature = "check")]
use super::check::hold;
use super::endpoint::Endpoint;
use super::event::{Event, SendError};
use super::payload::Payload;
#[cfg(feature = "check")]
use super::pool::Lease;
use crate::units::{Instant, RpcId};

/// A private call that is under way, or whose end waits to be taken.
#[derive(Debug)]
pub(crate) struct Private {
    port: u16,
    /// How it ended.
    outcome: Option<Event>,
}

/// No private call has that id, or its end was taken already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no private call {0}: not made with `call_private`, given up, or taken already")]
pub struct NotPrivate(pub RpcId);

impl Endpoint {
    /// Like [`call`](Self::call), but how it ends is no news for all: [`Self::poll_private`] tells it, once.
    ///
    /// # Errors
    ///
    /// As for `call`.
    pub fn call_private(
        &mut self,
        now: Instant,
        from: u16,
        to: SocketAddr,
        payload: Payload,
        cookie: u64,
    ) -> Result<RpcId, SendError> {
        let id = self.call(now, from, to, payload, cookie)?;
        self.private.insert(id.get(), Private { port: from, outcome: None });
        Ok(id)
    }

    /// The end of the private call `id`, a response or a failure; nothing while it is under way. A call whose end
    /// nobody takes keeps its message: [`Self::abort`] gives it up.
    ///
    /// # Errors
    ///
    /// If there is no such call any more.
    pub fn poll_private(&mut self, id: RpcId) -> Result<Option<Event>, NotPrivate> {
        let call = self.private.get(&id.get()).ok_or(NotPrivate(id))?;
        if call.outcome.is_none() {
            return Ok(None);
        }
        let event = self.private.remove(&id.get()).and_then(|call| call.outcome);
        Ok(event.map(|event| self.hand_over(event)))
    }

    /// Tells how the call `id` ended: all, or whoever asks for it.
    pub(super) fn tell(&mut self, id: RpcId, event: Event) {
        if !self.private.is_empty()
            && let Some(call) = self.private.get_mut(&id.get())
        {
            call.outcome = Some(event);
        } else {
            self.events.push_back(event);
        }
    }

    /// Nobody will ask for the call any more.
    pub(super) fn forget_private(&mut self, id: RpcId) {
        let gone = self.private.remove(&id.get());
        if let Some(Event::Response { msg, .. }) = gone.and_then(|call| call.outcome) {
            self.release(msg);
        }
    }

    /// Nor for any of the port's.
    pub(super) fn forget_private_of(&mut self, port: u16) {
        let of_port = self.private.iter().filter(|(_, call)| call.port == port);
        let gone: Vec<_> = of_port.map(|(id, _)| RpcId::local(*id)).collect();
        gone.into_iter().for_each(|id| self.forget_private(id));
    }

    /// Checks that each private call is either under way or over.
    #[cfg(feature = "check")]
    pub(super) fn check_private(&self) -> Result<(), String> {
        for (id, call) in &self.private {
            let under_way = self.clients.contains_key(id);
            hold!(under_way == call.outcome.is_none(), "private call {id}, under way: {under_way}, has {call:?}");
        }
        Ok(())
    }

    /// Room in the pool that ends of private calls hold.
    #[cfg(feature = "check")]
    pub(super) fn private_leases(&self) -> impl Iterator<Item = &Lease> {
        self.private.values().filter_map(|call| match &call.outcome {
            Some(Event::Response { msg, .. }) => Some(&msg.lease),
            _ => None,
        })
    }
}
