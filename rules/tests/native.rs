//! Native policy files: what a good one means, and what is said of a broken one.

use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::diagnostic::Severity;
use sgwall_rules::load::{Input, Loaded, load};
use sgwall_rules::model::{Compat, Direction, FlowLimits, L4Match, Peer, Policy};

/// A policy in which everything is in order.
const GOOD: &str = r#"version = 1
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16", "2001:db8:1234::/56"]
[[subnet]]
id = "subnet-a"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24", "2001:db8:1234:1::/64"]
network_acl = "acl-1"
[[prefix_list]]
id = "pl-office"
max_entries = 10
entries = ["203.0.113.0/24"]
[[security_group]]
id = "sg-web"
name = "web"
description = "public web servers"
ingress = [
  { protocol = "tcp", ports = "443", cidr = "0.0.0.0/0" },
  { protocol = "tcp", ports = "7000-8000", group = "sg-app", description = "from the app tier" },
  { protocol = "icmp", type = 3, code = 4, cidr = "0.0.0.0/0" },
  { protocol = "tcp", ports = "22", prefix_list = "pl-office" },
]
[[security_group]]
id = "sg-app"
egress = []
[[network_acl]]
id = "acl-1"
ingress = [ { rule = 100, action = "allow", protocol = "tcp", ports = "443", cidr = "0.0.0.0/0" } ]
egress  = [ { rule = 100, action = "allow", protocol = "all", cidr = "0.0.0.0/0" } ]
[[interface]]
id = "eni-1"
subnet = "subnet-a"
addresses = ["10.0.1.10", "2001:db8:1234:1::10"]
security_groups = ["sg-web"]
mtu = 9001
max_flows = 1000
reserved_flows = 10
timeouts = { tcp_established = 432000, udp = 30, udp_stream = 180, icmp = 30, other = 600 }
"#;

fn try_load(files: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    let inputs: Vec<_> = files
        .iter()
        .map(|(name, text)| Input { name: (*name).to_owned(), bytes: text.as_bytes() })
        .collect();
    load(&inputs).map_err(|found| found.iter().map(ToString::to_string).collect())
}

fn policy(text: &str) -> Policy {
    let loaded = try_load(&[("p.toml", text)]).unwrap_or_else(|e| panic!("{}", e.join("\n")));
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    loaded.policy
}

#[test]
fn a_policy_means_what_it_says() {
    let policy = policy(GOOD);
    assert_eq!(policy.compat, Compat::Ec2_2017);
    let [web, app] = &policy.security_groups[..] else { panic!("two groups") };
    let texts: Vec<_> =
        web.ingress.iter().map(|r| format!("{} {} {}", r.id, r.matches, r.peer)).collect();
    assert_eq!(
        texts,
        [
            "ingress-1 tcp 443 0.0.0.0/0",
            "ingress-2 tcp 7000-8000 sg-app",
            "ingress-3 icmp 3/4 0.0.0.0/0",
            "ingress-4 tcp 22 pl-office"
        ]
    );
    // Left out, egress is everything to everywhere, of both families in a VPC with both.
    let egress: Vec<_> = web.egress.iter().map(|r| (r.matches, r.peer.to_string())).collect();
    let all = |peer: &str| (L4Match::All, peer.to_owned());
    assert_eq!(egress, [all("0.0.0.0/0"), all("::/0")]);
    assert!(app.ingress.is_empty() && app.egress.is_empty());
    assert_eq!((app.name.as_str(), app.vpc.as_deref()), ("sg-app", Some("vpc-1")));
    let interface = &policy.interfaces[0];
    assert_eq!((interface.mtu, interface.source_dest_check), (Some(9001), true));
    assert_eq!(interface.timeouts.other, Some(600));
    assert_eq!(interface.flows, FlowLimits { max_flows: Some(1000), reserved_flows: Some(10) });
    assert_eq!(interface.timeouts.tcp_close, None);
}

