//! The account of an experiment on nodes that can fail: `manifest.json` of its directory. It states the policy, tells of
//! each point what became of it and of each attempt that failed when, why and where its files are, and has the checksums
//! of all files but those of the runs, which have manifests of their own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::document::Part;
use super::plan::{Plan, Point, describe};
use super::{engine, point, write};
use crate::error::Stop;
use crate::manifest::{About, FileFacts, file_facts};
use crate::outdir::OutDir;
use crate::policy::{Attempt, Policy, State, note};

/// Format version of the account.
const VERSION: u32 = 1;
/// Its file.
const NAME: &str = "manifest.json";
/// What a measurement leaves in the directory of its point, and what of it goes aside when it has failed.
const LEFT: [&str; 3] = ["run", "run.log", "run.txt"];

/// What is known of an experiment's measurements.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    /// Of the format.
    pub version: u32,
    /// Program and version.
    pub tool: String,
    /// Commit that the program was built from, if it was built in a checkout.
    pub git_revision: Option<String>,
    /// When, where and how it was called last.
    #[serde(flatten)]
    pub about: About,
    /// `running`, `complete`, `incomplete`, `interrupted`, `failed`.
    pub status: String,
    /// What was done about points that failed.
    pub policy: Policy,
    /// The same in words.
    pub policy_text: String,
    /// Points in the order of the plan.
    pub points: Vec<PointAccount>,
    /// What there is, except this file and the runs, of which only the manifests are listed.
    pub files: Vec<FileFacts>,
}

/// What became of a point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PointAccount {
    /// Its identity.
    pub id: String,
    /// What varies there.
    pub what: String,
    /// Of its messages.
    pub seed: u64,
    /// What became of it.
    pub state: State,
    /// Attempts that failed, of all calls.
    pub attempts: Vec<Attempt>,
}

impl Account {
    /// At the begin of a call, with what earlier ones have noted in `out`.
    pub fn begin(plan: &Plan, out: &Path, policy: Policy) -> Self {
        let before = Self::load(out);
        let of = |point: &Point| {
            let known = before.iter().flat_map(|account| &account.points).find(|known| known.id == point.id);
            let measured = point::load(&engine::dir(out, &point.id), &point.id).is_some();
            PointAccount {
                id: point.id.clone(),
                what: describe(&point.varied),
                seed: point.spec.sim.seed,
                state: if measured { State::Measured } else { State::Open },
                attempts: known.map(|known| known.attempts.clone()).unwrap_or_default(),
            }
        };
        Self {
            version: VERSION,
            tool: concat!("cperf ", env!("CARGO_PKG_VERSION")).to_owned(),
            git_revision: option_env!("CPERF_GIT_REVISION").map(str::to_owned),
            about: About::now(std::env::args().collect()),
            status: "running".to_owned(),
            policy,
            policy_text: policy.text(),
            points: plan.points.iter().map(of).collect(),
            files: Vec::new(),
        }
    }

