//! Whether a run can be believed: checks, each with what was found, a verdict, and the rule behind it.

use scan_metrics::scan::finding::Level;
use tthoma::analyze::Plot;
use tthoma::clock::Basis;
use tthoma::model::Phase;

use super::Source;
use crate::report::digest::Digest;
use crate::report::drops::HostDrops;
use crate::report::results::{ProtocolResult, Status};

/// What a check says, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing speaks against it.
    Ok,
    /// There was nothing to look at.
    Unchecked,
    /// To look into before it is published.
    Doubtful,
    /// The figures do not say what they seem to.
    Unusable,
}

impl Verdict {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unchecked => "not checked",
            Self::Doubtful => "doubtful",
            Self::Unusable => "not usable",
        }
    }

    /// Class of the style sheet, and a sign that needs no colour.
    pub fn sign(self) -> (&'static str, &'static str) {
        match self {
            Self::Ok => ("ok", "✓"),
            Self::Unchecked => ("unchecked", "–"),
            Self::Doubtful => ("doubtful", "?"),
            Self::Unusable => ("unusable", "✗"),
        }
    }

    /// By how large `value` is: up to `ok`, up to `doubtful`, beyond.
    fn up_to(value: f64, ok: f64, doubtful: f64) -> Self {
        match value {
            _ if value <= ok => Self::Ok,
            _ if value <= doubtful => Self::Doubtful,
            _ => Self::Unusable, // what is not a number, too
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What was looked at.
    pub about: &'static str,
    /// Of which protocol, if it is of one.
    pub protocol: Option<String>,
    /// What it says.
    pub verdict: Verdict,
    /// What was found, in words.
    pub found: String,
    /// How the verdict comes about.
    pub rule: &'static str,
}

impl Check {
    /// Whether it is about the time traces, and not about what was measured.
    pub fn of_traces(&self) -> bool {
        [CLOCKS, AGREEMENT, RINGS].contains(&self.about)
    }
}

const CLOCKS: &str = "Clocks of the time traces";
const AGREEMENT: &str = "Traces against metrics";
const RINGS: &str = "Packets in receive rings";

/// Lag of a sender, share of the measured interval.
const LAG: (f64, f64) = (0.01, 0.05);
/// How much larger the mean slowdown from the due time may be.
const WAITED: f64 = 1.1;
/// Load carried of that asked for.
const CARRIED: (f64, f64) = (0.95, 0.8);
/// How many standard deviations the load of randomly drawn messages may be off by chance.
const CHANCE: f64 = 3.0;
/// Share of the packets that may be repeats of others.
const REPEATS: f64 = 0.001;
/// Time in the receive ring that one packet in a thousand may take longer than, us.
const RESIDENCE: f64 = 200.0;
/// Packets of a group from which that is told.
const FOR_P999: f64 = 1000.0;
/// Messages a tenth that a P99 takes.
const TENTH: (u64, u64) = (1000, 100);

/// All checks, in the order of the page.
pub fn checks(run: &Source<'_>) -> Vec<Check> {
    let mut all = vec![ended(run)];
    let mut each = Vec::new();
    for (result, (_, measured)) in run.results.iter().zip(run.measured) {
        each.extend(of_protocol(result, &measured.service, run.options.loss));
    }
    // Check by check, as its rule is said once.
    for about in [
        "Load",
        "Lag of the load generator",
        "Baseline of slowdowns",
        "Samples",
        "Failed and unfinished RPCs",
        "Messages for a P99",
        "Packets lost",
    ] {
        all.extend(each.iter().filter(|check| check.about == about).cloned());
    }
    all.extend(run.drops.map(hosts));
    all.push(clocks(run));
    all.push(agreement(run));
    all.push(rings(run.traces.and_then(|traces| traces.report("delay")).map_or(&[], |report| &report.plots)));
    all.push(scanned(run));
    all
}

/// The worst verdict of some checks; what could not be checked does not count.
pub fn worst<'a>(checks: impl Iterator<Item = &'a Check>) -> Verdict {
    checks
        .map(|check| check.verdict)
        .filter(|verdict| *verdict != Verdict::Unchecked)
        .max()
        .unwrap_or(Verdict::Unchecked)
}

