//! Rights that are needed to open devices, and given up once they are open.

use rustix::io;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};

/// Gives up every capability of this thread, for good, and the possibility to gain any by running
/// a program. Threads that are started later have none either.
///
/// A process that has none to begin with keeps none.
pub(super) fn drop_all() -> io::Result<()> {
    set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    if capabilities(None)?.permitted.is_empty() {
        return Ok(());
    }
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}
