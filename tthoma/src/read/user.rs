//! Events that the user defines: lines of a researcher's own, by regular expressions in a TOML file.
//!
//! ```toml
//! # A line of a driver that stands for a known event: analyses take it for one.
//! [[event]]
//! name = "dma_start"
//! pattern = 'dma starts for id (?<id>\d+) at (?<offset>\d+) to (?<peer>0x[0-9a-f]+)'
//! as = "nic_data"
//!
//! # An event of its own: it is in the tables, in `print` and in `analyze user`.
//! [[event]]
//! name = "cache_miss"
//! pattern = '^cache missed (?<a>\d+) times'
//!
//! # How long it takes from one event to the next with the same id (or, by = "core", on the same core).
//! [[delay]]
//! name = "cache to end"
//! from = "cache_miss"
//! to = "rpc_end"
//! by = "core"
//! ```
//!
//! Named groups go to the fields of a [`Record`]: `id`, `offset`, `peer`, `a`, `b`, and with `as` also `c`. Numbers are
//! decimal, or hexadecimal with `0x`; `peer` is always hexadecimal. Only lines that no template of
//! [`vocabulary`](crate::vocabulary) fits are looked at.

use std::path::{Path, PathBuf};
use std::{fs, io};

use regex::bytes::{Regex, RegexSet};
use serde::Deserialize;

use super::scan::Scan;
use crate::event::{Have, Kind, NO_HOST, Record};

/// Why definitions of events can't be used.
#[derive(Debug, thiserror::Error)]
pub enum UserEventsError {
    /// The file can't be read.
    #[error("{path}: cannot read: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no TOML file of definitions.
    #[error("{path}: {message}")]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and what was expected.
        message: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    event: Vec<Event>,
    #[serde(default)]
    delay: Vec<Delay>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    name: String,
    pattern: String,
    r#as: Option<String>,
}

/// A delay that the user wants to know: from one event to the next of another kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// What it is called.
    pub name: String,
    /// Event that it begins with.
    pub from: String,
    /// Event that it ends with.
    pub to: String,
    /// What both events have in common.
    #[serde(default)]
    pub by: By,
}

/// What the two events of a [`Delay`] have in common, beside the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The RPC.
    #[default]
    Id,
    /// The core.
    Core,
    /// RPC and offset.
    Packet,
}

/// Definitions of events. The default has none.
#[derive(Debug, Default)]
pub struct UserEvents {
    events: Vec<(String, Kind, Regex)>,
    any: Option<RegexSet>,
    /// Delays to report.
    pub delays: Vec<Delay>,
}

impl UserEvents {
    /// Reads definitions from a file.
    ///
    /// # Errors
    ///
    /// If it can't be read, or holds anything but definitions.
    pub fn read(path: &Path) -> Result<Self, UserEventsError> {
        let text =
            fs::read_to_string(path).map_err(|source| UserEventsError::Open { path: path.to_path_buf(), source })?;
        Self::parse(&text).map_err(|message| UserEventsError::Bad { path: path.to_path_buf(), message })
    }