#[test]
fn a_policy_may_be_spread_over_files() {
    let (head, tail) = GOOD.split_at(GOOD.find("[[security_group]]").unwrap());
    let tail = format!("version = 1\ncompat = \"current\"\n{tail}");
    let merged = try_load(&[("a.toml", head), ("b.toml", &tail)]).unwrap();
    assert_eq!(merged.policy.compat, Compat::Current);
    assert_eq!(merged.policy.security_groups.len(), 2);
    let again = try_load(&[
        ("a.toml", head),
        ("b.toml", &tail),
        ("c.toml", "version = 1\ncompat = \"ec2-2017\"\n"),
    ]);
    assert_eq!(
        again.unwrap_err(),
        [
            "error[conflict]: c.toml:2: compat: contradicts b.toml:2: compat; give it in one of the files only"
        ]
    );
}

/// Off unless a file says otherwise; no two may differ.
#[test]
fn windows_are_checked_where_a_policy_says_so() {
    assert!(!policy(GOOD).tcp_window_check);
    let on = "version = 1\ntcp_window_check = true\n";
    let merged = try_load(&[("a.toml", GOOD), ("b.toml", on), ("c.toml", on)]).unwrap();
    assert!(merged.policy.tcp_window_check);
    let compiled = CompiledPolicy::compile(&merged.policy, Generation(0));
    assert!(compiled.tcp_window_check());
    let off = "version = 1\ntcp_window_check = false\n";
    assert_eq!(
        try_load(&[("a.toml", GOOD), ("b.toml", on), ("c.toml", off)]).unwrap_err(),
        [
            "error[conflict]: c.toml:2: tcp_window_check: contradicts b.toml:2: tcp_window_check; give it in one of the files only"
        ]
    );
    let wrong = try_load(&[("a.toml", GOOD), ("b.toml", "version = 1\ntcp_window_check = 1\n")]);
    let wrong = wrong.unwrap_err().join("\n");
    assert!(wrong.contains("b.toml:2: tcp_window_check"), "{wrong}");
}

/// SEMANTICS 5.1: the default group admits its own members, and is used where none is named.
#[test]
fn the_default_group() {
    let text = GOOD.replace("security_groups = [\"sg-web\"]\n", "")
        + "[[security_group]]\nid = \"sg-def\"\ndefault = true\n";
    let policy = policy(&text);
    let group = &policy.security_groups[2];
    assert_eq!(group.name, "default");
    let rules = |direction| -> Vec<String> {
        group.rules(direction).iter().map(|r| format!("{} {}", r.matches, r.peer)).collect()
    };
    assert_eq!(rules(Direction::Ingress), ["all sg-def"]);
    assert_eq!(rules(Direction::Egress), ["all 0.0.0.0/0", "all ::/0"]);
    assert_eq!(policy.interfaces[0].security_groups, ["sg-def"]);
    assert!(matches!(&group.ingress[0].peer, Peer::Group(to) if to.id == "sg-def"));
}

