//! From an experiment to its points: every combination of what varies, with every seed. A point's identity is a hash of
//! everything that its result depends on, the simulator's version included.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::file::{File, Measure, Search, Steps, Times, Vary};
use super::{study, testbeds};
use crate::cli::TestbedKind;
use crate::report::slowdown::Definition;
use crate::sim::spec::SimSpec;

/// Format version of plans, points and results.
pub const VERSION: u32 = 1;
/// Not a parameter, but a case's name for people.
pub const CASE: &str = "case";
/// More points than this are a mistake in a file.
const MOST_POINTS: usize = 100_000;

/// What is to be measured at a point, whole: `spec.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointSpec {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the simulator that it is for.
    pub simulator: String,
    /// What is done.
    pub measure: Measure,
    /// Of a search.
    pub search: Search,
    /// Of steps.
    pub steps: Steps,
    /// The figure that both look at.
    pub metric: String,
    /// Where it is measured.
    #[serde(default = "sim", skip_serializing_if = "is_sim")]
    pub testbed: TestbedKind,
    /// What slowdowns are relative to.
    pub slowdown: Definition,
    /// The measurement.
    pub sim: SimSpec,
}

/// A point of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Identity: 16 hexadecimal digits.
    pub id: String,
    /// Values of what varies here, in the order of the file.
    pub varied: Vec<(String, Value)>,
    /// What is measured.
    pub spec: PointSpec,
}

/// Everything that an experiment measures: `plan.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`VERSION`].
    pub version: u32,
    /// The experiment, with what the command line set.
    pub file: File,
    /// Points; those that differ only in their seeds follow each other.
    pub points: Vec<Point>,
}

impl Plan {
    /// Works out the points of `file`, with the parameters `set` in place of what the file says about them.
    ///
    /// # Errors
    /// A parameter or value that does not exist, or a combination that cannot be.
    pub fn new(file: File, set: &[(String, Value)]) -> Result<Self, String> {
        Self::on(TestbedKind::Sim, file, set)
    }

    /// The same on a testbed.
    ///
    /// # Errors
    /// As [`Self::new`], and what this testbed cannot do, with those that can.
    pub fn on(testbed: TestbedKind, file: File, set: &[(String, Value)]) -> Result<Self, String> {
        let mut file = testbeds::adapted(file, testbed)?;
        for case in file.vary.iter_mut().flat_map(|vary| &mut vary.cases) {
            *case = flat(case).into_iter().collect();
        }
        for (name, value) in set {
            for vary in &mut file.vary {
                replace(vary, name);
            }
            file.vary.retain(|vary| vary.parameter.is_some() || vary.cases.iter().any(|case| !case.is_empty()));
            insert(&mut file.fixed, name, value.clone());
        }
        let mut base = SimSpec::default();
        for (name, value) in flat(&file.fixed) {
            base = base.with(&name, &value).map_err(|err| format!("[fixed] {err}"))?;
        }
        let study = file.measure == Measure::Sigcomm18;
        if study && file.slowdown != Definition::Atc21 {
            return Err("slowdown: the study has a definition of its own; leave it out".to_owned());
        }
        let mut points = Vec::new();
        for varied in combinations(&file.vary)? {
            let mut sim = base.clone();
            for (name, value) in varied.iter().filter(|(name, _)| name != CASE) {
                sim = sim.with(name, value).map_err(|err| format!("[[vary]] {err}"))?;
            }
            times(&file, &varied, &mut sim);
            for &seed in &file.seeds {
                let sim = SimSpec { seed, ..sim.clone() };
                let sim = if study { study::resolved(&sim) } else { sim.resolved() };
                let possible = sim.and_then(|sim| testbeds::check(&sim, testbed).map(|()| sim));
                let sim = possible.map_err(|err| format!("{}: {err}", describe(&varied)))?;
                let spec = PointSpec {
                    version: VERSION,
                    simulator: testbeds::version(testbed),
                    measure: file.measure,
                    search: file.search,
                    steps: file.steps.clone(),
                    metric: file.metric.clone(),
                    testbed,
                    slowdown: file.slowdown,
                    sim,
                };
                points.push(Point { id: spec.id(), varied: varied.clone(), spec });
            }
        }
        Ok(Self { version: VERSION, file, points })
    }

