//! The receiver's choice whom to grant how much at which level, as a part that can be exchanged.
//!
//! Without a policy in [`Config::grant_policy`] the core grants by SRPT with overcommitment and a share for the oldest
//! message (`grants`), which costs nothing for there being others. A [`GrantPolicy`] takes the place of all of that: it is
//! told which messages need grants and what comes of them, and asked for one grant after the other. What it says is bounded
//! by the endpoint, so that no policy breaks the protocol: a grant ends within its message, raises its limit, and all that is
//! granted and has not come stays within [`Config::max_incoming`].
//!
//! This one grants to all messages in turn, a packet each:
//!
//! ```
//! use homa_stack::policy::{Choice, GrantPolicy, Incoming, Moment, Policy};
//! use std::collections::VecDeque;
//!
//! /// Messages that lack grants, the next one first.
//! #[derive(Debug, Default)]
//! struct InTurn(VecDeque<Incoming>);
//!
//! impl GrantPolicy for InTurn {
//!     fn begin(&mut self, _: Moment, message: Incoming) {
//!         self.0.push_back(message);
//!     }
//!     fn progress(&mut self, _: Moment, message: Incoming) {
//!         self.0.iter_mut().filter(|known| known.key == message.key).for_each(|known| *known = message);
//!     }
//!     fn end(&mut self, _: Moment, key: usize) {
//!         self.0.retain(|known| known.key != key);
//!     }
//!     fn choose(&mut self, _: Moment, room: usize) -> Option<Choice> {
//!         // At most 20,000 bytes of a message under way.
//!         let at = self.0.iter().position(|known| known.ungranted() > 0 && known.to_come() < 20_000)?;
//!         let next = self.0.remove(at)?;
//!         self.0.push_back(next);
//!         (room >= 1_500).then(|| Choice { key: next.key, offset: next.granted + 1_500, priority: 0 })
//!     }
//! }
//!
//! let config = homa_stack::Config {
//!     grant_policy: Some(Policy::new("in turn", |_| Box::<InTurn>::default())),
//!     ..homa_stack::Config::default()
//! };
//! let endpoint = homa_stack::Endpoint::new(config);
//! # assert_eq!(endpoint.config().grant_policy.as_ref().unwrap().name(), "in turn");
//! ```

use std::fmt;
use std::sync::Arc;

use super::config::Config;
use super::endpoint::Endpoint;
use super::grants::{Decision, RpcKey, View};
use super::peers::PeerKey;
use crate::units::{Instant, Nanos};

pub use super::informed::{Informed, InformedConfig};

/// Least time until a policy is asked again because it wants to be.
const SOONEST: Nanos = Nanos::from_nanos(100);

/// A message that comes in and needs grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Which one: of no other message between [`GrantPolicy::begin`] and [`GrantPolicy::end`].
    pub key: usize,
    /// Number of the host that sends it, from 0 on.
    pub sender: u32,
    /// When its first packet came.
    pub birth: Instant,
    /// Its bytes.
    pub len: usize,
    /// Those that have come, wherever they stand in it.
    pub received: usize,
    /// End of what the sender may send, from the message's start; at first what it sends unasked.
    pub granted: usize,
}

impl Incoming {
    /// Bytes that the sender may send and that have not come.
    pub fn to_come(&self) -> usize {
        self.granted.saturating_sub(self.received)
    }

    /// Bytes that the sender may not send yet.
    pub fn ungranted(&self) -> usize {
        self.len.saturating_sub(self.granted)
    }

    pub(crate) fn new(key: RpcKey, sender: PeerKey, view: View) -> Self {
        let View { birth, received, granted, len, .. } = view;
        Self { key, sender, birth, len, received, granted }
    }
}

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time.
    pub now: Instant,
    /// Bytes of this host's link that packets to the endpoint have taken until now, of whatever kind and sender: over the
    /// time between two moments it tells how busy the link was.
    pub heard: u64,
}

/// A grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// [`Incoming::key`] of the message.
    pub key: usize,
    /// End of what its sender may send from now on, in bytes from the message's start. The endpoint may make it less, to
    /// where a packet ends.
    pub offset: usize,
    /// Level of the packets; 0 is the least urgent.
    pub priority: u8,
}

