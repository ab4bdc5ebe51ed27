//! Logging in: with a key from a file, with those of an agent, or with whatever of both is there.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ssh2::Session;

use super::cluster::Access;
use crate::error::Stop;

/// Keys that are tried where none is named, as ssh does.
const USUAL: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// Logs in.
///
/// # Errors
/// [`Stop::Missing`] with each way that was tried and why it failed, and what to do.
pub(super) fn log_in(session: &Session, access: &Access) -> anyhow::Result<()> {
    let mut tried = Vec::new();
    if let Some(key) = &access.key {
        return by_key(session, access, key).map_err(|why| refused(access, &[why]));
    }
    if access.agent || std::env::var_os("SSH_AUTH_SOCK").is_some() {
        match by_agent(session, access) {
            Ok(()) => return Ok(()),
            Err(why) => tried.push(why),
        }
    }
    if !access.agent {
        for key in usual_keys() {
            match by_key(session, access, &key) {
                Ok(()) => return Ok(()),
                Err(why) => tried.push(why),
            }
        }
    }
    if tried.is_empty() {
        tried.push("there is neither an agent (SSH_AUTH_SOCK is not set) nor a key in ~/.ssh".to_owned());
    }
    Err(refused(access, &tried))
}

fn refused(access: &Access, tried: &[String]) -> anyhow::Error {
    let tried = tried.join("; ");
    let (user, host) = (&access.user, &access.host);
    Stop::Missing(format!("{host}: cannot log in as {user}: {tried}")).into()
}

fn usual_keys() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    USUAL.iter().map(|name| home.join(".ssh").join(name)).filter(|path| path.is_file()).collect()
}

/// With a key from a file. Returns why not.
fn by_key(session: &Session, access: &Access, path: &Path) -> Result<(), String> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|err| format!("key {shown}: {err}"))?;
    let passphrase = std::env::var(&access.passphrase_env).ok().filter(|text| !text.is_empty());
    let protected = is_protected(&text);
    if protected && passphrase.is_none() {
        return Err(format!(
            "key {shown} is protected by a password: `ssh-add {shown}` gives it to an agent (then `agent = true`), or put \
             its password into the environment variable {}",
            access.passphrase_env
        ));
    }
    let passphrase = passphrase.filter(|_| protected);
    session.userauth_pubkey_file(&access.user, None, path, passphrase.as_deref()).map_err(|err| match err.code() {
        // LIBSSH2_ERROR_FILE, also where it can't be decrypted.
        ssh2::ErrorCode::Session(-16) if protected => {
            format!("key {shown}: the password in {} is not the key's", access.passphrase_env)
        }
        ssh2::ErrorCode::Session(-16) => format!("key {shown}: it is no private key that can be read ({err})"),
        // LIBSSH2_ERROR_AUTHENTICATION_FAILED and _PUBLICKEY_UNVERIFIED.
        ssh2::ErrorCode::Session(-18 | -19) => format!(
            "key {shown} is not accepted there: add its public half to ~/.ssh/authorized_keys of {}, or name another key",
            access.user
        ),
        _ => format!("key {shown}: {err}"),
    })
}

/// With the keys of an agent. Returns why not.
fn by_agent(session: &Session, access: &Access) -> Result<(), String> {
    if std::env::var_os("SSH_AUTH_SOCK").is_none() {
        return Err("no agent: SSH_AUTH_SOCK is not set; `eval $(ssh-agent); ssh-add` starts one".to_owned());
    }
    let keys = || -> anyhow::Result<_> {
        let mut agent = session.agent()?;
        agent.connect().context("connecting to it")?;
        agent.list_identities()?;
        let keys = agent.identities()?;
        Ok((agent, keys))
    };
    let (agent, keys) = keys().map_err(|err| format!("the agent at SSH_AUTH_SOCK does not answer: {err:#}"))?;
    if keys.is_empty() {
        return Err("the agent has no keys: `ssh-add` gives it some".to_owned());
    }
    if keys.iter().any(|key| agent.userauth(&access.user, key).is_ok()) {
        return Ok(());
    }
    let names: Vec<_> = keys.iter().map(|key| key.comment().to_owned()).collect();
    Err(format!("none of the agent's keys is accepted there ({})", names.join(", ")))
}

/// Whether the text of a private key is encrypted: PEM says so in a line, OpenSSH's own format in the name of a cipher.
fn is_protected(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    if text.contains("ENCRYPTED") {
        return true;
    }
    let body = text.lines().skip_while(|line| !line.contains("BEGIN OPENSSH PRIVATE KEY")).skip(1);
    let body: String = body.take_while(|line| !line.starts_with('-')).collect();
    // "openssh-key-v1" and a zero byte, then the length and name of the cipher.
    let bytes = decoded(&body);
    bytes.starts_with(b"openssh-key-v1\0") && bytes.get(15..).is_some_and(|rest| !rest.starts_with(b"\0\0\0\x04none"))
}

/// The bytes of a text in base 64; what is none of its digits is skipped.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<_> = text.bytes().filter_map(digit).collect();
    let chunk = |chunk: &[u8]| {
        let bits = chunk.iter().enumerate().fold(0u32, |bits, (at, digit)| bits | u32::from(*digit) << (18 - 6 * at));
        bits.to_be_bytes()[1..chunk.len()].to_vec()
    };
    digits.chunks(4).flat_map(chunk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_back() {
        assert_eq!(decoded("Zm9v\nYmFy"), b"foobar");
        assert_eq!(decoded("Zm8="), b"fo");
    }

    #[test]
    fn protected_keys_are_known_by_their_text() {
        let begin = "-----BEGIN OPENSSH PRIVATE KEY-----\n";
        // openssh-key-v1, then the cipher "none", or "aes256-ctr".
        assert!(!is_protected(format!("{begin}b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAE\n").as_bytes()));
        assert!(is_protected(format!("{begin}b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHI\n").as_bytes()));
        assert!(is_protected(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
        assert!(!is_protected(b"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n"));
    }
}
