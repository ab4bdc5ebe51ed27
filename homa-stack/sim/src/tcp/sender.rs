//! One direction of a connection, as its sender sees it: what may be sent, what must be sent again, and when.
//!
//! As Linux does it: a congestion window in segments; losses found by time (RACK, [`super::scoreboard`]) in order of
//! their offsets; windows that shrink in proportion to what is delivered (RFC 9937); probes of the tail (RFC 8985, 7);
//! time-outs that double. Segments sent for duplicate acknowledgements (limited transmit, RFC 3042) need no rule of
//! their own, since what has arrived selectively makes room in the window. Left out: undoing reductions that turn out
//! needless (F-RTO, DSACK), pacing.

use super::config::TcpConfig;
use super::counters::Counters;
use super::offload::{self, Share};
use super::rtt::Rtt;
use super::scoreboard::Scoreboard;
use super::segment::{Segment, flag};
use super::window::{Acked, Window};
use crate::time::Time;

/// Where congestion control is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// All is well.
    Open,
    /// The window shrinks for a mark, or for a loss that a probe repaired.
    Reducing,
    /// The window shrinks for a loss, which is repaired.
    Recovery,
    /// After a time-out.
    Loss,
}

/// What the timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// Segments that may only have been reordered are lost then.
    Reorder,
    /// The last segment is sent again to hear of the losses before it.
    Probe,
    Timeout,
}

/// A tail loss probe under way.
#[derive(Clone, Copy, Debug)]
struct Probe {
    /// What had been sent when it was.
    end: u64,
    /// It repeated data.
    resent: bool,
}

/// A segment to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) seq: u64,
    pub(crate) len: u32,
    pub(crate) resent: bool,
    /// The receiver is told that the window was reduced.
    pub(crate) cwr: bool,
}

/// The sender's state.
#[derive(Debug)]
pub(crate) struct Sender {
    /// Acknowledged, sent, and written by the application up to these offsets.
    una: u64,
    nxt: u64,
    end: u64,
    board: Scoreboard,
    pub(crate) window: Window,
    pub(crate) rtt: Rtt,
    state: State,
    /// What had been sent when the present state began; acknowledging it ends the state.
    high: u64,
    /// The window before the reduction, segments delivered and sent since.
    reduction: (f64, u32, u32),
    timer: Option<(Time, Timer)>,
    backoff: u32,
    probe: Option<Probe>,
    owes_probe: bool,
    owes_cwr: bool,
    /// The window was full in the present round, which ends when `round` is acknowledged; most segments in it.
    limited: bool,
    most: u32,
    round: u64,
    last_sent: Time,
    /// New data up to this offset are one offloaded segment, on which was decided.
    offloaded: u64,
    /// New data wait for a larger part of the window.
    deferred: bool,
}

impl Sender {
    pub(crate) fn new(config: &TcpConfig) -> Self {
        Self {
            una: 0,
            nxt: 0,
            end: 0,
            board: Scoreboard::default(),
            window: Window::new(config),
            rtt: Rtt::default(),
            state: State::Open,
            high: 0,
            reduction: (0.0, 0, 0),
            timer: None,
            backoff: 0,
            probe: None,
            owes_probe: false,
            owes_cwr: false,
            limited: false,
            most: 0,
            round: 0,
            last_sent: Time::ZERO,
            offloaded: 0,
            deferred: false,
        }
    }

    /// The application writes `len` bytes.
    pub(crate) fn write(&mut self, len: u32) {
        self.end += u64::from(len);
    }

    /// The next segment that may be sent now.
    pub(crate) fn poll(&mut self, now: Time, config: &TcpConfig, counters: &mut Counters) -> Option<Outgoing> {
        if self.owes_probe {
            self.owes_probe = false;
            return self.send_probe(now, config, counters);
        }
        if self.board.in_flight() >= self.window.segments() {
            return None;
        }
        if let Some((seq, len)) = self.board.resend(now) {
            counters.resent += 1;
            self.reduction.2 += 1;
            self.last_sent = now;
            if seq == self.una || self.timer.is_none() {
                self.timer = Some((now + self.rtt.timeout(config, self.backoff), Timer::Timeout));
            }
            return Some(Outgoing { seq, len, resent: true, cwr: false });
        }
        if config.offload > 0 && self.nxt >= self.offloaded && self.end > self.nxt && !self.offload(now, config) {
            return None;
        }
        self.send_new(now, config)
    }

    /// Ends a burst of [`Self::poll`]s of which `count` gave segments.
    pub(crate) fn sent(&mut self, now: Time, count: u32, config: &TcpConfig) {
        // What the receiver's window or the host's queue has cut off is decided on anew.
        self.offloaded = self.nxt;
        let full = std::mem::take(&mut self.deferred) || self.board.in_flight() >= self.window.segments();
        let outstanding = self.board.outstanding();
        if (count > 0 || (full && self.end > self.nxt)) && (self.una >= self.round || outstanding > self.most || full) {
            (self.most, self.round, self.limited) = (outstanding, self.nxt, full);
        }
        if count > 0 && matches!(self.timer, None | Some((_, Timer::Probe))) {
            self.arm(now, config);
        }
    }

