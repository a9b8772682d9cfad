//! Which fields a line of a flow log has, and the line itself (SEMANTICS 15.1, 15.5).
//!
//! Names, order and versions are those of the "Available fields" table of the Amazon VPC guide
//! ("Flow log records"); `rule`, `stage`, `reason` and `state` are ours. What a format does not
//! name is not written, and what a record does not have is written `-`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use sgwall_packet::Direction;
use sgwall_rules::native::nearest;

use super::record::{Content, FlowLogRecord, LoggedFlow};
use crate::verdict::FlowState;

/// Declares the fields: each with its name, the version that brought it, and what it is.
macro_rules! fields {
    ($($variant:ident: $name:literal, $version:literal, $text:literal;)+) => {
        /// A field of a flow log record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Field { $(#[doc = $text] $variant,)+ }

        impl Field {
            /// Every field, AWS's first, in the order of its documentation.
            pub const ALL: &'static [Field] = &[$(Field::$variant,)+];

            const NAMES: &'static [&'static str] = &[$($name,)+];

            /// The name, as in `${srcaddr}`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Field::$variant => $name,)+ }
            }

            /// The version of AWS's format that brought it; 0 for those that are ours.
            #[must_use]
            pub const fn version(self) -> u8 {
                match self { $(Field::$variant => $version,)+ }
            }
        }
    };
}

fields! {
    Version: "version", 2, "The highest version among the fields of the format.";
    AccountId: "account-id", 2, "The account that owns the interface.";
    InterfaceId: "interface-id", 2, "The interface.";
    SrcAddr: "srcaddr", 2, "Source address; the interface's primary IPv4 address on its own side.";
    DstAddr: "dstaddr", 2, "Destination address; as `srcaddr`.";
    SrcPort: "srcport", 2, "Source port; 0 for protocols without.";
    DstPort: "dstport", 2, "Destination port; 0 for protocols without.";
    Protocol: "protocol", 2, "IP protocol number.";
    Packets: "packets", 2, "Packets.";
    Bytes: "bytes", 2, "Bytes of the IP packets.";
    Start: "start", 2, "When the first packet came, seconds since the epoch.";
    End: "end", 2, "When the last packet came, seconds since the epoch.";
    Action: "action", 2, "`ACCEPT` or `REJECT`.";
    LogStatus: "log-status", 2, "`OK`, `NODATA` or `SKIPDATA`.";
    VpcId: "vpc-id", 3, "The interface's VPC.";
    SubnetId: "subnet-id", 3, "The interface's subnet.";
    InstanceId: "instance-id", 3, "The interface's instance, which policies do not tell.";
    TcpFlags: "tcp-flags", 3, "FIN 1, SYN 2, RST 4, and 16 with a SYN that acknowledges; or-ed.";
    Type: "type", 3, "`IPv4` or `IPv6`.";
    PktSrcAddr: "pkt-srcaddr", 3, "The packets' source address.";
    PktDstAddr: "pkt-dstaddr", 3, "The packets' destination address.";
    Region: "region", 4, "The Region, which policies do not tell.";
    AzId: "az-id", 4, "The Availability Zone, which policies do not tell.";
    SublocationType: "sublocation-type", 4, "Wavelength, Outpost or Local Zone; never known.";
    SublocationId: "sublocation-id", 4, "Its id; never known.";
    PktSrcAwsService: "pkt-src-aws-service", 5, "The AWS service at the source; never known.";
    PktDstAwsService: "pkt-dst-aws-service", 5, "The one at the destination; never known.";
    FlowDirection: "flow-direction", 5, "`ingress` or `egress`.";
    TrafficPath: "traffic-path", 5, "The way that egress takes, by number.";
    EcsClusterArn: "ecs-cluster-arn", 7, "The ECS cluster; never known, as all of ECS.";
    EcsClusterName: "ecs-cluster-name", 7, "Its name; never known.";
    EcsContainerInstanceArn: "ecs-container-instance-arn", 7, "The ECS container instance; never known.";
    EcsContainerInstanceId: "ecs-container-instance-id", 7, "Its id; never known.";
    EcsContainerId: "ecs-container-id", 7, "The container; never known.";
    EcsSecondContainerId: "ecs-second-container-id", 7, "The second container of its task; never known.";
    EcsServiceName: "ecs-service-name", 7, "The ECS service; never known.";
    EcsTaskDefinitionArn: "ecs-task-definition-arn", 7, "The ECS task's definition; never known.";
    EcsTaskArn: "ecs-task-arn", 7, "The ECS task; never known.";
    EcsTaskId: "ecs-task-id", 7, "Its id; never known.";
    RejectReason: "reject-reason", 8, "Reasons that sgwall has no equivalent of.";
    ResourceId: "resource-id", 9, "A regional NAT gateway; never one of a policy.";
    EncryptionStatus: "encryption-status", 10, "Whether AWS encrypts in transit; never known.";
    Rule: "rule", 0, "The rule that decided the first packet, or admitted its tracked flow.";
    Stage: "stage", 0, "The stage that decided the first packet.";
    Reason: "reason", 0, "Why the first packet passed or was dropped.";
    State: "state", 0, "The first packet's relation to a tracked flow.";
}

