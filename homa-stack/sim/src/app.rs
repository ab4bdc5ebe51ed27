//! The application: one object for all hosts of a run.

use cp_node::rng::Rng;

use crate::packet::HostId;
use crate::time::Time;
use crate::transport::{Call, Event, Request};

/// What an application does in answer to events.
pub trait App {
    /// The run begins.
    fn start(&mut self, cx: &mut Cx<'_>);

    /// `host`'s transport has news.
    fn event(&mut self, cx: &mut Cx<'_>, host: HostId, event: Event);

    /// The client port of a call of its, by which hosts whose threads take time tell whose turn it is to take the response.
    fn client_port(&self, cookie: u64) -> u16 {
        let _ = cookie;
        0
    }

    /// A timer that was set with [`Cx::after`] is due.
    fn timer(&mut self, cx: &mut Cx<'_>, host: HostId, tag: u64);
}

/// Something that the application wants done.
#[derive(Debug)]
pub(crate) enum Action {
    Call(HostId, Call),
    Reply(HostId, Request, u32),
    Discard(HostId, Request),
    Forget(HostId, u64),
    Timer(Time, HostId, u64),
    Stop,
}

/// The simulator as the application sees it. What is asked for happens at this point of virtual time, once the
/// application has returned.
#[derive(Debug)]
pub struct Cx<'a> {
    pub(crate) now: Time,
    pub(crate) rng: &'a mut Rng,
    pub(crate) actions: &'a mut Vec<Action>,
}

impl Cx<'_> {
    /// Now.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Begins a call from `host`.
    pub fn call(&mut self, host: HostId, call: Call) {
        self.actions.push(Action::Call(host, call));
    }

    /// `host` answers a request.
    pub fn reply(&mut self, host: HostId, request: Request, len: u32) {
        self.actions.push(Action::Reply(host, request, len));
    }

    /// `host` is done with a one-way request.
    pub fn discard(&mut self, host: HostId, request: Request) {
        self.actions.push(Action::Discard(host, request));
    }

    /// The client `host` is told that its one-way message was delivered: `host` and `call` as [`Event::Request`] has
    /// them. The call ends with a response of length 0.
    pub fn forget(&mut self, host: HostId, call: u64) {
        self.actions.push(Action::Forget(host, call));
    }

    /// Has [`App::timer`] called with `host` and `tag` after `delay`.
    pub fn after(&mut self, delay: Time, host: HostId, tag: u64) {
        self.actions.push(Action::Timer(self.now + delay, host, tag));
    }

    /// Random numbers of the application.
    pub fn rng(&mut self) -> &mut Rng {
        self.rng
    }

    /// Ends the run.
    pub fn stop(&mut self) {
        self.actions.push(Action::Stop);
    }
}