    /// That of the experiment in `out`, if it has one.
    pub fn load(out: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(out.join(NAME)).ok()?).ok()
    }

    /// Writes it.
    ///
    /// # Errors
    /// As writing a file.
    pub fn write(&self, out: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(self).expect("strings and numbers only");
        text.push(b'\n');
        write(&out.join(NAME), &text)
    }

    /// Notes what became of a point.
    pub fn set(&mut self, id: &str, state: State) {
        self.points.iter_mut().filter(|point| point.id == id).for_each(|point| point.state = state);
    }

    /// Notes an attempt that failed.
    pub fn failed(&mut self, id: &str, attempt: &Attempt) {
        let points = self.points.iter_mut().filter(|point| point.id == id);
        points.for_each(|point| note(&mut point.attempts, attempt.clone()));
    }

    /// Notes how the call ended.
    pub fn end(&mut self, outcome: &anyhow::Result<()>) {
        let stop = outcome.as_ref().err().map(|err| err.downcast_ref::<Stop>());
        self.status = match stop {
            None => "complete",
            Some(Some(Stop::Incomplete(_))) => "incomplete",
            Some(Some(Stop::Interrupted)) => "interrupted",
            Some(_) => "failed",
        }
        .to_owned();
        self.about.end();
    }

    /// Lists the files that there are, and writes it.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn close(&mut self, out: &Path) -> anyhow::Result<()> {
        let of_run = |name: &Path| {
            let mut parts = name.components().rev();
            let last = parts.next().is_some_and(|last| last.as_os_str() == NAME);
            let inside = name.components().any(|part| part.as_os_str() == "run");
            inside && !(last && parts.next().is_some_and(|dir| dir.as_os_str() == "run"))
        };
        let all = OutDir::open(out)?.files().with_context(|| format!("listing {}", out.display()))?;
        let listed = all.into_iter().filter(|name| name != Path::new(NAME) && !of_run(name));
        let files = listed.map(|name| file_facts(out, &name)).collect::<std::io::Result<_>>();
        self.files = files.context("reading the files of the experiment")?;
        self.write(out)
    }

    /// Points that were left out.
    pub fn left_out(&self) -> usize {
        self.points.iter().filter(|point| point.state == State::LeftOut).count()
    }

    /// For the report.
    pub(super) fn parts(&self) -> Vec<Part> {
        let failed: Vec<_> = self.points.iter().filter(|point| !point.attempts.is_empty()).collect();
        let (all, left_out) = (self.points.len(), self.left_out());
        let mut text = format!("Policy: {}.", self.policy_text);
        if failed.is_empty() {
            return vec![Part::Text(format!("{text} None has failed."))];
        }
        let recovered = failed.iter().filter(|point| point.state == State::Measured).count();
        text += &format!(
            " Of {all} points {} failed at least once: {recovered} of these were measured all the same, {left_out} were left \
             out.",
            failed.len()
        );
        if recovered < failed.len() {
            text += " The same command again tries those without a result again.";
        }
        let names = ["point", "seed", "now", "at", "after, s", "times", "exit code", "why", "files"].map(str::to_owned);
        let rows = failed.iter().flat_map(|point| point.attempts.iter().map(|attempt| row(point, attempt)));
        let heading = Part::Heading("Points that failed".to_owned());
        vec![heading, Part::Text(text), Part::Table(names.to_vec(), rows.collect())]
    }
}

