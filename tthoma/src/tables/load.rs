//! A model of tables that were written before: what analyses see is the same as from the text.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use super::polars::{self, Table};
use super::store::{Manifest, StoreError, failed};
use crate::analyze::Options;
use crate::clock::{Clock, Pair};
use crate::event::{Have, Kind, Record};
use crate::hosts::Hosts;
use crate::model::{Handoff, Handoffs, Model};
use crate::packets::{Message, NO_PRIORITY, NO_QUEUE, PacketRow, Packets, ReceivedRow, SentRow, UNSEEN};
use crate::read::{NodeTrace, UserEvents};

/// What of a run is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Packets and hand-offs, not each event: all that some analyses read, and much faster.
    Packets,
    /// Everything.
    All,
}

/// Makes a model of a run's tables below `dir`.
///
/// # Errors
///
/// If a file is missing, damaged, or not what the manifest says.
pub fn load(dir: &Path, manifest: &Manifest, options: &Options, part: Part) -> Result<Model, StoreError> {
    let loader = Loader { dir, manifest };
    let user = match &options.events {
        Some(path) => UserEvents::read(path).map_err(|e| failed(path)(io::Error::other(e)))?,
        None => UserEvents::named(manifest.user_events.clone()),
    };
    let (events, packets, handoffs) = thread::scope(|scope| {
        let events = scope.spawn(|| if part == Part::All { loader.events() } else { Ok(Vec::new()) });
        let handoffs = scope.spawn(|| loader.handoffs());
        let packets = loader.packets();
        let joined = "loading does not panic";
        (events.join().expect(joined), packets, handoffs.join().expect(joined))
    });
    let (mut events, packets, handoffs) = (events?.into_iter(), packets?, handoffs?);
    let trace = |node: &super::store::NodeManifest| NodeTrace {
        node: node.node.clone(),
        records: events.next().unwrap_or_default(),
        span: node.span,
        threads: node.threads.clone(),
        stats: node.stats.clone(),
    };
    let traces = manifest.nodes.iter().map(trace).collect();
    let pairs = manifest.pairs.iter().map(|(from, to, packets, min)| Pair {
        from: *from,
        to: *to,
        packets: *packets,
        min: *min,
    });
    let clock = Clock::from_pairs(manifest.nodes.len(), pairs.collect());
    let clock = if options.no_sync { clock.unapplied() } else { clock };
    let hosts = Hosts {
        nodes: manifest.nodes.iter().map(|n| n.node.clone()).collect(),
        outside: manifest.outside.clone(),
        by_address: manifest.addresses.iter().copied().collect(),
        ambiguous_records: manifest.ambiguous_records,
        unresolved_records: manifest.unresolved_records,
        notes: manifest.notes.clone(),
    };
    Ok(Model::of_parts(traces, hosts, packets, clock, handoffs, Arc::new(user)))
}

struct Loader<'a> {
    dir: &'a Path,
    manifest: &'a Manifest,
}

