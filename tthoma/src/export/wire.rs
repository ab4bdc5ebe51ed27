//! The few messages of Perfetto's trace format that an export needs, as bytes.
//!
//! Field numbers are those of `perfetto_trace.proto`:
//!
//! | message | fields |
//! | --- | --- |
//! | `Trace` | 1 `packet` |
//! | `TracePacket` | 8 `timestamp` (ns), 10 `trusted_packet_sequence_id`, 11 `track_event`, 12 `interned_data`, 13 `sequence_flags`, 60 `track_descriptor` |
//! | `TrackDescriptor` | 1 `uuid`, 2 `name`, 3 `process`, 5 `parent_uuid`, 8 `counter`, 11 `child_ordering` (3: explicit), 12 `sibling_order_rank` |
//! | `ProcessDescriptor` | 1 `pid`, 6 `process_name` |
//! | `CounterDescriptor` | 3 `unit` (2: count, 3: bytes) |
//! | `TrackEvent` | 4 `debug_annotations`, 9 `type`, 10 `name_iid`, 11 `track_uuid`, 30 `counter_value`, 47 `flow_ids`, 48 `terminating_flow_ids` |
//! | `DebugAnnotation` | 1 `name_iid`, 4 `int_value` |
//! | `InternedData` | 2 `event_names`, 3 `debug_annotation_names`, each with 1 `iid`, 2 `name` |
//!
//! All packets are one sequence; names are written once and then named by numbers.

use std::convert::Infallible;
use std::io::{self, Write};

use micropb::{PbEncoder, Tag, WIRE_TYPE_I64, WIRE_TYPE_LEN, WIRE_TYPE_VARINT};
use rustc_hash::FxHashMap;

/// Sequence that all packets are of; any number but 0.
const SEQUENCE: u64 = 1;
/// `SEQ_INCREMENTAL_STATE_CLEARED`: names begin anew.
const CLEARED: u64 = 1;
/// `SEQ_NEEDS_INCREMENTAL_STATE`: names of before are needed.
const NEEDS: u64 = 2;

/// What an event is, as `TrackEvent.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Type {
    /// A slice begins.
    Begin = 1,
    /// The slice that began last on the track ends.
    End = 2,
    /// A moment.
    Instant = 3,
    /// A counter's value.
    Counter = 4,
}

/// An event on a track.
#[derive(Clone, Debug)]
pub(super) struct TrackEvent<'a> {
    pub(super) at: u64,
    pub(super) track: u64,
    pub(super) kind: Type,
    /// Of all but ends and counters.
    pub(super) name: &'static str,
    pub(super) value: i64,
    pub(super) args: &'a [(&'static str, i64)],
    pub(super) flows: &'a [u64],
    pub(super) last_flow: Option<u64>,
}

/// What a track is.
#[derive(Clone, Debug)]
pub(super) enum Track {
    /// A node, with a number.
    Node(u32),
    /// A line of slices below another track, at this place.
    Slices(u64, u32),
    /// Slices that overlap, below another track; tracks of one name and parent are drawn together.
    Shared(u64),
    /// A counter below another track, at this place; of bytes if so.
    Counter(u64, u32, bool),
}

/// Fields of one message.
struct Fields(PbEncoder<Vec<u8>>);

/// Nothing can go wrong in memory.
fn sure<T>(result: Result<T, Infallible>) -> T {
    let Ok(value) = result;
    value
}

impl Fields {
    fn new() -> Self {
        Self(PbEncoder::new(Vec::new()))
    }

    fn tag(&mut self, field: u32, wire_type: u8) {
        sure(self.0.encode_tag(Tag::from_parts(field, wire_type)));
    }

    fn number(&mut self, field: u32, value: u64) -> &mut Self {
        self.tag(field, WIRE_TYPE_VARINT);
        sure(self.0.encode_varint64(value));
        self
    }

    fn signed(&mut self, field: u32, value: i64) -> &mut Self {
        self.tag(field, WIRE_TYPE_VARINT);
        sure(self.0.encode_int64(value));
        self
    }

    fn fixed(&mut self, field: u32, value: u64) -> &mut Self {
        self.tag(field, WIRE_TYPE_I64);
        sure(self.0.encode_fixed64(value));
        self
    }

    fn text(&mut self, field: u32, value: &str) -> &mut Self {
        self.tag(field, WIRE_TYPE_LEN);
        sure(self.0.encode_string(value));
        self
    }

    fn message(&mut self, field: u32, message: Self) -> &mut Self {
        self.tag(field, WIRE_TYPE_LEN);
        sure(self.0.encode_bytes(&message.0.into_writer()));
        self
    }
}

/// Writes a trace, packet by packet.
pub(super) struct TraceWriter<'a> {
    out: &'a mut dyn Write,
    /// Bytes written.
    pub(super) bytes: u64,
    events: FxHashMap<&'static str, u64>,
    annotations: FxHashMap<&'static str, u64>,
    started: bool,
}

