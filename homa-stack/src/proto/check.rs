//! What must hold of an endpoint at any time, worked out anew from its parts (feature `check`).

use super::endpoint::Endpoint;
use super::event::{Event, Message};
use super::grants::RpcKey;
use super::heap::Turn;
use super::icmp::MOST_REFUSALS;
use super::rpc::{Rpc, State};
use super::rx_message::RxMessage;
use super::tx_message::TxMessage;
use crate::wire::Kind;

/// How much an endpoint holds, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// RPCs, as client and as server.
    pub rpcs: usize,
    /// News that the application has not taken.
    pub events: usize,
    /// Control packets that wait to be sent.
    pub control: usize,
    /// Entries in the list of messages with packets to send again.
    pub resending: usize,
    /// Messages that wait for room in the pool.
    pub starved: usize,
    /// Fine timers that are set.
    pub watched: usize,
    /// Groups of ids of requests that have run.
    pub tombstones: usize,
    /// Peers ever met.
    pub peers: usize,
    /// Private calls under way or not taken.
    pub private: usize,
    /// Ends of RPCs that are put off.
    pub late: usize,
}

/// Fails with a text that names the values, unless `$cond` holds.
macro_rules! hold {
    ($cond:expr, $($text:tt)+) => {
        if !$cond {
            return Err(format!($($text)+));
        }
    };
}
pub(super) use hold;

