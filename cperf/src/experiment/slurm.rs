//! Measuring points on the machines of a Slurm cluster: a job array whose tasks call `cperf point` for their share of the
//! points. The directory of the experiment must be the same file system on all machines, as must this program.
//!
//! What a task has measured is kept as always, so an experiment that was interrupted, here or there, goes on where it
//! was; while its last array still runs, it is waited for instead of submitting points twice.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::engine::dir;
use super::plan::Point;
use super::{point, write};
use crate::error::Stop;
use crate::signals::Interrupt;

/// How often the scheduler is asked.
const POLL: Duration = Duration::from_secs(2);
/// How long results may stay unseen on a shared file system after their job has ended.
const SETTLE: Duration = Duration::from_secs(10);

/// Measures `points` with at most `tasks` tasks; `arguments` go to sbatch.
///
/// # Errors
/// [`Stop::Missing`] without Slurm's commands, [`Stop::Interrupted`] (the jobs go on; the next call waits for them), or
/// that points have no result.
pub fn measure(
    points: &[&Point],
    out: &Path,
    arguments: &str,
    tasks: usize,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    if points.is_empty() {
        return Ok(());
    }
    let out = fs::canonicalize(out).with_context(|| format!("finding {}", out.display()))?;
    let note = out.join("slurm").join("job");
    let job = match fs::read_to_string(&note).ok().filter(|job| runs(job).unwrap_or(false)) {
        Some(job) => {
            eprintln!("cperf: job {job} of this experiment still runs: waiting for it");
            job
        }
        None => {
            let job = submit(points, &out, arguments, tasks)?;
            write(&note, job.as_bytes())?;
            eprintln!("cperf: {} points are job {job}, {} tasks", points.len(), tasks.min(points.len()));
            job
        }
    };
    wait(&job, points, &out, interrupt)?;
    let open = unmeasured(points, &out);
    if open > 0 {
        bail!(
            "job {job} has ended, {open} of {} points have no result: see {}/slurm/*.log; `cperf run` again submits them again",
            points.len(),
            out.display()
        );
    }
    Ok(())
}

/// Submits a job array, and gives its number.
fn submit(points: &[&Point], out: &Path, arguments: &str, tasks: usize) -> anyhow::Result<String> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut list = String::new();
    for point in points {
        writeln!(list, "{}", point.id).expect("a String takes all");
    }
    let folder = out.join("slurm");
    write(&folder.join("points"), list.as_bytes())?;
    let tasks = tasks.min(points.len());
    write(&folder.join("job.sh"), script(&program, out, points.len(), tasks).as_bytes())?;
    let mut command = Command::new("sbatch");
    command.arg("--parsable").args(arguments.split_whitespace()).arg(folder.join("job.sh"));
    let output = run(&mut command)?;
    // `JOB` or `JOB;CLUSTER`.
    let job = output.trim().split(';').next().unwrap_or_default().to_owned();
    if job.is_empty() || !job.bytes().all(|byte| byte.is_ascii_digit()) {
        bail!("sbatch answered `{}` instead of a job's number", output.trim());
    }
    Ok(job)
}

/// The array's script: task i measures points i, i + tasks, i + 2 tasks … of the list. One that fails does not keep the
/// others from being measured.
fn script(program: &Path, out: &Path, points: usize, tasks: usize) -> String {
    let (program, out) = (quoted(program), quoted(out));
    let last = tasks - 1;
    format!(
        "#!/bin/sh
#SBATCH --job-name=cperf
#SBATCH --array=0-{last}
#SBATCH --cpus-per-task=1
#SBATCH --ntasks=1
#SBATCH --output=/dev/null
out={out}
exec > \"$out/slurm/$SLURM_ARRAY_TASK_ID.log\" 2>&1
status=0
line=$((SLURM_ARRAY_TASK_ID + 1))
while [ $line -le {points} ]; do
  id=$(sed -n \"${{line}}p\" \"$out/slurm/points\")
  {program} point \"$out/points/$id/spec.json\" \"$out/points/$id\" || status=1
  line=$((line + {tasks}))
done
exit $status
"
    )
}

/// A path for the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Waits until all points have results, or the job is over.
fn wait(job: &str, points: &[&Point], out: &Path, interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut asked = Instant::now();
    let mut ended: Option<Instant> = None;
    loop {
        if interrupt.is_set() {
            eprintln!("cperf: job {job} goes on (scancel {job} ends it); `cperf run` again waits for it");
            return Err(Stop::Interrupted.into());
        }
        if asked.elapsed() >= POLL || ended.is_some() {
            asked = Instant::now();
            if unmeasured(points, out) == 0 || ended.is_some_and(|at| at.elapsed() > SETTLE) {
                return Ok(());
            }
            if ended.is_none() && !runs(job)? {
                ended = Some(Instant::now());
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn unmeasured(points: &[&Point], out: &Path) -> usize {
    points.iter().filter(|point| point::load(&dir(out, &point.id), &point.id).is_none()).count()
}

/// Whether a job has tasks that wait or run. A job that the scheduler has forgotten does not.
fn runs(job: &str) -> anyhow::Result<bool> {
    let mut command = Command::new("squeue");
    // Of this name: after a new start of the scheduler another job may have the number.
    command.args(["--noheader", "--name", "cperf", "--jobs", job.trim()]);
    match command.output() {
        Ok(output) => Ok(output.status.success() && !output.stdout.trim_ascii().is_empty()),
        Err(err) => Err(missing("squeue", &err).into()),
    }
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|err| missing(&name, &err))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn missing(name: &str, err: &std::io::Error) -> Stop {
    Stop::Missing(format!("{name}: {err}; --engine slurm needs the commands of Slurm, sbatch and squeue, here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The script is run as the scheduler would, with `echo` in the place of this program.
    #[test]
    fn tasks_measure_every_point_once() {
        let out = std::env::temp_dir().join(format!("cperf-slurm it's-{}", std::process::id()));
        fs::create_dir_all(out.join("slurm")).unwrap();
        fs::write(out.join("slurm/points"), "p0\np1\np2\np3\np4\n").unwrap();
        fs::write(out.join("slurm/job.sh"), script(Path::new("/bin/echo"), &out, 5, 2)).unwrap();
        let mut measured = Vec::new();
        for task in ["0", "1"] {
            let status =
                Command::new("sh").arg(out.join("slurm/job.sh")).env("SLURM_ARRAY_TASK_ID", task).status().unwrap();
            assert!(status.success());
            let log = fs::read_to_string(out.join(format!("slurm/{task}.log"))).unwrap();
            let points = log.lines().filter_map(|line| line.rsplit('/').next().map(str::to_owned));
            measured.push(points.collect::<Vec<_>>());
        }
        assert_eq!(measured, [vec!["p0", "p2", "p4"], vec!["p1", "p3"]]);
        fs::remove_dir_all(out).unwrap();
    }

    #[test]
    fn the_array_has_as_many_tasks_as_were_asked_for() {
        let text = script(Path::new("/x/cperf"), Path::new("/y"), 10_000, 1000);
        assert!(
            text.contains("--array=0-999\n") && text.contains("-le 10000 ]") && text.contains("line + 1000)"),
            "{text}"
        );
    }
}
