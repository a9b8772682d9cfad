//! Ports of a live firewall: devices, each once, and what is behind them.

use std::collections::HashMap;

use super::{Report, field};
use crate::model::Policy;

/// Bytes of a Linux device's name, without the final zero (`IFNAMSIZ`).
const MAX_NAME: usize = 15;

pub(super) fn check(policy: &Policy, report: &mut Report<'_>) {
    let mut devices = HashMap::new();
    let mut behind = HashMap::new();
    for port in &policy.ports {
        let at = field(&port.origin, "device");
        let name = &port.device;
        if name.len() > MAX_NAME || name.contains(|c: char| c == '/' || c.is_whitespace()) {
            report.fault(
                "InvalidParameterValue",
                &at,
                format!("{name:?} is no name of a device"),
                format!("use at most {MAX_NAME} characters, no space and no slash"),
            );
        }
        if let Some(first) = devices.insert(name.as_str(), &port.origin) {
            report.fault(
                "duplicate-id",
                &at,
                format!("the device {name:?} was named before, at {first}"),
                "a device is one port",
            );
        }
        let at = field(&port.origin, "interface");
        if let Some(first) = behind.insert(port.interface.as_deref(), &port.origin) {
            let what = port.interface.as_deref().unwrap_or("the network");
            report.fault(
                "duplicate-id",
                &at,
                format!("{what} is behind a port already, at {first}"),
                "name the interface behind this port; a port without one is the network's, and \
                 there is one of those",
            );
        }
        let Some(id) = &port.interface else { continue };
        let is_known = policy.interfaces.iter().any(|interface| interface.id == *id);
        if !is_known {
            report.missing("InvalidNetworkInterfaceID.NotFound", &at, ("interface", id), "");
        }
    }
    let has_network = policy.ports.iter().any(|port| port.interface.is_none());
    if let (false, Some(port)) = (has_network, policy.ports.first()) {
        report.fault(
            "MissingParameter",
            &port.origin,
            "no port leads to the network",
            "add a [[port]] without interface",
        );
    }
}
