//! What surrounds groups and ACLs in a native policy: EC2-Classic, routes, ports, what is exempt.

use sgwall_rules::load::{Input, load};
use sgwall_rules::model::{Exempt, ExemptTraffic, L4Match, Policy, PortKind, RouteTarget, Vlans};

/// A policy in which everything is in order.
const GOOD: &str = r#"version = 1
exempt = ["dhcp", "dns"]
[[vpc]]
id = "vpc-1"
cidrs = ["10.0.0.0/16"]
classic_link = true
[[subnet]]
id = "s"
vpc = "vpc-1"
cidrs = ["10.0.1.0/24"]
routes = [
  { destination = "0.0.0.0/0", target = "internet-gateway" },
  { destination = "172.16.0.0/12", target = "appliance", interface = "eni-1" },
]
[[security_group]]
id = "sg-vpc"
vpc = "vpc-1"
[[security_group]]
id = "sg-classic"
name = "caf% & <b>"
classic = true
ingress = [{ protocol = "tcp", ports = 22, cidr = "0.0.0.0/0" }]
[[interface]]
id = "eni-1"
subnet = "s"
addresses = ["10.0.1.10"]
security_groups = ["sg-vpc"]
[[classic_instance]]
id = "i-1"
address = "10.200.0.5"
public = "198.51.100.5"
security_groups = ["sg-classic"]
classic_link = { vpc = "vpc-1", security_groups = ["sg-vpc"] }
[[port]]
device = "tap-i"
interface = "eni-1"
mtu = 1500
vlans = [10, 20]
[[port]]
device = "eth1"
kind = "existing"
vlans = "all"
"#;