fn ended(run: &Source<'_>) -> Check {
    let verdict = match run.status {
        Status::Complete => Verdict::Ok,
        Status::Interrupted => Verdict::Doubtful,
        Status::Failed => Verdict::Unusable,
    };
    let reason = run.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Check {
        about: "The run's end",
        protocol: None,
        verdict,
        found: format!("{}{reason}", run.status.word()),
        rule: "ok: every protocol was measured for the whole interval; doubtful: somebody stopped it; not usable: something failed",
    }
}

fn of_protocol(result: &ProtocolResult, digest: &Digest, loss: f64) -> Vec<Check> {
    let name = super::label(&result.protocol);
    let check =
        |about, verdict, found: String, rule| Check { about, protocol: Some(name.clone()), verdict, found, rule };
    let mut all = Vec::new();
    let (verdict, found) = load(result, digest);
    all.push(check(
        "Load",
        verdict,
        found,
        "ok: 95 % of the offered load or more was carried, or what is missing is within 3 standard deviations of the sum of as many \
         randomly drawn messages; doubtful: 80 % or more; not usable: less: latencies are those of an overload",
    ));
    let interval = result.elapsed_s.unwrap_or(0.0);
    let share = result.lag_s / interval;
    let (verdict, found) = match result.elapsed_s {
        Some(seconds) if seconds > 0.0 => {
            let waits =
                result.due_slowdown_mean.zip(result.slowdown_mean).is_some_and(|(due, sent)| due > WAITED * sent);
            let text = format!(
                "{:.1} ms behind schedule at most, {} of {}; mean slowdown {} from sending, {} from the due time",
                1e3 * result.lag_s,
                percent(share),
                seconds_text(interval),
                figure(result.slowdown_mean),
                figure(result.due_slowdown_mean)
            );
            (Verdict::up_to(share, LAG.0, LAG.1).max(if waits { Verdict::Doubtful } else { Verdict::Ok }), text)
        }
        _ => (Verdict::Unchecked, "no node wrote its counters".to_owned()),
    };
    all.push(check(
        "Lag of the load generator",
        verdict,
        found,
        "ok: no sender was behind its schedule by more than 1 % of the measured interval at its end, and the mean slowdown from the \
         due time is at most 10 % above that from sending; doubtful: 5 %, or more than that: requests waited in the clients, so use \
         figures from the due time; not usable: more: the load was not the one asked for",
    ));
    if result.protocol == "homa" && !result.by_length.is_empty() {
        let least = result.by_length.iter().map(|row| row.slowdown_p50).fold(f64::INFINITY, f64::min);
        all.push(check(
            "Baseline of slowdowns",
            Verdict::up_to(1.0 - least, 0.05, 0.2),
            format!("least median slowdown of a group of lengths: {least:.2}"),
            "ok: no median is below 0.95: nothing is faster under load than without; doubtful: 0.8; not usable: less: the run without \
             load was slowed by something, nodes that sleep for example, so compare round-trip times, not slowdowns",
        ));
    }
    let lost =
        share_of(result.lost_samples + result.bad_lines, result.samples + result.lost_samples + result.bad_lines);
    let missing = match result.missing_nodes.as_slice() {
        [] => "files of all nodes".to_owned(),
        nodes => format!("no file of nodes {}", list(nodes)),
    };
    let verdict = if result.missing_nodes.is_empty() && result.samples > 0 {
        Verdict::up_to(lost, 0.0, 0.01)
    } else {
        Verdict::Unusable
    };
    all.push(check(
        "Samples",
        verdict,
        format!(
            "{} kept, {} lost, {} lines that could not be read; {missing}",
            result.samples, result.lost_samples, result.bad_lines
        ),
        "ok: every node's file is there and no sample was lost; doubtful: up to 1 % lost; not usable: more, or a file is missing",
    ));
    let failed = share_of(result.errors, result.rpcs + result.errors);
    let open = share_of(result.outstanding, result.rpcs + result.outstanding);
    all.push(check(
        "Failed and unfinished RPCs",
        Verdict::up_to(failed, 0.0, 0.001).max(Verdict::up_to(open, 0.01, 0.05)),
        format!(
            "{} failed ({} of them timed out), {} unfinished at the end, of {}",
            result.errors,
            result.timeouts,
            result.outstanding,
            result.rpcs + result.errors + result.outstanding
        ),
        "they are in no percentile. ok: none failed and at most 1 % unfinished; doubtful: 0.1 % and 5 %; not usable: more",
    ));
    let fewest = result.by_length.iter().map(|row| row.rpcs).min().unwrap_or(0);
    let verdict = match fewest {
        _ if fewest >= TENTH.0 => Verdict::Ok,
        _ if fewest >= TENTH.1 => Verdict::Doubtful,
        _ => Verdict::Unusable,
    };
    all.push(check(
        "Messages for a P99",
        verdict,
        format!("{fewest} in the smallest group of lengths, about a tenth of the messages"),
        "ok: 1000 or more, so that 10 are beyond the P99; doubtful: 100 or more; not usable: fewer: their P99 is their largest",
    ));
    all.extend(drops(result, loss).map(|(verdict, found)| {
        check(
            "Packets lost",
            verdict,
            found,
            "ok: less than 0.1 % of the packets, or as asked for by --loss; doubtful: more: results depend on the size of the \
             switches' buffers and on how losses are repaired",
        )
    }));
    all
}

