//! Messages on a network without any others: the base line of slowdowns.

use crate::app::{App, Cx};
use crate::engine::Sim;
use crate::fabric::{SwitchConfig, Topology};
use crate::host::HostModel;
use crate::packet::HostId;
use crate::time::Time;
use crate::transport::{Call, Event, Transport};

/// One message after the other from the first host to the last.
#[derive(Debug)]
struct Alone {
    lengths: Vec<u32>,
    repeats: usize,
    one_way: bool,
    server: HostId,
    begun: Time,
    /// Times of each length; before them a message that is not counted, for what happens once.
    times: Vec<Vec<Time>>,
    warm: bool,
}

impl Alone {
    fn next(&mut self, cx: &mut Cx<'_>) {
        while self.times.len() < self.lengths.len() && self.times.last().is_none_or(|t| t.len() == self.repeats) {
            self.times.push(Vec::with_capacity(self.repeats));
        }
        let Some(len) = self.times.iter().position(|t| t.len() < self.repeats).map(|index| self.lengths[index]) else {
            return cx.stop();
        };
        self.begun = cx.now();
        cx.call(HostId(0), Call { cookie: 0, to: self.server, client_port: 0, server_port: 0, len });
    }

    fn done(&mut self, now: Time) {
        if std::mem::replace(&mut self.warm, true)
            && let Some(times) = self.times.last_mut()
        {
            times.push(now - self.begun);
        }
    }
}

/// Between two messages: what the protocol still has to say of the last is said by then.
const PAUSE: Time = Time::from_micros(100);

impl App for Alone {
    fn start(&mut self, cx: &mut Cx<'_>) {
        self.next(cx);
    }

    fn event(&mut self, cx: &mut Cx<'_>, host: HostId, event: Event) {
        match event {
            Event::Request { request, from, call, .. } if self.one_way => {
                self.done(cx.now());
                cx.discard(host, request);
                cx.forget(from, call);
            }
            Event::Request { request, len, .. } => cx.reply(host, request, len),
            Event::Response { .. } => {
                if !self.one_way {
                    self.done(cx.now());
                }
                cx.after(PAUSE, host, 0);
            }
            Event::Failed { .. } => cx.after(PAUSE, host, 0),
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, _: HostId, _: u64) {
        self.next(cx);
    }
}

/// Lengths with the median times of `repeats` messages each: from the call to the response, or one way. Lengths whose
/// messages never end are left out.
pub(crate) fn run<T: Transport>(
    topology: &Topology,
    (switch, host): (SwitchConfig, HostModel),
    transports: Vec<T>,
    lengths: &[u32],
    (repeats, one_way, seed): (usize, bool, u64),
) -> Vec<(u32, Time)> {
    let server = HostId(topology.hosts() - 1);
    let (lengths, repeats) = (lengths.to_vec(), repeats.max(1));
    let app = Alone { lengths, repeats, one_way, server, begun: Time::ZERO, times: Vec::new(), warm: false };
    let mut sim = Sim::new(topology, switch, host, transports, app, seed);
    sim.run_until(Time::from_secs(1000));
    let Alone { lengths, times, .. } = sim.app();
    let medians = lengths.iter().zip(times).filter(|(_, times)| !times.is_empty()).map(|(len, times)| {
        let mut times = times.clone();
        times.sort_unstable();
        (*len, times[times.len() / 2])
    });
    medians.collect()
}
