//! What has happened in runs: shows that they met what they are to meet.

use homa_stack::Endpoint;
use homa_stack::metrics::DropReason;

macro_rules! tally {
    ($($name:ident: $text:literal,)*) => {
        /// What has happened, summed over runs.
        #[derive(Clone, Debug, Default)]
        pub struct Tally {
            $(pub $name: u64,)*
        }

        impl Tally {
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// All counts, with their meaning.
            pub fn all(&self) -> Vec<(u64, &'static str)> {
                vec![$((self.$name, $text),)*]
            }
        }
    };
}

tally! {
    steps: "steps",
    answered: "calls answered",
    failed: "calls that failed",
    aborted: "calls given up",
    gone: "calls whose host began anew",
    refused: "calls that had to wait for room",
    put_off: "steps after which ends of RPCs waited",
    early: "looks at messages while they arrived",
    cut: "such messages cut off",
    forged: "forged packets",
    too_big: "packets too big for the network",
    super_frames: "super-frames",
    foreign_requests: "requests of strangers",
    duplicates: "packets that brought nothing new",
    executed: "late copies of requests that had run",
    no_buffers: "packets without room",
    wrong_peer: "packets from another host than the RPC's",
    malformed: "packets that could not be read",
    restarts: "requests sent anew",
    resent: "packets sent again",
    gap_resends: "gaps asked for by their age",
    tail_resends: "ends of grants asked for by their age",
    held_back_calls: "calls that waited for other responses",
    overdue: "requests that waited too long for their application",
    evicted: "requests whose room went to others",
    refused_peers: "requests of hosts too many",
    floods: "questions too many",
    early_resends: "responses asked for early",
    silence_resends: "times that a silent peer was asked",
    asked_resends: "times that who asked was asked back",
    room_resends: "times that a message was asked for when there was room",
    held_back: "bytes not sent again that had just been sent",
    need_ack_giveups: "responses never acknowledged",
    needy_grants: "grants that had waited for room",
    stalled: "messages that got no grants for too long",
    private: "private calls that ended",
    cutoffs: "new cutoffs",
    announced: "messages announced",
    paced: "packets that had to wait for the NIC",
    fifo_packets: "hosts that sent in the oldest message's turn",
    fifo_grants: "hosts that granted by age",
    policies: "hosts that granted by another policy",
    answers_kept: "answers that had to wait for room",
    pressed: "times that memory was scarce",
    relieved: "times that it was plenty again",
    given_back: "pages given back for it",
    forwarded: "packets and acknowledgements handed on between workers",
}

impl Tally {
    /// Adds what a host has counted.
    pub fn count(&mut self, host: &Endpoint) {
        let m = &host.metrics;
        let drops = |reason: DropReason| m.drops[reason as usize];
        self.duplicates += drops(DropReason::Duplicate);
        self.executed += drops(DropReason::Executed);
        self.no_buffers += drops(DropReason::NoBuffers);
        self.wrong_peer += drops(DropReason::WrongPeer);
        self.malformed += drops(DropReason::Malformed) + drops(DropReason::Short) + drops(DropReason::UnknownType);
        self.restarts += m.resend_restarts;
        self.resent += m.resent_packets;
        self.gap_resends += m.gap_resends;
        self.tail_resends += m.tail_resends;
        self.held_back_calls += m.calls_held_back;
        self.overdue += m.requests_overdue;
        self.evicted += m.requests_evicted;
        self.refused_peers += drops(DropReason::TooManyPeers);
        self.floods += drops(DropReason::Flood);
        self.early_resends += m.early_resends;
        self.silence_resends += m.silence_resends;
        self.asked_resends += m.asked_resends;
        self.room_resends += m.room_resends;
        self.held_back += m.held_back_bytes;
        self.need_ack_giveups += m.need_ack_giveups;
        self.needy_grants += m.needy_grants;
        self.stalled += m.tx_stalls;
        self.cutoffs += m.cutoff_changes;
        self.announced += m.announcements;
        self.paced += m.pacer_homa_packets;
        self.pressed += m.memory_pressures;
        self.relieved += m.memory_reliefs;
        self.given_back += m.pages_given_back;
        self.fifo_packets += u64::from(m.pacer_fifo_bytes > 0);
        let by_policy = host.config().grant_policy.is_some();
        self.policies += u64::from(by_policy && m.packets_sent[homa_stack::wire::Kind::Grant.index()] > 0);
        self.fifo_grants += u64::from(m.fifo_grant_bytes > 0);
    }
}
