//! A model of tables that were written before: what analyses see is the same as from the text.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use super::parquet::Table;
use super::store::{FileManifest, Manifest, StoreError, failed};
use crate::analyze::Options;
use crate::clock::{Clock, Pair};
use crate::event::{Have, Kind, Kinds, Record};
use crate::hosts::Hosts;
use crate::model::{Handoff, Handoffs, Model, Side, Wanted};
use crate::packets::{Column, Message, NO_PRIORITY, NO_QUEUE, PacketRows, Packets, ReceivedRows, SentRows, UNSEEN};
use crate::read::{NodeTrace, UserEvents};

/// Makes a model of a run's tables below `dir`, with what is `wanted`.
///
/// # Errors
///
/// If a file is missing, damaged, or not what the manifest says.
pub fn load(dir: &Path, manifest: &Manifest, options: &Options, wanted: Wanted) -> Result<Model, StoreError> {
    let loader = Loader { dir, manifest };
    let user = match &options.events {
        Some(path) => UserEvents::read(path).map_err(|e| failed(path)(io::Error::other(e)))?,
        None => UserEvents::named(manifest.user_events.clone()),
    };
    // Flights of TCP are made of events.
    let tcp = manifest.nodes.iter().any(|n| n.stats.count(Kind::TcpXmit) + n.stats.count(Kind::TcpGro) > 0);
    let kinds = if tcp && wanted.packets { Kinds::ALL } else { wanted.events };
    // Where all events are, RPCs are made of them.
    let all = kinds == Kinds::ALL;
    let (events, sides, packets, handoffs) = thread::scope(|scope| {
        let events = scope.spawn(|| if kinds.is_empty() { Ok(Vec::new()) } else { loader.events(kinds) });
        let handoffs = scope.spawn(|| if wanted.packets { loader.handoffs() } else { Ok(Handoffs::default()) });
        let sides = scope.spawn(|| if all || !wanted.packets { Ok(Vec::new()) } else { loader.sides() });
        let packets = if wanted.packets { loader.packets() } else { Ok(Packets::default()) };
        let joined = "loading does not panic";
        (events.join().expect(joined), sides.join().expect(joined), packets, handoffs.join().expect(joined))
    });
    let (mut events, mut sides, packets, handoffs) = (events?.into_iter(), sides?, packets?, handoffs?);
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
    let clock = clock.used(options, manifest.nodes.iter().map(|node| &node.stats.counter));
    let hosts = Hosts {
        nodes: manifest.nodes.iter().map(|n| n.node.clone()).collect(),
        outside: manifest.outside.clone(),
        again: manifest.again.clone(),
        by_address: manifest.addresses.iter().copied().collect(),
        ambiguous_records: manifest.ambiguous_records,
        unresolved_records: manifest.unresolved_records,
        notes: manifest.notes.clone(),
    };
    for side in &mut sides {
        side.shift(clock.offset(usize::from(side.node)).unwrap_or(0));
    }
    let mut model = Model::of_parts(traces, hosts, packets, clock, handoffs, Arc::new(user));
    model.set_sides(sides);
    model.set_counts(manifest.nodes.iter().map(|node| node.counts).collect());
    Ok(model)
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
        mut each: impl FnMut(&Table, Option<usize>) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        self.manifest.files.iter().filter(|f| f.table == table).try_for_each(|file| self.file(file, &mut each))
    }

    /// The same for one file.
    fn file<T>(
        &self,
        file: &FileManifest,
        each: impl FnOnce(&Table, Option<usize>) -> io::Result<T>,
    ) -> Result<T, StoreError> {
        let path = self.dir.join(&file.path);
        let read = Table::open(&path).map_err(failed(&path))?;
        if read.rows() != file.rows {
            let what = format!("{} rows, but its manifest says {}", read.rows(), file.rows);
            return Err(StoreError::Manifest { path, what });
        }
        let node = self.manifest.nodes.iter().position(|n| n.node == file.node);
        each(&read, node).map_err(failed(&path))
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

    /// Records of each node, of some kinds.
    fn events(&self, wanted: Kinds) -> Result<Vec<Vec<Record>>, StoreError> {
        let kinds: Vec<Option<Kind>> =
            self.manifest.kinds.iter().map(|name| Kind::ALL.iter().copied().find(|k| k.name() == name)).collect();
        let of_file = |table: &Table, node: Option<usize>| {
            let kind = table.u8s("kind", 0)?;
            let is_wanted = |kind: &u8| kinds.get(usize::from(*kind)).is_none_or(|k| k.is_none_or(|k| wanted.has(k)));
            if !kind.iter().any(is_wanted) {
                return Ok((node, Vec::new()));
            }
            let time = self.times(table, "time_ns", node)?;
            let (core, client) = (table.u16s("core", 0)?, table.u16s("client", 0)?);
            let fields = ["id", "offset_bytes", "a", "b", "c", "peer"];
            let values: Vec<Vec<Option<u32>>> =
                fields.iter().map(|field| table.maybe_u32s(field)).collect::<io::Result<_>>()?;
            let bad = || io::Error::other("an event that the manifest does not name");
            let mut records = Vec::with_capacity(if wanted == Kinds::ALL { time.len() } else { 0 });
            for row in 0..time.len() {
                let kind = kinds.get(usize::from(kind[row])).copied().flatten().ok_or_else(bad)?;
                if !wanted.has(kind) {
                    continue;
                }
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
            Ok((node, records))
        };
        // Some files at a time.
        let files: Vec<&FileManifest> = self.manifest.files.iter().filter(|f| f.table == "events").collect();
        let threads = thread::available_parallelism().map_or(1, usize::from).min(files.len());
        let (files, of_file) = (&files, &of_file);
        let one = move |first: usize| -> Result<Vec<_>, StoreError> {
            files.iter().skip(first).step_by(threads).map(|file| self.file(file, of_file)).collect()
        };
        let done: Vec<_> = thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|first| scope.spawn(move || one(first))).collect();
            all.into_iter().map(|t| t.join().expect("loading does not panic")).collect()
        });
        let mut all = vec![Vec::new(); self.manifest.nodes.len()];
        for some in done {
            for (node, records) in some? {
                if let Some(node) = node {
                    all[node] = records;
                }
            }
        }
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
        self.files("messages", |table, _| {
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
        self.files("retransmits", |table, _| {
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

    fn packet_rows(&self) -> Result<Vec<PacketRows>, StoreError> {
        let mut all = Vec::new();
        self.files("packets", |table, _| {
            all.push(PacketRows {
                grant: table.bools("is_grant")?,
                packet: table.u32s("packet", 0)?,
                message: table.u32s("message", 0)?,
                offset: table.u32s("offset_bytes", 0)?,
                frame: Column::new(table.sparse("frame", |t, c| t.u32s(c, u32::MAX))?, u32::MAX),
            });
            Ok(())
        })?;
        Ok(all)
    }

    fn sent(&self) -> Result<Vec<SentRows>, StoreError> {
        let mut all = Vec::new();
        self.files("transmissions", |table, node| {
            let times = |column| {
                let times = table.sparse(column, |table, column| self.times(table, column, node))?;
                Ok::<_, io::Error>(Column::new(times, UNSEEN))
            };
            let numbers =
                |column, null| Ok::<_, io::Error>(Column::new(table.sparse(column, |t, c| t.u32s(c, null))?, null));
            let priority = table.sparse("priority", |t, c| t.u8s(c, NO_PRIORITY))?;
            all.push(SentRows {
                node: node.unwrap_or(0) as u16,
                grant: table.bools("is_grant")?,
                packet: table.u32s("packet", 0)?,
                core: table.u16s("core", 0)?,
                times: [
                    times("xmit_ns")?,
                    times("deferred_ns")?,
                    times("undeferred_ns")?,
                    times("nic_ns")?,
                    times("free_ns")?,
                ],
                length: table.u32s("length_bytes", 0)?,
                queue: numbers("queue", NO_QUEUE)?,
                queue_address: numbers("queue_address", 0)?,
                priority: Column::new(priority, NO_PRIORITY),
                paced: Column::new(table.bools("paced")?, false),
                again: table.bools("again")?,
            });
            Ok(())
        })?;
        Ok(all)
    }

    fn received(&self) -> Result<Vec<ReceivedRows>, StoreError> {
        let mut all = Vec::new();
        self.files("receptions", |table, node| {
            let times = |column| {
                let times = table.sparse(column, |table, column| self.times(table, column, node))?;
                Ok::<_, io::Error>(Column::new(times, UNSEEN))
            };
            let priority = table.sparse("priority", |t, c| t.u8s(c, NO_PRIORITY))?;
            all.push(ReceivedRows {
                node: node.unwrap_or(0) as u16,
                grant: table.bools("is_grant")?,
                packet: table.u32s("packet", 0)?,
                gro: times("gro_ns")?,
                softirq: times("softirq_ns")?,
                gro_core: table.u16s("gro_core", 0)?,
                softirq_core: table.u16s("softirq_core", 0)?,
                ring: Column::new(table.sparse("ring_ns", |t, c| t.u32s(c, u32::MAX))?, u32::MAX),
                priority: Column::new(priority, NO_PRIORITY),
                discarded: table.bools("discarded")?,
            });
            Ok(())
        })?;
        Ok(all)
    }

    /// Sides of RPCs, with times on the nodes' own clocks.
    fn sides(&self) -> Result<Vec<Side>, StoreError> {
        let mut all = Vec::new();
        self.files("rpcs", |table, node| {
            let (client, id) = (table.u16s("client", 0)?, table.u32s("id", 0)?);
            let first = all.len();
            let node_place = node.unwrap_or(0) as u16;
            all.extend(client.iter().zip(id).map(|(client, id)| Side::unseen(*client, id, node_place)));
            type Time = fn(&mut Side) -> &mut i64;
            let times: [(&str, Time); 9] = [
                ("sendmsg_ns", |s| &mut s.sendmsg),
                ("copied_in_ns", |s| &mut s.copied_in),
                ("handoff_ns", |s| &mut s.handoff),
                ("queued_ns", |s| &mut s.queued),
                ("found_ns", |s| &mut s.found),
                ("copy_out_ns", |s| &mut s.copy_out),
                ("copied_out_ns", |s| &mut s.copied_out),
                ("recvmsg_done_ns", |s| &mut s.recvmsg_done),
                ("end_ns", |s| &mut s.end),
            ];
            for (column, field) in times {
                let times = table.sparse(column, |table, column| self.times(table, column, node))?;
                all[first..].iter_mut().zip(times).for_each(|(side, time)| *field(side) = time);
            }
            type Number = fn(&mut Side) -> &mut Option<u32>;
            let numbers: [(&str, Number); 8] = [
                ("peer", |s| &mut s.peer),
                ("port", |s| &mut s.port),
                ("out_length_bytes", |s| &mut s.out_length),
                ("in_length_bytes", |s| &mut s.in_length),
                ("unscheduled_bytes", |s| &mut s.unscheduled),
                ("remaining_bytes", |s| &mut s.remaining),
                ("granted_bytes", |s| &mut s.granted),
                ("sent_bytes", |s| &mut s.dumped_sent),
            ];
            for (column, field) in numbers {
                let numbers = table.sparse(column, |table, column| table.maybe_u32s(column))?;
                all[first..].iter_mut().zip(numbers).for_each(|(side, number)| *field(side) = number);
            }
            let cores = table.maybe_u32s("gro_core")?;
            all[first..].iter_mut().zip(cores).for_each(|(side, core)| side.gro_core = core.map(|core| core as u16));
            let retransmits = table.u32s("retransmits", 0)?;
            all[first..].iter_mut().zip(retransmits).for_each(|(side, number)| side.retransmits = number);
            Ok(())
        })?;
        Ok(all)
    }

    fn handoffs(&self) -> Result<Handoffs, StoreError> {
        let mut all = Handoffs::default();
        self.files("handoffs", |table, node| {
            let (list, end) = (table.u8s("list", 0)?, self.times(table, "end_ns", node)?);
            let node = node.unwrap_or(0) as u16;
            for (row, delay) in table.i64s("delay_ns", 0)?.into_iter().enumerate() {
                let list = all.list_mut(list[row]).ok_or_else(|| io::Error::other("an unknown kind of hand-off"))?;
                list.push(Handoff { delay, end: end[row], node });
            }
            Ok(())
        })?;
        (all.batches_open, all.replaced, all.open) = self.manifest.handoffs_left_out;
        Ok(all)
    }
}