/// Each case: a text of the good policy, what replaces it, and all that is then said.
#[test]
fn what_is_wrong_is_said_with_its_place_and_mend() {
    let long = "x".repeat(256);
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "version = 1\n",
            "",
            &[
                "error[MissingParameter]: p.toml: \"version\" is missing; begin the file with version = 1",
            ],
        ),
        (
            "version = 1",
            "version = 2",
            &[
                "error[InvalidParameterValue]: p.toml:1: version: version = 2 is out of range; choose a value in 1-1",
            ],
        ),
        (
            "version = 1",
            "version = 1\ncompat = \"2017\"",
            &[
                "error[InvalidParameterValue]: p.toml:2: compat: \"2017\" is no edition of the semantics; write \"ec2-2017\" or \"current\"",
            ],
        ),
        (
            "id = \"vpc-1\"",
            "id = vpc-1",
            &[
                "error[syntax]: p.toml:3: syntax[0]: not valid TOML: string values must be quoted, expected literal string; correct this line; docs/policy.md shows the form",
            ],
        ),
        // Unknown keys, with the one that was probably meant.
        (
            "ingress = [\n",
            "ingres = [\n",
            &[
                "error[unknown-key]: p.toml:18: security_group[0].ingres: unknown key \"ingres\"; did you mean \"ingress\"?",
            ],
        ),
        (
            "mtu = 9001",
            "colour = 3",
            &[
                "error[unknown-key]: p.toml:36: interface[0].colour: unknown key \"colour\"; remove it; known here: id, subnet, addresses, public, security_groups, source_dest_check, mtu, mac, timeouts, max_flows, reserved_flows, instance, instance_type",
            ],
        ),
        // Types and ranges.
        (
            "mtu = 9001",
            "mtu = 9002",
            &[
                "error[InvalidParameterValue]: p.toml:36: interface[0].mtu: mtu = 9002 is out of range; choose a value in 576-9001",
            ],
        ),
        (
            "mtu = 9001",
            "mtu = \"big\"",
            &[
                "error[InvalidParameterValue]: p.toml:36: interface[0].mtu: expected a whole number, found string; write a whole number",
            ],
        ),
        (
            "udp = 30",
            "udp = 29",
            &[
                "error[InvalidParameterValue]: p.toml:39: interface[0].timeouts.udp: udp = 29 is out of range; choose a value in 30-60",
            ],
        ),
        (
            "tcp_established = 432000",
            "tcp_established = 59",
            &[
                "error[InvalidParameterValue]: p.toml:39: interface[0].timeouts.tcp_established: tcp_established = 59 is out of range; choose a value in 60-432000",
            ],
        ),
        (
            "rule = 100, action = \"allow\", protocol = \"tcp\"",
            "rule = 0, action = \"permit\", protocol = \"tcp\"",
            &[
                "error[InvalidParameterValue]: p.toml:29: network_acl[0].ingress[0].rule: rule = 0 is out of range; choose a value in 1-32766",
                "error[InvalidParameterValue]: p.toml:29: network_acl[0].ingress[0].action: \"permit\" is no action; write \"allow\" or \"deny\"",
            ],
        ),
        (
            "rule = 100, action = \"allow\", protocol = \"tcp\"",
            "rule = 32767, action = \"allow\", protocol = \"tcp\"",
            &[
                "error[InvalidParameterValue]: p.toml:29: network_acl[0].ingress[0].rule: rule = 32767 is out of range; choose a value in 1-32766",
            ],
        ),
        // Ports and protocols (SEMANTICS 16, case 60).
        (
            "ports = \"7000-8000\"",
            "ports = \"100-50\"",
            &[
                "error[InvalidParameterValue]: p.toml:20: security_group[0].ingress[1].ports: the range \"100-50\" is reversed: write \"50-100\"; write one port, a range such as \"7000-8000\", or \"all\"",
            ],
        ),
        (
            "ports = \"7000-8000\"",
            "ports = \"70000\"",
            &[
                "error[InvalidParameterValue]: p.toml:20: security_group[0].ingress[1].ports: \"70000\" in \"70000\" is not a port, 0-65535; write one port, a range such as \"7000-8000\", or \"all\"",
            ],
        ),
        (
            "type = 3, code = 4",
            "code = 4",
            &[
                "error[InvalidParameterValue]: p.toml:21: security_group[0].ingress[2].code: code 4 needs a type: with any type, any code; give a type, or leave the code out",
            ],
        ),
        (
            "type = 3, code = 4",
            "type = 256",
            &[
                "error[InvalidParameterValue]: p.toml:21: security_group[0].ingress[2].type: type = 256 is out of range; choose a value in -1-255",
            ],
        ),
        (
            "protocol = \"icmp\", type = 3, code = 4",
            "protocol = \"igmp\"",
            &[
                "error[InvalidParameterValue]: p.toml:21: security_group[0].ingress[2].protocol: \"igmp\" is not a protocol: tcp, udp, icmp, icmpv6, all or a number 0-255; name or number the protocol",
            ],
        ),
        (
            "protocol = \"icmp\", type = 3, code = 4",
            "protocol = 256",
            &[
                "error[InvalidParameterValue]: p.toml:21: security_group[0].ingress[2].protocol: \"256\" is not a protocol: tcp, udp, icmp, icmpv6, all or a number 0-255; name or number the protocol",
            ],
        ),
        (
            "protocol = \"icmp\", type = 3, code = 4, ",
            "",
            &[
                "error[MissingParameter]: p.toml:21: security_group[0].ingress[2]: \"protocol\" is missing; add protocol = \"tcp\", \"udp\", \"icmp\", \"icmpv6\", \"all\" or a number",
            ],
        ),
        // Ranges and addresses.
        (
            "ports = \"443\", cidr = \"0.0.0.0/0\" },\n",
            "ports = \"443\", cidr = \"0.0.0.0\" },\n",
            &[
                "error[InvalidParameterValue]: p.toml:19: security_group[0].ingress[0].cidr: \"0.0.0.0\" is not a CIDR: for the one address write \"0.0.0.0/32\"; write a range such as \"10.0.0.0/8\" or \"2001:db8::/32\"",
            ],
        ),
        (
            "addresses = [\"10.0.1.10\"",
            "addresses = [\"10.0.1\"",
            &[
                "error[InvalidParameterValue]: p.toml:34: interface[0].addresses[0]: \"10.0.1\" is no IP address; write an address such as \"10.0.1.10\" or \"2001:db8::10\"",
            ],
        ),
        (
            "addresses = [\"10.0.1.10\"",
            "addresses = [\"10.0.2.10\"",
            &[
                "error[InvalidParameterValue]: p.toml:34: interface[0].addresses[0]: 10.0.2.10 lies outside its subnet subnet-a; choose one of 10.0.1.0/24, 2001:db8:1234:1::/64",
            ],
        ),
        (
            "addresses = [\"10.0.1.10\"",
            "addresses = [\"10.0.1.3\"",
            &[
                "error[InvalidParameterValue]: p.toml:34: interface[0].addresses[0]: 10.0.1.3 is reserved: the first four addresses of a subnet, and the last, are AWS's own; choose another",
            ],
        ),
        (
            "max_flows = 1000\nreserved_flows = 10",
            "max_flows = 10\nreserved_flows = 11",
            &[
                "error[InvalidParameterCombination]: p.toml:38: interface[0].reserved_flows: reserved_flows = 11, but the interface may have max_flows = 10; reserve at most max_flows",
            ],
        ),
        (
            "max_flows = 1000\n",
            "max_flows = 4294967295\n",
            &[
                "error[InvalidParameterValue]: p.toml:37: interface[0].max_flows: max_flows = 4294967295 is out of range; choose a value in 0-4294967294",
            ],
        ),
        (
            "cidrs = [\"10.0.1.0/24\",",
            "cidrs = [\"10.1.1.0/24\",",
            &[
                "error[InvalidSubnet.Range]: p.toml:8: subnet[0].cidrs: 10.1.1.0/24 lies outside its VPC vpc-1; choose a range inside the VPC's, or add one to the VPC",
                "error[InvalidParameterValue]: p.toml:34: interface[0].addresses[0]: 10.0.1.10 lies outside its subnet subnet-a; choose one of 10.1.1.0/24, 2001:db8:1234:1::/64",
            ],
        ),
        (
            "entries = [\"203.0.113.0/24\"]",
            "entries = [\"203.0.113.0/24\", \"2001:db8::/32\"]",
            &[
                "error[InvalidParameterValue]: p.toml:13: prefix_list[0].entries: the list mixes IPv4 and IPv6; make one list for each family",
            ],
        ),
        (
            "max_entries = 10\nentries = [\"203.0.113.0/24\"]",
            "max_entries = 1\nentries = [\"203.0.113.0/24\", \"192.0.2.0/24\"]",
            &[
                "error[PrefixListMaxEntriesExceeded]: p.toml:13: prefix_list[0].entries: 2 entries, but max_entries is 1; raise max_entries, or remove entries",
            ],
        ),
        // Peers.
        (
            "prefix_list = \"pl-office\" }",
            "prefix_list = \"pl-office\", cidr = \"0.0.0.0/0\" }",
            &[
                "error[InvalidParameterCombination]: p.toml:22: security_group[0].ingress[3]: cidr and prefix_list exclude each other; give exactly one of cidr, group and prefix_list; one rule has one peer",
            ],
        ),
        (
            ", prefix_list = \"pl-office\" }",
            " }",
            &[
                "error[MissingParameter]: p.toml:22: security_group[0].ingress[3]: the rule names no peer; give exactly one of cidr, group and prefix_list; one rule has one peer",
            ],
        ),
        // References.
        (
            "group = \"sg-app\"",
            "group = \"sg-ap\"",
            &[
                "error[InvalidGroup.NotFound]: p.toml:20: security_group[0].ingress[1].group: there is no security group \"sg-ap\"; correct the id, or add the file that describes it",
            ],
        ),
        (
            "prefix_list = \"pl-office\"",
            "prefix_list = \"pl-x\"",
            &[
                "error[InvalidPrefixListID.NotFound]: p.toml:22: security_group[0].ingress[3].prefix_list: there is no prefix list \"pl-x\"; correct the id, or add the file that describes it",
            ],
        ),
        (
            "vpc = \"vpc-1\"",
            "vpc = \"vpc-2\"",
            &[
                "error[InvalidVpcID.NotFound]: p.toml:7: subnet[0].vpc: there is no VPC \"vpc-2\"; correct the id, or add the file that describes it",
                "error[InvalidParameter]: p.toml:35: interface[0].security_groups[0]: sg-web belongs to another VPC than the interface; use a group of the interface's VPC",
            ],
        ),
        (
            "network_acl = \"acl-1\"",
            "network_acl = \"acl-2\"",
            &[
                "error[InvalidNetworkAclID.NotFound]: p.toml:9: subnet[0].network_acl: there is no network ACL \"acl-2\"; correct the id, or add the file that describes it",
            ],
        ),
        (
            "subnet = \"subnet-a\"",
            "subnet = \"subnet-b\"",
            &[
                "error[InvalidSubnetID.NotFound]: p.toml:33: interface[0].subnet: there is no subnet \"subnet-b\"; correct the id, or add the file that describes it",
            ],
        ),
        (
            "security_groups = [\"sg-web\"]",
            "security_groups = [\"sg-web\", \"sg-no\", \"sg-web\"]",
            &[
                "error[InvalidGroup.NotFound]: p.toml:35: interface[0].security_groups[1]: there is no security group \"sg-no\"; correct the id, or add the file that describes it",
                "error[InvalidParameterValue]: p.toml:35: interface[0].security_groups[2]: sg-web is named twice; remove one",
            ],
        ),
        (
            "security_groups = [\"sg-web\"]",
            "security_groups = []",
            &[
                "error[InvalidParameterValue]: p.toml:35: interface[0].security_groups: the interface has no security group; name one to five",
            ],
        ),
        (
            "security_groups = [\"sg-web\"]\n",
            "",
            &[
                "error[MissingParameter]: p.toml:31: interface[0]: \"security_groups\" is missing, and its VPC has no default group here; name its groups, or add a [[security_group]] with default = true",
            ],
        ),
        // Duplicates (SEMANTICS 16, case 58).
        (
            "  { protocol = \"icmp\", type = 3, code = 4, cidr = \"0.0.0.0/0\" },\n",
            "  { protocol = 6, ports = 443, cidr = \"0.0.0.0/0\", description = \"again\" },\n",
            &[
                "error[InvalidPermission.Duplicate]: p.toml:21: security_group[0].ingress[2]: the same rule stands at p.toml:19: security_group[0].ingress[0] already; remove one; a description does not tell rules apart",
            ],
        ),
        (
            "id = \"sg-app\"",
            "id = \"sg-web\"",
            &[
                "error[duplicate-id]: p.toml:24: security_group[1]: the security group \"sg-web\" was described before, at p.toml:14: security_group[0]; give each its own id, or remove one",
                "error[InvalidGroup.NotFound]: p.toml:20: security_group[0].ingress[1].group: there is no security group \"sg-app\"; correct the id, or add the file that describes it",
            ],
        ),
        (
            "id = \"sg-app\"",
            "id = \"sg-app\"\nname = \"web\"",
            &[
                "error[InvalidGroup.Duplicate]: p.toml:26: security_group[1].name: the name \"web\" belongs to sg-web already; give each group of a VPC its own name",
            ],
        ),
        (
            "egress  = [ {",
            "egress  = [ { rule = 100, action = \"deny\", protocol = \"udp\", cidr = \"::/0\" }, {",
            &[
                "error[NetworkAclEntryAlreadyExists]: p.toml:30: network_acl[0].egress[1]: rule number 100 stands in egress already, at p.toml:30: network_acl[0].egress[0]; give it a number of its own",
            ],
        ),
        // Names and descriptions (SEMANTICS 1.8).
        (
            "name = \"web\"",
            "name = \"default\"",
            &[
                "error[InvalidGroup.Reserved]: p.toml:16: security_group[0].name: the name \"default\" belongs to the VPC's default group; choose another name, or set default = true",
            ],
        ),
        (
            "name = \"web\"",
            "name = \"sg-1\"",
            &[
                "error[InvalidParameterValue]: p.toml:16: security_group[0].name: the name \"sg-1\" begins like an id; a name may not begin with \"sg-\"",
            ],
        ),
        (
            "id = \"sg-app\"",
            "id = \"app\"",
            &[
                "error[InvalidGroup.NotFound]: p.toml:20: security_group[0].ingress[1].group: there is no security group \"sg-app\"; correct the id, or add the file that describes it",
                "error[InvalidGroupId.Malformed]: p.toml:25: security_group[1].id: \"app\" is no id of a security group; begin it with \"sg-\"",
            ],
        ),
        (
            "public web servers",
            "caf\u{e9}",
            &[
                "error[InvalidParameterValue]: p.toml:17: security_group[0].description: the character '\u{e9}' in \"caf\u{e9}\" is not allowed; use a-z, A-Z, 0-9, spaces and ._-:/()#,@[]+=&;{}!$*",
            ],
        ),
        (
            "from the app tier",
            "app & more",
            &[
                "error[InvalidParameterValue]: p.toml:20: security_group[0].ingress[1].description: the character '&' in \"app & more\" is not allowed; use a-z, A-Z, 0-9, spaces and ._-:/()#,@[]+=;{}!$*",
            ],
        ),
        (
            "public web servers",
            &long,
            &[
                "error[InvalidParameterValue]: p.toml:17: security_group[0].description: 256 characters long, the limit is 255; shorten it",
            ],
        ),
    ];
    for (from, to, expected) in cases {
        assert!(GOOD.contains(from), "{from:?} is not in the good policy");
        let found = match try_load(&[("p.toml", &GOOD.replacen(from, to, 1))]) {
            Err(found) => found,
            Ok(_) => panic!("{to:?} in place of {from:?} is accepted"),
        };
        assert_eq!(&found, expected, "{to:?} in place of {from:?}");
    }
}

