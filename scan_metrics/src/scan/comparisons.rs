//! All comparisons of a scan: how likely each is by chance, and what would be said of it if it is believed.

use super::control::RATE;
use super::finding::Finding;
use super::stats::adjusted;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Comparisons {
    p: Vec<f64>,
    suspected: Vec<(usize, Finding)>,
    certain: Vec<Finding>,
}

impl Comparisons {
    /// Counts a comparison with this chance; its number.
    pub fn count(&mut self, p: f64) -> usize {
        self.p.push(p);
        self.p.len() - 1
    }

    /// What is found if comparison `number` is believed.
    pub fn suspect(&mut self, number: usize, finding: Finding) {
        self.suspected.push((number, finding));
    }

    /// A finding that chance has no part in.
    pub fn certain(&mut self, finding: Finding) {
        self.certain.push(finding);
    }

    /// Adds those of another part of the scan.
    pub fn merge(&mut self, other: Self) {
        let offset = self.p.len();
        self.p.extend(other.p);
        self.suspected.extend(other.suspected.into_iter().map(|(number, finding)| (number + offset, finding)));
        self.certain.extend(other.certain);
    }

    /// How many comparisons there were.
    pub fn len(&self) -> usize {
        self.p.len()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.p.is_empty()
    }

    /// What is believed, strongest first.
    pub fn findings(self) -> Vec<Finding> {
        let adjusted = adjusted(&self.p);
        let believed = self.suspected.into_iter().filter(|(number, _)| adjusted[*number] <= RATE);
        let believed = believed.map(|(number, mut finding)| {
            finding.false_alarms = Some(adjusted[number]);
            // Above counts that chance has no part in, below what contradicts itself by much.
            finding.strength = 40.0 - adjusted[number].max(1e-300).log10();
            finding
        });
        let mut all: Vec<_> = self.certain.into_iter().chain(believed).collect();
        let size = |finding: &Finding| finding.ratio.map_or(0.0, |ratio| ratio.max(1e-9).ln().abs());
        all.sort_by(|a, b| {
            (b.level, b.strength).partial_cmp(&(a.level, a.strength)).expect("no NaN").then(size(b).total_cmp(&size(a)))
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::catalogue::Class;
    use crate::scan::finding::{Level, Place, Test};

    #[test]
    fn what_is_likely_by_chance_is_not_believed_and_the_rest_is_in_order() {
        let finding =
            |name: &str, level| Finding::plain(level, Test::Z, name, Class::Cpu, &Place::default(), String::new());
        let mut all = Comparisons::default();
        // 1000 comparisons: 1e-4 is to be expected among them, 1e-8 is not.
        for index in 0..1000 {
            let p = match index {
                3 => 1e-4,
                5 => 1e-8,
                7 => 1e-12,
                _ => f64::from(index + 1) / 1001.0,
            };
            let number = all.count(p);
            if p <= 1e-4 {
                all.suspect(number, finding(&format!("p{index}"), Level::Warn));
            }
        }
        let mut other = Comparisons::default();
        other.certain(finding("fatal", Level::Fatal));
        all.merge(other);
        assert_eq!(all.len(), 1000);
        let found = all.findings();
        let names: Vec<_> = found.iter().map(|finding| finding.metric.as_str()).collect();
        assert_eq!(names, ["fatal", "p7", "p5"]);
        assert!(found[2].false_alarms.unwrap() <= RATE);
    }
}
