//! Where packets spent their time on average, as bars of steps one after another: all packets of a kind, and the slow ones.

use std::fmt::Write as _;

use tthoma::analyze::{Report, Table};
use tthoma::document::escaped;

/// A bar: what it is of, and its steps in us.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    name: String,
    steps: Vec<(&'static str, f64)>,
}

/// Steps in the order in which a packet takes them: name, and key of its mean in the breakdown. Waiting in the receive ring
/// is a part of what the analysis calls Net.
const STEPS: [(&str, &str); 4] = [("Xmit", "xmit"), ("Net", "net"), ("Ring", "ring"), ("SoftIRQ", "softirq")];

/// The bars, as HTML; nothing if the analysis of delays has no means.
pub fn html(delay: &Report) -> String {
    let bars = bars(delay);
    let sum = |bar: &Bar| bar.steps.iter().map(|step| step.1).sum::<f64>();
    let longest = bars.iter().map(sum).fold(0.0, f64::max);
    if longest <= 0.0 {
        return String::new();
    }
    let mut out = String::from(
        "<figure class=\"bars\">\n<figcaption>Mean time of each step, us</figcaption>\n<ul class=\"legend\">",
    );
    for (at, (name, _)) in STEPS.iter().enumerate() {
        let _ = write!(out, "<li><span class=\"key b{at}\" aria-hidden=\"true\"></span>{name}</li>");
    }
    out += "</ul>\n<dl>\n";
    for bar in &bars {
        let steps = bar.steps.iter().filter(|step| step.1 >= 0.05);
        let text: Vec<_> = steps.clone().map(|(name, us)| format!("{name} {us:.1}")).collect();
        let text = format!("{:.1} us: {}", sum(bar), text.join(", "));
        let _ = write!(out, "<dt>{}</dt><dd><span class=\"bar\" aria-hidden=\"true\">", escaped(&bar.name));
        for (name, us) in steps {
            let at = STEPS.iter().position(|step| step.0 == *name).unwrap_or(0);
            let _ = write!(out, "<span class=\"b{at}\" style=\"width:{:.2}%\"></span>", 100.0 * us / longest);
        }
        let _ = writeln!(out, "</span>{text}</dd>");
    }
    out + "</dl>\n</figure>\n"
}

fn bars(delay: &Report) -> Vec<Bar> {
    let mut all = Vec::new();
    let (Some(phases), Some(slow)) = (delay.table("phases"), delay.table("breakdown")) else { return all };
    let at = |table: &Table, row: usize, key: &str| {
        table.rows[row].cells.get(table.columns.iter().position(|column| column.key == key)?)?.number()
    };
    let text = |table: &Table, row: usize, column: usize| {
        table.rows[row].cells.get(column).map_or_else(String::new, |cell| cell.plain().into_owned())
    };
    for row in 0..slow.rows.len() {
        let group = text(slow, row, 0);
        let name = group.replace("Data packets from messages", "Packets of messages");
        let mean = |step: &str| {
            let found =
                (0..phases.rows.len()).find(|&row| text(phases, row, 0) == group && text(phases, row, 1) == step);
            at(phases, found?, "avg_us")
        };
        all.extend(bar(format!("{name}, all"), |step, _| mean(step)));
        all.extend(bar(format!("{name}, P98 to P99"), |_, key| at(slow, row, &format!("{key}_avg_us"))));
    }
    all
}

/// A bar of these means; none if nothing is known.
fn bar(name: String, mean: impl Fn(&str, &str) -> Option<f64>) -> Option<Bar> {
    let mut steps: Vec<_> = STEPS.iter().filter_map(|&(name, key)| Some((name, mean(name, key)?.max(0.0)))).collect();
    let ring = steps.iter().find(|step| step.0 == "Ring").map_or(0.0, |step| step.1);
    if let Some(net) = steps.iter_mut().find(|step| step.0 == "Net") {
        net.1 = (net.1 - ring).max(0.0);
    }
    (!steps.is_empty()).then_some(Bar { name, steps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tthoma::analyze::Unit;

    #[test]
    fn steps_add_up_and_the_ring_is_not_counted_twice() {
        let mut phases =
            Table::new("phases", "").column("Group", Unit::None, "").column("Phase", Unit::None, "").distribution();
        for (phase, us) in [("Xmit", 1.0), ("Net", 6.0), ("Ring", 2.0), ("SoftIRQ", 3.0), ("Total", 10.0)] {
            let cells = ["Grants".into(), phase.into()].into_iter().chain([1i64.into()]).chain([us; 7].map(Into::into));
            phases.row(cells);
        }
        let mut slow = Table::new("breakdown", "").column("Group", Unit::None, "").column("Packets", Unit::None, "");
        for key in ["xmit", "net", "ring", "softirq"] {
            slow = slow.column("Avg", Unit::Us, "").key(&format!("{key}_avg"));
        }
        slow.row(["Grants".into(), 1i64.into(), 0.0.into(), 18.0.into(), 2.0.into(), 4.0.into()]);
        let report = Report::of([phases, slow]);
        let all = bars(&report);
        assert_eq!(
            all[0],
            Bar {
                name: "Grants, all".to_owned(),
                steps: vec![("Xmit", 1.0), ("Net", 4.0), ("Ring", 2.0), ("SoftIRQ", 3.0)]
            }
        );
        assert_eq!(all[1].steps, [("Xmit", 0.0), ("Net", 16.0), ("Ring", 2.0), ("SoftIRQ", 4.0)]);
        let html = html(&report);
        assert!(html.contains("10.0 us: Xmit 1.0, Net 4.0, Ring 2.0, SoftIRQ 3.0"), "{html}");
        assert!(html.contains("22.0 us: Net 16.0, ") && html.contains("style=\"width:72.73%\""), "{html}");
    }
}
