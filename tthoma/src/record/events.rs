//! The kernel's events that are recorded: which, filtered how, and what their entries say.

use super::format::{EventFormat, Field, FormatError};

/// Events that are chosen together, by `--events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// NET_RX and NET_TX raised, begun, ended
    Softirq,
    /// NAPI polls: packets taken from a device or a backlog in one go
    Napi,
    /// Packets queued for a backlog, seen by GRO, received by the stack
    Rx,
    /// Packets given to a device
    Tx,
    /// Threads made ready, thread switches (of the threads of `--thread`)
    Sched,
    /// Device interrupts
    Irq,
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Raise,
    Begin,
    End,
    Poll,
    Backlog,
    Gro,
    GroDone,
    Receive,
    Xmit,
    Wake,
    Switch,
    Irq,
}

/// A field that an event is filtered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Vector of a SoftIRQ.
    Vector,
    /// Name of an interface, in the field of this name.
    Interface(&'static str),
    /// Name of a thread, in these fields.
    Thread(&'static [&'static str]),
    /// Everything is recorded.
    None,
}

/// An event of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) group: Group,
    /// Its folder below `events/`.
    pub(crate) path: &'static str,
    pub(crate) filter: Filter,
    what: What,
    /// Its fields, in the order that [`Decoder::decode`] reads them.
    pub(crate) fields: &'static [&'static str],
}

const fn source(
    group: Group,
    path: &'static str,
    filter: Filter,
    what: What,
    fields: &'static [&'static str],
) -> Source {
    Source { group, path, filter, what, fields }
}

/// All events that can be recorded. Older kernels lack some, which is told.
pub(crate) const SOURCES: &[Source] = &[
    source(Group::Softirq, "irq/softirq_raise", Filter::Vector, What::Raise, &["vec"]),
    source(Group::Softirq, "irq/softirq_entry", Filter::Vector, What::Begin, &["vec"]),
    source(Group::Softirq, "irq/softirq_exit", Filter::Vector, What::End, &["vec"]),
    source(
        Group::Napi,
        "napi/napi_poll",
        Filter::Interface("dev_name"),
        What::Poll,
        &["napi", "work", "budget", "dev_name"],
    ),
    source(Group::Rx, "net/netif_rx", Filter::Interface("name"), What::Backlog, &["skbaddr", "len", "name"]),
    source(Group::Rx, "net/napi_gro_receive_entry", Filter::Interface("name"), What::Gro, &["skbaddr", "len", "name"]),
    source(Group::Rx, "net/napi_gro_receive_exit", Filter::None, What::GroDone, &["ret"]),
    source(Group::Rx, "net/netif_receive_skb", Filter::Interface("name"), What::Receive, &["skbaddr", "len", "name"]),
    source(
        Group::Tx,
        "net/net_dev_start_xmit",
        Filter::Interface("name"),
        What::Xmit,
        &["queue_mapping", "len", "name"],
    ),
    source(
        Group::Sched,
        "sched/sched_wakeup",
        Filter::Thread(&["comm"]),
        What::Wake,
        &["pid", "target_cpu", "prio", "comm"],
    ),
    source(
        Group::Sched,
        "sched/sched_switch",
        Filter::Thread(&["prev_comm", "next_comm"]),
        What::Switch,
        &["prev_pid", "next_pid", "prev_state", "prev_comm", "next_comm"],
    ),
    source(Group::Irq, "irq/irq_handler_entry", Filter::None, What::Irq, &["irq", "name"]),
];

/// SoftIRQ vectors of the network.
pub(crate) const NET_TX: u32 = 2;
/// See [`NET_TX`].
pub(crate) const NET_RX: u32 = 3;

