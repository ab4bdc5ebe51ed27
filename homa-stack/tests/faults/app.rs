//! The applications: they call, answer, keep messages and look at each byte.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use bytes::Bytes;
use homa_stack::proto::{MAX_HEAD, ReplyError};
use homa_stack::wire::MAX_MESSAGE_LEN;
use homa_stack::{Event, Message, Nanos, Payload, Progress, RpcId, SendError, ServerRpc};

use crate::net::{PORT, Rng, addr};
use crate::world::{Outcome, STRANGER, STRANGERS, Sent, What, World, hold, say};

/// Places in the pattern at which messages begin.
const SHIFTS: usize = 65_521;

impl World {
    pub fn call(&mut self, call: usize) {
        let plan = &self.plan.calls[call];
        let (from, to, len, abort) = (self.plan.caller(call), plan.to, plan.len, plan.abort);
        let host = &mut self.hosts[from];
        let server = SocketAddr::new(addr(to), PORT);
        let (payload, cookie) = (content(call, false, len), call as u64);
        let called = match plan.private {
            true => host.core.call_private(self.now, host.port, server, payload, cookie),
            false => host.core.call(self.now, host.port, server, payload, cookie),
        };
        let id = match called {
            Err(SendError::WouldBlock(limit)) => {
                host.refused.push(call);
                self.tally.refused += 1;
                say!(self, "{from}: call {call} of {len} bytes is refused: {limit}");
                return;
            }
            called => called.expect("a call"),
        };
        say!(self, "{from}: {id} is call {call} to {to}, {len} bytes");
        self.by_id.insert(id.get(), call);
        if self.plan.calls[call].private {
            self.hosts[from].private.push(id);
        }
        self.calls[call].id = Some(id);
        if let Some(span) = abort {
            self.after(span, What::Abort(call));
        }
    }

    pub fn abort(&mut self, call: usize) {
        let Sent { id: Some(id), outcome: Outcome::Pending, .. } = self.calls[call] else { return };
        let from = self.plan.caller(call);
        say!(self, "{from}: aborts {id}");
        self.calls[call].outcome = Outcome::Aborted;
        self.hosts[from].core.abort(id);
        self.hosts[from].private.retain(|other| *other != id);
    }

    /// Answers a request; those of strangers with what an RPC needs least.
    pub fn reply(&mut self, host: usize, rpc: ServerRpc, call: Option<usize>) {
        let (id, plan) = (rpc.id(), call.map(|call| &self.plan.calls[call]));
        if plan.is_some_and(|plan| plan.discard) {
            say!(self, "{host}: gives up {id}");
            return self.hosts[host].core.discard(rpc);
        }
        let payload = match (call, plan) {
            (Some(call), Some(plan)) => content(call, true, plan.response_len),
            _ => Payload::from(vec![0]),
        };
        say!(self, "{host}: answers {id} with {} bytes", payload.len());
        let core = &mut self.hosts[host].core;
        if self.plan.keeps_answers_back() {
            match core.try_reply(self.now, rpc, payload) {
                Ok(()) => {}
                Err(ReplyError::WouldBlock(rpc, _)) => {
                    say!(self, "{host}: has no room to answer {id}");
                    self.tally.answers_kept += 1;
                    let life = self.hosts[host].life;
                    self.after(Nanos::from_millis(1), What::Reply { host, life, rpc, call });
                }
                Err(error) => panic!("the length is right: {error}"),
            }
        } else {
            core.reply(self.now, rpc, payload).expect("the length is right");
        }
    }

    pub fn event(&mut self, host: usize, event: Event) -> Result<(), String> {
        match event {
            Event::Request { rpc, port, peer, msg } => {
                let (client, life) = (rpc.id().get() ^ 1, self.hosts[host].life);
                let call = self.by_id.get(&client).copied().filter(|_| !is_stranger(peer.ip()));
                say!(self, "{host}: request {client} from {peer}, {} bytes", msg.len());
                let mut service = Nanos::ZERO;
                if let Some(call) = call {
                    let plan = &self.plan.calls[call];
                    service = plan.service;
                    hold!(
                        peer.ip() == addr(plan.from) && plan.to == self.plan.node(host) && port == PORT,
                        "call {call} went astray"
                    );
                    self.intact(host, &msg, call, false, plan.len)?;
                    let runs = self.ran.entry((self.plan.node(host), life, client)).or_default();
                    *runs += 1;
                    hold!(*runs == 1, "call {call} runs a second time on {host}");
                    self.calls[call].runs += 1;
                } else {
                    hold!(is_stranger(peer.ip()), "a request from {peer} that nobody sent");
                    self.tally.foreign_requests += 1;
                }
                self.keep(host, msg);
                self.after(service, What::Reply { host, life, rpc, call });
            }
            Event::Response { id, cookie, msg, .. } => {
                say!(self, "{host}: response to {id}, {} bytes", msg.len());
                let call = cookie as usize;
                self.outcome(host, id, call, Outcome::Answered)?;
                self.intact(host, &msg, call, true, self.plan.calls[call].response_len)?;
                hold!(self.calls[call].runs > 0, "call {call} was answered without being run");
                self.keep(host, msg);
            }
            Event::Failed { id, cookie, error, .. } => {
                say!(self, "{host}: {id} failed: {error}");
                self.outcome(host, id, cookie as usize, Outcome::Failed(error))?;
            }
            Event::Room(limit) => {
                say!(self, "{host}: has room: {limit:?}");
                let refused = std::mem::take(&mut self.hosts[host].refused);
                for call in refused {
                    self.after(Nanos::ZERO, What::Call(call));
                }
            }
        }
        Ok(())
    }