/// Load carried, and how far chance alone may move it.
fn load(result: &ProtocolResult, digest: &Digest) -> (Verdict, String) {
    let offered = result.offered_gbps;
    let Some(achieved) = result.achieved_gbps else {
        return (Verdict::Unchecked, "no node wrote its counters".to_owned());
    };
    if offered <= 0.0 {
        return (Verdict::Ok, format!("{achieved:.3} Gbps per node and direction; none was asked for"));
    }
    let share = achieved / offered;
    let chance = CHANCE * spread(digest);
    let verdict = match share {
        _ if share >= CARRIED.0 || share + chance >= 1.0 => Verdict::Ok,
        _ if share >= CARRIED.1 => Verdict::Doubtful,
        _ => Verdict::Unusable,
    };
    let text = format!(
        "{achieved:.3} of {offered:.3} Gbps per node and direction, {}; chance allows ± {}",
        percent(share),
        percent(chance)
    );
    (verdict, text)
}

/// Standard deviation of the bytes of as many messages as these, drawn at random at random times, relative to their mean:
/// √Σl² / Σl.
fn spread(digest: &Digest) -> f64 {
    let sum = |power: i32| {
        digest.buckets.iter().map(|bucket| bucket.len() as f64 * f64::from(bucket.length).powi(power)).sum::<f64>()
    };
    if digest.samples == 0 { 0.0 } else { sum(2).sqrt() / sum(1) }
}

/// Packets that switches dropped, by reason; `None` if nobody counted.
fn drops(result: &ProtocolResult, loss: f64) -> Option<(Verdict, String)> {
    let (all, reasons) = if let Some(switch) = &result.switch {
        let reasons: Vec<_> =
            switch.dropped_packets.iter().map(|(name, count)| (name.replace('_', " "), *count)).collect();
        (switch.packets, reasons)
    } else if !result.ports.is_empty() {
        let sum = |field: fn(&crate::testbed::links::PortCounts) -> u64| result.ports.iter().map(field).sum::<u64>();
        let full = sum(|port| port.dropped_packets.iter().sum());
        let reasons = vec![
            ("buffer full".to_owned(), full),
            ("uplink".to_owned(), sum(|port| port.uplink_dropped_packets)),
            ("lost on purpose".to_owned(), sum(|port| port.lost_packets)),
        ];
        (sum(|port| port.sent_packets.iter().sum()), reasons)
    } else {
        return None;
    };
    let dropped: u64 = reasons.iter().map(|(_, count)| count).sum();
    let share = share_of(dropped, all + dropped);
    let verdict = if share < 0.001 || (loss > 0.0 && share <= 1.1 * loss) { Verdict::Ok } else { Verdict::Doubtful };
    let reasons: Vec<_> = reasons.iter().map(|(name, count)| format!("{name} {count}")).collect();
    Some((verdict, format!("{dropped} of {} ({}): {}", all + dropped, percent(share), reasons.join(", "))))
}

