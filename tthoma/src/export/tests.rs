use super::*;
use crate::analyze;
use crate::testing::{Scenario, Steps};

fn model() -> Model {
    let mut scenario = Scenario::new(2);
    scenario.clock_ahead(0, -5000.0);
    for i in 0..20 {
        scenario.rpc(
            f64::from(i) * 100.0,
            (0, 1),
            100 + 2 * i,
            (20_000, 100),
            &Steps { unscheduled: 11_200, ..Steps::default() },
        );
    }
    scenario.model(&analyze::Options::default())
}

fn export(options: &Options) -> (Summary, Vec<u8>) {
    let mut out = Vec::new();
    let summary = perfetto(&model(), options, &mut out).unwrap();
    assert_eq!(summary.bytes, out.len() as u64);
    (summary, out)
}

fn has(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

#[test]
fn a_run_has_tracks_for_nodes_and_cores() {
    let (summary, out) = export(&Options::default());
    for name in [
        "node1",
        "node2",
        "core 2 gro",
        "core 3 softirq",
        "core 3 backlog",
        "RPCs called",
        "RPCs served",
        "bytes in NIC",
    ] {
        assert!(has(&out, name), "{name}");
    }
    assert!(summary.cut == 0 && summary.events > 1000, "{summary:?}");
    assert!(summary.zero_us <= summary.from_us && summary.zero_us < 0.0, "node1's clock is behind: {summary:?}");
}

#[test]
fn time_nodes_and_rpcs_can_be_chosen() {
    let (all, _) = export(&Options::default());
    let middle = (all.from_us + all.to_us) / 2.0;
    let (half, _) = export(&Options { from: Some(middle), ..Options::default() });
    assert!(half.events < all.events * 6 / 10 && half.from_us >= middle, "{half:?}");
    let (one, out) = export(&Options { nodes: vec!["node2".into()], ..Options::default() });
    assert!(one.events < all.events && !has(&out, "node1") && has(&out, "node2"));
    let (rpc, _) = export(&Options { rpc: Some("110".into()), ..Options::default() });
    assert!(rpc.events < all.events / 4 && rpc.to_us - rpc.from_us < 200.0, "{rpc:?}");
}

#[test]
fn what_does_not_fit_is_cut_and_counted() {
    let (all, _) = export(&Options::default());
    let (cut, _) = export(&Options { max_mb: 0.02, ..Options::default() });
    assert!(cut.bytes < 20_200 && cut.events + cut.cut == all.events, "{cut:?}");
    assert!(cut.to_us < all.to_us);
}

#[test]
fn wrong_choices_are_named() {
    let error = |options: Options| perfetto(&model(), &options, &mut Vec::new()).unwrap_err().to_string();
    let node = Options { nodes: vec!["node9".into()], ..Options::default() };
    assert_eq!(error(node), "no node `node9`: the traces have node1, node2");
    assert!(error(Options { rpc: Some("8".into()), ..Options::default() }).contains("no client's trace has RPC 8"));
    assert!(error(Options { from: Some(1e9), ..Options::default() }).starts_with("no events between"));
}