    /// Asks for the ends of private calls.
    pub fn take_private(&mut self, host: usize) -> Result<(), String> {
        let ids = std::mem::take(&mut self.hosts[host].private);
        for id in ids {
            match self.hosts[host].core.poll_private(id) {
                Ok(None) => self.hosts[host].private.push(id),
                Ok(Some(event)) => {
                    hold!(self.hosts[host].core.poll_private(id).is_err(), "the end of {id} can be taken twice");
                    self.tally.private += 1;
                    self.event(host, event)?;
                }
                Err(error) => return Err(format!("host {host}: {error}")),
            }
        }
        Ok(())
    }

    /// A message is looked at while it arrives: what can be read is what was sent.
    pub fn progress(&mut self, host: usize, progress: Progress) -> Result<(), String> {
        let Progress::More { message, peer, len, ready, .. } = progress else {
            self.tally.cut += 1;
            return Ok(());
        };
        hold!(0 < ready && ready < len, "{ready} bytes of {len} can be read early");
        let mut bytes = vec![0; len];
        let n = self.hosts[host].core.copy_arrived(message, 0, &mut bytes);
        hold!(n == ready, "{n} bytes can be read, {ready} were promised");
        let response = message.id().is_client();
        let id = if response { message.id().get() } else { message.id().get() ^ 1 };
        if let Some(&call) = self.by_id.get(&id).filter(|_| !is_stranger(peer.ip())) {
            let at = start(call, response);
            hold!(bytes[..n] == pattern()[at..at + n], "call {call}: its first {n} bytes are damaged");
            self.tally.early += 1;
        }
        Ok(())
    }

    fn outcome(&mut self, host: usize, id: RpcId, call: usize, outcome: Outcome) -> Result<(), String> {
        let sent = &mut self.calls[call];
        let right = sent.id == Some(id) && self.plan.caller(call) == host;
        hold!(right, "{host} hears of {id} as call {call}, which it did not make");
        let private = self.plan.calls[call].private;
        hold!(!private || !self.hosts[host].private.contains(&id), "all hear of {id}, which is private");
        hold!(sent.outcome == Outcome::Pending, "call {call} is {outcome:?} after {:?}", sent.outcome);
        sent.outcome = outcome;
        Ok(())
    }

    /// Compares a message with what was sent.
    fn intact(&self, host: usize, msg: &Message, call: usize, response: bool, len: usize) -> Result<(), String> {
        hold!(msg.len() == len, "call {call}: {} bytes arrived of {len}", msg.len());
        let (pattern, mut at) = (pattern(), start(call, response));
        for piece in self.hosts[host].core.pieces(msg) {
            hold!(piece == &pattern[at..at + piece.len()], "call {call}: its bytes are damaged");
            at += piece.len();
        }
        hold!(at == start(call, response) + len, "call {call}: pieces of the wrong length");
        Ok(())
    }

    /// The application has a message for some time.
    fn keep(&mut self, host: usize, msg: Message) {
        let most = self.plan.hold.as_nanos();
        if most == 0 {
            return self.hosts[host].core.release(msg);
        }
        let span = Nanos::from_nanos(self.rng.below(most));
        let at = &mut self.hosts[host];
        at.held.push(Some(msg));
        let (life, slot) = (at.life, at.held.len() - 1);
        self.after(span, What::Release { host, life, slot });
    }
}

fn is_stranger(peer: IpAddr) -> bool {
    (STRANGER..STRANGER + STRANGERS).any(|host| addr(host) == peer)
}

/// Bytes that messages are cut from, no two parts alike.
fn pattern() -> &'static Bytes {
    static PATTERN: OnceLock<Bytes> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut rng = Rng::new(1);
        (0..(MAX_MESSAGE_LEN + SHIFTS) / 8 + 1).flat_map(|_| rng.next().to_le_bytes()).collect()
    })
}

/// Where in the pattern a message begins.
fn start(call: usize, response: bool) -> usize {
    (call * 2 + usize::from(response)) * 8191 % SHIFTS
}

/// A message of a call; its head is inline or not.
fn content(call: usize, response: bool, len: usize) -> Payload {
    let start = start(call, response);
    let whole = pattern().slice(start..start + len);
    let head = (call * 7 % 60).min(MAX_HEAD).min(len);
    Payload::with_head(&whole[..head], whole.slice(head..))
}
