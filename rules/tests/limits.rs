//! How much of everything a policy may hold, and what counts as how much (SEMANTICS 1.5, 1.6).

use sgwall_rules::limits::Limits;
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::Compat;

/// The codes of the errors of a policy: VPCs with a subnet and `groups` groups each, and `more`.
fn codes(compat: Compat, groups: &[u32], more: &str) -> Vec<String> {
    let mut text = format!("version = 1\ncompat = {:?}\n{more}", compat.as_str());
    for (n, groups) in groups.iter().enumerate() {
        text += &format!("[[vpc]]\nid = \"vpc-{n}\"\ncidrs = [\"10.{n}.0.0/16\"]\n");
        for g in 0..*groups {
            text += &format!("[[security_group]]\nid = \"sg-{n}-{g}\"\nvpc = \"vpc-{n}\"\n");
            text += &format!("name = \"group {n} {g}\"\n");
        }
    }
    let found = match load(&[Input { name: "p.toml".into(), bytes: text.as_bytes() }]) {
        Ok(loaded) => loaded.diagnostics,
        Err(found) => found,
    };
    found.iter().map(|found| found.code.to_owned()).collect()
}

#[test]
fn each_edition_has_its_limits() {
    let old = Limits {
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
    };
    let new =
        Limits { groups_per_vpc: 2500, rules_per_group: 60, rules_per_interface: 1000, ..old };
    assert_eq!(Limits::of(Compat::Ec2_2017), old);
    assert_eq!(Limits::of(Compat::Current), new);
    assert_eq!(Limits::default(), old);
}

/// In 2017 each VPC may have its hundred; today the VPCs of a Region share theirs.
#[test]
fn groups_are_counted_by_vpc_or_by_region() {
    const NONE: [&str; 0] = [];
    const TOO_MANY: [&str; 1] = ["SecurityGroupLimitExceeded"];
    assert_eq!(codes(Compat::Ec2_2017, &[100, 100], ""), NONE);
    assert_eq!(codes(Compat::Ec2_2017, &[100, 101], ""), TOO_MANY);
    let few = "limits = { groups_per_vpc = 10 }\n";
    assert_eq!(codes(Compat::Current, &[5, 5], few), NONE);
    assert_eq!(codes(Compat::Current, &[5, 6], few), TOO_MANY);
    assert_eq!(codes(Compat::Ec2_2017, &[5, 6], few), NONE);
    // Those of EC2-Classic are a count of their own.
    let classic = "limits = { groups_per_vpc = 10, classic_groups = 1 }\n\
                   [[security_group]]\nid = \"sg-c\"\nname = \"c\"\nclassic = true\n";
    assert_eq!(codes(Compat::Current, &[5, 5], classic), NONE);
    let second = "[[security_group]]\nid = \"sg-d\"\nname = \"d\"\nclassic = true\n";
    assert_eq!(codes(Compat::Ec2_2017, &[5, 5], &format!("{classic}{second}")), TOO_MANY);
}

/// A list of AWS's own weighs what AWS says, whatever it holds; a customer's what it may hold,
/// and without that what it holds.
#[test]
fn lists_weigh_what_aws_says() {
    for (name, size, weight) in [
        ("com.amazonaws.eu-west-1.s3", "", 1),
        ("com.amazonaws.eu-west-1.dynamodb", "", 1),
        ("com.amazonaws.global.cloudfront.origin-facing", "", 55),
        ("com.amazonaws.eu-west-1.vpc-lattice", "", 10),
        ("com.amazonaws.eu-west-1.ipv6.vpc-lattice", "", 10),
        ("com.amazonaws.global.groundstation", "", 5),
        ("mine.s3", "max_entries = 7", 7),
        ("mine", "", 2),
    ] {
        let list = |limit: u32| {
            format!(
                "limits = {{ rules_per_group = {limit}, rules_per_interface = 1000 }}\n[[prefix_list]]\nid = \"pl-1\"\n\
                 name = {name:?}\n{size}\nentries = [\"192.0.2.0/25\", \"198.51.100.0/25\"]\n\
                 [[vpc]]\nid = \"vpc-9\"\ncidrs = [\"10.9.0.0/16\", \"2001:db8::/56\"]\n[[security_group]]\n\
                 id = \"sg-9\"\nvpc = \"vpc-9\"\negress = []\n\
                 ingress = [{{ protocol = \"tcp\", ports = 80, prefix_list = \"pl-1\" }}]\n"
            )
        };
        for compat in [Compat::Ec2_2017, Compat::Current] {
            let none: [&str; 0] = [];
            assert_eq!(codes(compat, &[], &list(weight)), none, "{name}");
            let found = codes(compat, &[], &list(weight - 1));
            assert_eq!(found, ["RulesPerSecurityGroupLimitExceeded"], "{name}");
        }
    }
}