#[test]
fn what_is_odd_is_only_warned_of() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "\"203.0.113.0/24\"",
            "\"203.0.113.7/24\"",
            "warning[host-bits]: p.toml:13: prefix_list[0].entries[0]: \"203.0.113.7/24\" has host bits set and is stored as \"203.0.113.0/24\"; write \"203.0.113.0/24\"",
        ),
        (
            "type = 3, code = 4, cidr = \"0.0.0.0/0\"",
            "cidr = \"::/0\"",
            "warning[wrong-family]: p.toml:21: security_group[0].ingress[2]: icmp with an IPv6 range matches nothing that is usual; write protocol = \"icmpv6\", or a range of the other family",
        ),
        (
            "protocol = \"icmp\", type = 3, code = 4",
            "protocol = 47, ports = \"1-2\"",
            "warning[ignored-field]: p.toml:21: security_group[0].ingress[2].ports: \"ports\" has no meaning for protocol 47 and is ignored, as AWS does; remove it",
        ),
    ];
    for (from, to, expected) in cases {
        let loaded = try_load(&[("p.toml", &GOOD.replacen(from, to, 1))]).unwrap();
        let found: Vec<_> = loaded.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(found, [*expected]);
    }
}

/// All faults of a file are found in one go.
#[test]
fn one_fault_does_not_hide_another() {
    let text = GOOD
        .replace("ports = \"443\"", "ports = \"443-1\"")
        .replace("mtu = 9001", "mtu = 1")
        .replace("group = \"sg-app\"", "group = \"sg-x\"")
        .replace("description = \"public", "descripton = \"public");
    let found = try_load(&[("p.toml", &text)]).unwrap_err();
    assert_eq!(found.len(), 5, "{}", found.join("\n"));
}