/// The fields of a line, in order: never none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    fields: Vec<Field>,
    version: u8,
}

/// Version of AWS's default format, and the least that a line claims.
const DEFAULT_VERSION: u8 = 2;
/// The last version that has a word of its own in [`Format::from_str`].
const LAST_NAMED_VERSION: u8 = 5;

impl Format {
    /// The format of these fields; `None` of none.
    #[must_use]
    pub fn new(fields: Vec<Field>) -> Option<Self> {
        let highest = fields.iter().map(|field| field.version()).max()?;
        Some(Format { fields, version: highest.max(DEFAULT_VERSION) })
    }

    /// The fields of AWS's versions 2 to `version`, in the order of its documentation.
    fn up_to(version: u8) -> Self {
        let of_aws = |field: &&Field| (DEFAULT_VERSION..=version).contains(&field.version());
        Format { fields: Field::ALL.iter().filter(of_aws).copied().collect(), version }
    }

    /// Its fields.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// What the field `version` says: the highest version among its fields.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// A record as a line of this format, without the line's end.
    #[must_use]
    pub fn line<'a>(&'a self, record: &'a FlowLogRecord<'a>) -> Line<'a> {
        Line { format: self, record }
    }
}

/// AWS's default format, version 2.
impl Default for Format {
    fn default() -> Self {
        Format::up_to(DEFAULT_VERSION)
    }
}

/// What is wrong with a format's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// It names no field.
    Empty,
    /// A word is not written `${name}`. Positions count from 1.
    NotAField {
        /// Which word.
        position: usize,
        /// The word.
        word: String,
    },
    /// There is no such field.
    Unknown {
        /// Which word.
        position: usize,
        /// The name in it.
        name: String,
        /// The field that was probably meant.
        nearest: Option<&'static str>,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::Empty => f.write_str("the format names no field; leave it out for v2"),
            FormatError::NotAField { position, word } => {
                let name = word.trim_matches(['$', '{', '}', ',']);
                let name = if name.is_empty() { "srcaddr" } else { name };
                write!(f, "field {position}, {word:?}: fields are written ${{{name}}}, with a ")?;
                f.write_str("space between them; or the format is one of v2, v3, v4, v5")
            }
            FormatError::Unknown { position, name, nearest: Some(near) } => {
                write!(f, "field {position}, ${{{name}}}: no such field; did you mean ${{{near}}}?")
            }
            FormatError::Unknown { position, name, nearest: None } => {
                write!(f, "field {position}, ${{{name}}}: no such field; the fields are ")?;
                f.write_str(&Field::NAMES.join(", "))
            }
        }
    }
}

impl std::error::Error for FormatError {}

impl FromStr for Format {
    type Err = FormatError;

    /// `v2` to `v5` for all fields up to that version, or names as in `${srcaddr} ${dstaddr}`.
    fn from_str(text: &str) -> Result<Self, FormatError> {
        for version in DEFAULT_VERSION..=LAST_NAMED_VERSION {
            if text.strip_prefix('v').is_some_and(|v| v == version.to_string()) {
                return Ok(Format::up_to(version));
            }
        }
        let words = text.split_whitespace().zip(1..);
        let fields = words.map(|(word, position)| field(word, position)).collect::<Result<_, _>>();
        Format::new(fields?).ok_or(FormatError::Empty)
    }
}

fn field(word: &str, position: usize) -> Result<Field, FormatError> {
    let Some(name) = word.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
        return Err(FormatError::NotAField { position, word: word.to_owned() });
    };
    let known = Field::ALL.iter().copied().find(|field| field.name() == name);
    known.ok_or_else(|| FormatError::Unknown {
        position,
        name: name.to_owned(),
        nearest: nearest(name, Field::NAMES),
    })
}

/// As [`Format::from_str`] reads them: `${srcaddr} ${dstaddr}`.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, field) in self.fields.iter().enumerate() {
            let space = if n == 0 { "" } else { " " };
            write!(f, "{space}${{{}}}", field.name())?;
        }
        Ok(())
    }
}

/// A record in a format.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    format: &'a Format,
    record: &'a FlowLogRecord<'a>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, field) in self.format.fields.iter().enumerate() {
            if n > 0 {
                f.write_str(" ")?;
            }
            self.value(*field, f)?;
        }
        Ok(())
    }
}

