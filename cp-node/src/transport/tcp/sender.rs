//! The sending thread of a TCP client port: keeps the schedule and works on blocked connections while it waits.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::client::Port;
use super::outbox::Outbox;
use super::socket::{sleep_precisely, wait_for};
use crate::arrivals::Arrivals;
use crate::clock::now_ns;

/// A send is backed up if more request bytes than this wait for their responses at the same server port.
const BACKED_UP: u64 = 100_000;
/// The sending side of a port: its thread owns what is not yet in the sockets.
pub(super) struct Sender<'a> {
    port: &'a Port,
    load: Arrivals,
    /// In the order of the connections.
    outboxes: Vec<Outbox>,
    /// Outboxes that are not empty.
    blocked: usize,
    /// Longest time to spin before an event, in ns.
    poll_ns: u64,
}

impl<'a> Sender<'a> {
    /// A sender for `port` that spins at most for `poll` before an event.
    pub(super) fn new(port: &'a Port, load: Arrivals, poll: Duration) -> Self {
        let outboxes = port.conns.iter().map(|_| Outbox::default()).collect();
        Self { port, load, outboxes, blocked: 0, poll_ns: poll.as_nanos() as u64 }
    }

    /// Sends what is due until told to stop, then finishes messages that are partly sent.
    pub(super) fn run(mut self) {
        sleep_precisely();
        while self.port.client.sending.load(Ordering::Acquire) {
            self.flush_blocked();
            let now = now_ns();
            if self.load.is_due(now)
                && let Some(slot) = self.port.client.take_slot()
            {
                if !self.send(slot) {
                    self.port.log.line("ERROR: no TCP connection is left: the sender stops");
                    return;
                }
            } else {
                self.wait(now);
            }
        }
        while self.blocked > 0 && !self.port.closing.load(Ordering::Acquire) {
            self.sleep(Some(Duration::from_millis(100)));
            self.flush_blocked();
        }
    }

    /// Sends the next request; false if no connection is left.
    fn send(&mut self, slot: u16) -> bool {
        let plan = self.load.take();
        let count = self.port.conns.len();
        // Requests to a node that is gone go to the next one: the load stays as offered.
        let alive = |i: &usize| !self.port.conns[*i].dead.load(Ordering::SeqCst);
        let Some(index) = (plan.server..count).chain(0..plan.server).find(alive) else { return false };
        let conn = &self.port.conns[index];
        let unanswered = conn.unanswered.fetch_add(plan.len.into(), Ordering::Relaxed);
        if unanswered > BACKED_UP {
            self.port.client.counters.backed_up.fetch_add(1, Ordering::Relaxed);
        }
        let header = self.port.client.start(slot, index, plan.len, plan.due_ns, now_ns());
        if conn.dead.load(Ordering::SeqCst) {
            // It broke after it was chosen, maybe after its RPCs were failed.
            self.port.client.fail(slot, false, now_ns());
            return true;
        }
        let was_blocked = !self.outboxes[index].is_empty();
        self.outboxes[index].push(header);
        if !was_blocked {
            self.blocked += 1;
            self.flush(index);
        }
        true
    }

    fn flush_blocked(&mut self) {
        if self.blocked > 0 {
            for index in 0..self.outboxes.len() {
                if !self.outboxes[index].is_empty() {
                    self.flush(index);
                }
            }
        }
    }

    /// Writes what the socket takes of a non-empty outbox.
    fn flush(&mut self, index: usize) {
        let conn = &self.port.conns[index];
        let result = self.outboxes[index].flush(&conn.stream);
        if let Err(error) = &result {
            self.port.lose(index, &error.to_string());
        }
        if result.is_err() || conn.dead.load(Ordering::Relaxed) {
            self.outboxes[index].clear();
        }
        if self.outboxes[index].is_empty() {
            self.blocked -= 1;
        }
    }

    /// Waits for the next due time, or for a slot if a request is already due. Sleeps, and spins only at the end.
    fn wait(&mut self, now: u64) {
        match self.load.due_ns().filter(|due| *due > now) {
            Some(due) if due - now > self.poll_ns || self.poll_ns == 0 => {
                self.sleep(Some(Duration::from_nanos(due - now - self.poll_ns)));
            }
            Some(due) => while now_ns() < due && self.spin_once() {},
            None => {
                while now_ns() < now + self.poll_ns {
                    if self.port.client.has_slot() || !self.spin_once() {
                        return;
                    }
                }
                self.port.wants_slot.store(true, Ordering::SeqCst);
                // A slot that came free before the flag was set does not wake.
                if !self.port.client.has_slot() {
                    self.sleep(None);
                }
                self.port.wants_slot.store(false, Ordering::SeqCst);
            }
        }
    }

    /// One round of spinning: lets other threads run; false if there is something else to do.
    fn spin_once(&self) -> bool {
        thread::yield_now();
        self.blocked == 0 && self.port.client.sending.load(Ordering::Relaxed)
    }

    /// Sleeps until the limit is over, the port wants something, or a blocked socket takes data.
    fn sleep(&self, limit: Option<Duration>) {
        let mut fds = vec![PollFd::new(&self.port.wake, PollFlags::IN)];
        for (conn, outbox) in self.port.conns.iter().zip(&self.outboxes) {
            if !outbox.is_empty() {
                fds.push(PollFd::new(&conn.stream, PollFlags::OUT));
            }
        }
        match wait_for(&mut fds, limit) {
            Ok(_) if fds[0].revents().contains(PollFlags::IN) => self.port.wake.clear(),
            Ok(_) => {}
            Err(error) => {
                self.port.log.line(format_args!("ERROR: a TCP sender can't sleep: {error}"));
                // Without this the loop would spin on the error.
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
