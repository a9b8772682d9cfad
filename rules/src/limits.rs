//! How much of everything a policy may hold (SEMANTICS 1.5).

use crate::model::{Compat, Timeouts};

/// One of [`Timeouts`].
pub(crate) type Timeout = fn(&mut Timeouts) -> &mut Option<u32>;

/// Idle timeouts by name, the least and the most that they may be in seconds: AWS's ranges where it
/// has the setting (SEMANTICS 7.10).
pub(crate) const TIMEOUTS: &[(&str, (u32, u32), Timeout)] = &[
    ("tcp_syn_sent", (1, 432_000), |t| &mut t.tcp_syn_sent),
    ("tcp_syn_recv", (1, 432_000), |t| &mut t.tcp_syn_recv),
    ("tcp_established", (60, 432_000), |t| &mut t.tcp_established),
    ("tcp_fin_wait", (1, 432_000), |t| &mut t.tcp_fin_wait),
    ("tcp_close_wait", (1, 432_000), |t| &mut t.tcp_close_wait),
    ("tcp_last_ack", (1, 432_000), |t| &mut t.tcp_last_ack),
    ("tcp_time_wait", (1, 432_000), |t| &mut t.tcp_time_wait),
    ("tcp_close", (1, 432_000), |t| &mut t.tcp_close),
    ("udp", (30, 60), |t| &mut t.udp),
    ("udp_stream", (60, 180), |t| &mut t.udp_stream),
    ("icmp", (1, 432_000), |t| &mut t.icmp),
    ("other", (1, 432_000), |t| &mut t.other),
];

/// The limits in force. Every one can be overridden in the policy (`[limits]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Security groups of one VPC (100; current: 2500, per Region).
    pub groups_per_vpc: u32,
    /// Security groups on one interface (5; AWS raises it to 16 on request).
    pub groups_per_interface: u32,
    /// Weight of a group's rules in one direction (50; current: 60 per family).
    pub rules_per_group: u32,
    /// `rules_per_group` x `groups_per_interface` may not exceed this (250; current: 1000).
    pub rules_per_interface: u32,
    /// Entries of a network ACL in one direction (20, the final deny not counted; current: 20 per
    /// family, the final deny counted).
    pub entries_per_acl: u32,
    /// Network ACLs of one VPC (200).
    pub acls_per_vpc: u32,
    /// Entries of a prefix list (1000).
    pub entries_per_prefix_list: u32,
    /// Security groups of EC2-Classic (500).
    pub classic_groups: u32,
    /// Rules of a group of EC2-Classic (100).
    pub rules_per_classic_group: u32,
    /// Groups on one instance of EC2-Classic (500).
    pub groups_per_classic_instance: u32,
}

impl Limits {
    /// The limits of an edition of the semantics.
    #[must_use]
    pub const fn of(compat: Compat) -> Self {
        match compat {
            Compat::Ec2_2017 => Limits {
                groups_per_vpc: 100,
                groups_per_interface: 5,
                rules_per_group: 50,
                rules_per_interface: 250,
                entries_per_acl: 20,
                acls_per_vpc: 200,
                entries_per_prefix_list: 1000,
                classic_groups: 500,
                rules_per_classic_group: 100,
                groups_per_classic_instance: 500,
            },
            Compat::Current => Limits {
                groups_per_vpc: 2500,
                groups_per_interface: 5,
                rules_per_group: 60,
                rules_per_interface: 1000,
                ..Limits::of(Compat::Ec2_2017)
            },
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::of(Compat::default())
    }
}