/// Packets that Homa's hosts received and did not use.
fn hosts(drops: &HostDrops) -> Check {
    let (repeats, others) = drops.split();
    let share = share_of(repeats, drops.received);
    let reasons: Vec<_> =
        drops.reasons.iter().map(|(name, count)| format!("{} {count}", name.replace('_', " "))).collect();
    let reasons = if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") };
    Check {
        about: "Packets that hosts did not use",
        protocol: Some("Homa".to_owned()),
        verdict: if share < REPEATS && others == 0 { Verdict::Ok } else { Verdict::Doubtful },
        found: format!("{reasons}; of {} data packets received", drops.received),
        rule: "ok: less than 0.1 % came again (duplicate, executed) or after its RPC had ended (unknown rpc), and there is no other \
               reason; doubtful: more, or others: packets that were repeated, damaged or had no room take the place of measured ones",
    }
}

/// How wrong times between nodes can be, against the time that packets take.
fn clocks(run: &Source<'_>) -> Check {
    let rule = "ok: no clock can be wrong by more than a tenth of the median time from node to node; doubtful: half of it, or packets \
                that seem to arrive before they are sent; not usable for times between nodes: more, or clocks that contradict each other";
    let check = |verdict, found| Check { about: CLOCKS, protocol: None, verdict, found, rule };
    let Some(traces) = run.traces else {
        return check(Verdict::Unchecked, "no time traces were kept".to_owned());
    };
    let clock = &traces.clock;
    if clock.basis == Basis::Counters && clock.unplaced.is_empty() {
        return check(Verdict::Ok, "the nodes have one clock: times are set by it".to_owned());
    }
    let worst =
        clock.pairs.iter().filter_map(|pair| Some((pair.clock_error_us?, pair))).max_by(|a, b| a.0.total_cmp(&b.0));
    let Some((error, pair)) = worst else {
        return check(Verdict::Unchecked, "no two traces have packets in common".to_owned());
    };
    let median = median_delay(traces);
    let mut verdict = Verdict::up_to(error, 0.1 * median, 0.5 * median);
    if !clock.contradictions.is_empty() {
        verdict = Verdict::Unusable;
    } else if !clock.unplaced.is_empty()
        || traces.report("sync-quality").is_some_and(|report| !report.warnings.is_empty())
    {
        verdict = verdict.max(Verdict::Doubtful);
    }
    let named = |what: &str, names: &[String]| match names {
        [] => String::new(),
        [first, ..] => format!("; {} {what}, {first} the first", names.len()),
    };
    let more = named("pairs of clocks contradict each other", &clock.contradictions)
        + &named("nodes have no common clock", &clock.unplaced);
    check(
        verdict,
        format!(
            "wrong by {error:.3} us at most ({} to {}); the median packet takes {median:.1} us from node to node{more}",
            pair.from, pair.to
        ),
    )
}

/// Median over pairs of nodes of the median time of their packets, us; 0 if it is not known.
fn median_delay(traces: &tthoma::analyze::Run) -> f64 {
    let Some(table) = traces.report("sync-quality").and_then(|report| report.table("pairs")) else { return 0.0 };
    let Some(column) = table.columns.iter().position(|column| column.key == "p50_us") else { return 0.0 };
    let mut all: Vec<f64> = table.rows.iter().filter_map(|row| row.cells.get(column)?.number()).collect();
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}

