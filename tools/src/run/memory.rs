//! Whether the flow table fits the memory that there is.
//!
//! Room for the table is reserved at the start and touched as flows come, so a firewall with too
//! large a table would run well until somebody fills it, and then be killed. That is found out
//! before the first frame passes.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};
use sgwall_conntrack::Footprint;

use crate::failure::Failure;

/// For the policy, frames, and all else, bytes.
const REST: u64 = 32 << 20;

/// Refuses a table of `max_flows` that would not fit when it is full, beside `more` bytes.
pub(super) fn check(max_flows: usize, more: u64) -> Result<(), Failure> {
    let rest = REST.saturating_add(more);
    let Footprint { resident, reserved } = Footprint::of(1);
    let address_space = getrlimit(Resource::As).current;
    let in_memory = limits().into_iter().map(|(bytes, what)| (resident, bytes, what));
    let reserved = address_space.map(|bytes| (reserved, bytes, "address space (ulimit -v)".into()));
    let fits = |a_flow: u64, bytes: u64| bytes.saturating_sub(rest) / a_flow;
    let all = in_memory.chain(reserved);
    let tightest = all.min_by_key(|(a_flow, bytes, _)| fits(*a_flow, *bytes));
    let Some((a_flow, bytes, what)) = tightest else { return Ok(()) };
    let fits = fits(a_flow, bytes);
    if max_flows as u64 <= fits {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let mend = match fits {
        0 => "raise that limit".to_owned(),
        _ => format!("give --max-flows {fits} or less, or raise that limit"),
    };
    Err(Failure::Usage(format!(
        "--max-flows {max_flows}: a full flow table takes {} MiB, and all else up to {} MiB, but \
         there are {} MiB of {what}; {mend}",
        mib(a_flow.saturating_mul(max_flows as u64)),
        mib(rest),
        mib(bytes),
    )))
}

/// The limits of this process's memory, bytes, and what sets them.
fn limits() -> Vec<(u64, String)> {
    let mut limits = Vec::new();
    let installed = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = installed.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = kib.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    limits.extend(kib.map(|kib| (kib << 10, "memory in this machine".to_owned())));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for group in groups.lines() {
        let mut fields = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        limits.extend(of_group(Path::new(root), path, file));
    }
    limits
}

/// The limit of a control group, and of all that it is in.
fn of_group(root: &Path, group: &str, file: &str) -> Vec<(u64, String)> {
    let group: PathBuf = root.join(group.trim_start_matches('/'));
    let groups = group.ancestors().take_while(|group| group.starts_with(root));
    let limit = |group: &Path| {
        let path = group.join(file);
        // "max" is none.
        let bytes = fs::read_to_string(&path).ok()?.trim().parse().ok()?;
        Some((bytes, format!("memory by {}", path.display())))
    };
    groups.filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tightest limit of a group and those around it counts; `max` is none.
    #[test]
    fn limits_of_groups_are_read() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("system.slice/sgwall.service");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("system.slice/memory.max"), "67108864\n").unwrap();
        let found = of_group(root.path(), "/system.slice/sgwall.service", "memory.max");
        let bytes: Vec<_> = found.iter().map(|(bytes, _)| *bytes).collect();
        assert_eq!(bytes, [64 << 20]);
        assert!(found[0].1.ends_with("system.slice/memory.max"), "{found:?}");
    }

    #[test]
    fn a_table_that_cannot_fit_is_refused_with_one_that_can() {
        assert!(check(1000, 0).is_ok());
        let Err(Failure::Usage(message)) = check(usize::MAX / 2, 0) else { panic!("it fits") };
        let words: Vec<_> = message.split_whitespace().collect();
        let at = words.iter().rposition(|word| *word == "--max-flows").unwrap();
        let flows: usize = words[at + 1].parse().unwrap();
        assert!(check(flows, 0).is_ok(), "{message}");
        assert!(check(flows + 1, 0).is_err(), "{message}");
    }
}
