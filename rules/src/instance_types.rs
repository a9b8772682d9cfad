//! What instances of a type may have (SEMANTICS 1.9, 12.3): a table of data.

const TABLE: &str = include_str!("../data/instance-types.tsv");

/// What an instance of a type may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceType {
    /// Network interfaces.
    pub interfaces: u32,
    /// Private IPv4 addresses of an interface.
    pub ipv4: u32,
    /// IPv6 addresses of an interface; 0: the type has no IPv6.
    pub ipv6: u32,
    /// The largest MTU in bytes.
    pub mtu: u16,
}

impl InstanceType {
    /// What the guide says of a type, `m4.large`; `None` of one that is not in its table.
    ///
    /// # Panics
    /// Never: a test reads the whole table.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let row = rows().find(|row| row[0] == name)?;
        let number = |column: usize| match row[column] {
            "-" => 0,
            text => text.parse().expect("a number in the table"),
        };
        let mtu = u16::try_from(number(4)).expect("an MTU in the table");
        Some(InstanceType { interfaces: number(1), ipv4: number(2), ipv6: number(3), mtu })
    }
}

/// The lines of the table.
fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split('\t').collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The guide has 79 types, once each; these rows are copied from it by hand.
    #[test]
    fn the_table_is_the_guides() {
        let names: HashSet<_> = rows().map(|row| row[0]).collect();
        assert_eq!((names.len(), rows().count()), (79, 79));
        assert!(names.iter().all(|name| InstanceType::of(name).is_some()));
        let of = |name| InstanceType::of(name).map(|t| (t.interfaces, t.ipv4, t.ipv6, t.mtu));
        assert_eq!(of("c1.medium"), Some((2, 6, 0, 1500)));
        assert_eq!(of("m1.small"), Some((2, 4, 0, 1500)));
        assert_eq!(of("m2.2xlarge"), Some((4, 30, 0, 1500)));
        assert_eq!(of("m4.large"), Some((2, 10, 10, 9001)));
        assert_eq!(of("g3.16xlarge"), Some((15, 50, 50, 9001)));
        assert_eq!(of("t2.large"), Some((3, 12, 12, 9001)));
        assert_eq!(of("x1.32xlarge"), Some((8, 30, 30, 9001)));
        assert_eq!(of("m9.huge"), None);
    }
}