impl Loader<'_> {
    /// Calls `each` with the columns of each file of a table in the order of the manifest, and its node's place (that of
    /// a host without trace: none).
    fn files(
        &self,
        table: &str,
        columns: &[&str],
        mut each: impl FnMut(&Table, Option<usize>) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        for file in self.manifest.files.iter().filter(|f| f.table == table) {
            let path = self.dir.join(&file.path);
            let read = polars::read(&path, columns).map_err(failed(&path))?;
            if read.rows() != file.rows {
                let what = format!("{} rows, but its manifest says {}", read.rows(), file.rows);
                return Err(StoreError::Manifest { path, what });
            }
            let node = self.manifest.nodes.iter().position(|n| n.node == file.node);
            each(&read, node).map_err(failed(&path))?;
        }
        Ok(())
    }

    fn shift(&self, node: Option<usize>) -> i64 {
        node.map_or(0, |node| self.manifest.nodes[node].shift)
    }

    /// Times of a column on the node's own clock.
    fn times(&self, table: &Table, column: &str, node: Option<usize>) -> io::Result<Vec<i64>> {
        let shift = self.shift(node);
        let mut times = table.i64s(column, UNSEEN)?;
        times.iter_mut().filter(|t| **t != UNSEEN).for_each(|t| *t -= shift);
        Ok(times)
    }

    /// Records of each node.
    fn events(&self) -> Result<Vec<Vec<Record>>, StoreError> {
        let kinds: Vec<Option<Kind>> =
            self.manifest.kinds.iter().map(|name| Kind::ALL.iter().copied().find(|k| k.name() == name)).collect();
        let columns = ["time_ns", "core", "kind", "client", "id", "offset_bytes", "a", "b", "c", "peer"];
        let mut all = vec![Vec::new(); self.manifest.nodes.len()];
        self.files("events", &columns, |table, node| {
            let time = self.times(table, "time_ns", node)?;
            let (core, client) = (table.u16s("core", 0)?, table.u16s("client", 0)?);
            let kind = table.u8s("kind", 0)?;
            let fields = ["id", "offset_bytes", "a", "b", "c", "peer"];
            let values: Vec<Vec<Option<u32>>> =
                fields.iter().map(|field| table.maybe_u32s(field)).collect::<io::Result<_>>()?;
            let bad = || io::Error::other("an event that the manifest does not name");
            let mut records = Vec::with_capacity(time.len());
            for row in 0..time.len() {
                let kind = kinds.get(usize::from(kind[row])).copied().flatten().ok_or_else(bad)?;
                let mut have = Have::default();
                let field = |slot: usize| values[slot][row].unwrap_or(0);
                for (slot, values) in values.iter().enumerate() {
                    have.0 |= u8::from(values[row].is_some()) << slot;
                }
                if kind == Kind::User {
                    // Its place among the definitions is no field of the line.
                    have.0 &= !Have::C.0;
                }
                records.push(Record {
                    time: time[row],
                    id: field(0),
                    offset: field(1),
                    a: field(2),
                    b: field(3),
                    c: field(4),
                    peer: field(5),
                    core: core[row],
                    client: client[row],
                    kind,
                    have,
                });
            }
            if let Some(node) = node {
                all[node] = records;
            }
            Ok(())
        })?;
        Ok(all)
    }

    fn packets(&self) -> Result<Packets, StoreError> {
        let (messages, (packets, sent, received)) = thread::scope(|scope| {
            let messages = scope.spawn(|| self.messages());
            let packets = scope.spawn(|| self.packet_rows());
            let sent = scope.spawn(|| self.sent());
            let received = self.received();
            let joined = "loading does not panic";
            let rest = (packets.join().expect(joined), sent.join().expect(joined), received);
            (messages.join().expect(joined), rest)
        });
        let rebuilt = Packets::rebuild(messages?, &packets?, &sent?, &received?, self.manifest.lone_ring_waits);
        let path = self.dir.join(format!("manifest-{}.json", self.manifest.run));
        rebuilt
            .ok_or_else(|| StoreError::Manifest { path, what: "packets, transmissions and receptions disagree".into() })
    }

    fn messages(&self) -> Result<Vec<(u32, Message)>, StoreError> {
        let mut all = Vec::new();
        self.files("messages", &["message", "client", "id", "length_bytes", "started"], |table, _| {
            let (place, id) = (table.u32s("message", 0)?, table.u32s("id", 0)?);
            let (client, started) = (table.u16s("client", 0)?, table.bools("started")?);
            let length = table.maybe_u32s("length_bytes")?;
            all.extend((0..table.rows()).map(|row| {
                let (client, id, length, started) = (client[row], id[row], length[row], started[row]);
                (place[row], Message { client, id, length, started, retransmitted: Vec::new() })
            }));
            Ok(())
        })?;
        all.sort_unstable_by_key(|(place, _)| *place);
        self.files("retransmits", &["message", "start_bytes", "end_bytes"], |table, _| {
            let (message, start) = (table.u32s("message", 0)?, table.u32s("start_bytes", 0)?);
            for (row, end) in table.u32s("end_bytes", 0)?.into_iter().enumerate() {
                if let Some((_, message)) = all.get_mut(message[row] as usize) {
                    message.retransmitted.push((start[row], end));
                }
            }
            Ok(())
        })?;
        Ok(all)
    }

    fn packet_rows(&self) -> Result<Vec<PacketRow>, StoreError> {
        let mut all = Vec::new();
        self.files("packets", &["packet", "is_grant", "message", "offset_bytes", "frame"], |table, _| {
            let (place, message) = (table.u32s("packet", 0)?, table.u32s("message", 0)?);
            let (offset, grant) = (table.u32s("offset_bytes", 0)?, table.bools("is_grant")?);
            let frame = table.maybe_u32s("frame")?;
            all.extend((0..table.rows()).map(|row| (grant[row], place[row], message[row], offset[row], frame[row])));
            Ok(())
        })?;
        Ok(all)
    }

    fn sent(&self) -> Result<Vec<SentRow>, StoreError> {
        let columns = [
            "packet",
            "is_grant",
            "core",
            "xmit_ns",
            "deferred_ns",
            "undeferred_ns",
            "nic_ns",
            "free_ns",
            "length_bytes",
            "queue",
            "queue_address",
            "priority",
            "paced",
            "again",
        ];
        let mut all = Vec::new();
        self.files("transmissions", &columns, |table, node| {
            let (packet, grant) = (table.u32s("packet", 0)?, table.bools("is_grant")?);
            let (core, length) = (table.u16s("core", 0)?, table.u32s("length_bytes", 0)?);
            let times: Vec<Vec<i64>> =
                columns[3..8].iter().map(|column| self.times(table, column, node)).collect::<io::Result<_>>()?;
            let (queue, address) = (table.u32s("queue", NO_QUEUE)?, table.u32s("queue_address", 0)?);
            let priority = table.u8s("priority", NO_PRIORITY)?;
            let (paced, again) = (table.bools("paced")?, table.bools("again")?);
            let node = node.unwrap_or(0) as u16;
            all.extend((0..table.rows()).map(|row| SentRow {
                grant: grant[row],
                packet: packet[row],
                node,
                core: core[row],
                times: [times[0][row], times[1][row], times[2][row], times[3][row], times[4][row]],
                length: length[row],
                queue: queue[row],
                queue_address: address[row],
                priority: priority[row],
                paced: paced[row],
                again: again[row],
            }));
            Ok(())
        })?;
        Ok(all)
    }

    fn received(&self) -> Result<Vec<ReceivedRow>, StoreError> {
        let columns = [
            "packet",
            "is_grant",
            "gro_ns",
            "gro_core",
            "softirq_ns",
            "softirq_core",
            "ring_ns",
            "priority",
            "discarded",
        ];
        let mut all = Vec::new();
        self.files("receptions", &columns, |table, node| {
            let (packet, grant) = (table.u32s("packet", 0)?, table.bools("is_grant")?);
            let (gro, softirq) = (self.times(table, "gro_ns", node)?, self.times(table, "softirq_ns", node)?);
            let (gro_core, softirq_core) = (table.u16s("gro_core", 0)?, table.u16s("softirq_core", 0)?);
            let (ring, priority) = (table.maybe_u32s("ring_ns")?, table.u8s("priority", NO_PRIORITY)?);
            let discarded = table.bools("discarded")?;
            let node = node.unwrap_or(0) as u16;
            all.extend((0..table.rows()).map(|row| ReceivedRow {
                grant: grant[row],
                packet: packet[row],
                node,
                gro: gro[row],
                softirq: softirq[row],
                gro_core: gro_core[row],
                softirq_core: softirq_core[row],
                ring: ring[row],
                priority: priority[row],
                discarded: discarded[row],
            }));
            Ok(())
        })?;
        Ok(all)
    }

    fn handoffs(&self) -> Result<Handoffs, StoreError> {
        let mut all = Handoffs::default();
        self.files("handoffs", &["kind", "end_ns", "delay_ns"], |table, node| {
            let (kind, end) = (table.texts("kind")?, self.times(table, "end_ns", node)?);
            let node = node.unwrap_or(0) as u16;
            for (row, delay) in table.i64s("delay_ns", 0)?.into_iter().enumerate() {
                let list = all.list_mut(&kind[row]).ok_or_else(|| io::Error::other("an unknown kind of hand-off"))?;
                list.push(Handoff { delay, end: end[row], node });
            }
            Ok(())
        })?;
        (all.batches_open, all.replaced, all.open) = self.manifest.handoffs_left_out;
        Ok(all)
    }
}