    /// Points that differ only in their seeds, together.
    pub fn groups(&self) -> impl Iterator<Item = &[Point]> {
        self.points.chunk_by(|a, b| a.varied == b.varied)
    }
}

impl PointSpec {
    /// Identity of what it measures. What a point does not look at (a search's limit, where nothing is searched for) has
    /// no part in it.
    pub fn id(&self) -> String {
        let mut spec = self.clone();
        if spec.measure != Measure::BufferSearch {
            spec.search = Search::default();
        }
        if spec.measure != Measure::BufferSteps {
            spec.steps = Steps::default();
        }
        if matches!(spec.measure, Measure::Run | Measure::Sigcomm18) {
            spec.metric.clear();
        }
        hash(&serde_json::to_string(&spec).expect("strings, numbers and lists only"))
    }
}

/// Sets the times that the file has for this workload and load, where it does not set them as parameters.
fn times(file: &File, varied: &[(String, Value)], sim: &mut SimSpec) {
    let is_for = |times: &&Times| times.workload == sim.workload && (times.load.is_none() || times.load == sim.load);
    let Some(times) = file.times.iter().find(is_for) else { return };
    let said = |name: &str| file.fixed.contains_key(name) || varied.iter().any(|(known, _)| known == name);
    if !said("warmup_s") {
        sim.warmup_s = times.warmup_ms / 1e3;
    }
    if !said("measure_s") {
        sim.measure_s = times.measure_ms / 1e3;
    }
}

fn sim() -> TestbedKind {
    TestbedKind::Sim
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_sim(testbed: &TestbedKind) -> bool {
    *testbed == TestbedKind::Sim
}

/// 16 hexadecimal digits for a text.
pub fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `nodes = 20, protocol = homa`, for people.
pub fn describe(varied: &[(String, Value)]) -> String {
    let show = |(name, value): &(String, Value)| format!("{name} = {}", text(value));
    if varied.is_empty() { "the only point".to_owned() } else { varied.iter().map(show).collect::<Vec<_>>().join(", ") }
}

/// A value without the quotes of JSON.
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Takes `name` out of what varies: it is set for all points.
fn replace(vary: &mut Vary, name: &str) {
    if vary.parameter.as_deref() == Some(name) {
        *vary = Vary::default();
        return;
    }
    let mut kept: Vec<Map<String, Value>> = Vec::new();
    for mut case in std::mem::take(&mut vary.cases) {
        case.remove(name);
        if !kept.contains(&case) {
            kept.push(case);
        }
    }
    vary.cases = kept;
}

/// Sets `name` in the fixed parameters; `homa.window` is `window` in the table `homa`.
fn insert(fixed: &mut Map<String, Value>, name: &str, value: Value) {
    // The other kind of load goes.
    match name {
        "gbps" => drop(fixed.remove("load")),
        "load" => drop(fixed.remove("gbps")),
        _ => {}
    }
    let table =
        ["homa", "node"].into_iter().find_map(|table| Some((table, name.strip_prefix(table)?.strip_prefix('.')?)));
    match table {
        Some((table, parameter)) => {
            let table = fixed.entry(table).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(table) = table {
                table.insert(parameter.to_owned(), value);
            }
        }
        None => drop(fixed.insert(name.to_owned(), value)),
    }
}

/// Parameters of a table, those of its tables as `homa.NAME` and `node.NAME`.
fn flat(table: &Map<String, Value>) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (name, value) in table {
        match value {
            Value::Object(inner) => {
                all.extend(inner.iter().map(|(key, value)| (format!("{name}.{key}"), value.clone())))
            }
            _ => all.push((name.clone(), value.clone())),
        }
    }
    all
}

