//! Quotients of counters that say more than both: they are compared like counters.

use super::record::{Names, Record};

/// Adds `bytes_per_data_packet` (message bytes), `packets_per_batch` (received), `us_per_packet` (of SoftIRQ, as the
/// receiver handles it) and `ring_wait_us` to each record that has what they are made of.
pub(super) fn add(records: &mut [Record], names: &Names) {
    let list = names.list();
    let number = |name: &str| list.iter().position(|other| other == name).map(|at| at as u32);
    let received: Vec<u32> =
        (0..).zip(&list).filter(|(_, name)| name.starts_with("packets_rcvd_")).map(|(number, _)| number).collect();
    let one = |name: &str| number(name).map(|number| vec![number]).unwrap_or_default();
    // Name, numerators, denominators, least denominator, factor by the record.
    type Scale = fn(&Record) -> f64;
    let quotients: [(&str, Vec<u32>, Vec<u32>, Scale); 4] = [
        ("bytes_per_data_packet", one("sent_msg_bytes"), one("packets_sent_DATA"), |_| 1.0),
        ("packets_per_batch", received.clone(), one("softirq_calls"), |_| 1.0),
        ("us_per_packet", one("softirq_cycles"), received, |record| 1000.0 / record.khz),
        ("ring_wait_us", one("ring_wait_nanos"), one("ring_wait_packets"), |_| 1e-3),
    ];
    for (name, above, below, scale) in quotients {
        let sum =
            |record: &Record, numbers: &[u32]| numbers.iter().filter_map(|&number| record.get(number)).sum::<f64>();
        let values: Vec<Option<f64>> = records
            .iter()
            .map(|record| {
                let (above, below) = (sum(record, &above), sum(record, &below));
                // Of few packets a quotient says nothing.
                (below >= 1000.0 && above > 0.0).then(|| above / below * scale(record))
            })
            .collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        let number = names.number(name);
        for (record, value) in records.iter_mut().zip(values) {
            if let Some(value) = value {
                record.values.push((number, value));
                record.values.sort_unstable_by_key(|(number, _)| *number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_those_of_the_counters() {
        let names = Names::default();
        let numbers = ["sent_msg_bytes", "packets_sent_DATA", "softirq_calls", "packets_rcvd_DATA", "softirq_cycles"]
            .map(|name| names.number(name));
        let values = numbers.into_iter().zip([2.8e6, 2000.0, 1000.0, 1500.0, 3e6]).collect();
        let mut records = [Record { values, khz: 1e6, ..Record::default() }];
        add(&mut records, &names);
        let get = |name: &str| records[0].get(names.number(name));
        assert_eq!((get("bytes_per_data_packet"), get("packets_per_batch")), (Some(1400.0), Some(1.5)));
        assert_eq!((get("us_per_packet"), get("ring_wait_us")), (Some(2.0), None));
    }
}
