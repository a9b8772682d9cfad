//! Capabilities, and the user as whom a firewall runs.

use std::fs;
use std::io;
use std::path::Path;

use nix::unistd::{User, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::{SandboxError, alone, last};

/// A user as whom to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account(User);

impl Account {
    /// The user of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(name: &str) -> Result<Self, SandboxError> {
        match User::from_name(name) {
            Ok(Some(user)) => Ok(Account(user)),
            Ok(None) => Err(SandboxError::NoUser(name.to_owned())),
            Err(errno) => Err(SandboxError::refused("look up the user", errno)),
        }
    }

    /// Makes a file of ours the user's: the control socket, made before.
    ///
    /// # Errors
    /// Without `CAP_CHOWN`.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::chown(path, Some(self.0.uid.as_raw()), Some(self.0.gid.as_raw()))
    }
}

/// Gives up every capability, for good: those in hand, those that a program could inherit, and the
/// bounding set where that is allowed (`CAP_SETPCAP`; without it nothing could be gained through the
/// set anyway, since no program that is run gains any). Then goes on as `account`, if one is given.
///
/// # Errors
/// If other threads run, or the system refuses: without `CAP_SETUID` and `CAP_SETGID` nobody else
/// can be gone on as.
pub fn give_up(account: Option<&Account>) -> Result<(), SandboxError> {
    alone()?;
    let refused = |what| move |errno| SandboxError::refused(what, last(errno));
    set_no_new_privs(true).map_err(refused("give up new privileges"))?;
    clear_ambient_capability_set().map_err(refused("clear the ambient capabilities"))?;
    let has = capabilities(None).map_err(refused("read the capabilities"))?;
    if has.effective.contains(CapabilitySet::SETPCAP) {
        for capability in bounding()? {
            remove_capability_from_bounding_set(capability)
                .map_err(refused("empty the bounding set"))?;
        }
    }
    if let Some(Account(user)) = account {
        let refused = |what| move |errno| SandboxError::refused(what, errno);
        setgroups(&[user.gid]).map_err(refused("leave the groups of this user"))?;
        setresgid(user.gid, user.gid, user.gid).map_err(refused("change the group"))?;
        setresuid(user.uid, user.uid, user.uid).map_err(refused("change the user"))?;
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, none).map_err(refused("give up the capabilities"))
}

/// The capabilities of the bounding set, those that we have no name for among them.
fn bounding() -> Result<Vec<CapabilitySet>, SandboxError> {
    let what = "read the bounding set";
    #[allow(clippy::disallowed_methods)] // No policy and no clock: what the kernel says of us.
    let status = fs::read_to_string("/proc/self/status");
    let status = status.map_err(|error| SandboxError::refused(what, error))?;
    let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap_or("0");
    let mask = u64::from_str_radix(mask.trim(), 16);
    let mask = mask.map_err(|error| SandboxError::refused(what, error))?;
    let each = (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
    Ok(each.filter(|capability| mask & capability.bits() != 0).collect())
}