/// SEMANTICS 4.6.
#[test]
fn a_peering_carries_references_between_its_own_vpcs() {
    let text = |second: &str| {
        format!(
            "version = 1\npeering = [{{ id = \"pcx-1\", vpcs = [\"vpc-1\", \"{second}\"] }}]\n\
             vpc = [{{ id = \"vpc-1\", cidrs = [\"10.1.0.0/16\"] }}, \
             {{ id = \"vpc-2\", cidrs = [\"10.2.0.0/16\"] }}, \
             {{ id = \"vpc-3\", cidrs = [\"10.3.0.0/16\"] }}]\n\
             [[security_group]]\nid = \"sg-2\"\nvpc = \"vpc-2\"\n\
             [[security_group]]\nid = \"sg-1\"\nvpc = \"vpc-1\"\n\
             ingress = [{{ protocol = \"all\", group = \"sg-2\", peering = \"pcx-1\" }}]\n"
        )
    };
    policy(&text("vpc-2"));
    assert_eq!(
        try_load(&[("p.toml", &text("vpc-3"))]).unwrap_err(),
        [
            "error[InvalidGroup.NotFound]: p.toml:10: security_group[1].ingress[0].group: pcx-1 does \
          not lead to the VPC of sg-2; name the peering that leads there"
        ]
    );
}