impl Line<'_> {
    /// What every record has is written here, what only traffic has in [`Self::of_flow`].
    fn value(&self, field: Field, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FlowLogRecord { interface, start, end, .. } = self.record;
        match field {
            Field::Version => write!(f, "{}", self.format.version),
            Field::AccountId => f.write_str(or_dash(interface.account.as_deref())),
            Field::InterfaceId => f.write_str(&interface.id),
            Field::VpcId => f.write_str(or_dash(interface.vpc.as_deref())),
            Field::SubnetId => f.write_str(or_dash(interface.subnet.as_deref())),
            Field::Start => write!(f, "{start}"),
            Field::End => write!(f, "{end}"),
            Field::LogStatus => f.write_str(self.record.status()),
            _ => match self.record.content {
                Content::Flow(flow) => self.of_flow(field, flow, f),
                Content::NoData | Content::SkipData(_) => f.write_str("-"),
            },
        }
    }

    fn of_flow(
        &self,
        field: Field,
        logged: &LoggedFlow,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        let LoggedFlow { flow, direction, verdict, .. } = logged;
        match field {
            Field::SrcAddr => write!(f, "{}", self.shown(flow.src, *direction, Direction::Egress)),
            Field::DstAddr => write!(f, "{}", self.shown(flow.dst, *direction, Direction::Ingress)),
            Field::SrcPort => write!(f, "{}", flow.src_port),
            Field::DstPort => write!(f, "{}", flow.dst_port),
            Field::Protocol => write!(f, "{}", flow.protocol),
            Field::Packets => write!(f, "{}", logged.sum.packets),
            Field::Bytes => write!(f, "{}", logged.sum.bytes),
            Field::Action => f.write_str(logged.action.as_str()),
            Field::TcpFlags => write!(f, "{}", logged.tcp_flags),
            Field::Type => f.write_str(if flow.src.is_ipv6() { "IPv6" } else { "IPv4" }),
            Field::PktSrcAddr => write!(f, "{}", flow.src),
            Field::PktDstAddr => write!(f, "{}", flow.dst),
            Field::FlowDirection => f.write_str(direction.as_str()),
            Field::TrafficPath => match logged.traffic_path {
                Some(path) => write!(f, "{path}"),
                None => f.write_str("-"),
            },
            Field::Rule => f.write_str(or_dash(logged.rule.as_deref())),
            Field::Stage => f.write_str(verdict.stage().as_str()),
            Field::Reason => f.write_str(verdict.reason()),
            Field::State => f.write_str(or_dash(verdict.state.map(FlowState::as_str))),
            // What no policy tells.
            _ => f.write_str("-"),
        }
    }

    /// An address of the packets as `srcaddr` and `dstaddr` show it: on the interface's own side
    /// its primary IPv4 address stands for whichever it was (SEMANTICS 15.3).
    fn shown(&self, address: IpAddr, direction: Direction, own_side: Direction) -> IpAddr {
        match self.record.interface.primary {
            Some(primary) if direction == own_side && address.is_ipv4() => primary.into(),
            _ => address,
        }
    }
}

fn or_dash(text: Option<&str>) -> &str {
    text.unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_aws_version_2() {
        let text = "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} \
                    ${dstport} ${protocol} ${packets} ${bytes} ${start} ${end} ${action} \
                    ${log-status}";
        assert_eq!(Format::default().to_string(), text);
        assert_eq!(text.parse(), Ok(Format::default()));
        assert_eq!("v2".parse(), Ok(Format::default()));
    }

    #[test]
    fn every_version_has_the_fields_of_those_before() {
        let fields = |text: &str| text.parse::<Format>().unwrap().fields.len();
        assert_eq!(["v2", "v3", "v4", "v5"].map(fields), [14, 21, 25, 29]);
    }

    #[test]
    fn the_version_is_the_highest_of_the_fields() {
        let version = |text: &str| text.parse::<Format>().unwrap().version();
        assert_eq!(version("${srcaddr}"), 2);
        assert_eq!(version("${rule} ${state}"), 2);
        assert_eq!(version("${tcp-flags} ${srcaddr}"), 3);
        assert_eq!(version("${region} ${vpc-id}"), 4);
        assert_eq!(version("${traffic-path} ${rule}"), 5);
        assert_eq!(version("${reject-reason} ${version}"), 8);
        assert_eq!(version("v4"), 4);
        assert_eq!(version("${ecs-task-id} ${traffic-path}"), 7);
        assert_eq!(version("${resource-id} ${ecs-task-id}"), 9);
        assert_eq!(version("${encryption-status} ${reject-reason}"), 10);
    }

    #[test]
    fn what_is_no_format_is_told_with_its_place() {
        let told = |text: &str| text.parse::<Format>().unwrap_err().to_string();
        assert_eq!(
            told("${version} ${srcadr}"),
            "field 2, ${srcadr}: no such field; did you mean ${srcaddr}?"
        );
        assert!(told("${colour}").starts_with("field 1, ${colour}: no such field; the fields are"));
        assert_eq!(
            told("${version}  dstaddr"),
            "field 2, \"dstaddr\": fields are written ${dstaddr}, with a space between them; or \
             the format is one of v2, v3, v4, v5"
        );
        assert!(told("v6").starts_with("field 1, \"v6\""));
        assert_eq!(told(" "), "the format names no field; leave it out for v2");
    }
}