/// What happened, with names as they lie in the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen<'a> {
    /// A SoftIRQ of this vector is wanted.
    Raise(u32),
    /// A SoftIRQ of this vector begins.
    Begin(u32),
    /// It ends.
    End(u32),
    /// A NAPI structure at this address was polled: packets taken, packets allowed, device.
    Poll(u64, i64, i64, &'a [u8]),
    /// The packet at this address is queued for a backlog: length, device.
    Backlog(u64, u32, &'a [u8]),
    /// GRO gets the packet at this address: length, device.
    Gro(u64, u32, &'a [u8]),
    /// GRO is done with the packet that it got last on this core: what became of it.
    GroDone(i64),
    /// The stack receives the packet at this address: length, device.
    Receive(u64, u32, &'a [u8]),
    /// A packet is given to a device: queue, length, device.
    Xmit(u32, u32, &'a [u8]),
    /// A thread is ready: its id, core, priority, name.
    Wake(i64, i64, i64, &'a [u8]),
    /// A thread gives way to another: ids, state of the old one, names.
    Switch(i64, i64, i64, &'a [u8], &'a [u8]),
    /// A device's interrupt: its number and name.
    Irq(i64, &'a [u8]),
}

/// Reads entries of the events whose formats it was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decoder {
    /// By number of the event.
    plans: Vec<(u16, What, Vec<Field>)>,
}

impl Decoder {
    /// Adds an event, by the text of its `format` file.
    pub(crate) fn add(&mut self, source: &Source, format: &str) -> Result<(), FormatError> {
        let format = EventFormat::parse(format)?;
        let fields = source.fields.iter().map(|name| format.field(name)).collect::<Result<_, _>>()?;
        self.plans.push((format.id, source.what, fields));
        Ok(())
    }

    /// What an entry says; `None` for entries of other events, and for cut ones.
    #[inline]
    pub(crate) fn decode<'a>(&self, entry: &'a [u8]) -> Option<Seen<'a>> {
        let id = u16::from_le_bytes(*entry.first_chunk()?);
        let (_, what, fields) = self.plans.iter().find(|(known, ..)| *known == id)?;
        let number = |i: usize| fields.get(i)?.number(entry);
        let word = |i: usize| number(i).map(|n| n as u32);
        let address = |i: usize| number(i).map(|n| n as u64);
        let text = |i: usize| fields.get(i)?.text(entry);
        Some(match what {
            What::Raise => Seen::Raise(word(0)?),
            What::Begin => Seen::Begin(word(0)?),
            What::End => Seen::End(word(0)?),
            What::Poll => Seen::Poll(address(0)?, number(1)?, number(2)?, text(3)?),
            What::Backlog => Seen::Backlog(address(0)?, word(1)?, text(2)?),
            What::Gro => Seen::Gro(address(0)?, word(1)?, text(2)?),
            What::GroDone => Seen::GroDone(number(0)?),
            What::Receive => Seen::Receive(address(0)?, word(1)?, text(2)?),
            What::Xmit => Seen::Xmit(word(0)?, word(1)?, text(2)?),
            What::Wake => Seen::Wake(number(0)?, number(1)?, number(2)?, text(3)?),
            What::Switch => Seen::Switch(number(0)?, number(1)?, number(2)?, text(3)?, text(4)?),
            What::Irq => Seen::Irq(number(0)?, text(1)?),
        })
    }
}

/// A filter in the kernel's language, or `None` if everything is to be recorded.
pub(crate) fn filter(source: &Source, interfaces: &[String], threads: &[String]) -> Option<String> {
    let any = |terms: Vec<String>| (!terms.is_empty()).then(|| terms.join(" || "));
    match source.filter {
        Filter::None => None,
        Filter::Vector => Some(format!("vec == {NET_TX} || vec == {NET_RX}")),
        Filter::Interface(field) => {
            let mut terms: Vec<String> = interfaces.iter().map(|name| format!("{field} == \"{name}\"")).collect();
            if source.what == What::Poll && !terms.is_empty() {
                // The backlog's structure belongs to the core.
                terms.push(format!("{field} == \"(no_device)\""));
            }
            any(terms)
        }
        Filter::Thread(fields) => {
            any(fields.iter().flat_map(|f| threads.iter().map(move |t| format!("{f} ~ \"{t}\""))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_in_the_kernels_language() {
        let of = |path: &str| {
            let source = SOURCES.iter().find(|s| s.path == path).unwrap();
            filter(source, &["eth0".into(), "eth1".into()], &["cp-node*".into()])
        };
        assert_eq!(of("irq/softirq_raise").unwrap(), "vec == 2 || vec == 3");
        assert_eq!(of("net/netif_rx").unwrap(), "name == \"eth0\" || name == \"eth1\"");
        assert_eq!(
            of("napi/napi_poll").unwrap(),
            "dev_name == \"eth0\" || dev_name == \"eth1\" || dev_name == \"(no_device)\""
        );
        assert_eq!(of("sched/sched_switch").unwrap(), "prev_comm ~ \"cp-node*\" || next_comm ~ \"cp-node*\"");
        assert_eq!(of("irq/irq_handler_entry"), None);
        assert_eq!(filter(&SOURCES[4], &[], &[]), None);
    }

    #[test]
    fn entries_are_told_apart_by_their_number() {
        let mut decoder = Decoder::default();
        let receive = SOURCES.iter().find(|s| s.path == "net/netif_receive_skb").unwrap();
        decoder.add(receive, super::super::format::tests::RECEIVE).unwrap();
        let mut entry = 2303_u16.to_le_bytes().to_vec();
        entry.extend([0; 6]);
        entry.extend(0x5600_u64.to_le_bytes());
        entry.extend(1500_u32.to_le_bytes());
        entry.extend((5 << 16 | 24_u32).to_le_bytes());
        entry.extend(b"eth0\0");
        assert_eq!(decoder.decode(&entry), Some(Seen::Receive(0x5600, 1500, b"eth0")));
        entry[0] = 0;
        assert_eq!(decoder.decode(&entry), None);
        assert_eq!(decoder.decode(&[]), None);
        let poll = SOURCES.iter().find(|s| s.path == "napi/napi_poll").unwrap();
        assert_eq!(
            decoder.add(poll, super::super::format::tests::RECEIVE),
            Err(FormatError::NoField("napi")),
            "a field that is missing is told"
        );
    }
}