/// A group of `n` rules on an interface of `groups` groups, and an ACL of `entries` entries.
fn sized(compat: &str, head: &str, n: usize, groups: usize, entries: usize) -> Vec<String> {
    let rules: Vec<_> = (0..n)
        .map(|i| format!("{{ protocol = \"tcp\", ports = {i}, cidr = \"0.0.0.0/0\" }}"))
        .collect();
    let acl: Vec<_> = (1..=entries)
        .map(|i| {
            format!(
                "{{ rule = {i}, action = \"allow\", protocol = \"all\", cidr = \"0.0.0.0/0\" }}"
            )
        })
        .collect();
    let others: String =
        (1..groups).map(|i| format!("[[security_group]]\nid = \"sg-{i}\"\n")).collect();
    let ids: Vec<_> = (0..groups).map(|i| format!("\"sg-{i}\"")).collect();
    let text = format!(
        "version = 1\ncompat = \"{compat}\"\n{head}\n\
         [[vpc]]\nid = \"vpc-1\"\ncidrs = [\"10.0.0.0/16\"]\n\
         [[subnet]]\nid = \"subnet-1\"\nvpc = \"vpc-1\"\ncidrs = [\"10.0.1.0/24\"]\n\
         [[network_acl]]\nid = \"acl-1\"\ningress = [{}]\n\
         [[security_group]]\nid = \"sg-0\"\ningress = [{}]\n{others}\
         [[interface]]\nid = \"eni-1\"\nsubnet = \"subnet-1\"\naddresses = [\"10.0.1.10\"]\n\
         security_groups = [{}]\n",
        acl.join(","),
        rules.join(","),
        ids.join(",")
    );
    match try_load(&[("p.toml", &text)]) {
        Ok(loaded) => {
            assert!(loaded.diagnostics.is_empty());
            Vec::new()
        }
        Err(found) => found
            .iter()
            .map(|line| line[line.find('[').unwrap() + 1..line.find(']').unwrap()].to_owned())
            .collect(),
    }
}

