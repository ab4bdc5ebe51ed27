//! A switch's command line by SSH, without a terminal. Source: cperf.md 5.4.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, bail};
use ssh2::{Channel, Session};

use super::cluster::Access;
use super::connect;
use super::pump::Pump;
use crate::setup::switch::Console;

/// How long a command may take, ms.
const LIMIT_MS: u32 = 5000;
/// A word that no switch knows: its complaint about it tells that the command before it is done. A number follows.
const NONSENSE: &str = "cperf-done-";
/// Longest answer, bytes.
const LONGEST: usize = 1 << 20;

/// A switch that takes commands.
pub(crate) struct SwitchConsole {
    channel: Channel,
    /// Kept, since the channel is its.
    _session: Session,
    said: u32,
}

impl SwitchConsole {
    /// Connects, directly or through the jump host.
    ///
    /// # Errors
    /// As for machines; or it gives no command line.
    pub(super) fn open(access: &Access, jump: Option<&Pump>) -> anyhow::Result<Self> {
        let session = connect::open(access, jump).context("the switch")?.session;
        session.set_timeout(LIMIT_MS);
        let mut channel = session.channel_session().context("the switch opens no channel")?;
        channel.shell().context("the switch gives no command line")?;
        let mut console = Self { channel, _session: session, said: 0 };
        // What it says to greet is none of an answer.
        console.say("")?;
        Ok(console)
    }
}

impl Console for SwitchConsole {
    fn say(&mut self, line: &str) -> anyhow::Result<String> {
        self.said += 1;
        let end = format!("{NONSENSE}{}", self.said);
        self.channel.write_all(format!("{line}\n{end}\n").as_bytes()).context("the switch takes no command")?;
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let len = self
                .channel
                .read(&mut piece)
                .with_context(|| format!("the switch has not finished `{line}` in {} s", LIMIT_MS / 1000))?;
            answer.extend_from_slice(&piece[..len]);
            let text = String::from_utf8_lossy(&answer);
            if let Some(at) = text.find(&end).filter(|at| text[*at..].contains('\n')) {
                let before = text[..at].lines().filter(|said| !said.contains(NONSENSE));
                // The last line is the begin of the complaint.
                let mut lines: Vec<_> = before.collect();
                if !text[..at].ends_with('\n') {
                    lines.pop();
                }
                return Ok(lines.join("\n"));
            }
            if len == 0 || answer.len() > LONGEST {
                bail!("the switch has ended in `{line}`: {}", text.trim());
            }
        }
    }
}