/// Whom to grant how much at which level. One for each endpoint; see the [module](self) for an example.
pub trait GrantPolicy: fmt::Debug + Send {
    /// A message needs grants.
    fn begin(&mut self, at: Moment, message: Incoming);

    /// More of a message of [`begin`](Self::begin) has come, or was granted: of each [`Choice`] what became of it.
    fn progress(&mut self, at: Moment, message: Incoming);

    /// All of a message has come, or it is given up.
    fn end(&mut self, at: Moment, key: usize);

    /// The next grant, if any; `room` are the bytes that may be granted within [`Config::max_incoming`], to which a choice of
    /// more is cut. Asked whenever something has come, again after each grant until there is none. A choice that
    /// grants nothing, or to no message that needs grants, counts as none.
    fn choose(&mut self, at: Moment, room: usize) -> Option<Choice>;

    /// When it wants to be asked again even if nothing comes, as to pace grants by a rate.
    fn wake(&self) -> Option<Instant> {
        None
    }

    /// For tests: what does not hold of its accounts, where `messages` are those that need grants.
    ///
    /// # Errors
    ///
    /// Values that contradict each other.
    fn check(&self, _messages: &mut dyn Iterator<Item = Incoming>) -> Result<(), String> {
        Ok(())
    }
}

/// Makes a policy for an endpoint of the parameters that it is given.
type Make = dyn Fn(&Config) -> Box<dyn GrantPolicy> + Send + Sync;

/// A policy by name, to be made for each endpoint that is to have it.
#[derive(Clone)]
pub struct Policy {
    name: &'static str,
    make: Arc<Make>,
}

impl Policy {
    /// The policy that `make` makes, which gets the parameters of the endpoint.
    pub fn new(name: &'static str, make: impl Fn(&Config) -> Box<dyn GrantPolicy> + Send + Sync + 'static) -> Self {
        Self { name, make: Arc::new(make) }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn make(&self, config: &Config) -> Box<dyn GrantPolicy> {
        (self.make)(config)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Policy({})", self.name)
    }
}

impl Endpoint {
    /// When it is, as policies see it.
    pub(super) fn moment(&self) -> Moment {
        Moment { now: self.latest, heard: self.heard }
    }

