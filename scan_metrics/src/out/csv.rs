//! A line a finding, for spreadsheets and data frames.

use crate::scan::Scan;

/// All findings, worst first, with a head line.
pub fn csv(scan: &Scan) -> String {
    let mut out = String::from(
        "rank,level,tests,class,metric,run,experiment,node,core,value,reference,unit,whom,z,ratio,false_alarms,by_load,what,cause,next\n",
    );
    for (rank, finding) in (1..).zip(&scan.findings) {
        let number = |value: Option<f64>| value.map(|value| format!("{value:.6e}")).unwrap_or_default();
        let whole = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
        let cells = [
            format!("{rank}"),
            finding.level.name().to_owned(),
            finding.letters(),
            finding.class.name().to_owned(),
            quoted(&finding.metric),
            quoted(&finding.run),
            quoted(&finding.experiment),
            whole(finding.node),
            whole(finding.core),
            number(finding.value),
            number(finding.reference),
            finding.unit.to_owned(),
            quoted(&finding.whom),
            number(finding.z),
            number(finding.ratio),
            number(finding.false_alarms),
            finding.by_load.to_string(),
            quoted(&finding.what),
            quoted(&finding.cause),
            quoted(&finding.next),
        ];
        out += &cells.join(",");
        out.push('\n');
    }
    out
}

/// In quotes where commas, quotes or line ends need them.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn texts_with_commas_and_quotes_stay_one_cell() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("a, \"b\""), "\"a, \"\"b\"\"\"");
    }
}
