//! Gets this process a network namespace of its own, as root or not, or says exactly what is in the way.

use std::fs;
use std::io;

use crate::error::Stop;
use crate::sys;

/// Capabilities that the testbed and its nodes use: bit number and name.
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (21, "CAP_SYS_ADMIN")];

/// Moves the calling thread into a new, unnamed network namespace. With the capabilities for it, directly; else
/// inside a new user namespace, in which every user has them. Returns whether that was needed.
///
/// Must be called while the process has one thread.
///
/// # Errors
/// [`Stop::Missing`], with the capability or setting that is in the way and what to do about it.
pub(super) fn enter_private_network() -> Result<bool, Stop> {
    let missing = missing_capabilities(sys::effective_capabilities().unwrap_or(0));
    if missing.is_empty() {
        sys::unshare_network().map_err(|err| refused("a network namespace", &err, &[]))?;
        return Ok(false);
    }
    let (user, group) = sys::user_and_group();
    sys::unshare_user().map_err(|err| refused("a user namespace", &err, &missing))?;
    map_ids(user, group).map_err(|err| refused("a user namespace (writing its id maps)", &err, &missing))?;
    sys::unshare_network().map_err(|err| refused("a network namespace inside a user namespace", &err, &missing))?;
    Ok(true)
}

/// Names of the needed capabilities that `effective` (one bit each) lacks.
fn missing_capabilities(effective: u64) -> Vec<&'static str> {
    NEEDED.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|&(_, name)| name).collect()
}

/// This user becomes root inside the new user namespace, and keeps owning the files that it writes.
fn map_ids(user: u32, group: u32) -> io::Result<()> {
    // A group may be mapped only after setgroups was given up for good: user_namespaces(7).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// What could not be made, why, and every way out.
fn refused(what: &str, err: &io::Error, missing: &[&str]) -> Stop {
    let mut text = format!("cannot create {what}: {err}");
    if !missing.is_empty() {
        text += &format!("; this process lacks {}", missing.join(", "));
    }
    text += "\nto do, one of these:";
    for (path, setting, wrong, right) in [
        ("/proc/sys/user/max_user_namespaces", "user.max_user_namespaces", "0", "10000"),
        ("/proc/sys/user/max_net_namespaces", "user.max_net_namespaces", "0", "10000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone", "0", "1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "kernel.apparmor_restrict_unprivileged_userns",
            "1",
            "0",
        ),
    ] {
        if fs::read_to_string(path).is_ok_and(|value| value.trim() == wrong) {
            text +=
                &format!("\n  - {setting} is {wrong} here, which forbids it: `sysctl -w {setting}={right}` as root");
        }
    }
    text += "\n  - run as root, or with these capabilities: CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN";
    text += "\n  - in a container: start it with `--privileged`, or with `--cap-add SYS_ADMIN --cap-add NET_ADMIN \
             --cap-add NET_RAW --security-opt seccomp=unconfined`";
    Stop::Missing(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_capability_is_named() {
        assert!(missing_capabilities(u64::MAX).is_empty());
        assert_eq!(missing_capabilities(0), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"]);
        assert_eq!(missing_capabilities(!(1 << 13)), ["CAP_NET_RAW"]);
    }

    #[test]
    fn a_refusal_says_what_why_and_what_to_do() {
        let denied = io::Error::from_raw_os_error(libc::EPERM);
        let text = refused("a user namespace", &denied, &["CAP_SYS_ADMIN"]).to_string();
        for part in ["a user namespace", "not permitted", "lacks CAP_SYS_ADMIN", "run as root"] {
            assert!(text.contains(part), "no `{part}` in: {text}");
        }
        assert_eq!(Stop::Missing(text).code(), 3);
    }
}