fn try_load(text: &str) -> Result<Policy, Vec<String>> {
    let input = Input { name: "p.toml".into(), bytes: text.as_bytes() };
    match load(&[input]) {
        Ok(loaded) => {
            assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
            Ok(loaded.policy)
        }
        Err(found) => Err(found.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn it_means_what_it_says() {
    let policy = try_load(GOOD).unwrap();
    assert_eq!(policy.exempt, Exempt::NONE.with(ExemptTraffic::Dhcp).with(ExemptTraffic::Dns));
    assert!(!policy.exempt.contains(ExemptTraffic::Router));
    let [_, to_appliance] = &policy.subnets[0].routes[..] else { panic!("two routes") };
    assert_eq!(to_appliance.target, RouteTarget::Appliance);
    assert_eq!(to_appliance.interface.as_deref(), Some("eni-1"));
    // Outbound, EC2-Classic is open, and nobody can change that.
    let classic = &policy.security_groups[1];
    assert_eq!(classic.vpc, None);
    let egress: Vec<_> = classic.egress.iter().map(|r| (r.matches, r.peer.to_string())).collect();
    assert_eq!(egress, [(L4Match::All, "0.0.0.0/0".to_owned())]);
    let link = policy.classic_instances[0].link.as_ref().unwrap();
    assert_eq!(
        (link.vpc.as_str(), &link.security_groups[..]),
        ("vpc-1", &["sg-vpc".to_owned()][..])
    );
    let [instance, network] = &policy.ports[..] else { panic!("two ports") };
    assert_eq!((instance.kind, instance.mtu), (PortKind::Tap, Some(1500)));
    assert_eq!(instance.vlans, Vlans::Only(vec![10, 20]));
    assert_eq!(
        (network.kind, &network.vlans, &network.interface),
        (PortKind::Existing, &Vlans::All, &None)
    );
    for (vlans, carried) in [
        (&instance.vlans, [true, true, false]),
        (&network.vlans, [true, true, true]),
        (&Vlans::None, [true, false, false]),
    ] {
        assert_eq!([None, Some(10), Some(11)].map(|id| vlans.carry(id)), carried);
    }
}

#[test]
fn exempt_may_be_all_or_nothing() {
    let with = |value: &str| {
        let text = GOOD.replace("exempt = [\"dhcp\", \"dns\"]", value);
        try_load(&text).map(|policy| policy.exempt)
    };
    assert_eq!(with("exempt = true"), Ok(Exempt::ALL));
    assert_eq!(with("exempt = false"), Ok(Exempt::NONE));
    assert_eq!(with(""), Ok(Exempt::ALL));
    assert_eq!(with("exempt = []"), Ok(Exempt::NONE));
}

/// Each case: a text of the good policy, what replaces it, and all that is then said.
#[test]
fn what_is_wrong_is_said_with_its_place_and_mend() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "\"dns\"]",
            "\"dna\"]",
            &[
                "error[InvalidParameterValue]: p.toml:2: exempt[1]: \"dna\" is no traffic that can be exempt; write some of neighbour-discovery, dhcp, dns, metadata, task-metadata, time, licences, router",
            ],
        ),
        (
            "target = \"appliance\"",
            "target = \"nat-gateway\"",
            &[
                "error[InvalidParameterCombination]: p.toml:13: subnet[0].routes[1].interface: a route to \"nat-gateway\" goes through no interface; remove it, or write target = \"appliance\"",
            ],
        ),
        (
            "172.16.0.0/12",
            "10.9.0.0/16",
            &[
                "error[InvalidParameterValue]: p.toml:13: subnet[0].routes[1].destination: a route to 10.9.0.0/16 conflicts with 10.0.0.0/8, where EC2-Classic is; remove it, or unset classic_link of vpc-1",
            ],
        ),
        (
            "classic_link = true",
            "classic_link = false",
            &[
                "error[InvalidParameterValue]: p.toml:33: classic_instance[0].classic_link: vpc-1 is not enabled for ClassicLink; set classic_link = true in the VPC",
            ],
        ),
        (
            "classic = true",
            "classic = true\negress = []",
            &[
                "error[InvalidParameterCombination]: p.toml:22: security_group[1].egress: the outbound rules of a group of EC2-Classic cannot be changed; remove egress, or classic = true",
            ],
        ),
        (
            "classic = true",
            "classic = true\nvpc = \"vpc-1\"",
            &[
                "error[InvalidParameterCombination]: p.toml:22: security_group[1].vpc: a group of EC2-Classic belongs to no VPC; remove vpc, or classic = true",
                "error[InvalidParameterValue]: p.toml:20: security_group[1].name: the character '%' in \"caf% & <b>\" is not allowed; use a-z, A-Z, 0-9, spaces and ._-:/()#,@[]+=&;{}!$*",
                "error[InvalidGroup.NotFound]: p.toml:33: classic_instance[0].security_groups: sg-classic is no group of EC2-Classic; use a group of EC2-Classic",
            ],
        ),
        (
            "ports = 22, cidr = \"0.0.0.0/0\"",
            "ports = 22, cidr = \"::/0\"",
            &[
                "error[InvalidParameterValue]: p.toml:22: security_group[1].ingress[0]: EC2-Classic has no IPv6; remove the rule",
            ],
        ),
        (
            "address = \"10.200.0.5\"",
            "address = \"2001:db8::5\"",
            &[
                "error[InvalidParameterValue]: p.toml:30: classic_instance[0].address: EC2-Classic has no IPv6; give it an IPv4 address",
            ],
        ),
        (
            "security_groups = [\"sg-vpc\"] }",
            "security_groups = [\"sg-classic\"] }",
            &[
                "error[InvalidGroup.NotFound]: p.toml:33: classic_instance[0].classic_link: sg-classic is no group of vpc-1; use a group of vpc-1",
            ],
        ),
        (
            "version = 1",
            "version = 1\ncompat = \"current\"",
            &[
                "error[InvalidParameterValue]: p.toml:29: classic_instance[0]: EC2-Classic is no more under compat = \"current\"; remove the instance, or write compat = \"ec2-2017\"",
            ],
        ),
        (
            "device = \"tap-i\"",
            "device = \"a-name-of-16-byt\"",
            &[
                "error[InvalidParameterValue]: p.toml:35: port[0].device: \"a-name-of-16-byt\" is no name of a device; use at most 15 characters, no space and no slash",
            ],
        ),
        (
            "kind = \"existing\"",
            "kind = \"veth\"",
            &[
                "error[InvalidParameterValue]: p.toml:41: port[1].kind: \"veth\" is no kind of port; write \"tap\" (made, or attached to) or \"existing\" (a veth or network card)",
            ],
        ),
        (
            "device = \"eth1\"",
            "device = \"tap-i\"",
            &[
                "error[duplicate-id]: p.toml:40: port[1].device: the device \"tap-i\" was named before, at p.toml:34: port[0]; a device is one port",
            ],
        ),
        (
            "interface = \"eni-1\"\nmtu",
            "interface = \"eni-2\"\nmtu",
            &[
                "error[InvalidNetworkInterfaceID.NotFound]: p.toml:36: port[0].interface: there is no interface \"eni-2\"; correct the id, or add the file that describes it",
            ],
        ),
        (
            "interface = \"eni-1\"\nmtu",
            "mtu",
            &[
                "error[duplicate-id]: p.toml:38: port[1].interface: the network is behind a port already, at p.toml:34: port[0]; name the interface behind this port; a port without one is the network's, and there is one of those",
            ],
        ),
        (
            "kind = \"existing\"",
            "kind = \"existing\"\ninterface = \"eni-1\"",
            &[
                "error[duplicate-id]: p.toml:42: port[1].interface: eni-1 is behind a port already, at p.toml:34: port[0]; name the interface behind this port; a port without one is the network's, and there is one of those",
                "error[MissingParameter]: p.toml:34: port[0]: no port leads to the network; add a [[port]] without interface",
            ],
        ),
        (
            "vlans = [10, 20]",
            "vlans = [10, 4095]",
            &[
                "error[InvalidParameterValue]: p.toml:38: port[0].vlans[1]: vlans = 4095 is out of range; choose a value in 1-4094",
            ],
        ),
        (
            "vlans = \"all\"",
            "vlans = \"some\"",
            &[
                "error[InvalidParameterValue]: p.toml:42: port[1].vlans: expected an array, found string; write an array",
            ],
        ),
    ];
    let mut wrong = Vec::new();
    for (from, to, expected) in cases {
        assert!(GOOD.contains(from), "{from:?} is not in the good policy");
        match try_load(&GOOD.replacen(from, to, 1)) {
            Err(found) if found == *expected => {}
            found => wrong.push(format!("{to:?} in place of {from:?}: {found:#?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A VPC in 10.0.0.0/8 may be linked to only if it keeps out of EC2-Classic's way.
#[test]
fn a_linked_vpc_keeps_out_of_the_way() {
    let with = |cidr: &str, subnet: &str| {
        let text = GOOD.replace("10.0.0.0/16", cidr).replace("10.0.1.0/24", subnet);
        try_load(&text.replace("10.0.1.10", &subnet.replace("0/24", "10")))
    };
    assert!(with("10.1.0.0/16", "10.1.1.0/24").is_ok());
    assert!(with("172.31.0.0/16", "172.31.1.0/24").is_ok());
    let found = with("10.2.0.0/16", "10.2.1.0/24").unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("10.2.0.0/16 conflicts with 10.0.0.0/8"), "{found:?}");
    // An instance in the range of its VPC would be taken for one inside (14.3).
    let found = try_load(&GOOD.replace("10.200.0.5", "10.0.200.5")).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    let expected =
        "10.0.200.5 lies in 10.0.0.0/16, a range of vpc-1, to which the instance is linked";
    assert!(found[0].contains(expected), "{found:?}");
}

#[test]
fn limits_of_classic_are_its_own() {
    let rules: String = (0..101)
        .map(|n| format!("{{ protocol = \"tcp\", ports = {n}, cidr = \"0.0.0.0/0\" }},"))
        .collect();
    let text = GOOD.replace("{ protocol = \"tcp\", ports = 22, cidr = \"0.0.0.0/0\" }", &rules);
    let found = try_load(&text).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("error[RulesPerSecurityGroupLimitExceeded]"), "{found:?}");
    assert!(found[0].contains("101 ingress rules, the limit is 100"), "{found:?}");
    let raised = text.replace("[[vpc]]", "limits = { rules_per_classic_group = 101 }\n[[vpc]]");
    assert!(try_load(&raised).is_ok());
}

/// SEMANTICS 13.1, 14.5.
#[test]
fn a_public_address_stands_for_one_private_address() {
    let with = |public: &[&str]| {
        let own = "addresses = [\"10.0.1.10\"]\n";
        let pair = |public| format!("{{ private = \"10.0.1.10\", public = \"{public}\" }}");
        let pairs: Vec<_> = public.iter().map(pair).collect();
        try_load(&GOOD.replace(own, &format!("{own}public = [{}]\n", pairs.join(","))))
    };
    assert!(with(&["198.51.100.6"]).is_ok());
    for (public, message) in [
        (&["198.51.100.5"][..], "198.51.100.5 stands for an address of eni-1 already"),
        (&["198.51.100.6", "198.51.100.7"], "10.0.1.10 has a public address already"),
    ] {
        let found = with(public).unwrap_err();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("error[Resource.AlreadyAssociated]"), "{found:?}");
        assert!(found[0].contains(message), "{found:?}");
    }
}