    /// Turns what a policy chooses into GRANT packets.
    #[cold]
    pub(super) fn grant_by_policy(&mut self, now: Instant) {
        let at = Moment { now, heard: self.heard };
        loop {
            let room = self.config.max_incoming.saturating_sub(self.grants.total_incoming);
            let Some(choice) = self.grants.choose(at, room) else { break };
            let rx = self.rpcs.get(choice.key).and_then(|rpc| rpc.rx.as_ref()).filter(|rx| rx.managed);
            let Some(rx) = rx else { break };
            let offset = choice.offset.min(rx.len).min(rx.granted.saturating_add(room));
            if offset <= rx.granted {
                break;
            }
            let priority = choice.priority.min(self.config.control_priority());
            self.apply_grant(now, Decision { rpc: choice.key, offset, priority, was_needy: false });
        }
        let wake = self.grants.wake().filter(|_| !self.grants.is_empty());
        self.next_fifo = wake.map(|at| at.max(now + SOONEST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Mutex;

    use crate::{Event, Payload};
    use std::net::SocketAddr;

    /// Chooses what it is told to, and keeps what it hears.
    #[derive(Clone, Debug, Default)]
    struct Puppet(Arc<Mutex<Strings>>);

    #[derive(Debug, Default)]
    struct Strings {
        heard: Vec<String>,
        choices: Vec<Choice>,
        wake: Option<Instant>,
    }

    impl GrantPolicy for Puppet {
        fn begin(&mut self, _: Moment, m: Incoming) {
            self.0.lock().unwrap().heard.push(format!("begin {} {}", m.len, m.granted));
        }
        fn progress(&mut self, _: Moment, m: Incoming) {
            self.0.lock().unwrap().heard.push(format!("progress {} {}", m.received, m.granted));
        }
        fn end(&mut self, _: Moment, _: usize) {
            self.0.lock().unwrap().heard.push("end".into());
        }
        fn choose(&mut self, _: Moment, _: usize) -> Option<Choice> {
            self.0.lock().unwrap().choices.pop()
        }
        fn wake(&self) -> Option<Instant> {
            self.0.lock().unwrap().wake
        }
    }

    /// A client that sends 10,000 bytes, 2,000 of them unasked, to a server whose grants the puppet makes.
    fn pair(puppet: &Puppet) -> (Endpoint, Endpoint) {
        let of = puppet.clone();
        let policy = Policy::new("puppet", move |_| Box::new(of.clone()));
        let config = Config { unsched_bytes: 2_000, max_incoming: 5_000, ..Config::default() };
        let mut server = Endpoint::new(Config { grant_policy: Some(policy), ..config.clone() });
        let mut client = Endpoint::new(config);
        server.bind(99).unwrap();
        let (port, to) = (client.client_port().unwrap(), SocketAddr::new("10.0.0.2".parse().unwrap(), 99));
        client.call(Instant::default(), port, to, Payload::from(vec![7; 10_000]), 7).unwrap();
        (client, server)
    }

    fn exchange(client: &mut Endpoint, server: &mut Endpoint, now: Instant) {
        let mut packet = [0; 1500];
        for _ in 0..2 {
            while let Some(sent) = client.poll_transmit(now, &mut packet) {
                server.handle_packet(now, "10.0.0.1".parse().unwrap(), &packet[..sent.len]);
            }
            while let Some(sent) = server.poll_transmit(now, &mut packet) {
                client.handle_packet(now, "10.0.0.2".parse().unwrap(), &packet[..sent.len]);
            }
        }
    }

    #[test]
    fn a_policy_decides_within_the_bounds_of_the_protocol() {
        let puppet = Puppet::default();
        let (mut client, mut server) = pair(&puppet);
        let now = Instant::from_nanos(1_000_000);
        exchange(&mut client, &mut server, now);
        let heard = std::mem::take(&mut puppet.0.lock().unwrap().heard);
        assert_eq!(heard.first().map(String::as_str), Some("begin 10000 2000"));
        assert!(heard.last().unwrap().ends_with(" 2000"), "nothing was granted: {heard:?}");
        // No such message; then nothing new; both end the round.
        for choice in [Choice { key: 77, offset: 9_000, priority: 0 }, Choice { key: 0, offset: 2_000, priority: 0 }] {
            puppet.0.lock().unwrap().choices.push(choice);
            server.grants_due = true;
            exchange(&mut client, &mut server, now);
            assert_eq!(server.metrics.packets_sent[crate::wire::Kind::Grant.index()], 0);
        }
        // Far beyond the message and `max_incoming`.
        puppet.0.lock().unwrap().choices.push(Choice { key: 0, offset: 1_000_000, priority: 77 });
        server.grants_due = true;
        let mut packet = [0; 1500];
        let grant = server.poll_transmit(now, &mut packet).unwrap();
        assert!(grant.offset > 5_000 && grant.offset <= 7_000, "{}", grant.offset);
        client.handle_packet(now, "10.0.0.2".parse().unwrap(), &packet[..grant.len]);
        exchange(&mut client, &mut server, now);
        puppet.0.lock().unwrap().choices.push(Choice { key: 0, offset: 10_000, priority: 0 });
        server.grants_due = true;
        exchange(&mut client, &mut server, now);
        exchange(&mut client, &mut server, now);
        assert!(matches!(server.poll_event(), Some(Event::Request { .. })));
        assert_eq!(puppet.0.lock().unwrap().heard.last().map(String::as_str), Some("end"));
    }

    #[test]
    fn a_policy_is_asked_when_it_wants_to_be_and_its_messages_need_grants() {
        let puppet = Puppet::default();
        let (mut client, mut server) = pair(&puppet);
        let (now, later) = (Instant::from_nanos(1_000), Instant::from_nanos(5_000));
        puppet.0.lock().unwrap().wake = Some(later);
        assert_eq!(server.next_deadline(), None, "there is no message");
        exchange(&mut client, &mut server, now);
        assert_eq!(server.next_deadline(), Some(later));
        puppet.0.lock().unwrap().choices.push(Choice { key: 0, offset: 4_000, priority: 0 });
        server.handle_timeout(later);
        let mut packet = [0; 1500];
        assert!(server.poll_transmit(later, &mut packet).is_some_and(|sent| sent.kind == crate::wire::Kind::Grant));
        assert_eq!(server.next_deadline(), Some(later + SOONEST), "not at once, although that time is over");
    }
}
