//! What several workers have to say as one text.

/// Metrics of several workers as those of several cores: the lines about the clock once, then each worker's own, which
/// begin with its number.
pub(super) fn metrics(texts: &[String]) -> String {
    let Some((first, others)) = texts.split_first() else { return String::new() };
    let mut all = first.clone();
    for text in others {
        let own = text.lines().skip_while(|line| line.split_whitespace().next() != Some("core"));
        own.for_each(|line| all.extend([line, "\n"]));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_is_a_core() {
        let text = |core: u32, n: u32| format!("time_cycles {n} t\ncpu_khz 1 t\ncore {core} t\ndata {n} core\n");
        let all = "time_cycles 5 t\ncpu_khz 1 t\ncore 0 t\ndata 5 core\ncore 1 t\ndata 6 core\n";
        assert_eq!(metrics(&[text(0, 5), text(1, 6)]), all);
        assert_eq!(metrics(&[text(0, 5)]), text(0, 5));
    }
}
