//! One RPC, as client or as server.

use super::config::Config;
use super::peers::PeerKey;
use super::rx_message::RxMessage;
use super::tx_message::TxMessage;
use crate::units::RpcId;

/// Where an RPC stands (homa-protocol.md 2.1). It leaves the table when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Client: nothing of the response has come. Server: the response is on its way or waits for its ACK.
    Outgoing,
    /// The incoming message is arriving.
    Incoming,
    /// Server: the application has the request.
    InService,
}

impl State {
    /// The number that the kernel's messages show.
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Outgoing => 5,
            Self::Incoming => 6,
            Self::InService => 8,
        }
    }
}

/// One RPC.
#[derive(Debug)]
pub(crate) struct Rpc {
    pub(crate) id: RpcId,
    pub(crate) peer: PeerKey,
    pub(crate) peer_port: u16,
    pub(crate) port: u16,
    /// Our port as packets show it.
    pub(crate) wire_port: u16,
    pub(crate) cookie: u64,
    pub(crate) state: State,
    pub(crate) tx: Option<Box<TxMessage>>,
    pub(crate) rx: Option<Box<RxMessage>>,
    /// Ticks without a sign of progress from the peer.
    pub(crate) silent: u32,
    /// BUSY packets since the last other sign: RESENDs become rarer.
    pub(crate) busy: u32,
    /// Client: how often the server was asked for the response before a tick did.
    pub(crate) early: u8,
    /// Client: true if the request was sent anew because its server did not know it.
    pub(crate) restarted: bool,
    /// Client: true while the request waits for other responses.
    pub(crate) held_back: bool,
    /// Client: unscheduled bytes that the response counts for.
    pub(crate) expected: usize,
    /// Server: true if the application has not taken the request yet.
    pub(crate) unread: bool,
    /// Server: ticks since the whole response was sent, or in service.
    pub(crate) done: u32,
    /// Server: value of `done` at which the next NEED_ACK goes out.
    pub(crate) next_need_ack: u32,
    /// Client: how often the server did not know the request.
    pub(crate) restarts: u32,
    /// Serial number: which RPC is older.
    pub(crate) serial: u64,
}

impl Rpc {
    /// True if this host is the client.
    pub(crate) fn is_client(&self) -> bool {
        self.id.is_client()
    }

    /// The client says that it wants the response, which it has not got whole: however long it takes, it is kept.
    pub(crate) fn wanted(&mut self, config: &Config) {
        if self.is_client() {
            // The server asks: it has not the request whole, which is no reason to ask it the less.
            self.busy = 0;
        } else if self.state == State::Outgoing {
            self.done = 0;
            let most = config.need_ack_max_ticks.min(config.timeout_ticks / 2).max(1);
            self.next_need_ack = self.next_need_ack.min(most);
        }
    }

    /// A sign of progress from the peer.
    pub(crate) fn heard(&mut self) {
        self.silent = 0;
        self.busy = 0;
    }
}