fn row(point: &PointAccount, attempt: &Attempt) -> Vec<String> {
    let state = match point.state {
        State::Open => "no result",
        State::Measured => "measured",
        State::LeftOut => "left out",
    };
    vec![
        point.what.clone(),
        point.seed.to_string(),
        state.to_owned(),
        attempt.started.clone(),
        format!("{:.1}", attempt.elapsed_s),
        attempt.times.to_string(),
        attempt.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string()),
        attempt.reason.split_whitespace().collect::<Vec<_>>().join(" "),
        attempt.files.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

/// Puts what a run of the point in `dir` has left, if there was one, where no other one will write: what was measured is
/// kept. (What could not begin has said why, and nothing else.) Returns the place, below `out`.
///
/// # Errors
/// As making directories and renaming.
pub(super) fn set_aside(out: &Path, dir: &Path) -> anyhow::Result<Option<String>> {
    let runs = dir.join("runs");
    if !runs.join(LEFT[0]).exists() {
        return Ok(None);
    }
    let places = (1..).map(|number: u32| dir.join("failed").join(number.to_string()));
    let place: PathBuf = places.into_iter().find(|place| !place.exists()).expect("numbers do not end");
    let moved = || {
        fs::create_dir_all(&place)?;
        let left = LEFT.iter().filter(|name| runs.join(name).exists());
        left.into_iter().try_for_each(|name| fs::rename(runs.join(name), place.join(name)))
    };
    moved().with_context(|| format!("moving {} to {}", runs.display(), place.display()))?;
    Ok(Some(place.strip_prefix(out).unwrap_or(&place).display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::file::File;
    use super::*;
    use crate::cli::OnFailure;
    use std::time::Duration;

    const POLICY: Policy = Policy { retry: 1, on_failure: OnFailure::LeaveOut, wait_nodes_s: 5.0 };

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("cperf-account-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn plan() -> Plan {
        let text = "name = 'x'\ntitle = 'X'\nseeds = [1]\n[[vary]]\nparameter = 'nodes'\nvalues = [2, 3, 4]";
        Plan::new(File::parse(text).unwrap(), &[]).unwrap()
    }

    fn attempt() -> Attempt {
        let err = anyhow::anyhow!("node 2: its link\nis down");
        Attempt::failed("12:00".into(), Duration::from_secs(3), &err, Some("points/a/failed/1".into()))
    }

    #[test]
    fn attempts_of_earlier_calls_are_known_and_points_without_a_result_open_again() {
        let (out, plan) = (scratch("calls"), plan());
        let mut first = Account::begin(&plan, &out, POLICY);
        first.failed(&plan.points[1].id, &attempt());
        first.set(&plan.points[1].id, State::LeftOut);
        first.end(&Err(Stop::Incomplete("one".into()).into()));
        first.close(&out).unwrap();
        assert_eq!((first.left_out(), first.status.as_str()), (1, "incomplete"));
        let second = Account::begin(&plan, &out, Policy { retry: 0, ..POLICY });
        assert_eq!(second.points[1].attempts, [attempt()]);
        assert_eq!((second.points[1].state, second.policy.retry), (State::Open, 0));
        fs::remove_dir_all(out).unwrap();
    }

    #[test]
    fn the_report_states_the_policy_and_tells_each_attempt() {
        let (out, plan) = (scratch("parts"), plan());
        let mut account = Account::begin(&plan, &out, POLICY);
        assert!(matches!(&account.parts()[..], [Part::Text(text)] if text.ends_with("None has failed.")));
        for (at, state) in [(0, State::Measured), (2, State::LeftOut)] {
            account.failed(&plan.points[at].id, &attempt());
            account.set(&plan.points[at].id, state);
        }
        let [Part::Heading(_), Part::Text(text), Part::Table(names, rows)] = &account.parts()[..] else {
            panic!("{:?}", account.parts())
        };
        assert!(
            text.contains("Of 3 points 2 failed at least once: 1 of these were measured all the same, 1 were left")
        );
        assert!(rows.len() == 2 && rows.iter().all(|row| row.len() == names.len()), "{rows:?}");
        assert!(
            rows[1].contains(&"nodes = 4".into()) && rows[1].contains(&"node 2: its link is down".into()),
            "{rows:?}"
        );
        fs::remove_dir_all(out).unwrap();
    }

    #[test]
    fn what_a_failed_attempt_left_is_kept_in_a_place_of_its_own() {
        let out = scratch("aside");
        let dir = out.join("points/a");
        assert_eq!(set_aside(&out, &dir).unwrap(), None);
        for number in 1..3 {
            fs::create_dir_all(dir.join("runs/run")).unwrap();
            fs::write(dir.join("runs/run/tcp_w2-0.rtts"), number.to_string()).unwrap();
            fs::write(dir.join("runs/run.log"), "why").unwrap();
            assert_eq!(set_aside(&out, &dir).unwrap(), Some(format!("points/a/failed/{number}")));
        }
        assert_eq!(fs::read_to_string(dir.join("failed/2/run/tcp_w2-0.rtts")).unwrap(), "2");
        assert!(dir.join("failed/1/run.log").exists() && !dir.join("runs/run.log").exists());
        fs::remove_dir_all(out).unwrap();
    }

    #[test]
    fn files_are_listed_with_checksums_and_runs_by_their_manifests() {
        let (out, plan) = (scratch("files"), plan());
        let run = out.join("points/a/runs/run");
        fs::create_dir_all(run.join("traces")).unwrap();
        for name in ["manifest.json", "tcp_w2-0.rtts", "traces/node0.tt"] {
            fs::write(run.join(name), "x").unwrap();
        }
        fs::write(out.join("report.md"), "abc").unwrap();
        let mut account = Account::begin(&plan, &out, POLICY);
        account.close(&out).unwrap();
        account.close(&out).unwrap();
        let names: Vec<_> = account.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["points/a/runs/run/manifest.json", "report.md"]);
        assert!(account.files[1].sha256.starts_with("ba7816bf"));
        fs::remove_dir_all(out).unwrap();
    }
}
