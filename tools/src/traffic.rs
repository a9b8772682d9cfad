//! Whose traffic it is: what `replay` and `explain` ask of captures and interfaces alike.

use std::net::IpAddr;

use sgwall_dataplane::{Attribution, FrameInput};
use sgwall_netio::capture::Packet;
use sgwall_rules::compile::CompiledPolicy;

use crate::cli::TrafficArgs;
use crate::failure::Failure;

/// A frame of a capture, with its number as its name.
pub(crate) fn frame_input<'a>(token: u64, packet: &Packet<'a>) -> FrameInput<'a> {
    FrameInput {
        token,
        link: packet.link.known(),
        data: packet.data,
        wire_len: packet.wire_len,
        time: packet.time,
        decimals: packet.decimals,
        recorded: packet.direction,
    }
}

/// Which interfaces judge what.
pub(crate) fn attribution(
    args: &TrafficArgs,
    policy: &CompiledPolicy,
) -> Result<Attribution, Failure> {
    if policy.interfaces().is_empty() {
        return Err(Failure::Usage(
            "the policy has no network interface to judge on; add an [[interface]] or the answer \
             of describe-network-interfaces"
                .into(),
        ));
    }
    let mut only = Vec::new();
    for id in &args.interface {
        only.push(policy.interface_by_id(id).ok_or_else(|| {
            let known = known_interfaces(policy);
            Failure::Usage(format!("--interface {id}: no such interface; {known}"))
        })?);
    }
    if only.is_empty() && policy.interfaces().len() == 1 {
        only.push(0);
    }
    if only.len() != 1 {
        for (flag, given) in
            [("--local", !args.local.is_empty()), ("--direction", args.direction.is_some())]
        {
            if given {
                return Err(Failure::Usage(format!(
                    "{flag} needs one interface to speak of; name it with --interface ({})",
                    known_interfaces(policy)
                )));
            }
        }
    }
    Ok(Attribution {
        only: (!only.is_empty()).then_some(only),
        direction: args.direction.map(Into::into),
        local: local_ranges(args),
    })
}

/// The same under a policy that takes over later. There, an interface that is gone judges nothing
/// more.
pub(crate) fn attribution_after(
    args: &TrafficArgs,
    policy: &CompiledPolicy,
) -> Result<Attribution, Failure> {
    if args.interface.is_empty() && !policy.interfaces().is_empty() {
        return attribution(args, policy);
    }
    let only = args.interface.iter().filter_map(|id| policy.interface_by_id(id)).collect();
    Ok(Attribution {
        only: Some(only),
        direction: args.direction.map(Into::into),
        local: local_ranges(args),
    })
}

/// What stands for the interface, as (first, last) address.
fn local_ranges(args: &TrafficArgs) -> Vec<(IpAddr, IpAddr)> {
    args.local.iter().map(|net| (net.network(), net.broadcast())).collect()
}

/// `the policy has eni-1, eni-2`.
pub(crate) fn known_interfaces(policy: &CompiledPolicy) -> String {
    let ids: Vec<_> = policy.interfaces().iter().map(|i| i.id.as_str()).collect();
    match ids.len() {
        0 => "the policy has none".to_owned(),
        1..=12 => format!("the policy has {}", ids.join(", ")),
        n => format!("the policy has {n}, among them {}", ids[..12].join(", ")),
    }
}
