//! How often rules decided, as other commands print it.

use std::fs;
use std::path::Path;

use serde_json::Value;
use sgwall_packet::Direction;
use sgwall_rules::lint::Hits;

use crate::failure::Failure;

/// Packets by rule, of the last object in the file that has them.
pub(super) fn read(path: &Path) -> Result<Hits, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::Io(format!("cannot read {}: {error}", path.display())))?;
    let objects = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let mut found = None;
    for object in objects {
        let object = object.map_err(|error| {
            Failure::Usage(format!("--hits {}: it is not JSON: {error}", path.display()))
        })?;
        if let Some(rules) = object["rules"].as_array() {
            found = Some(rules.iter().filter_map(hits).collect());
        }
    }
    found.ok_or_else(|| {
        Failure::Usage(format!(
            "--hits {}: it tells nothing of rules; give it what `sgwall replay --json` or `sgwall \
             stats --json` printed",
            path.display()
        ))
    })
}

fn hits(rule: &Value) -> Option<((Direction, String), u64)> {
    let direction =
        Direction::BOTH.into_iter().find(|direction| rule["direction"] == direction.as_str());
    Some(((direction?, rule["rule"].as_str()?.to_owned()), rule["packets"].as_u64()?))
}