    /// Reads definitions; the error says what is wrong.
    ///
    /// # Errors
    ///
    /// If `text` holds anything but definitions.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_string())?;
        let mut events: Vec<(String, Kind, Regex)> = Vec::new();
        for event in file.event {
            let name = &event.name;
            if events.iter().any(|(known, _, _)| known == name) || kind(name).is_some() {
                return Err(format!("event `{name}`: this name is taken; choose another"));
            }
            let kind = match &event.r#as {
                None => Kind::User,
                Some(known) => kind(known).ok_or_else(|| {
                    format!("event `{name}`: no event `{known}` to stand for (`tthoma list --events` names them)")
                })?,
            };
            let regex = Regex::new(&event.pattern).map_err(|error| format!("event `{name}`: {error}"))?;
            for group in regex.capture_names().flatten() {
                if slot(group).is_none() || group == "c" && kind == Kind::User {
                    return Err(format!(
                        "event `{name}`: no field `{group}`: expected id, offset, peer, a, b, or c with `as`"
                    ));
                }
            }
            events.push((event.name, kind, regex));
        }
        for delay in &file.delay {
            for end in [&delay.from, &delay.to] {
                if !events.iter().any(|(name, _, _)| name == end) && kind(end).is_none() {
                    return Err(format!("delay `{}`: no event `{end}`", delay.name));
                }
            }
        }
        let any = match events.as_slice() {
            [] => None,
            _ => Some(RegexSet::new(events.iter().map(|(_, _, r)| r.as_str())).map_err(|error| error.to_string())?),
        };
        Ok(Self { events, any, delays: file.delay })
    }

    /// Events of these names, of which nothing else is known.
    pub(crate) fn named(names: Vec<String>) -> Self {
        let nothing = || Regex::new("$^").expect("this is a regular expression");
        let events = names.into_iter().map(|name| (name, Kind::User, nothing())).collect();
        Self { events, any: None, delays: Vec::new() }
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// True if no event is defined.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Names of the events, in order; [`Record::c`] of a [`Kind::User`] is the place in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.events.iter().map(|(name, _, _)| name.as_str())
    }

    /// True if `record` is an event of that name, defined or built in.
    pub fn is(&self, record: &Record, name: &str) -> bool {
        match record.kind {
            Kind::User => self.events.get(record.c as usize).is_some_and(|(known, _, _)| known == name),
            kind => kind.name() == name || self.events.iter().any(|(known, k, _)| known == name && *k == kind),
        }
    }

    /// Which event a message is, and its fields; time, core and client are not set.
    pub(crate) fn classify(&self, message: &[u8]) -> Option<(usize, Record)> {
        let event = self.any.as_ref()?.matches(message).iter().next()?;
        let (_, kind, regex) = &self.events[event];
        let captures = regex.captures(message)?;
        let mut values = [0; 6];
        let mut have = Have::default();
        for (name, group) in regex.capture_names().zip(captures.iter()) {
            let (Some(name), Some(group)) = (name, group) else { continue };
            let Some(slot) = slot(name) else { continue };
            let mut scan = Scan(group.as_bytes());
            let hex = name == "peer" || group.as_bytes().starts_with(b"0x");
            if let Some(value) = if hex { scan.hex() } else { scan.decimal() } {
                values[slot] = value;
                have.0 |= 1 << slot;
            }
        }
        let [id, offset, a, b, c, peer] = values;
        let c = if *kind == Kind::User { event as u32 } else { c };
        Some((event, Record { time: 0, id, offset, a, b, c, peer, core: 0, client: NO_HOST, kind: *kind, have }))
    }
}

fn kind(name: &str) -> Option<Kind> {
    Kind::ALL.iter().copied().find(|kind| kind.name() == name && *kind != Kind::User)
}

/// Slot of a field's name, also its bit in [`Have`].
fn slot(name: &str) -> Option<usize> {
    ["id", "offset", "a", "b", "c", "peer"].iter().position(|n| *n == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r"
        [[event]]
        name = 'dma_start'
        pattern = 'dma starts for id (?<id>\d+) at (?<offset>\d+) to (?<peer>0x[0-9a-f]+)'
        as = 'nic_data'
        [[event]]
        name = 'cache_miss'
        pattern = '^cache missed (?<a>\d+) times'
        [[delay]]
        name = 'miss'
        from = 'cache_miss'
        to = 'nic_data'
        by = 'core'
    ";

    #[test]
    fn lines_become_records() {
        let events = UserEvents::parse(TWO).unwrap();
        let (place, record) = events.classify(b"my dma starts for id 10 at 1400 to 0xa000102").unwrap();
        assert_eq!(
            (place, record.kind, record.id, record.offset, record.peer),
            (0, Kind::NicData, 10, 1400, 0xa00_0102)
        );
        assert!(record.have == Have::ID | Have::OFFSET | Have::PEER);
        let (place, record) = events.classify(b"cache missed 7 times").unwrap();
        assert_eq!((place, record.kind, record.a, record.c), (1, Kind::User, 7, 1));
        assert!(events.classify(b"a cache missed 7 times").is_none());
        assert!(events.is(&record, "cache_miss") && !events.is(&record, "dma_start"));
        assert_eq!(events.delays[0].by, By::Core);
    }

    #[test]
    fn mistakes_are_told() {
        let event = |rest: &str| format!("[[event]]\nname = 'x'\n{rest}");
        let cases: &[(String, &str)] = &[
            (event("pattern = '('"), "event `x`: regex parse error"),
            (event("pattern = '(?<id>1)(?<size>2)'"), "event `x`: no field `size`: expected id, offset"),
            (event("pattern = '(?<c>1)'"), "no field `c`"),
            (event("pattern = 'x'\nas = 'nic_dta'"), "no event `nic_dta` to stand for"),
            (event("pattern = 'x'\nkind = 'y'"), "unknown field `kind`"),
            (event("pattern = 'x'\n").repeat(2), "this name is taken"),
            ("[[event]]\nname = 'gro_data'\npattern = 'x'".into(), "this name is taken"),
            ("[[delay]]\nname = 'd'\nfrom = 'x'\nto = 'gro_data'".into(), "delay `d`: no event `x`"),
        ];
        for (text, expected) in cases {
            let error = UserEvents::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = UserEvents::read(Path::new("/nonexistent.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent.toml: cannot read"), "{error}");
    }
}