    /// Takes what a segment acknowledges.
    pub(crate) fn acknowledge(&mut self, now: Time, segment: &Segment, config: &TcpConfig, counters: &mut Counters) {
        if segment.ack < self.una || segment.ack > self.nxt {
            return;
        }
        if self.board.outstanding() == 0 {
            return;
        }
        let least = self.rtt.least().unwrap_or(Time::ZERO);
        let told = self.board.acknowledge(now, segment.ack, segment.sacks(), least);
        let bytes = segment.ack - self.una;
        self.una = segment.ack;
        if let Some((first, _)) = told.rtt {
            self.rtt.sample(first);
        }
        let ece = segment.has(flag::ECE);
        if bytes > 0 {
            self.backoff = 0;
            self.window.observe(bytes, ece, self.una, self.nxt, config.dctcp_gain);
        }
        self.hear_of_probe(segment.has(flag::DSACK));
        let lost = self.judge(now);
        self.change_state(lost, ece && config.uses_ecn(), counters);
        if matches!(self.state, State::Reducing | State::Recovery) {
            // Data of the other direction that acknowledge nothing new are no reason to shrink.
            if told.segments > 0 {
                self.shrink(told.segments, bytes > 0 && lost == 0);
            }
        } else if bytes > 0 && self.may_grow() {
            let smoothed = self.rtt.smoothed().unwrap_or(Time::ZERO);
            let rtt = told.rtt.map(|(_, last)| last);
            let (segments, una, nxt) = (told.segments, self.una, self.nxt);
            let least = self.rtt.least().unwrap_or(smoothed);
            self.window.grow(&Acked { now, segments, rtt, smoothed, least, una, nxt }, config.hystart);
        }
        if bytes > 0 || (told.sacked > 0 && matches!(self.timer, Some((_, Timer::Probe)))) {
            self.arm(now, config);
        }
    }

    /// Does what is due by the timer.
    pub(crate) fn handle_timer(&mut self, now: Time, config: &TcpConfig, counters: &mut Counters) {
        let Some((_, timer)) = self.timer.take_if(|(at, _)| *at <= now) else { return };
        match timer {
            Timer::Reorder => {
                let lost = self.judge(now);
                self.change_state(lost, false, counters);
                self.shrink(0, false);
                if self.timer.is_none() {
                    self.arm(now, config);
                }
            }
            Timer::Probe => self.owes_probe = true,
            Timer::Timeout => {
                counters.timeouts += 1;
                self.window.timeout(self.state == State::Open || self.una >= self.high);
                self.board.lose_all();
                self.state = State::Loss;
                self.high = self.nxt;
                self.probe = None;
                self.backoff += 1;
                self.timer = Some((now + self.rtt.timeout(config, self.backoff), Timer::Timeout));
            }
        }
    }

    /// Segments under way.
    pub(crate) fn in_flight(&self) -> u32 {
        self.board.in_flight()
    }