/// Whether traces and metrics counted the same packets.
fn agreement(run: &Source<'_>) -> Check {
    let rule = "both count each packet on their own. ok: all counts are equal; doubtful: some differ";
    let counted = || run.agreement.iter().filter(|node| !node.counts.is_empty());
    let (all, differ) = (counted().count(), counted().filter(|node| !node.agrees).count());
    let (verdict, found) = match (all, differ) {
        (0, _) => (Verdict::Unchecked, "no metrics of exactly the traces' time".to_owned()),
        (_, 0) => (Verdict::Ok, format!("equal on {all} nodes")),
        _ => (Verdict::Doubtful, format!("different on {differ} of {all} nodes")),
    };
    Check { about: AGREEMENT, protocol: None, verdict, found, rule }
}

/// How long packets lay in the receive rings before their host looked at them, by the plots of delays. Groups of packets
/// too few for a P99.9 say nothing.
fn rings(plots: &[Plot]) -> Check {
    let check = |verdict, found| Check {
        about: RINGS,
        protocol: Some("Homa".to_owned()),
        verdict,
        found,
        rule: "P99.9 of the time from the kernel's receive stamp until the stack found the packet. ok: 200 us at most for data of short \
               messages, other data and grants; doubtful: more: hosts waited for a core, and delays are theirs, not the network's",
    };
    let curve = |plot: &Plot| {
        let (_, points) = plot.curves.iter().find(|(name, _)| name == Phase::Ring.title())?;
        // A point says which share took longer; that of the longest is half of one packet's.
        let last = points.last().filter(|(_, share)| (0.5 / share).round() >= FOR_P999)?;
        let p999 = points.iter().find(|(_, share)| *share <= 0.001).unwrap_or(last).0;
        Some((p999, plot.name.trim_start_matches("delay_").to_owned()))
    };
    let worst = plots.iter().filter(|plot| plot.name.starts_with("delay_")).filter_map(curve);
    match worst.max_by(|a, b| a.0.total_cmp(&b.0)) {
        None => check(Verdict::Unchecked, "no traces with enough packets and their receive stamps".to_owned()),
        Some((p999, group)) => {
            let verdict = Verdict::up_to(p999, RESIDENCE, f64::INFINITY);
            check(verdict, format!("P99.9 is {p999:.1} us at most, of the group {group}"))
        }
    }
}

/// What scan_metrics found.
fn scanned(run: &Source<'_>) -> Check {
    let rule = "ok: nothing odd; doubtful: a node, core or counter that stands out (listed below); not usable: a fatal finding: \
                something is broken, or files are missing";
    let (verdict, found) = match run.scan {
        None => (Verdict::Unchecked, "no metrics were kept".to_owned()),
        Some(scan) => {
            let count = |level| scan.findings.iter().filter(|finding| finding.level == level).count();
            let (fatal, warn) = (count(Level::Fatal), count(Level::Warn));
            let verdict = match (fatal, warn) {
                (0, 0) => Verdict::Ok,
                (0, _) => Verdict::Doubtful,
                _ => Verdict::Unusable,
            };
            let text = format!(
                "{fatal} fatal and {warn} odd findings in {} comparisons of {} nodes' metrics",
                scan.comparisons, scan.nodes
            );
            (verdict, text)
        }
    };
    Check { about: "Outliers among the metrics", protocol: None, verdict, found, rule }
}

fn share_of(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    match percent.abs() {
        0.0 => "0 %".to_owned(),
        ..0.01 => format!("{percent:.4} %"),
        ..1.0 => format!("{percent:.2} %"),
        _ => format!("{percent:.1} %"),
    }
}

fn seconds_text(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", 1e3 * seconds) } else { format!("{seconds:.1} s") }
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.2}"))
}

