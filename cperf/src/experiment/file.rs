//! Experiment files: TOML that people write. What each key means is said in the files that come with cperf.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::TestbedKind;
use crate::report::slowdown::Definition;

/// An experiment as its file has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Names its directory and files: letters, digits, `-` and `_`.
    pub name: String,
    /// One line.
    pub title: String,
    /// Where it comes from and what is to be seen.
    #[serde(default)]
    pub about: String,
    /// What is done at each point.
    #[serde(default)]
    pub measure: Measure,
    /// The figure that searches and plots are about: a column of results.csv.
    #[serde(default = "slowdown_mean")]
    pub metric: String,
    /// Further figures worth a plot and a column of the report.
    #[serde(default)]
    pub figures: Vec<String>,
    /// Where it can be run; default: everywhere.
    #[serde(default = "everywhere")]
    pub testbeds: Vec<TestbedKind>,
    /// What slowdowns are relative to.
    #[serde(default = "atc21")]
    pub slowdown: Definition,
    /// Each point is measured once with each.
    pub seeds: Vec<u64>,
    /// Parameters that are the same at all points.
    #[serde(default)]
    pub fixed: Map<String, Value>,
    /// On network namespaces, parameters instead of those that describe a cluster in `fixed`; a list replaces the values of
    /// what varies.
    #[serde(default)]
    pub netns: Map<String, Value>,
    /// What varies: points are all combinations.
    #[serde(default)]
    pub vary: Vec<Vary>,
    /// Warm-up and measured interval by workload and load; `warmup_s` and `measure_s`, where they are set, go before.
    #[serde(default)]
    pub times: Vec<Times>,
    /// measure = "buffer-search".
    #[serde(default)]
    pub search: Search,
    /// measure = "buffer-steps".
    #[serde(default)]
    pub steps: Steps,
    /// Names the figures to compare with; default: `name`.
    #[serde(default)]
    pub published: Option<String>,
    /// Which parameter is along the plot's x axis; default: the last that varies with more than one number.
    #[serde(default)]
    pub x: Option<String>,
}

/// What is done at a point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// One measurement.
    #[default]
    Run,
    /// One, and then others with less and less switch memory, in steps of what the first used.
    BufferSteps,
    /// One, and then a search for the least switch memory with which the metric is hardly worse.
    BufferSearch,
    /// The study of SIGCOMM 2018, with its network, messages and definition of slowdown.
    Sigcomm18,
}

/// How long points with a workload are measured, in virtual time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// The points' workload.
    pub workload: String,
    /// The points' load; without it, all loads that no row before this one is for.
    pub load: Option<f64>,
    /// Time under load before measuring starts, ms.
    pub warmup_ms: f64,
    /// Measured interval, ms.
    pub measure_ms: f64,
}

/// A dimension: one parameter's values, or cases that set several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vary {
    /// A parameter.
    pub parameter: Option<String>,
    /// Its values.
    pub values: Vec<Value>,
    /// Instead of both: parameters that change together.
    pub cases: Vec<Map<String, Value>>,
}

/// The search for the least switch memory. Source: cperf.md 3.12.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Search {
    /// The metric may be this times that with all memory.
    pub limit: f64,
    /// The search ends when its bracket is this share of its upper end.
    pub bracket: f64,
    /// No search if less than this was used, as time on all links to hosts together: the least is 0 then.
    pub least_us: f64,
}

impl Default for Search {
    fn default() -> Self {
        Self { limit: 1.1, bracket: 0.1, least_us: 5.0 }
    }
}

/// Steps of switch memory. Source: cperf.md 3.12.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Steps {
    /// Percent of what was used with all memory.
    pub percent: Vec<f64>,
    /// No further steps once the metric is more than this times that with all memory.
    pub stop_at: f64,
}

impl Default for Steps {
    fn default() -> Self {
        let percent = vec![90.0, 80.0, 70.0, 60.0, 50.0, 40.0, 30.0, 25.0, 20.0, 15.0, 10.0];
        Self { percent, stop_at: 5.0 }
    }
}

fn everywhere() -> Vec<TestbedKind> {
    vec![TestbedKind::Sim, TestbedKind::Netns, TestbedKind::Ssh]
}

fn slowdown_mean() -> String {
    "slowdown_mean".to_owned()
}

fn atc21() -> Definition {
    Definition::Atc21
}

