//! Counters in Prometheus' text format (version 0.0.4), for those who watch a run in Grafana.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::read::Snapshot;

/// A family of samples: its description and `{labels} value` lines.
type Families<'a> = BTreeMap<String, (&'a str, bool, String)>;

/// The text: `homa_NAME_total{core="K"} VALUE`, with the families of the kernel's names as labels (size classes, packet
/// types, priorities, reasons of drops); what is no counter (the clock's rate, marks of the most at once) as gauges.
pub fn text(snapshot: &Snapshot) -> String {
    let mut families = Families::new();
    let mut add = |name: &str, help, counter, labels: &str, value: u64| {
        let (_, _, samples) = families.entry(name.to_owned()).or_insert_with(|| (help, counter, String::new()));
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        writeln!(samples, "{name}{labels} {value}").expect("a String takes all");
    };
    if let Some(ticks) = snapshot.ticks {
        add("homa_clock_ticks_total", "clock when the counters were gathered", true, "", ticks);
    }
    if let Some(khz) = snapshot.khz {
        add("homa_clock_khz", "rate of that clock in kHz: *_cycles are its ticks", false, "", khz);
    }
    for core in &snapshot.cores {
        for counter in &core.counters {
            let (name, label) = family(&counter.name);
            let is_counter = !counter.name.ends_with("_most") && counter.name != "ring_most_waiting";
            let name = if is_counter { format!("homa_{name}_total") } else { format!("homa_{name}") };
            let label = label.map(|(key, value)| format!(",{key}=\"{value}\"")).unwrap_or_default();
            add(&name, &counter.text, is_counter, &format!("core=\"{}\"{label}", core.number), counter.value);
        }
    }
    let mut out = String::new();
    for (name, (help, counter, samples)) in families {
        let kind = if counter { "counter" } else { "gauge" };
        let help = help.replace('\\', "\\\\");
        write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}").expect("a String takes all");
    }
    out
}

/// A counter's family and its label within it.
fn family(name: &str) -> (String, Option<(&'static str, &str)>) {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    for (prefix, family, key) in [
        ("msg_bytes_", "msg_bytes", "up_to"),
        ("packets_sent_", "packets_sent", "type"),
        ("packets_rcvd_", "packets_rcvd", "type"),
        ("drop_", "drop", "reason"),
    ] {
        if let Some(rest) = name.strip_prefix(prefix).filter(|rest| key != "up_to" || digits(rest)) {
            return (family.to_owned(), Some((key, rest)));
        }
    }
    if let Some((level, what)) =
        name.strip_prefix("priority").and_then(|rest| rest.split_once('_')).filter(|(l, _)| digits(l))
    {
        return (format!("priority_{what}"), Some(("priority", level)));
    }
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    (plain, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_described_once_and_have_labels() {
        let raw = "time_cycles 9 now\ncpu_khz 1000 r\ncore 0 c\nmsg_bytes_64 1 to 64\nmsg_bytes_128 2 to 128\n\
                   packets_sent_DATA 3 data\nresent_packets 4 again\ntx_held_most 5 mark\ncore 1 c\npriority7_bytes 6 high\n\
                   drop_flood 7 flood\nresent_packets 8 again\n";
        let got = text(&Snapshot::parse(raw));
        for line in [
            "homa_clock_ticks_total 9",
            "# TYPE homa_clock_khz gauge",
            "homa_msg_bytes_total{core=\"0\",up_to=\"64\"} 1",
            "homa_msg_bytes_total{core=\"0\",up_to=\"128\"} 2",
            "homa_packets_sent_total{core=\"0\",type=\"DATA\"} 3",
            "homa_resent_packets_total{core=\"0\"} 4",
            "homa_resent_packets_total{core=\"1\"} 8",
            "homa_priority_bytes_total{core=\"1\",priority=\"7\"} 6",
            "homa_drop_total{core=\"1\",reason=\"flood\"} 7",
            "# TYPE homa_tx_held_most gauge",
            "homa_tx_held_most{core=\"0\"} 5",
        ] {
            assert!(got.lines().any(|have| have == line), "no line `{line}` in\n{got}");
        }
        assert_eq!(got.matches("# TYPE homa_resent_packets_total counter").count(), 1);
    }
}