    /// When [`Self::handle_timer`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.timer.map(|(at, _)| at)
    }

    /// Decides on the next offloaded segment, which begins at `nxt`; false if it should wait.
    fn offload(&mut self, now: Time, config: &TcpConfig) -> bool {
        let (window, in_flight) = (self.window.segments(), self.board.in_flight());
        let slow_start = self.window.exact() < self.window.ssthresh() / 2.0;
        let share = Share {
            mss: config.mss(),
            window,
            free: window - in_flight,
            receiver: (self.una + u64::from(config.receive_window)).saturating_sub(self.nxt),
            waiting: self.end - self.nxt,
        };
        let rate = f64::from(window.max(self.board.outstanding())) * if slow_start { 2.0 } else { 1.2 };
        let most = offload::most_segments(rate, self.rtt.smoothed(), config);
        let calm = !matches!(self.state, State::Recovery | State::Loss) && now <= self.last_sent + offload::PAUSE;
        if config.defer && calm && share.is_small(most, config.receive_window) {
            let half = self.rtt.smoothed().map_or(Time::ZERO, |srtt| Time::from_picos(srtt.as_picos() / 2));
            // The acknowledgement of the first is not far.
            if self.board.first_sent().is_some_and(|at| now >= at + half) {
                self.deferred = share.is_full();
                return false;
            }
        }
        self.offloaded = self.nxt + share.take(most);
        true
    }

    /// New data within the receiver's window.
    fn send_new(&mut self, now: Time, config: &TcpConfig) -> Option<Outgoing> {
        let len = (self.end - self.nxt).min(u64::from(config.mss())) as u32;
        let (seq, end) = (self.nxt, self.nxt + u64::from(len));
        if len == 0 || end > self.una + u64::from(config.receive_window) {
            return None;
        }
        if self.board.outstanding() == 0 && self.last_sent < now {
            self.window.restart(config, self.last_sent, now, self.rtt.timeout(config, 0));
        }
        self.board.push(seq, len, now);
        self.nxt = end;
        self.last_sent = now;
        self.reduction.2 += 1;
        Some(Outgoing { seq, len, resent: false, cwr: std::mem::take(&mut self.owes_cwr) })
    }

    /// A probe: new data if there are any, else the last segment again (RFC 8985, 7.3).
    fn send_probe(&mut self, now: Time, config: &TcpConfig, counters: &mut Counters) -> Option<Outgoing> {
        let outgoing = self.send_new(now, config).or_else(|| {
            let (seq, len) = self.board.resend_last(now)?;
            counters.resent += 1;
            Some(Outgoing { seq, len, resent: true, cwr: false })
        });
        counters.probes += u64::from(outgoing.is_some());
        self.probe = outgoing.map(|o| Probe { end: self.nxt, resent: o.resent });
        self.timer = Some((now + self.rtt.timeout(config, self.backoff), Timer::Timeout));
        outgoing
    }

    /// What an acknowledgement says of a probe under way (RFC 8985, 7.4).
    fn hear_of_probe(&mut self, duplicate: bool) {
        let Some(probe) = self.probe else { return };
        if self.una < probe.end {
            return;
        }
        if !probe.resent || duplicate {
            self.probe = None;
        } else if self.una > probe.end {
            // The probe filled the gap that it probed for: that was a loss all the same.
            self.probe = None;
            if self.state == State::Open {
                self.reduce(State::Reducing, false);
            }
        }
    }

    /// Has the scoreboard judge; returns how many segments became lost.
    fn judge(&mut self, now: Time) -> u32 {
        let least = self.rtt.least().unwrap_or(Time::ZERO);
        let (lost, again) = self.board.judge(now, matches!(self.state, State::Recovery | State::Loss), least);
        if let Some(again) = again
            && self.timer.is_none_or(|(at, _)| again < at)
        {
            self.timer = Some((again, Timer::Reorder));
        }
        lost
    }

    fn change_state(&mut self, lost: u32, ece: bool, counters: &mut Counters) {
        let over = match self.state {
            State::Open => false,
            // Beyond, so that the receiver has heard of the reduction.
            State::Reducing => self.una > self.high,
            State::Recovery | State::Loss => self.una >= self.high,
        };
        if over {
            if self.state != State::Loss {
                self.window.set(self.window.ssthresh());
            }
            self.state = State::Open;
        }
        match self.state {
            State::Open if lost > 0 => {
                counters.recoveries += 1;
                self.reduce(State::Recovery, false);
            }
            // One reduction does for both.
            State::Reducing if lost > 0 => {
                counters.recoveries += 1;
                self.state = State::Recovery;
                self.high = self.nxt;
            }
            State::Open if ece => {
                counters.reductions_by_mark += 1;
                self.reduce(State::Reducing, true);
                self.owes_cwr = true;
            }
            _ => {}
        }
    }

    fn reduce(&mut self, state: State, by_mark: bool) {
        self.reduction = (self.window.exact(), 0, 0);
        if by_mark {
            self.window.marked();
        } else {
            self.window.lost();
        }
        self.state = state;
        self.high = self.nxt;
    }

    /// Brings the window toward its threshold (RFC 9937): above it in proportion to what is delivered; below it by
    /// what was delivered and not replaced, and one more if all goes well.
    fn shrink(&mut self, delivered: u32, safe: bool) {
        if !matches!(self.state, State::Reducing | State::Recovery) {
            return;
        }
        let (prior, total, out) = &mut self.reduction;
        *total += delivered;
        let (flight, threshold) = (f64::from(self.board.in_flight()), self.window.ssthresh().floor());
        let (total, sent) = (f64::from(*total), f64::from(*out));
        let room = if flight > threshold {
            (total * threshold / *prior).ceil() - sent
        } else {
            let more = if safe { 1.0 } else { 0.0 };
            ((total - sent).max(f64::from(delivered)) + more).min(threshold - flight)
        };
        // The first retransmission goes out whatever the window is.
        let least = if *out == 0 { 1.0 } else { 0.0 };
        self.window.set(flight + room.max(least));
    }

    /// A window that was not full says nothing about the network.
    fn may_grow(&self) -> bool {
        if self.window.exact() < self.window.ssthresh() { self.window.segments() < 2 * self.most } else { self.limited }
    }

    /// Sets the timer for what is under way: a probe where one is allowed, else the time-out.
    fn arm(&mut self, now: Time, config: &TcpConfig) {
        let outstanding = self.board.outstanding();
        if outstanding == 0 {
            self.timer = None;
            return;
        }
        if matches!(self.timer, Some((_, Timer::Reorder))) && self.board.sacked() > 0 {
            return;
        }
        let timeout = now + self.rtt.timeout(config, self.backoff);
        self.timer = Some((timeout, Timer::Timeout));
        let calm = matches!(self.state, State::Open | State::Reducing) && self.board.sacked() == 0;
        if let Some(srtt) = self.rtt.smoothed()
            && config.tail_loss_probe
            && calm
            && self.probe.is_none()
            && self.backoff == 0
        {
            // A single segment may wait for a delayed acknowledgement.
            let patience = if outstanding == 1 { config.min_rto } else { config.tick + config.tick };
            self.timer = Some(((now + srtt + srtt + patience).min(timeout), Timer::Probe));
        }
    }
}