impl<'a> TraceWriter<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, bytes: 0, events: FxHashMap::default(), annotations: FxHashMap::default(), started: false }
    }

    fn packet(&mut self, mut packet: Fields) -> io::Result<()> {
        packet.number(10, SEQUENCE).number(13, if self.started { NEEDS } else { CLEARED | NEEDS });
        self.started = true;
        let mut trace = Fields::new();
        trace.message(1, packet);
        let bytes = trace.0.into_writer();
        self.bytes += bytes.len() as u64;
        self.out.write_all(&bytes)
    }

    /// Says what a track is; before its first event.
    pub(super) fn track(&mut self, uuid: u64, name: &str, track: &Track) -> io::Result<()> {
        let mut descriptor = Fields::new();
        descriptor.number(1, uuid).text(2, name);
        match track {
            Track::Node(number) => {
                let mut process = Fields::new();
                process.number(1, u64::from(*number)).text(6, name);
                // Its lines in the order that they say.
                descriptor.message(3, process).number(11, 3);
            }
            Track::Slices(parent, rank) => {
                descriptor.number(5, *parent).number(12, u64::from(*rank));
            }
            Track::Shared(parent) => {
                descriptor.number(5, *parent);
            }
            Track::Counter(parent, rank, bytes) => {
                let mut counter = Fields::new();
                counter.number(3, if *bytes { 3 } else { 2 });
                descriptor.number(5, *parent).number(12, u64::from(*rank)).message(8, counter);
            }
        }
        let mut packet = Fields::new();
        packet.message(60, descriptor);
        self.packet(packet)
    }

    /// Writes an event; events must come in the order of time.
    pub(super) fn event(&mut self, event: &TrackEvent<'_>) -> io::Result<()> {
        let mut interned = Fields::new();
        let mut track_event = Fields::new();
        track_event.number(9, event.kind as u64).number(11, event.track);
        match event.kind {
            Type::Counter => drop(track_event.signed(30, event.value)),
            Type::End => {}
            Type::Begin | Type::Instant => {
                let iid = intern(&mut self.events, &mut interned, 2, event.name);
                track_event.number(10, iid);
            }
        }
        for (name, value) in event.args {
            let mut annotation = Fields::new();
            annotation.number(1, intern(&mut self.annotations, &mut interned, 3, name)).signed(4, *value);
            track_event.message(4, annotation);
        }
        for flow in event.flows {
            track_event.fixed(47, *flow);
        }
        if let Some(flow) = event.last_flow {
            track_event.fixed(48, flow);
        }
        let mut packet = Fields::new();
        packet.number(8, event.at);
        if !interned.0.as_writer().is_empty() {
            packet.message(12, interned);
        }
        packet.message(11, track_event);
        self.packet(packet)
    }
}

/// Number of a name; a new one is added to `interned` as its `field`.
fn intern(known: &mut FxHashMap<&'static str, u64>, interned: &mut Fields, field: u32, name: &'static str) -> u64 {
    let next = known.len() as u64 + 1;
    *known.entry(name).or_insert_with(|| {
        let mut entry = Fields::new();
        entry.number(1, next).text(2, name);
        interned.message(field, entry);
        next
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_bytes_that_the_format_says() {
        let mut out = Vec::new();
        let mut writer = TraceWriter::new(&mut out);
        writer.track(5, "n", &Track::Slices(3, 1)).unwrap();
        let event = TrackEvent {
            at: 300,
            track: 5,
            kind: Type::Begin,
            name: "x",
            value: 0,
            args: &[("id", -1)],
            flows: &[7],
            last_flow: None,
        };
        writer.event(&event).unwrap();
        writer.event(&TrackEvent { at: 301, args: &[], flows: &[], ..event }).unwrap();
        let written = writer.bytes;
        let expected: &[&[u8]] = &[
            // A packet of 18 bytes: descriptor (60) of 9 bytes, sequence, flags.
            &[0x0a, 16, 0xe2, 0x03, 9, 0x08, 5, 0x12, 1, b'n', 0x28, 3, 0x60, 1, 0x50, 1, 0x68, 3],
            // Time 300; names x and id, each number 1; the event.
            &[0x0a, 57, 0x40, 0xac, 0x02, 0x62, 15],
            &[0x12, 5, 0x08, 1, 0x12, 1, b'x', 0x1a, 6, 0x08, 1, 0x12, 2, b'i', b'd'],
            &[0x5a, 31, 0x48, 1, 0x58, 5, 0x50, 1],
            &[0x22, 13, 0x08, 1, 0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0xf9, 0x02, 7, 0, 0, 0, 0, 0, 0, 0, 0x50, 1, 0x68, 2],
            // The name is known.
            &[0x0a, 15, 0x40, 0xad, 0x02, 0x5a, 6, 0x48, 1, 0x58, 5, 0x50, 1, 0x50, 1, 0x68, 2],
        ];
        let expected: Vec<u8> = expected.concat();
        assert_eq!(out, expected);
        assert_eq!(written, expected.len() as u64);
    }
}