/// SEMANTICS 1.5, case 61.
#[test]
fn limits_follow_the_edition_and_may_be_raised() {
    const RULES: &str = "RulesPerSecurityGroupLimitExceeded";
    const GROUPS: &str = "SecurityGroupsPerInterfaceLimitExceeded";
    const ENTRIES: &str = "NetworkAclEntryLimitExceeded";
    let none: [&str; 0] = [];
    assert_eq!(sized("ec2-2017", "", 50, 5, 20), none);
    assert_eq!(sized("ec2-2017", "", 51, 5, 20), [RULES]);
    assert_eq!(sized("ec2-2017", "", 50, 6, 20), [GROUPS]);
    assert_eq!(sized("ec2-2017", "", 50, 5, 21), [ENTRIES]);
    // Today the final deny counts.
    assert_eq!(sized("current", "", 60, 5, 19), none);
    assert_eq!(sized("current", "", 61, 5, 20), [ENTRIES, RULES]);
    let raised = "[limits]\nrules_per_group = 100\nrules_per_interface = 500\nentries_per_acl = 40";
    assert_eq!(sized("ec2-2017", raised, 100, 5, 40), none);
    // The product of the two limits has one of its own.
    let too_much = "[limits]\nrules_per_group = 51";
    assert_eq!(sized("ec2-2017", too_much, 51, 5, 20), ["InvalidParameterValue"]);
}

