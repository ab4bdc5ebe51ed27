//! What each table and each of its columns is.

use serde::Serialize;

/// Type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// Signed, 64 bits.
    I64,
    /// Unsigned, 64 bits.
    U64,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 8 bits.
    U8,
    /// Number, 64 bits.
    F64,
    /// Yes or no.
    Bool,
    /// Text.
    Text,
}

/// A table.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TableAbout {
    /// Its name, and that of its folder.
    pub name: &'static str,
    /// What a row is, and whose node it is filed under.
    pub row: &'static str,
    /// Its columns, in order.
    pub columns: &'static [ColumnAbout],
}

/// A column. Its unit is the last part of its name: `_ns`, `_us`, `_bytes`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ColumnAbout {
    /// Its name.
    pub name: &'static str,
    /// Type of its values; any may be null unless the meaning says otherwise.
    pub r#type: Type,
    /// What it says.
    pub meaning: &'static str,
}

const fn c(name: &'static str, r#type: Type, meaning: &'static str) -> ColumnAbout {
    ColumnAbout { name, r#type, meaning }
}

use Type::{Bool, F64, I64, Text, U8, U16, U32, U64};

const NODE: &str = "name of the node; never null";

/// All tables. Times are nanoseconds on the common clock; of a node whose clock can't be placed (`nodes.offset_ns` is null),
/// on its own.
pub const TABLES: &[TableAbout] = &[
    TableAbout {
        name: "nodes",
        row: "a node with a trace",
        columns: &[
            c("name", Text, NODE),
            c("path", Text, "its file"),
            c("first_ns", I64, "time of its first line"),
            c("last_ns", I64, "time of its last line"),
            c("offset_ns", I64, "what was added to the times of its trace; null: nothing, its clock can't be placed"),
            c("error_ns", I64, "no true offset is farther away than this"),
            c("lines", U64, "lines of its file"),
            c("events", U64, "of these, lines that are in the table of events"),
        ],
    },
    TableAbout {
        name: "events",
        row: "a line of a trace whose event is known, in the order of the file; filed under the node that logged it",
        columns: &[
            c("time_ns", I64, "when; never null"),
            c("core", U16, "core that logged it, from 32768 on a thread of a program; never null"),
            c("event", Text, "which event: a name of `tthoma list --events`; never null"),
            c("kind", U8, "the same as a number: place in the manifest's `kinds`; never null"),
            c("client", U16, "client of the RPC: place in the manifest's `hosts`; 65534: one of several"),
            c("id", U32, "low 32 bits of the RPC's id on the node that logs"),
            c("offset_bytes", U32, "bytes from the start of the message; for grants the limit"),
            c("a", U32, "see the event"),
            c("b", U32, "see the event; signed numbers modulo 2^32"),
            c("c", U32, "see the event"),
            c("peer", U32, "low 32 bits of the peer's address"),
        ],
    },
    TableAbout {
        name: "rpcs",
        row: "one side of an RPC; filed under the node of this side",
        columns: &[
            c("client", U16, "place in the manifest's `hosts`; never null"),
            c("id", U32, "id on this side, even on the client; never null"),
            c("is_client", Bool, "this side is the client's; never null"),
            c("peer", U32, "low 32 bits of the other side's address"),
            c("port", U32, "port of this side"),
            c("sendmsg_ns", I64, "the application starts the outgoing message"),
            c("copied_in_ns", I64, "the outgoing message is copied from the application"),
            c("handoff_ns", I64, "last hand-off to a waiting thread"),
            c("queued_ns", I64, "last time that it was queued for a thread"),
            c("found_ns", I64, "last time that a thread got it"),
            c("copy_out_ns", I64, "copying to the application begins"),
            c("copied_out_ns", I64, "last time that bytes were copied to the application"),
            c("recvmsg_done_ns", I64, "the application has the incoming message"),
            c("end_ns", I64, "end of the RPC"),
            c("out_length_bytes", U32, "length of the outgoing message"),
            c("in_length_bytes", U32, "length of the incoming message"),
            c("unscheduled_bytes", U32, "unscheduled bytes of the incoming message"),
            c("gro_core", U32, "core whose GRO had the latest data packet"),
            c("remaining_bytes", U32, "state dump: bytes of the incoming message that have not come"),
            c("granted_bytes", U32, "state dump: bytes of the incoming message that were granted"),
            c("sent_bytes", U32, "state dump: bytes of the outgoing message that were sent"),
            c("retransmits", U32, "distinct offsets of the outgoing message that were sent again; never null"),
        ],
    },
    TableAbout {
        name: "messages",
        row: "one direction of an RPC; filed under its client",
        columns: &[
            c("message", U32, "number of the message; never null"),
            c("client", U16, "client of the RPC: place in the manifest's `hosts`; never null"),
            c("id", U32, "id of the RPC on the message's sender: even for requests; never null"),
            c("length_bytes", U32, "length of the message"),
            c("started", Bool, "the call that starts it is in the trace; never null"),
        ],
    },
    TableAbout {
        name: "packets",
        row: "bytes of a message from an offset on, or a limit of grants; filed under the RPC's client",
        columns: &[
            c("packet", U32, "number of the packet, data and grants apart; never null"),
            c("is_grant", Bool, "it is a grant; never null"),
            c("message", U32, "number of the message; never null"),
            c("offset_bytes", U32, "its first byte; for grants the limit; never null"),
            c("frame", U32, "number of the data packet that heads the frame it was sent in, if that is another"),
        ],
    },
    TableAbout {
        name: "transmissions",
        row: "a frame passed to IP, or a grant; filed under its sender",
        columns: &[
            c("packet", U32, "number of the packet; never null"),
            c("is_grant", Bool, "it is a grant; never null"),
            c("core", U16, "core of its first event; never null"),
            c("xmit_ns", I64, "passed to IP; grants: decided"),
            c("deferred_ns", I64, "held back by homa_qdisc"),
            c("undeferred_ns", I64, "let go by homa_qdisc"),
            c("nic_ns", I64, "given to the NIC"),
            c("free_ns", I64, "given back by the NIC"),
            c("length_bytes", U32, "bytes of the message in the frame; grants: newly granted bytes; 0: unknown"),
            c("queue", U32, "transmit queue"),
            c("queue_address", U32, "what the driver calls it, 0: unknown; never null"),
            c("priority", U8, "grants: level for the data"),
            c("paced", Bool, "the pacer sent it; never null"),
            c("again", Bool, "these bytes were sent before; never null"),
        ],
    },
    TableAbout {
        name: "receptions",
        row: "a packet as it arrived; filed under its receiver",
        columns: &[
            c("packet", U32, "number of the packet; never null"),
            c("is_grant", Bool, "it is a grant; never null"),
            c("gro_ns", I64, "at GRO"),
            c("gro_core", U16, "core of GRO; never null"),
            c("softirq_ns", I64, "in SoftIRQ"),
            c("softirq_core", U16, "core of SoftIRQ; never null"),
            c("ring_ns", U32, "wait in the receive ring before GRO"),
            c("priority", U8, "level at which it was sent"),
            c("discarded", Bool, "SoftIRQ threw it away; never null"),
        ],
    },
    TableAbout {
        name: "grants",
        row: "a grant with its transmission, its reception or both; filed under the node that grants, else the other",
        columns: &[
            c("client", U16, "client of the RPC: place in the manifest's `hosts`; never null"),
            c("id", U32, "id of the RPC on the node that grants; never null"),
            c("limit_bytes", U32, "bytes of the message that may be sent; never null"),
            c("increment_bytes", U32, "bytes newly granted"),
            c("priority", U8, "level for the data"),
            c("xmit_ns", I64, "decided"),
            c("nic_ns", I64, "given to the NIC"),
            c("gro_ns", I64, "at the other node's GRO"),
            c("softirq_ns", I64, "in the other node's SoftIRQ"),
        ],
    },
    TableAbout {
        name: "retransmits",
        row: "a range of bytes that a sender said it sends again; filed under the RPC's client",
        columns: &[
            c("message", U32, "number of the message; never null"),
            c("start_bytes", U32, "first byte; never null"),
            c("end_bytes", U32, "byte after the last; never null"),
        ],
    },
    TableAbout {
        name: "handoffs",
        row: "work handed from one core or thread to another; filed under the node",
        columns: &[
            c("kind", Text, "gro_to_softirq, or softirq_to_{polling,sleeping,server_queue,client_queue}; never null"),
            c("list", U8, "the same as a number, from 0; never null"),
            c("end_ns", I64, "when the other had it; never null"),
            c("delay_ns", I64, "how long that took; never null"),
        ],
    },
    TableAbout {
        name: "invocations",
        row: "an invocation of SoftIRQ processing; filed under the node",
        columns: &[
            c("core", U16, "core; never null"),
            c("start_ns", I64, "its begin; null: before the trace"),
            c("end_ns", I64, "last event that it logged; never null"),
            c("data", U32, "data packets that it processed; never null"),
            c("grants", U32, "grants that it processed; never null"),
        ],
    },
    TableAbout {
        name: "intervals",
        row: "a number at the end of a step of time; filed under the node",
        columns: &[
            c("end_ns", I64, "end of the step; never null"),
            c("field", Text, "what the number is; never null"),
            c("value", F64, "messages, packets or bytes: there at the end of the step, or in it; null: not logged"),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_tables_lists_each_column() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tables.md");
        let page = std::fs::read_to_string(path).unwrap();
        for table in TABLES {
            let rows = table
                .columns
                .iter()
                .map(|c| format!("| `{}` | {} | {} |\n", c.name, format!("{:?}", c.r#type).to_lowercase(), c.meaning));
            let head = format!(
                "## {}\n\nA row is {}.\n\n| column | type | meaning |\n| --- | --- | --- |\n",
                table.name, table.row
            );
            let section = rows.fold(head, |all, row| all + &row);
            assert!(page.contains(&section), "docs/tables.md lacks:\n{section}");
        }
    }

    #[test]
    fn names_are_unique_and_end_in_their_unit() {
        for (place, table) in TABLES.iter().enumerate() {
            assert!(TABLES[..place].iter().all(|t| t.name != table.name));
            for (place, column) in table.columns.iter().enumerate() {
                assert!(table.columns[..place].iter().all(|c| c.name != column.name), "{}", column.name);
                assert!(!column.meaning.is_empty());
                assert!(column.r#type != Type::I64 || column.name.ends_with("_ns"), "{}", column.name);
            }
        }
    }
}
