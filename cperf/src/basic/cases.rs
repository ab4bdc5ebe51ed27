//! What is measured: one case for each figure.

use clap::ValueEnum;
use serde::Serialize;

/// Transports whose round trips are measured, in the order of a round.
pub(crate) const TRANSPORTS: [&str; 6] = ["raw-ring", "homa", XDP, "udp-spin", "tcp-spin", "tcp-block"];
/// Homa by AF_XDP instead of AF_PACKET.
pub(super) const XDP: &str = "homa-xdp";
/// Homa in packets that look like TCP's, in super-frames.
pub(super) const HIJACK: &str = "homa-gso";
/// MTUs of the throughput section.
const MTUS: [u32; 2] = [1500, 9000];
/// Messages of the throughput section: one way, with a short answer each.
const STREAM: Flow = Flow { length: 1_000_000, response: 12, outstanding: 4 };
/// Requests outstanding in the rate section.
const OUTSTANDING: [u32; 2] = [16, 64];

/// Part of the calibration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// Round trips of short messages, one at a time
    Latency,
    /// One stream of messages of 1 MB
    Throughput,
    /// Short RPCs per second
    Rate,
    /// IPv6 against IPv4
    Ipv6,
}

/// A flow of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Flow {
    /// Bytes of a request.
    pub(crate) length: u32,
    /// Bytes of its response.
    pub(crate) response: u32,
    /// Requests outstanding at once.
    pub(crate) outstanding: u32,
}

/// One figure of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    pub(crate) section: Section,
    pub(crate) transport: &'static str,
    #[serde(rename = "mtu_bytes")]
    pub(crate) mtu: u32,
    pub(crate) ipv6: bool,
    /// `None`: round trips one at a time.
    pub(crate) flow: Option<Flow>,
}

/// The cases of these sections. `mtu` is that of the links on which short messages travel, `length` theirs.
pub(super) fn cases(sections: &[Section], mtu: u32, length: u32) -> Vec<Case> {
    let mut all = Vec::new();
    let short = |outstanding| Flow { length, response: length, outstanding };
    for &section in sections {
        let mut add = |transport, mtu, ipv6, flow| all.push(Case { section, transport, mtu, ipv6, flow });
        match section {
            Section::Latency => TRANSPORTS.into_iter().for_each(|transport| add(transport, mtu, false, None)),
            Section::Throughput => {
                for mtu in MTUS {
                    ["raw-ring", "homa", XDP, HIJACK, "tcp-spin"]
                        .into_iter()
                        .for_each(|transport| add(transport, mtu, false, Some(STREAM)));
                }
            }
            Section::Rate => {
                for outstanding in OUTSTANDING {
                    ["homa", XDP, "tcp-spin"]
                        .into_iter()
                        .for_each(|transport| add(transport, mtu, false, Some(short(outstanding))));
                }
            }
            Section::Ipv6 => {
                for (mtu, flow) in [(mtu, None), (MTUS[0], Some(STREAM)), (mtu, Some(short(OUTSTANDING[1])))] {
                    [false, true].into_iter().for_each(|ipv6| add("homa", mtu, ipv6, flow));
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_what_it_is_compared_with() {
        let all = cases(&[Section::Throughput, Section::Rate, Section::Ipv6], 9000, 100);
        assert_eq!(all.len(), 10 + 6 + 6);
        for case in all.iter().filter(|case| case.transport.starts_with("homa")) {
            let other = match case.section {
                Section::Ipv6 => Case { ipv6: !case.ipv6, ..*case },
                _ => Case { transport: "tcp-spin", ..*case },
            };
            assert!(all.contains(&other), "{case:?}");
        }
        assert_eq!(cases(&[Section::Latency], 1500, 100).len(), TRANSPORTS.len());
    }
}
