use super::super::events::SOURCES;
use super::super::format::tests::RECEIVE;
use super::super::pages::tests::{FORMAT, entry, page};
use super::*;

/// Text of a `format` file with 4-byte numbers `fields` from byte 8 on, and a name of 8 bytes after them if asked.
fn format_file(id: u16, fields: &[&str], name: Option<&str>) -> String {
    let mut text = format!("ID: {id}\nformat:\n");
    for (i, field) in fields.iter().enumerate() {
        text += &format!("\tfield:int {field};\toffset:{};\tsize:4;\tsigned:1;\n", 8 + 4 * i);
    }
    if let Some(name) = name {
        text += &format!("\tfield:char {name}[8];\toffset:{};\tsize:8;\tsigned:0;\n", 8 + 4 * fields.len());
    }
    text
}

fn decoder() -> Decoder {
    let mut decoder = Decoder::default();
    let mut add = |path: &str, text: &str| {
        decoder.add(SOURCES.iter().find(|s| s.path == path).unwrap(), text).unwrap();
    };
    add("irq/softirq_raise", &format_file(1, &["vec"], None));
    add("irq/softirq_entry", &format_file(2, &["vec"], None));
    add("net/netif_rx", &format_file(3, &["skbaddr", "len"], Some("name")));
    add("napi/napi_poll", &format_file(4, &["napi", "work", "budget"], Some("dev_name")));
    add("net/napi_gro_receive_entry", &format_file(5, &["skbaddr", "len"], Some("name")));
    add("net/napi_gro_receive_exit", &format_file(6, &["ret"], None));
    add("sched/sched_wakeup", &format_file(7, &["pid", "target_cpu", "prio"], Some("comm")));
    add("net/netif_receive_skb", RECEIVE);
    decoder
}

fn event(delta: u32, id: u16, numbers: &[i32], name: &[u8]) -> Vec<u8> {
    let mut body = id.to_le_bytes().to_vec();
    body.extend([0; 6]);
    numbers.iter().for_each(|n| body.extend(n.to_le_bytes()));
    body.extend_from_slice(name);
    entry(delta, &body)
}

fn receive(delta: u32, address: u64, length: u32) -> Vec<u8> {
    let mut body = 2303_u16.to_le_bytes().to_vec();
    body.extend([0; 6]);
    body.extend(address.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend((5 << 16 | 24_u32).to_le_bytes());
    body.extend(b"veth0\0\0\0");
    entry(delta, &body)
}

fn text(cores: &[CorePages]) -> (String, Written) {
    let decoder = decoder();
    let mut out = Vec::new();
    let written = write(cores, Reading { decoder: &decoder, page: FORMAT, ticks_per_ns: 2.0 }, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), written)
}

#[test]
fn cores_are_merged_in_the_order_of_time_and_packets_numbered() {
    let core1 = [
        page(100_000, 0, &event(0, 3, &[0x40, 1500], b"veth0\0\0\0"), &[]),
        page(104_000, 0, &event(0, 3, &[0x80, 60], b"ve\nth\0\0\0"), &[]),
    ];
    let mut data = event(0, 1, &[3], b"");
    data.extend(event(2_000, 2, &[3], b""));
    data.extend(receive(4_000, 0x40, 1500));
    data.extend(receive(2_000, 0x99, 70));
    data.extend(event(1_000, 4, &[0x77, 2, 64], b"(no_devi"));
    data.extend(event(1_000, 99, &[0x77, 2, 64], b"ignored!"));
    data.extend(event(1_000, 7, &[12, 1, 120], b"ksoft\0\0\0"));
    let core0 = [page(100_500, 1 << 31 | 1 << 30, &data, &7_u64.to_le_bytes())];
    let pages = |pages: &[Vec<u8>]| pages.iter().map(|p| p.clone().into_boxed_slice()).collect();
    let cores = [CorePages { core: 0, pages: pages(&core0) }, CorePages { core: 1, pages: pages(&core1) }];
    let (text, written) = text(&cores);
    assert_eq!(
        text,
        "    0.000 us (+   0.000 us) [C00] First event has timestamp 100000 (cpu_ghz 2.000000000000000)\n    \
         0.000 us (+   0.000 us) [C01] kernel backlog gets skb 1, length 1500, device veth0\n    \
         0.250 us (+   0.250 us) [C00] kernel trace lost 7 events before this\n    \
         0.250 us (+   0.000 us) [C00] kernel softirq 3 raised\n    \
         1.250 us (+   1.000 us) [C00] kernel softirq 3 begins\n    \
         2.000 us (+   0.750 us) [C01] kernel backlog gets skb 2, length 60, device ve?th\n    \
         3.250 us (+   1.250 us) [C00] kernel receives skb 1, length 1500, device veth0\n    \
         4.250 us (+   1.000 us) [C00] kernel receives skb 3, length 70, device veth0\n    \
         4.750 us (+   0.500 us) [C00] kernel napi 1 polled, work 2, budget 64, device (no_devi\n    \
         5.750 us (+   1.000 us) [C00] kernel wakes pid 12 for core 1, priority 120, name ksoft\n"
    );
    assert_eq!(written, Written { events: 9, unknown: 1, span: Some((100_000, 111_500)) });
}

#[test]
fn what_gro_merged_is_not_waited_for() {
    let mut data = event(0, 5, &[0x40, 1000], b"eth0\0\0\0\0");
    data.extend(event(10, 6, &[2], b""));
    data.extend(event(10, 5, &[0x80, 1000], b"eth0\0\0\0\0"));
    data.extend(event(10, 6, &[0], b""));
    data.extend(receive(10, 0x40, 2000));
    // The merged packet's memory is another packet now, that GRO has not seen.
    data.extend(receive(10, 0x80, 500));
    let (text, _) = text(&[CorePages { core: 3, pages: vec![page(5, 0, &data, &[]).into()] }]);
    let messages: Vec<&str> = text.lines().skip(1).filter_map(|l| l.split("[C03] ").nth(1)).collect();
    assert_eq!(
        messages,
        [
            "kernel gro gets skb 1, length 1000, device eth0",
            "kernel gro done with skb 1, result 2",
            "kernel gro gets skb 2, length 1000, device eth0",
            "kernel gro done with skb 2, result 0",
            "kernel receives skb 1, length 2000, device veth0",
            "kernel receives skb 3, length 500, device veth0",
        ]
    );
}

#[test]
fn nothing_recorded_is_an_empty_file() {
    assert_eq!(text(&[]), (String::new(), Written::default()));
    assert_eq!(text(&[CorePages::default()]), (String::new(), Written::default()));
}