impl File {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong, with its line where TOML knows it; unknown keys with those that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|err| err.to_string().trim_end().to_owned())?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), String> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || !self.name.chars().all(word) {
            return Err(format!("name `{}`: letters, digits, - and _ make a name", self.name));
        }
        if self.seeds.is_empty() {
            return Err("seeds: at least one is needed, like seeds = [1, 2, 3]".to_owned());
        }
        for (at, seed) in self.seeds.iter().enumerate() {
            if self.seeds[..at].contains(seed) {
                return Err(format!("seeds: {seed} stands there twice, which tells nothing new"));
            }
        }
        for vary in &self.vary {
            let simple = vary.parameter.is_some() && !vary.values.is_empty() && vary.cases.is_empty();
            let cases = vary.parameter.is_none() && vary.values.is_empty() && !vary.cases.is_empty();
            if !simple && !cases {
                return Err(
                    "[[vary]]: either parameter = \"NAME\" and values = [...], or cases = [{...}, ...]".to_owned()
                );
            }
        }
        let wrong = |times: &&Times| !(times.warmup_ms >= 0.0 && times.measure_ms > 0.0);
        if let Some(Times { workload, warmup_ms, measure_ms, .. }) = self.times.iter().find(wrong) {
            return Err(format!(
                "times of {workload}: warmup_ms is {warmup_ms}, 0 or more is possible; measure_ms is {measure_ms}, more than 0"
            ));
        }
        let Search { limit, bracket, least_us } = self.search;
        if !(limit > 1.0 && limit.is_finite() && bracket > 0.0 && bracket < 1.0 && least_us >= 0.0) {
            return Err("[search]: limit is above 1, bracket above 0 and below 1, least_us 0 or more".to_owned());
        }
        let percents = &self.steps.percent;
        if percents.is_empty() || percents.iter().any(|percent| !(*percent > 0.0 && *percent <= 100.0)) {
            return Err("[steps]: percent is a list of numbers above 0, up to 100".to_owned());
        }
        if self.testbeds.is_empty() {
            return Err("testbeds: name at least one of sim, netns and ssh".to_owned());
        }
        self.figures.iter().chain([&self.metric]).try_for_each(|name| super::columns::metric(name).map(drop))
    }

    /// The name by which published figures know it.
    pub fn published(&self) -> &str {
        self.published.as_deref().unwrap_or(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "name = 'x'\ntitle = 'An x'\nseeds = [1]\n";

    #[test]
    fn a_small_file_has_defaults_for_the_rest() {
        let file = File::parse(SMALL).unwrap();
        assert_eq!((file.measure, file.metric.as_str()), (Measure::Run, "slowdown_mean"));
        assert_eq!((file.search.limit, file.steps.percent.len()), (1.1, 11));
        let text =
            format!("{SMALL}[fixed]\nnodes = 4\nhoma.window = 0\n[[vary]]\nparameter = 'gbps'\nvalues = [1, 2.5]");
        let file = File::parse(&text).unwrap();
        assert_eq!(file.fixed["homa"]["window"], 0);
        assert_eq!(file.vary[0].values[1], 2.5);
    }

    #[test]
    fn mistakes_are_located_and_explained() {
        for (text, part) in [
            ("name = 'x'\ntitle = 'y'\n", "missing field `seeds`"),
            ("name = 'x'\ntitle = 'y'\nseeds = []", "at least one"),
            ("name = 'x'\ntitle = 'y'\nseeds = [1, 1]", "twice"),
            ("name = 'x y'\ntitle = 'y'\nseeds = [1]", "name `x y`"),
            ("name = 'x'\ntitle = 'y'\nseeds = [1]\nseconds = 5", "line 4"),
            ("name = 'x'\ntitle = 'y'\nseeds = [1]\nseconds = 5", "unknown field `seconds`"),
            ("name = 'x'\ntitle = 'y'\nseeds = [1]\nmetric = 'slowdwn_mean'", "did you mean `slowdown_mean`"),
            ("name = 'x'\ntitle = 'y'\nseeds = [1]\nfigures = ['client_krp']", "did you mean `client_krps`"),
            ("name = 'x'\ntitle = 'y'\nseeds = [1]\ntestbeds = []", "at least one of sim"),
            ("name = 'x'\ntitle = 'y'\nseeds = [1]\nmeasure = 'serach'", "unknown variant `serach`"),
            ("name = 'x'\ntitle = 'y'\nseeds = [1]\n[[vary]]\nparameter = 'gbps'", "[[vary]]: either"),
            ("name = 'x'\ntitle = 'y'\nseeds = [1]\n[search]\nlimit = 0.9", "limit is above 1"),
            (
                "name = 'x'\ntitle = 'y'\nseeds = [1]\ntimes = [{workload = 'w1', warmup_ms = 1, measure_ms = 0}]",
                "times of w1: warmup_ms is 1",
            ),
            ("name = 'x'\ntitle = 'y'\nseeds = [1]\n[steps]\npercent = [0]", "[steps]"),
        ] {
            let error = File::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