impl Endpoint {
    /// Checks all that ties the tables of the endpoint to each other; `held` are the messages that the application
    /// has and did not release.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn check_invariants<'a>(&self, held: impl Iterator<Item = &'a Message>) -> Result<(), String> {
        hold!(
            self.rpcs.len() == self.clients.len() + self.servers.len(),
            "{} RPCs, but {} as client and {} as server",
            self.rpcs.len(),
            self.clients.len(),
            self.servers.len()
        );
        let (mut incoming, mut asked, mut managed, mut ready, mut again) = (0, 0, 0, 0, 0);
        for (key, rpc) in &self.rpcs {
            self.check_rpc(key, rpc).map_err(|e| format!("{:?}, {:?}: {e}", rpc.id, rpc.state))?;
            if let Some(rx) = &rpc.rx {
                incoming += rx.incoming;
                asked += rx.incoming.saturating_sub(rx.unasked);
                managed += usize::from(rx.managed);
            }
            again += usize::from(rpc.tx.as_deref().is_some_and(TxMessage::has_resend));
            ready += usize::from(self.ready.key(key).is_some());
        }
        let total = self.grants.total_incoming;
        hold!(total == incoming, "the sum of granted bytes to come is {total}, of the messages' {incoming}");
        let most = self.config.max_incoming;
        hold!(asked <= most, "{asked} bytes to come by grants, `max_incoming` is {most}");
        let in_table = self.grants.len();
        hold!(in_table == managed, "{in_table} messages in the grant table, {managed} should be");
        hold!(self.ready.len() == ready, "{} messages ready to send, {ready} of them alive", self.ready.len());
        self.ready.check()?;
        self.check_reasons()?;
        let listed = self.resending.len();
        hold!(listed == again, "{listed} entries of messages to send again, of {again} messages");
        hold!(self.rpcs.is_empty() || self.next_tick.is_some(), "no tick is due although there are RPCs");
        self.check_room()?;
        self.check_memory()?;
        let refusals = self.refusals.len();
        hold!(refusals <= MOST_REFUSALS, "{refusals} refusals wait to be sent");
        self.check_private()?;
        self.grants.check(&self.config, Self::view(&self.rpcs))?;
        let unread = self.rpcs.iter().filter(|(_, rpc)| rpc.unread).count();
        hold!(self.unread == unread, "{} requests not taken, counted {}", unread, self.unread);
        hold!(!self.starved_long || !self.starved.is_empty(), "room is kept for a message that does not wait");
        self.peers.check_counts(self.rpcs.iter().map(|(_, rpc)| (rpc.peer, !rpc.is_client())))?;
        self.check_incast()?;
        self.tombstones.check()?;
        self.wheel.check()?;
        self.peers.check()?;
        self.check_streams()?;
        let receiving = self.rpcs.iter().filter_map(|(_, rpc)| rpc.rx.as_ref()?.lease.as_ref());
        let news = self.events.iter().filter_map(|event| match event {
            Event::Request { msg, .. } | Event::Response { msg, .. } => Some(&msg.lease),
            Event::Failed { .. } | Event::Room(_) => None,
        });
        self.pool.check(receiving.chain(news).chain(self.private_leases()).chain(held.map(|msg| &msg.lease)))
    }

    /// How much the endpoint holds.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            rpcs: self.rpcs.len(),
            events: self.events.len(),
            control: self.control.len(),
            resending: self.resending.len(),
            starved: self.starved.len(),
            watched: self.wheel.len(),
            tombstones: self.tombstones.len(),
            peers: self.peers.len(),
            private: self.private.len(),
            late: self.late.len(),
        }
    }

    /// Each RESEND has one counted reason.
    fn check_reasons(&self) -> Result<(), String> {
        let m = &self.metrics;
        let reasons =
            [m.gap_resends, m.tail_resends, m.early_resends, m.silence_resends, m.asked_resends, m.room_resends];
        let (sent, waiting) =
            (m.packets_sent[Kind::Resend.index()], self.control.iter().filter(|c| c.is_resend()).count());
        let (known, all) = (sent + waiting as u64, reasons.iter().sum::<u64>());
        // What waits to be sent to a peer goes when the peer is forgotten.
        let holds = if m.peers_forgotten == 0 { known == all } else { known <= all };
        hold!(holds, "{sent} RESENDs sent and {waiting} waiting, with reasons {reasons:?}");
        Ok(())
    }

    fn check_rpc(&self, key: RpcKey, rpc: &Rpc) -> Result<(), String> {
        let known =
            if rpc.is_client() { self.clients.get(&rpc.id.get()) } else { self.servers.get(&(rpc.peer, rpc.id.get())) };
        hold!(known == Some(&key), "found under {known:?}, is {key}");
        let parts = (rpc.tx.is_some(), rpc.rx.is_some());
        let right = match (rpc.state, rpc.is_client()) {
            (State::Outgoing, _) => (true, false),
            (State::Incoming, client) => (client, true),
            (State::InService, client) => (client, client),
        };
        hold!(parts == right, "has a message out, in: {parts:?}, should be {right:?}");
        let watched = rpc.rx.as_ref().is_some_and(|rx| rx.timed);
        let set = self.wheel.is_set(key);
        let waits = rpc.is_client() && rpc.state == State::Outgoing;
        hold!(set == watched || set && waits, "its fine timer is set: {set}, that of its message: {watched}");
        if let Some(tx) = &rpc.tx {
            tx.check()?;
            let queued = self.ready.key(key);
            let sends = rpc.state == State::Outgoing && tx.can_send() && !rpc.held_back;
            hold!(queued.is_some() || !sends, "may send {}..{} but does not wait to", tx.next, tx.granted);
            if let Some(order) = queued {
                hold!(tx.can_send(), "waits to send but has nothing to, {} of {}", tx.next, tx.len);
                let right = Turn { left: tx.left(), serial: rpc.serial };
                hold!(order == right, "waits to send in place {order:?}, not {right:?}");
            }
            hold!(!tx.has_resend() || self.resending.contains(&key), "has packets to send again but is not listed");
        }
        if let Some(rx) = &rpc.rx {
            rx.check()?;
            self.check_receiving(key, rpc, rx)?;
        }
        Ok(())
    }

    fn check_receiving(&self, key: RpcKey, rpc: &Rpc, rx: &RxMessage) -> Result<(), String> {
        hold!(!rx.is_complete(), "whole, but not delivered");
        let Some(_) = rx.lease else {
            hold!(!rx.managed && rx.received == 0 && rx.incoming == 0, "has no room but counts as receiving");
            hold!(self.starved.contains(&(key, rpc.id)), "waits for room without being in the list of those");
            return Ok(());
        };
        let incoming = rx.granted.saturating_sub(rx.received);
        hold!(rx.incoming == incoming, "{incoming} granted bytes to come, counted as {}", rx.incoming);
        let managed = self.grants.holds(key);
        hold!(managed == rx.managed, "in the grant table: {managed}, managed: {}", rx.managed);
        hold!(rx.by_age <= rx.granted, "a grant by age up to {}, granted up to {}", rx.by_age, rx.granted);
        hold!(rx.managed || rx.granted == rx.len, "granted {} of {} without being managed", rx.granted, rx.len);
        Ok(())
    }
}
