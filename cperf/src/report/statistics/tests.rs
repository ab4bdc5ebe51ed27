use super::*;
use crate::experiment::statistics::p99_average;

/// Messages of one node and port; times in us without load are 1.
fn ordered(samples: &[(u32, u64)]) -> Ordered {
    let file: Vec<_> = samples.iter().map(|&(length, us)| Sample { length, rtt_ns: us * 1000 }).collect();
    let mut all = Ordered::default();
    all.add(&file, 1);
    all
}

fn statistics(samples: &[(u32, u64)]) -> Statistics {
    Statistics::new("homa", &ordered(samples), &Ordered::default(), &Optimal::fixed(1.0, f64::INFINITY))
}

/// 20,000 messages of ten lengths, with a tail, in an order without a rule.
fn many() -> Vec<(u32, u64)> {
    let value = |k: u64| (k * 7919 % 20_000, 1000 / (1 + k * 104_729 % 1000));
    (0..20_000).map(value).map(|(k, us)| (100 * (1 + k as u32 / 2000), 10 + us)).collect()
}

#[test]
fn figures_are_those_of_a_sorted_list() {
    let samples: Vec<_> = (0..1000).map(|k| (100, 1 + k * 7 % 1000)).collect(); // 1 to 1000
    let all = statistics(&samples);
    let row = &all.rows[0];
    assert_eq!((row.measure, row.class, row.rpcs), (Measure::RttUs, None, 1000));
    let values = row.figures.map(|figure| figure.value.unwrap());
    // The worst 1 %: 991 to 1000.
    assert_eq!(values, [500.5, 501.0, 901.0, 991.0, 1000.0, 995.5, 1000.0]);
    assert_eq!(all.rows.len(), 2 * 11, "times and slowdowns; all, and ten classes");
    assert!(row.figures[4].interval.is_none(), "only one message lies beyond");
    assert!(row.figures[6].interval.is_none() && row.figures[3].interval.is_some());
}

#[test]
fn the_p99_average_is_the_mean_of_the_classes_and_as_elsewhere() {
    let samples = many();
    let all = statistics(&samples);
    let messages: Vec<_> = samples.iter().map(|&(length, us)| (length, us as f32)).collect();
    for (average, classes) in all.p99_averages.iter().zip(AVERAGES) {
        let other = p99_average(&messages, classes).unwrap();
        assert!((average.estimate.value.unwrap() / other - 1.0).abs() < 1e-9, "{average:?} {other}");
    }
    let of_class = all.rows.iter().filter(|row| row.measure == Measure::Slowdown && row.class.is_some());
    let worst: Vec<_> = of_class.map(|row| row.figures[5].value.unwrap()).collect();
    let mean = worst.iter().sum::<f64>() / 10.0;
    assert_eq!((worst.len(), all.p99_averages[0].estimate.value), (10, Some(mean)));
    let (low, high) = all.p99_averages[0].estimate.interval.unwrap();
    assert!(low < mean && mean < high && high - low < 0.2 * mean, "{low} {mean} {high}");
}

/// Half the width of the interval of the mean of 8 nodes with 2500 messages each, of 8 slices, with these times in us.
fn half_width(us: impl Fn(usize, usize) -> u64) -> f64 {
    let mut all = Ordered::default();
    for node in 0..8 {
        let file = (0..2500).map(|k| Sample { length: 100, rtt_ns: 1000 * us(node, k) });
        all.add(&file.collect::<Vec<_>>(), 1);
    }
    let optimal = Optimal::fixed(1.0, f64::INFINITY);
    let (low, high) = Statistics::new("homa", &all, &Ordered::default(), &optimal).rows[0].figures[0].interval.unwrap();
    (high - low) / 2.0
}