/// SEMANTICS 1.6: a prefix list weighs its `max_entries`, a group one in each family.
#[test]
fn rules_are_weighed() {
    let weigh = |compat: &str, rules: &str| {
        let text = GOOD
            .replacen("version = 1", &format!("version = 1\ncompat = \"{compat}\""), 1)
            .replace("max_entries = 10", "max_entries = 20")
            .replace("ingress = [\n", &format!("ingress = [\n{rules}"));
        match try_load(&[("p.toml", &text)]) {
            Ok(_) => None,
            Err(found) => {
                let line = found.into_iter().next().unwrap();
                let (_, rest) = line.split_once("sg-web has ").unwrap();
                Some(rest.split_once(" ingress").unwrap().0.parse::<u32>().unwrap())
            }
        }
    };
    // The good policy weighs 3 and the list's 20.
    let with = |n: u32| -> String {
        (0..n)
            .map(|i| format!("{{ protocol = \"udp\", ports = {i}, cidr = \"::/0\" }},\n"))
            .collect()
    };
    assert_eq!(weigh("ec2-2017", &with(27)), None);
    assert_eq!(weigh("ec2-2017", &with(28)), Some(51));
    assert_eq!(weigh("current", &with(59)), None);
    // The reference to sg-app weighs in IPv6 too.
    assert_eq!(weigh("current", &with(60)), Some(61));
}

#[test]
fn json_that_is_none_and_text_that_is_none() {
    for (text, expected) in [
        (
            "{ \"SecurityGroups\": [",
            "error[syntax]: x:1: not valid JSON: EOF while parsing a list at line 1 column 21; save the answer of `aws ec2 describe-*` again, whole and with --output json, or the output of `terraform show -json`",
        ),
        (
            "[limits",
            "error[syntax]: x:1: syntax[0]: not valid TOML: unclosed table, expected `]`; correct this line; docs/policy.md shows the form",
        ),
    ] {
        let found = try_load(&[("x", text)]).unwrap_err();
        assert_eq!(found[0], expected);
    }
    let found = load(&[Input { name: "x".into(), bytes: &[b'a', 0xff] }]).unwrap_err();
    assert_eq!(found[0].severity, Severity::Error);
    assert_eq!(
        found[0].to_string(),
        "error[syntax]: x: not UTF-8 text: byte 1 is invalid; a policy is TOML, or JSON from `aws ec2 describe-*` or `terraform show -json`; save it as UTF-8"
    );
}
