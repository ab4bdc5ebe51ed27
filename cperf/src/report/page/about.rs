//! What was run, on what, how to repeat it, and the files that it left.

use std::fmt::Write as _;

use serde_json::Value;
use tthoma::document::escaped;

use super::{Source, label};
use crate::cli::TestbedKind;

/// What was run and on what: a list, and the command that repeats it.
pub fn html(run: &Source<'_>) -> String {
    let mut out = String::from("<section id=\"run\">\n<h2>What was run</h2>\n<dl class=\"facts\">\n");
    for (name, value) in facts(run) {
        let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
    }
    out += "</dl>\n<h3 id=\"repeat\">Again</h3>\n";
    let _ = writeln!(
        out,
        "<pre tabindex=\"0\" aria-label=\"the command that repeats the run\"><code>{}</code></pre>",
        escaped(&run.manifest.about.as_ref().map_or_else(|| run.command.to_owned(), |about| again(&about.command)))
    );
    if run.options.testbed == TestbedKind::Sim {
        out += "<p class=\"note\">Simulated: the same command of the same version leaves the same files, byte by byte, on any machine. When \
                and where this was, is in <code>about.json</code>.</p>\n";
    }
    out += "<p class=\"note\">Only this page and the reports, from the files: <code>cperf report DIR</code>.</p>\n";
    folded(&mut out, "All options in effect", &run.manifest.options);
    folded(&mut out, "The testbed: what is modelled or set, and what is not", &run.manifest.testbed);
    out + "</section>\n"
}

/// A command line for who repeats a run. Where results go, and how many cores they are made on, is left to them.
pub fn again(words: &[String]) -> String {
    let mut kept = vec!["cperf".to_owned()];
    let mut given = words.iter().skip(1);
    while let Some(word) = given.next() {
        let free = ["--out", "-o", "--threads", "--format"];
        if free.contains(&word.as_str()) {
            given.next();
        } else if !free.iter().any(|option| word.starts_with(&format!("{option}="))) {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,/:+@%".contains(c);
            let quoted = || format!("'{}'", word.replace('\'', r"'\''"));
            kept.push(if !word.is_empty() && word.chars().all(plain) { word.clone() } else { quoted() });
        }
    }
    kept.join(" ")
}

/// Name and value.
fn facts(run: &Source<'_>) -> Vec<(&'static str, String)> {
    let (options, manifest) = (run.options, run.manifest);
    let protocols: Vec<_> = options.protocols.iter().map(|protocol| label(protocol.name())).collect();
    let testbed = match options.testbed {
        TestbedKind::Sim => "simulated, in virtual time",
        TestbedKind::Netns => "network namespaces of one machine",
        TestbedKind::Ssh => "machines reached by SSH",
    };
    let mtu = manifest.options["simulated"][0]["mtu_bytes"].as_u64().or(options.mtu.map(u64::from));
    let mut all = vec![
        ("Workload", options.workload.clone()),
        ("Protocols", protocols.join(", ")),
        ("Nodes", format!("{}, {testbed}", options.nodes)),
        (
            "Load",
            match options.gbps {
                Some(gbps) if gbps > 0.0 => format!("{gbps} Gbps of messages per node and direction"),
                _ => format!("as much as {} outstanding requests a node allow", options.client_max),
            },
        ),
        ("Interval", format!("{} s after {} s of warm-up, each protocol", options.seconds, options.warmup)),
        (
            "Links",
            match options.link_gbps.or((options.testbed == TestbedKind::Sim).then_some(25.0)) {
                Some(gbps) => format!("{gbps} Gbps, MTU {}", mtu.unwrap_or_else(|| options.mtu().into())),
                None => format!("no set rate, MTU {}", mtu.unwrap_or_else(|| options.mtu().into())),
            },
        ),
        ("Seed", manifest.seed.map_or_else(|| "none".to_owned(), |seed| seed.to_string())),
        ("Slowdown", run.optimal.text()),
        (
            "Program",
            match &manifest.git_revision {
                Some(revision) => format!("{}, revision {revision}", manifest.tool),
                None => manifest.tool.clone(),
            },
        ),
    ];
    let failures = manifest.failures();
    if let Some(policy) = manifest.policy.filter(|_| !failures.is_empty()) {
        all.push(("Failures", failures.join("; ")));
        all.push(("Policy", policy.text()));
    }
    if !manifest.remarks.is_empty() {
        all.push(("Remarks", manifest.remarks.join("; ")));
    }
    if let Some(about) = &manifest.about {
        let host = &about.host;
        let unknown = || "unknown".to_owned();
        let known = |text: &Option<String>| text.clone().unwrap_or_else(unknown);
        let memory = host.memory_kib.map_or_else(unknown, |kib| format!("{:.1} GiB", kib as f64 / f64::from(1 << 20)));
        all.push((
            "Machine",
            format!(
                "{}, {} cores, {memory}, {}, clock {}",
                known(&host.cpu),
                host.cores,
                known(&host.kernel),
                known(&host.clock_source)
            ),
        ));
        all.push(("Time", format!("{} to {}", about.started, known(&about.ended))));
    }
    all
}

/// JSON that a reader opens if need be.
fn folded(out: &mut String, title: &str, value: &Value) {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let _ = writeln!(
        out,
        "<details><summary>{title}</summary>\n<pre tabindex=\"0\" aria-label=\"{title}\"><code>{}</code></pre></details>",
        escaped(&text)
    );
}

/// Every file with its checksum, folded.
pub fn files(run: &Source<'_>) -> String {
    let files = &run.manifest.files;
    let bytes: u64 = files.iter().map(|file| file.size_bytes).sum();
    let mut out = format!(
        "<section id=\"files\">\n<h2>Files</h2>\n<p class=\"note\">{} files, {:.1} MB; checked by \
         <code>sha256sum</code>. This page's own checksum is in <code>manifest.json</code>.</p>\n\
         <details><summary>Each file with its SHA-256</summary>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"files\">\
         <table class=\"files\"><thead><tr><th scope=\"col\">File</th><th scope=\"col\">Bytes</th><th scope=\"col\">SHA-256</th></tr></thead><tbody>\n",
        files.len(),
        bytes as f64 / 1e6
    );
    for file in files {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"sum\">{}</td></tr>",
            escaped(&file.name),
            file.size_bytes,
            file.sha256
        );
    }
    out + "</tbody></table></div></details>\n</section>\n"
}

#[cfg(test)]
mod tests {
    use super::super::tests::source;
    use super::*;

    #[test]
    fn what_was_run_and_the_command_are_said() {
        source(|run| {
            let html = html(run);
            for part in [
                "<dt>Workload</dt><dd>w4</dd>",
                "Homa, TCP",
                "cperf run w4 --nodes 3 --homa &quot;a b&quot;",
                "<dt>Seed</dt><dd>7</dd>",
            ] {
                assert!(html.contains(part), "no `{part}` in:\n{html}");
            }
        });
    }

    #[test]
    fn a_command_can_be_given_again_anywhere() {
        let words = ["target/release/cperf", "run", "w4", "--out", "out/x", "--threads=2", "--slurm-args", "-p it's b"];
        assert_eq!(again(&words.map(str::to_owned)), r"cperf run w4 --slurm-args '-p it'\''s b'");
    }

    #[test]
    fn every_file_has_its_checksum() {
        source(|run| {
            let html = files(run);
            assert!(
                html.contains("<tr><td>homa_w4-0.rtts</td><td class=\"n\">1234</td><td class=\"sum\">00ff</td></tr>"),
                "{html}"
            );
        });
    }
}
