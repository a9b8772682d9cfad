//! `[[port]]`: the Linux devices that a live firewall stands between.

use super::fields::Fields;
use crate::diagnostic::Diagnostic;
use crate::model::{Port, PortKind, Vlans};

/// The keys of `[[port]]`.
pub(super) const PORT: &[&str] = &["device", "kind", "interface", "mtu", "vlans"];

pub(super) fn port(fields: Fields<'_, '_>, out: &mut Vec<Diagnostic>) -> Port {
    let kind = match fields.string("kind", out).as_deref() {
        None | Some("tap") => PortKind::Tap,
        Some("existing") => PortKind::Existing,
        Some(word) => {
            out.push(Diagnostic::error(
                "InvalidParameterValue",
                &fields.at.field("kind"),
                format!("{word:?} is no kind of port"),
                "write \"tap\" (made, or attached to) or \"existing\" (a veth or network card)",
            ));
            PortKind::Tap
        }
    };
    Port {
        device: fields.required("device", out),
        kind,
        interface: fields.string("interface", out),
        mtu: fields.integer("mtu", (576, 9001), out),
        vlans: vlans(&fields, out),
        origin: fields.at,
    }
}

/// `"none"`, `"all"`, or a list of identifiers.
fn vlans(fields: &Fields<'_, '_>, out: &mut Vec<Diagnostic>) -> Vlans {
    match fields.string_or_other("vlans") {
        Some("none") => return Vlans::None,
        Some("all") => return Vlans::All,
        None if !fields.has("vlans") => return Vlans::None,
        _ => {}
    }
    let ids = fields.integers("vlans", (1, 4094), out);
    Vlans::Only(ids)
}
