//! EC2-Classic in policy files (SEMANTICS section 14): groups outside every VPC, and instances.

use super::fields::Fields;
use super::{address, mac, timeouts};
use crate::diagnostic::Diagnostic;
use crate::model::{ClassicInstance, ClassicLink};

/// The keys of `[[classic_instance]]`.
pub(super) const INSTANCE: &[&str] =
    &["id", "address", "public", "security_groups", "classic_link", "mtu", "mac", "timeouts"];

/// A group of EC2-Classic has no VPC, and outbound rules that nobody can change (14.1).
pub(super) fn check_group(fields: &Fields<'_, '_>, out: &mut Vec<Diagnostic>) {
    const EXCLUDED: &[(&str, &str)] = &[
        ("vpc", "a group of EC2-Classic belongs to no VPC"),
        ("egress", "the outbound rules of a group of EC2-Classic cannot be changed"),
    ];
    for (key, message) in EXCLUDED.iter().filter(|(key, _)| fields.has(key)) {
        out.push(Diagnostic::error(
            "InvalidParameterCombination",
            &fields.at.field(key),
            *message,
            format!("remove {key}, or classic = true"),
        ));
    }
}

pub(super) fn instance(
    fields: Fields<'_, '_>,
    out: &mut Vec<Diagnostic>,
) -> Option<ClassicInstance> {
    let id = fields.required("id", out);
    let text = fields.required("address", out);
    let own = address(&fields.at.field("address"), &text, out);
    let public = fields.string("public", out);
    let public = public.and_then(|text| address(&fields.at.field("public"), &text, out));
    let groups = |fields: &Fields<'_, '_>, out: &mut Vec<Diagnostic>| -> Vec<String> {
        fields.strings("security_groups", out).into_iter().map(|(_, id)| id).collect()
    };
    let link = fields.table("classic_link", &["vpc", "security_groups"], out);
    let link = link.map(|link| ClassicLink {
        vpc: link.required("vpc", out),
        security_groups: groups(&link, out),
    });
    Some(ClassicInstance {
        id,
        address: own?,
        public,
        security_groups: groups(&fields, out),
        link,
        mtu: fields.integer("mtu", (576, 9001), out),
        timeouts: timeouts(&fields, out),
        mac: mac(&fields, out),
        origin: fields.at,
    })
}
