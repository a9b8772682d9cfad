//! `sgwall bench classifier`: the rule for a packet, among made-up rules or those of a policy.

use std::sync::Arc;

use serde_json::json;
use sgwall_benches::lookups::{COLD, Evictor, FEW, Lookups, MANY, Packet, aimed, rules_of, stray};
use sgwall_rules::compile::{CompiledPolicy, Generation};

use super::args::ClassifierArgs;
use super::runs::Report;
use crate::failure::Failure;
use crate::policy;

pub(super) fn run(args: &ClassifierArgs) -> Result<(), Failure> {
    let (policy, interface) = match args.policy.is_empty() {
        true => (made_up(args), 0),
        false => of_files(args)?,
    };
    let id = policy.interfaces()[interface].id.clone();
    let direction = args.direction.into();
    let set = rules_of(&policy, interface, direction);
    let hits = aimed(set, MANY);
    let matches = |packet: &Packet| set.matcher().lookup(&packet.0, packet.1, packet.2).is_some();
    let misses: Vec<_> = stray(args.ipv6, 2 * MANY)
        .into_iter()
        .filter(|packet| !matches(packet))
        .take(MANY)
        .collect();
    if hits.is_empty() {
        return Err(Failure::Usage(format!(
            "no {direction} rule of {id} can match anything: nothing to measure; name another \
             --interface or --direction"
        )));
    }
    let traffic = [("hit", hits), ("miss", misses)];
    let evictor = Arc::new(Evictor::default());
    let caches = [("few", FEW, None), ("many", MANY, None), ("cold", COLD, Some(evictor))];
    let mut report = Report::new("classifier", &args.runs, 2 * traffic.len() * caches.len());
    // Where a rule matches every packet there are no misses.
    for (kind, packets) in traffic.iter().filter(|(_, packets)| !packets.is_empty()) {
        for (name, count, evictor) in &caches {
            let packets = &packets[..packets.len().min(*count)];
            for (way, is_batch) in [("one", false), ("batch", true)] {
                let name = format!("{kind}-{name}-{way}");
                let make = || {
                    let rules = (Arc::clone(&policy), interface, direction);
                    Lookups::new(rules, packets.to_vec(), is_batch, evictor.clone())
                };
                report.measure(&name, make)?;
            }
        }
    }
    let with = [
        ("interface", json!(id)),
        ("direction", json!(direction.as_str())),
        ("rules", json!(set.prefixes().count())),
        ("matcher_bytes", json!(set.matcher().heap_bytes())),
    ];
    report.print(&with, &[])
}

fn made_up(args: &ClassifierArgs) -> Arc<CompiledPolicy> {
    let make = if args.ipv6 { sgwall_benches::rules6 } else { sgwall_benches::rules };
    let model = sgwall_benches::policy(make(args.rules as usize));
    Arc::new(CompiledPolicy::compile(&model, Generation(0)))
}

/// The policy that was named, and the number of the interface.
fn of_files(args: &ClassifierArgs) -> Result<(Arc<CompiledPolicy>, usize), Failure> {
    let policy = policy::compile(&policy::read(&args.policy)?, Generation(0))?;
    let ids =
        || policy.interfaces().iter().map(|interface| interface.id.as_str()).collect::<Vec<_>>();
    let interface = match (&args.interface, policy.interfaces()) {
        (Some(id), _) => policy.interface_by_id(id).ok_or_else(|| {
            Failure::Usage(format!("--interface {id}: the policy has no such interface"))
        })?,
        (None, [_]) => 0,
        (None, []) => return Err(Failure::Usage("the policy has no interface".to_owned())),
        (None, _) => {
            return Err(Failure::Usage(format!(
                "the policy has several interfaces: name one with --interface, of {}",
                ids().join(", ")
            )));
        }
    };
    Ok((policy, interface))
}
