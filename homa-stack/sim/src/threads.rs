//! The application's threads: what a message costs them, and the queues in front of them.
//!
//! ```text
//! transport's event --wake-up--> queue of its port --a thread of the port: receive (and answer)--> application
//! ```
//!
//! As in cp-node each port has threads of its own, which take what has come for the port one message after the other;
//! epoll tells a thread of all that is there at once, so that only the first message of a burst has waited for a wake-up.

use std::collections::VecDeque;

use crate::time::Time;
use crate::transport::Event;

/// What messages cost the application's threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads {
    /// Threads of each client port and of each server port.
    pub per_port: u32,
    /// Time of a thread to take a message.
    pub receive: Time,
    /// Time of a server's thread to answer it, in addition.
    pub answer: Time,
}

/// Client ports, and as many server ports, that are told apart on a host.
const PORTS: usize = 64;

/// The messages for one port.
#[derive(Debug, Default)]
struct Desk {
    waiting: VecDeque<Event>,
    /// Those that threads are at, the first to be done first.
    taken: VecDeque<Event>,
}

/// The desks of all hosts.
#[derive(Debug, Default)]
pub(crate) struct Desks {
    model: Option<Threads>,
    all: Vec<Desk>,
}

impl Desks {
    pub(crate) fn new(model: Option<Threads>, hosts: usize) -> Self {
        let count = if model.is_some() { 2 * PORTS * hosts } else { 0 };
        Self { model, all: (0..count).map(|_| Desk::default()).collect() }
    }

    /// True if events go to the application at once.
    #[inline]
    pub(crate) fn are_none(&self) -> bool {
        self.model.is_none()
    }

    /// Takes an event of `host` for one of its ports, a client's if it is one's; if a thread takes it at once: the desk, and
    /// the time until the thread is done.
    pub(crate) fn put(&mut self, host: u32, port: u16, event: Event) -> Option<(u32, Time)> {
        let client = usize::from(!matches!(event, Event::Request { .. }));
        let desk = (host as usize * 2 + client) * PORTS + usize::from(port) % PORTS;
        self.all[desk].waiting.push_back(event);
        self.begin(desk as u32)
    }

    /// A thread at `desk` is done with a message: which.
    pub(crate) fn done(&mut self, desk: u32) -> Option<Event> {
        self.all[desk as usize].taken.pop_front()
    }

    /// Has a thread of `desk` begin with a message, if one is free and there is any.
    pub(crate) fn begin(&mut self, desk: u32) -> Option<(u32, Time)> {
        let model = self.model?;
        let found = &mut self.all[desk as usize];
        if found.taken.len() >= model.per_port.max(1) as usize {
            return None;
        }
        let event = found.waiting.pop_front()?;
        let answer = if matches!(event, Event::Request { .. }) { model.answer } else { Time::ZERO };
        found.taken.push_back(event);
        Some((desk, model.receive + answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::HostId;
    use crate::transport::Request;

    fn response(cookie: u64) -> Event {
        Event::Response { cookie, len: 1 }
    }

    #[test]
    fn each_port_has_its_own_threads_and_a_queue() {
        let us = Time::from_micros;
        let mut desks = Desks::new(Some(Threads { per_port: 2, receive: us(3), answer: us(4) }), 2);
        assert!(!desks.are_none());
        let (first, time) = desks.put(1, 0, response(1)).unwrap();
        assert_eq!(time, us(3));
        assert_eq!(desks.put(1, 0, response(2)), Some((first, us(3))), "the second thread");
        assert_eq!(desks.put(1, 0, response(3)), None, "it waits");
        assert!(desks.put(0, 0, response(4)).is_some_and(|(desk, _)| desk != first), "another host");
        let request = Event::Request { request: Request::new(0), from: HostId(0), call: 0, server_port: 0, len: 1 };
        assert!(desks.put(1, 0, request).is_some_and(|(desk, time)| desk != first && time == us(7)), "a server");
        assert_eq!(desks.done(first), Some(response(1)));
        assert_eq!(desks.begin(first), Some((first, us(3))));
        assert_eq!(desks.begin(first), None, "nothing waits");
        assert_eq!([desks.done(first), desks.done(first)], [Some(response(2)), Some(response(3))]);
        assert!(Desks::new(None, 2).are_none());
    }
}