/// Eight levels: 1.96 standard deviations of their mean, and a bootstrap of eight has the root of 7/8 of that.
#[test]
fn intervals_are_as_wide_as_nodes_and_slices_of_time_differ() {
    let level = |of: usize| 1000 + of as u64 * 3 % 8 * 10;
    let expected = {
        let levels: Vec<_> = (0..8).map(|of| level(of) as f64).collect();
        let mean = levels.iter().sum::<f64>() / 8.0;
        let variance = levels.iter().map(|level| (level - mean).powi(2)).sum::<f64>() / 8.0;
        1.96 * (variance / 8.0).sqrt()
    };
    let by_time = half_width(|_, k| level(k * 8 / 2500));
    assert!((by_time / expected - 1.0).abs() < 0.1, "{by_time} is not {expected}");
    let by_node = half_width(|node, _| level(node));
    assert!((by_node / expected - 1.0).abs() < 0.1, "{by_node} is not {expected}");
    let by_both = half_width(|node, k| level(node) + level(k * 8 / 2500));
    assert!((by_both / expected / 2f64.sqrt() - 1.0).abs() < 0.1, "{by_both} is not the root of 2 times {expected}");
    // Messages that are independent.
    let by_none = half_width(|node, k| level((node * 2500 + k) * 7919 % 8));
    assert!(by_none < expected / 10.0, "{by_none}");
}

#[test]
fn figures_from_the_due_time_are_those_of_its_messages() {
    let optimal = Optimal::fixed(1.0, f64::INFINITY);
    let (service, late) = (many(), many().into_iter().map(|(length, us)| (length, us + 500)).collect::<Vec<_>>());
    let same = Statistics::new("homa", &ordered(&service), &ordered(&service), &optimal);
    assert_eq!((same.rows.len(), same.p99_averages.len()), (4 * 11, 4));
    let of = |all: &Statistics, measure| all.rows.iter().find(|row| row.measure == measure).unwrap().figures;
    assert_eq!(of(&same, Measure::DueSlowdown), of(&same, Measure::Slowdown));
    assert_eq!(of(&same, Measure::DueRttUs), of(&same, Measure::RttUs));
    let apart = Statistics::new("homa", &ordered(&service), &ordered(&late), &optimal);
    let mean = |measure| of(&apart, measure)[0].value.unwrap();
    assert!((mean(Measure::DueRttUs) - mean(Measure::RttUs) - 500.0).abs() < 0.01);
    assert_eq!((apart.rows.len(), apart.p99_averages.len()), (4 * 11, 4));
}

#[test]
fn ports_of_a_file_are_side_by_side_in_time() {
    let file: Vec<_> = (0..320).map(|k| Sample { length: 1, rtt_ns: k }).collect();
    let mut all = Ordered::default();
    all.add(&file, 4);
    let cells: Vec<_> = all.messages.iter().map(|message| usize::from(message.cell)).collect();
    assert_eq!((cells[0], cells[79], cells[80], cells[200]), (0, 7, 0, 4));
    for slice in 0..SLICES {
        assert_eq!(cells.iter().filter(|of| **of == slice).count(), 40);
    }
    all.add(&[], 3);
    all.add(&file[..1], 3);
    assert_eq!((all.messages.len(), all.messages[320].cell), (321, 2 * SLICES as u8), "the third node");
}

#[test]
fn few_messages_have_figures_and_no_intervals() {
    let all = statistics(&[(100, 5), (200, 7)]);
    assert_eq!(all.rows.len(), 2 * 3, "two messages are two classes");
    assert!(all.rows.iter().flat_map(|row| &row.figures).all(|figure| figure.interval.is_none()));
    assert_eq!(all.p99_averages[0].estimate, Estimate { value: Some(6.0), interval: None });
    assert!(statistics(&[]).rows.is_empty());
}

#[test]
fn tables_have_as_many_cells_as_columns() {
    let all = [statistics(&many())];
    let csv = tables::csv(&all);
    let columns: Vec<_> = csv.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(columns.len(), 1 + 22 + 2);
    assert!(columns.iter().all(|count| *count == columns[0]), "{csv}");
    assert!(csv.contains("\nhoma,slowdown,,10,") && csv.contains("\nhoma,rtt_us,,,100,1000,20000,"), "{csv}");
    let text = tables::markdown("W4", "as a test", &all);
    assert!(text.contains("| homa | from sending | 100 | ") && text.contains("| homa | 1000-1000 | 2000 |"), "{text}");
    for table in text.split("\n\n").filter(|part| part.starts_with('|')) {
        let cells: Vec<_> = table.lines().map(|line| line.matches('|').count()).collect();
        assert!(cells.iter().all(|count| *count == cells[0]), "{table}");
    }
}
