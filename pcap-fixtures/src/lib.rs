//! The conformance suite: policies, packets with times, and the verdicts they must get.
//!
//! A case is an entry of a TOML file in `cases/`, as [`Case`] describes it: who is there, what the
//! rules are, and steps in one line each, a packet with its verdicts or a change of the policy.
//! [`Case::run`] drives the whole pipeline with it, and tells every step that went otherwise, or
//! that was explained otherwise than it was judged.
//! `README.md` beside this crate says how to write one.

pub mod explained;
mod flow_log;
mod run;
mod step;
mod world;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use sgwall_rules::model::Compat;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// The cases.
    pub case: Vec<Case>,
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The statement or numbered case of the specification: `1`, `D4`, `11.4`.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// Editions under which it holds (`ec2-2017`, `current`); left out: both.
    #[serde(default)]
    pub compat: Vec<String>,
    /// Whether ICMP errors are admitted by the packet they quote.
    #[serde(default)]
    pub icmp_related: bool,
    /// What is exempt from filtering, in the words of `docs/policy.md`; left out: all of it.
    pub exempt: Option<Vec<String>>,
    /// A whole policy, as `docs/policy.md` describes it, in place of the network and all that the
    /// keys below say of it.
    pub policy: Option<String>,
    /// Addresses by name, besides those that every case knows.
    #[serde(default)]
    pub names: BTreeMap<String, IpAddr>,
    /// Public addresses of `a`, `b` and `c`.
    #[serde(default)]
    pub public: BTreeMap<String, IpAddr>,
    /// Whether TCP segments outside the receiver's window are dropped.
    #[serde(default)]
    pub tcp_window_check: bool,
    /// Groups with their rules in one line each (`sgwall_rules::text`).
    #[serde(default)]
    pub groups: BTreeMap<String, Vec<String>>,
    /// Groups attached to the interfaces `a`, `b`, `c` and `m`; one left out does not exist. Left
    /// out altogether: `a` has every group.
    #[serde(default)]
    pub interfaces: BTreeMap<String, Vec<String>>,
    /// Entries of the network ACLs of the subnets `s1` and `s2`; left out: the default ACL.
    #[serde(default)]
    pub acls: BTreeMap<String, Vec<String>>,
    /// Prefix lists with their entries.
    #[serde(default)]
    pub prefix_lists: BTreeMap<String, Vec<String>>,
    /// Interfaces whose source/destination check is off.
    #[serde(default)]
    pub unchecked: Vec<String>,
    /// Established TCP flows may be idle this long, seconds, on `a`.
    #[serde(default)]
    pub tcp_established: Option<u32>,
    /// Tracked flows at once; left out: plenty.
    #[serde(default)]
    pub max_flows: Option<usize>,
    /// What becomes of a flow beyond, `drop-new` or `evict-embryonic`; left out: `drop-new`.
    pub full_table: Option<String>,
    /// Tracked flows that interfaces may have; left out: as many as there are.
    #[serde(default)]
    pub max_flows_of: BTreeMap<String, u32>,
    /// Tracked flows that are reserved for interfaces.
    #[serde(default)]
    pub reserved_flows_of: BTreeMap<String, u32>,
    /// Routes of both subnets, `DESTINATION TARGET [MTU]` or `DESTINATION appliance INTERFACE`, in
    /// the words of `docs/policy.md`.
    #[serde(default)]
    pub routes: Vec<String>,
    /// An interface and a direction, `a egress`: every packet goes through it this way, whatever
    /// its addresses. Left out: by the addresses.
    pub through: Option<String>,
    /// Whether frames larger than the interface's MTU are super-frames.
    #[serde(default)]
    pub offload: bool,
    /// MTU of interfaces, bytes; left out: that of the instance's type, 9001 without.
    #[serde(default)]
    pub mtu: BTreeMap<String, u16>,
    /// The instance types of interfaces.
    #[serde(default)]
    pub instance_type: BTreeMap<String, String>,
    /// Packets and changes, in order.
    pub steps: Vec<String>,
    /// Tracked flows alive after the last step.
    pub flows: Option<usize>,
    /// Lines of the flow log of all interfaces, in order.
    pub flow_log: Option<Vec<String>>,
    /// Its format, `v2` to `v5` or fields; left out: `v2`.
    pub flow_log_format: Option<String>,
    /// Its interval, seconds; left out: 600.
    pub flow_log_interval: Option<u32>,
    /// The traffic it records, `accept` or `reject`; left out: both.
    pub flow_log_traffic: Option<String>,
    /// Its records in one window at most; left out: plenty.
    pub flow_log_max: Option<usize>,
}

impl Case {
    /// The editions under which the case holds.
    ///
    /// # Errors
    /// A word that names none.
    pub fn editions(&self) -> Result<Vec<Compat>, String> {
        let all = [Compat::Ec2_2017, Compat::Current];
        if self.compat.is_empty() {
            return Ok(all.to_vec());
        }
        let find = |word: &String| {
            let known = all.into_iter().find(|c| c.as_str() == word);
            known.ok_or_else(|| format!("case {}: no edition {word:?}", self.id))
        };
        self.compat.iter().map(find).collect()
    }

    /// Runs the case under one edition.
    ///
    /// # Errors
    /// Every step whose verdicts are not those expected, a line each; or what is wrong with the
    /// case itself.
    pub fn run(&self, compat: Compat) -> Result<(), String> {
        run::run(self, compat)
    }
}