/// Interfaces of an instance, addresses of an interface, and its MTU, by the instance's type.
#[test]
fn an_instance_has_what_its_type_has() {
    const NET: &str = "[[vpc]]\nid = \"vpc\"\ncidrs = [\"10.9.0.0/16\", \"2001:db8::/56\"]\n[[subnet]]\nid = \"s\"\n\
                       vpc = \"vpc\"\ncidrs = [\"10.9.1.0/24\", \"2001:db8::/64\"]\n\
                       [[security_group]]\nid = \"sg-1\"\nvpc = \"vpc\"\nname = \"g\"\n";
    let interface = |n: usize, v4: usize, v6: usize, more: &str| {
        let v4 = (0..v4).map(|a| format!("\"10.9.1.{}\"", 10 + 20 * n + a));
        let v6 = (0..v6).map(|a| format!("\"2001:db8::{n}:{:x}\"", 16 + a));
        let addresses = v4.chain(v6).collect::<Vec<_>>().join(", ");
        format!(
            "[[interface]]\nid = \"eni-{n}\"\nsubnet = \"s\"\nsecurity_groups = [\"sg-1\"]\n\
             addresses = [{addresses}]\n{more}\n"
        )
    };
    let check = |interfaces: &[String]| {
        codes(Compat::Ec2_2017, &[], &format!("{NET}{}", interfaces.concat()))
    };
    let none: [&str; 0] = [];
    let small = "instance = \"i-1\"\ninstance_type = \"t2.small\"";
    // Two interfaces of four addresses of each family, of each instance.
    let two = [interface(0, 4, 4, small), interface(1, 4, 4, small)];
    let other = interface(2, 1, 0, "instance = \"i-2\"\ninstance_type = \"t2.small\"");
    assert_eq!(check(&[two.as_slice(), &[other]].concat()), none);
    let third = interface(2, 1, 0, small);
    assert_eq!(check(&[two.as_slice(), &[third]].concat()), ["AttachmentLimitExceeded"]);
    assert_eq!(check(&[interface(0, 5, 0, small)]), ["PrivateIpAddressLimitExceeded"]);
    assert_eq!(check(&[interface(0, 1, 5, small)]), ["PrivateIpAddressLimitExceeded"]);
    // No IPv6, no jumbo frames.
    let old = "instance_type = \"m1.small\"";
    assert_eq!(check(&[interface(0, 4, 0, old)]), none);
    assert_eq!(check(&[interface(0, 4, 1, old)]), ["PrivateIpAddressLimitExceeded"]);
    let jumbo = interface(0, 1, 0, &format!("{old}\nmtu = 9001"));
    assert_eq!(check(&[jumbo]), ["InvalidParameterValue"]);
    // One instance of two types; a type that the table does not know.
    let twice = [two[0].clone(), interface(1, 1, 0, &small.replace("small", "large"))];
    assert_eq!(check(&twice), ["InvalidParameterValue"]);
    assert_eq!(check(&[interface(0, 20, 20, "instance_type = \"x9.new\"")]), none);
}
