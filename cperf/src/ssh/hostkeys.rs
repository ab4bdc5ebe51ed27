//! Whether a host is the one that it should be: its key against the file of known hosts. Unknown is refused.

use std::io::Write as _;
use std::path::Path;

use ssh2::{CheckResult, HashType, KnownHostFileKind, Session};

use super::cluster::Access;
use crate::error::Stop;

/// Families of host keys, in the order in which they are asked for: names for the handshake.
const FAMILIES: [(&str, &str); 3] = [
    ("ssh-ed25519", "ssh-ed25519"),
    ("ecdsa-sha2-", "ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521"),
    ("ssh-rsa", "rsa-sha2-512,rsa-sha2-256,ssh-rsa"),
];

/// What the handshake should ask for, each after the one before has not led to a known key: first all kinds, those that
/// the file has for this host in front; then, as hashed names don't tell, kind by kind.
pub(super) fn preferences(access: &Access) -> Vec<String> {
    let text = std::fs::read_to_string(&access.known_hosts).unwrap_or_default();
    let named = name(access);
    let has = |kind: &str| {
        text.lines().any(|line| {
            let mut words = line.split_whitespace();
            let hosts = words.next().unwrap_or_default();
            hosts.split(',').any(|host| host == named) && words.next().is_some_and(|word| word.starts_with(kind))
        })
    };
    let (mut first, mut rest): (Vec<_>, Vec<_>) = FAMILIES.iter().partition(|(kind, _)| has(kind));
    first.append(&mut rest);
    let all = first.iter().map(|(_, names)| *names).collect::<Vec<_>>().join(",");
    std::iter::once(all).chain(first.iter().skip(1).map(|(_, names)| (*names).to_owned())).collect()
}

/// The host as the file of known hosts names it.
fn name(access: &Access) -> String {
    if access.port == 22 { access.host.clone() } else { format!("[{}]:{}", access.host, access.port) }
}

/// What the file says about the key of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is this host's.
    Yes,
    /// The host is not in the file, with this kind of key.
    No(String),
    /// The file has another key: not to be trusted.
    Other(String),
}

/// Looks the key of a session, after its handshake, up.
pub(super) fn check(session: &Session, access: &Access) -> anyhow::Result<Known> {
    let path = &access.known_hosts;
    let Some((key, _)) = session.host_key() else { anyhow::bail!("{}: the host has shown no key", access.host) };
    let mut known = session.known_hosts()?;
    if path.exists() {
        read(&mut known, path)?;
    }
    let print = fingerprint(session);
    Ok(match known.check_port(&access.host, access.port, key) {
        CheckResult::Match => Known::Yes,
        CheckResult::NotFound => Known::No(print),
        CheckResult::Mismatch => Known::Other(print),
        CheckResult::Failure => anyhow::bail!("{}: its key cannot be compared with {}", access.host, path.display()),
    })
}

/// Lines that libssh2 cannot read (kinds of keys that it does not know, marks for authorities) don't count.
fn read(known: &mut ssh2::KnownHosts, path: &Path) -> Result<(), Stop> {
    let text =
        std::fs::read_to_string(path).map_err(|err| Stop::Usage(format!("known_hosts {}: {err}", path.display())))?;
    for line in text.lines().filter(|line| !line.starts_with(['@', '#']) && !line.trim().is_empty()) {
        let _ = known.read_str(line, KnownHostFileKind::OpenSSH);
    }
    Ok(())
}

/// As ssh-keygen -l shows it.
fn fingerprint(session: &Session) -> String {
    let hash = session.host_key_hash(HashType::Sha256).unwrap_or_default();
    format!("SHA256:{}", base64(hash))
}

/// Why a host is refused, and what to do.
pub(super) fn refused(access: &Access, known: &Known) -> Stop {
    let (host, port, file) = (&access.host, access.port, access.known_hosts.display());
    let scan = if port == 22 { String::new() } else { format!("-p {port} ") };
    Stop::Missing(match known {
        Known::Other(print) => format!(
            "{host}: its key {print} is not the one in {file}: another machine answers there, or it was set up anew. If \
             you know why: `ssh-keygen -R '{}' -f {file}`, then add its new key",
            name(access)
        ),
        Known::Yes | Known::No(_) => {
            let print = if let Known::No(print) = known { print.as_str() } else { "" };
            format!(
                "{host}: its host key {print} is unknown, and none is accepted unseen. To do: compare it with what the \
                 machine's console or operator says, then `ssh-keyscan {scan}{host} >> {file}`"
            )
        }
    })
}

/// Base 64 without padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        let digits = (0..=chunk.len()).map(|at| DIGITS[(bits >> (18 - 6 * at) & 63) as usize]).collect::<Vec<_>>();
        let _ = text.write_all(&digits); // a vector takes all
    }
    String::from_utf8(text).expect("digits are ASCII")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn access(known_hosts: &Path, port: u16) -> Access {
        Access {
            host: "node0".into(),
            port,
            user: "me".into(),
            key: None,
            agent: false,
            passphrase_env: "X".into(),
            known_hosts: known_hosts.to_owned(),
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn base64_is_that_of_rfc_4648_without_padding() {
        for (bytes, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn kinds_of_keys_that_the_file_has_are_asked_for_first() {
        let path = std::env::temp_dir().join(format!("cperf-known-{}", std::process::id()));
        std::fs::write(&path, "other ssh-ed25519 AAAA\nx,[node0]:2222 ecdsa-sha2-nistp256 AAAA\n").unwrap();
        let asked = preferences(&access(&path, 2222));
        assert!(asked[0].starts_with("ecdsa-sha2-nistp256,"), "{asked:?}");
        assert_eq!(asked.len(), 3);
        assert!(preferences(&access(&path, 22))[0].starts_with("ssh-ed25519,"), "the name without a port is another");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_refusal_shows_the_key_and_what_to_do() {
        let access = access(Path::new("/k"), 2222);
        let text = refused(&access, &Known::No("SHA256:abc".into())).to_string();
        assert!(text.contains("SHA256:abc is unknown") && text.contains("ssh-keyscan -p 2222 node0 >> /k"), "{text}");
        let text = refused(&access, &Known::Other("SHA256:abc".into())).to_string();
        assert!(text.contains("ssh-keygen -R '[node0]:2222'"), "{text}");
    }
}
