//! The pairs of nodes that the cases need: one for each MTU.

use crate::testbed::netns::{Layout, Netns, Topology};

/// Two nodes, one link, for each of some MTUs.
pub(super) struct Links(Vec<(u32, Netns)>);

impl Links {
    /// Builds a pair for each different MTU.
    ///
    /// # Errors
    /// As [`Netns::build`].
    pub(super) fn build(mtus: impl Iterator<Item = u32>, ipv6: bool) -> anyhow::Result<Self> {
        let mut made = Vec::new();
        for mtu in mtus {
            if made.iter().all(|(have, _)| *have != mtu) {
                made.push((mtu, Netns::build_as(Layout { ipv6, ..Layout::new(2, Topology::Pair, mtu) })?));
            }
        }
        Ok(Self(made))
    }

    /// The pair with this MTU.
    ///
    /// # Panics
    /// If none was built.
    pub(super) fn with_mtu(&mut self, mtu: u32) -> &mut Netns {
        let found = self.0.iter_mut().find(|(have, _)| *have == mtu);
        &mut found.expect("a pair was built for each case").1
    }
}