/// All combinations; the last dimension changes fastest.
fn combinations(vary: &[Vary]) -> Result<Vec<Vec<(String, Value)>>, String> {
    let mut all = vec![Vec::new()];
    for vary in vary {
        let cases: Vec<Vec<(String, Value)>> = match &vary.parameter {
            Some(name) => vary.values.iter().map(|value| vec![(name.clone(), value.clone())]).collect(),
            None => vary.cases.iter().map(flat).collect(),
        };
        if all.len() * cases.len() > MOST_POINTS {
            return Err(format!("[[vary]]: more than {MOST_POINTS} combinations"));
        }
        let extend = |before: &Vec<(String, Value)>| {
            let before = before.clone();
            cases.iter().map(move |case| before.iter().chain(case).cloned().collect()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(extend).collect();
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TEXT: &str = "
        name = 'x'
        title = 'An x'
        seeds = [1, 2]
        [fixed]
        nodes = 4
        homa.window = 9000
        [[vary]]
        parameter = 'protocol'
        values = ['homa', 'tcp']
        [[vary]]
        cases = [{ workload = 'w3', gbps = 14 }, { workload = 'w4', gbps = 20 }]
    ";

    fn plan(set: &[(&str, Value)]) -> Plan {
        let set: Vec<_> = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Plan::new(File::parse(TEXT).unwrap(), &set).unwrap()
    }

    #[test]
    fn points_are_all_combinations_with_all_seeds() {
        let plan = plan(&[]);
        assert_eq!((plan.points.len(), plan.groups().count()), (8, 4));
        let last = &plan.points[7];
        assert_eq!(describe(&last.varied), "protocol = tcp, gbps = 20, workload = w4");
        assert_eq!((last.spec.sim.nodes, last.spec.sim.seed, last.spec.sim.gbps), (4, 2, Some(20.0)));
        assert_eq!(plan.points[0].spec.sim.homa["window"], 9000);
        let ids: std::collections::BTreeSet<_> = plan.points.iter().map(|point| &point.id).collect();
        assert_eq!(ids.len(), 8, "no two are the same");
    }

    #[test]
    fn what_the_command_line_sets_does_not_vary() {
        let plan = plan(&[("protocol", json!("dctcp")), ("gbps", json!(1)), ("homa.window", json!(1))]);
        assert_eq!(plan.points.len(), 4, "two workloads, two seeds");
        assert!(plan.points.iter().all(|point| point.spec.sim.gbps == Some(1.0)));
        let one = self::plan(&[("workload", json!("w4")), ("gbps", json!(1))]);
        assert_eq!((one.points.len(), one.file.vary.len()), (4, 1));
        assert_eq!(one.groups().count(), 2, "cases that have become equal are one");
    }

    #[test]
    fn times_are_by_workload_and_load_where_they_are_not_set() {
        let rows = "times = [
            {workload = 'w4', load = 0.5, warmup_ms = 1, measure_ms = 2},
            {workload = 'w4', warmup_ms = 3, measure_ms = 4},
        ]\n";
        let at = |load: f64, set: &[(String, Value)]| {
            let text = TEXT.replace("gbps = 20", &format!("load = {load}"));
            let sim =
                Plan::new(File::parse(&format!("{rows}{text}")).unwrap(), set).unwrap().points[2].spec.sim.clone();
            (sim.warmup_s, sim.measure_s)
        };
        assert_eq!((at(0.5, &[]), at(0.8, &[])), ((0.001, 0.002), (0.003, 0.004)));
        assert_eq!(at(0.5, &[("measure_s".to_owned(), json!(7))]), (0.001, 7.0));
    }

    #[test]
    fn a_points_identity_is_what_its_result_depends_on() {
        let id = |set: &[(&str, Value)]| plan(set).points[0].id.clone();
        assert_eq!(id(&[]), id(&[("nodes", json!(4))]), "said in another way");
        assert_ne!(id(&[]), id(&[("nodes", json!(5))]));
        let mut spec = plan(&[]).points[0].spec.clone();
        let before = spec.id();
        spec.search.limit = 1.2;
        spec.metric = "slowdown_p99".into();
        assert_eq!(spec.id(), before, "nothing is searched for");
        spec.simulator = "another".into();
        assert_ne!(spec.id(), before);
    }

    #[test]
    fn wrong_parameters_say_where_they_stand() {
        for (from, to, part) in [
            ("nodes = 4", "node = 4", "[fixed] no parameter `node`; did you mean `nodes`"),
            ("parameter = 'protocol'", "parameter = 'protocl'", "[[vary]] no parameter `protocl`"),
            ("'homa', 'tcp'", "'homa', 'tpc'", "unknown variant `tpc`"),
            ("homa.window = 9000", "homa.windw = 9000", "did you mean `window`"),
            ("gbps = 14", "gbps = -1", "gbps = -1, workload = w3: gbps is -1"),
        ] {
            let file = File::parse(&TEXT.replace(from, to)).unwrap();
            let error = Plan::new(file, &[]).unwrap_err();
            assert!(error.contains(part), "{to}: {error}");
        }
    }
}