fn list(nodes: &[usize]) -> String {
    nodes.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use tthoma::analyze::Mark;

    use super::super::tests::source;
    use super::*;
    use crate::report::results::tests::hundred;
    use crate::report::slowdown::Optimal;
    use crate::sim::switch::Switch;

    fn result() -> ProtocolResult {
        let measured = hundred();
        let cuts = crate::report::digest::cuts(&[&measured.service], 10);
        let result = ProtocolResult::new("tcp", Status::Complete, 1.0, &measured, &Optimal::fixed(1.0, 1000.0), &cuts);
        ProtocolResult { missing_nodes: Vec::new(), errors: 0, lag_s: 0.0, ..result }
    }

    fn verdict(result: &ProtocolResult, what: &str) -> Verdict {
        let checks = of_protocol(result, &hundred().service, 0.0);
        checks.iter().find(|check| check.about == what).unwrap_or_else(|| panic!("no {what}")).verdict
    }

    #[test]
    fn load_is_judged_by_what_chance_allows() {
        // 100 messages of 10, 20 … 1000 bytes: √(338,350 · 100) / 50,500 = 11.5 %; three times that is 34.6 %.
        assert!((spread(&hundred().service) - 0.1152).abs() < 1e-4);
        let at = |achieved| verdict(&ProtocolResult { achieved_gbps: Some(achieved), ..result() }, "Load");
        assert_eq!((at(1.0), at(0.7), at(0.64)), (Verdict::Ok, Verdict::Ok, Verdict::Unusable));
        // A million such messages leave little to chance.
        let (many, _) = load(&ProtocolResult { achieved_gbps: Some(0.94), ..result() }, &Digest::default());
        assert_eq!(many, Verdict::Doubtful);
        assert_eq!(verdict(&ProtocolResult { achieved_gbps: None, ..result() }, "Load"), Verdict::Unchecked);
    }

    #[test]
    fn each_limit_is_where_its_rule_says() {
        use Verdict::{Doubtful, Ok, Unusable};
        let lag =
            |lag_s| verdict(&ProtocolResult { lag_s, elapsed_s: Some(1.0), ..result() }, "Lag of the load generator");
        assert_eq!((lag(0.01), lag(0.02), lag(0.06)), (Ok, Doubtful, Unusable));
        let lost = |lost_samples| verdict(&ProtocolResult { lost_samples, samples: 1000, ..result() }, "Samples");
        assert_eq!((lost(0), lost(1), lost(11)), (Ok, Doubtful, Unusable));
        assert_eq!(verdict(&ProtocolResult { missing_nodes: vec![3], ..result() }, "Samples"), Unusable);
        let open = |outstanding| {
            verdict(&ProtocolResult { outstanding, rpcs: 1000, ..result() }, "Failed and unfinished RPCs")
        };
        assert_eq!((open(10), open(20), open(60)), (Ok, Doubtful, Unusable));
        assert_eq!(
            verdict(&ProtocolResult { errors: 1, rpcs: 100, ..result() }, "Failed and unfinished RPCs"),
            Unusable
        );
        assert_eq!(verdict(&result(), "Messages for a P99"), Unusable, "10 a tenth");
    }

    #[test]
    fn waiting_in_clients_and_a_slow_baseline_are_seen() {
        let lag = |due| {
            let result = ProtocolResult { slowdown_mean: Some(2.0), due_slowdown_mean: Some(due), ..result() };
            verdict(&result, "Lag of the load generator")
        };
        assert_eq!((lag(2.1), lag(2.3)), (Verdict::Ok, Verdict::Doubtful));
        let baseline = |least| {
            let mut result = ProtocolResult { protocol: "homa".to_owned(), ..result() };
            result.by_length.iter_mut().for_each(|row| row.slowdown_p50 = 1.0);
            result.by_length[3].slowdown_p50 = least;
            verdict(&result, "Baseline of slowdowns")
        };
        assert_eq!((baseline(0.96), baseline(0.9), baseline(0.5)), (Verdict::Ok, Verdict::Doubtful, Verdict::Unusable));
    }

    #[test]
    fn drops_are_told_by_reason_and_those_asked_for_are_no_fault() {
        assert_eq!(drops(&result(), 0.0), None);
        let switch = Switch {
            buffer_max_bytes: 0,
            buffer_max_us: 0.0,
            buffer_max_at_s: 0.0,
            port_max_bytes: 0,
            port_max_us: 0.0,
            packets: 990,
            dropped_packets: [("buffer_full".to_owned(), 10)].into(),
            marked_packets: 0,
            host_port_max_bytes: Vec::new(),
        };
        let result = ProtocolResult { switch: Some(switch), ..result() };
        let (verdict, text) = drops(&result, 0.0).unwrap();
        assert_eq!((verdict, text.as_str()), (Verdict::Doubtful, "10 of 1000 (1.0 %): buffer full 10"));
        assert_eq!(drops(&result, 0.01).unwrap().0, Verdict::Ok);
    }

    #[test]
    fn repeats_are_no_fault_of_a_host_and_others_are() {
        let verdict = |reasons: &[(&'static str, u64)]| {
            hosts(&HostDrops { received: 10_000, reasons: reasons.iter().copied().collect() }).verdict
        };
        assert_eq!(verdict(&[("duplicate", 9)]), Verdict::Ok);
        assert_eq!(verdict(&[("duplicate", 5), ("unknown_rpc", 5)]), Verdict::Doubtful);
        assert_eq!(verdict(&[("ring_full", 1)]), Verdict::Doubtful);
    }

    #[test]
    fn packets_that_lay_long_in_a_receive_ring_are_an_alarm() {
        // The shares of 1 to `packets` us that took longer, as the plots have them.
        let plot = |name: &str, packets: u32, unit: f64| {
            let n = f64::from(packets);
            let point = |i: u32| (f64::from(i) * unit, if i < packets { f64::from(packets - i) / n } else { 0.5 / n });
            let curves = vec![(Phase::Ring.title().to_owned(), (1..=packets).map(point).collect())];
            let (name, title) = (format!("delay_{name}"), String::new());
            Plot { name, title, x: "us", y: "share", log: true, mark: Mark::Steps, curves }
        };
        let short = plot("short", 2_000, 0.1);
        let quick = rings(std::slice::from_ref(&short));
        assert_eq!((quick.verdict, &quick.found[..]), (Verdict::Ok, "P99.9 is 199.8 us at most, of the group short"));
        let slow = rings(&[short, plot("grants", 1_000, 0.21)]);
        assert_eq!(
            (slow.verdict, &slow.found[..]),
            (Verdict::Doubtful, "P99.9 is 209.8 us at most, of the group grants")
        );
        assert_eq!(rings(&[plot("long", 999, 9.0)]).verdict, Verdict::Unchecked, "too few");
        assert_eq!(rings(&[]).verdict, Verdict::Unchecked);
    }

    #[test]
    fn what_could_not_be_checked_neither_speaks_for_a_run_nor_against_it() {
        source(|run| {
            let checks = checks(run);
            let of = |about: &str| checks.iter().find(|check| check.about == about).unwrap().verdict;
            assert_eq!(of("Clocks of the time traces"), Verdict::Unchecked);
            assert_eq!(of("Outliers among the metrics"), Verdict::Unchecked);
            assert_eq!(of("The run's end"), Verdict::Ok);
            assert!(checks.iter().all(|check| check.rule.contains("ok: ")), "each rule is said");
        });
        assert_eq!(worst([].iter()), Verdict::Unchecked);
        let check = |verdict| Check { about: "", protocol: None, verdict, found: String::new(), rule: "" };
        assert_eq!(worst([check(Verdict::Unchecked), check(Verdict::Ok)].iter()), Verdict::Ok);
        assert_eq!(worst([check(Verdict::Doubtful), check(Verdict::Ok)].iter()), Verdict::Doubtful);
    }
}
