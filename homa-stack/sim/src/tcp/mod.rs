//! TCP cubic and DCTCP.

/// Parameters of TCP.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// Bytes of an IP packet, header included.
    pub mtu: u32,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self { mtu: 1500 }
    }
}
