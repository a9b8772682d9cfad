//! A packet as it was typed: direction, time and the packet itself, in one word or several.

use sgwall_dataplane::Attribution;
use sgwall_packet::{Direction, LinkInfo, PacketSpec, SpecError, Timestamp};
use sgwall_rules::compile::CompiledPolicy;

use crate::failure::Failure;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// The packet.
    pub(crate) packet: PacketSpec,
    /// When it comes; `None`: with the one before.
    pub(crate) time: Option<Timestamp>,
    /// Which way it goes; `None`: its addresses tell.
    pub(crate) direction: Option<Direction>,
}

impl Question {
    /// Reads the words of a packet; `what` names it in errors.
    pub(crate) fn read(args: &[String], what: &str) -> Result<Self, Failure> {
        let mut direction = None;
        let mut time = None;
        let mut words = Vec::new();
        for word in split(args) {
            match &word[..] {
                "ingress" | "in" if words.is_empty() => direction = Some(Direction::Ingress),
                "egress" | "out" if words.is_empty() => direction = Some(Direction::Egress),
                "to" => words.push("->".to_owned()),
                other => match other.strip_prefix('@') {
                    Some(seconds) => time = Some(seconds_of(seconds, what)?),
                    None => words.push(word),
                },
            }
        }
        if words.last().is_some_and(|word| word == "-") {
            return Err(Failure::Usage(format!(
                "{what} ends at '-': the shell took '> …' for a redirection, and the destination \
                 for a file's name; quote the packet, or write `to` in place of `->`"
            )));
        }
        let text = words.join(" ");
        let packet = text.parse().map_err(|error| unreadable(&text, &error, what))?;
        Ok(Question { packet, time, direction })
    }

    /// The same of another packet.
    pub(crate) fn with(&self, packet: PacketSpec) -> Self {
        Question { packet, ..self.clone() }
    }

    /// The bare IP packet.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, Failure> {
        const MOST: usize = 65_535;
        let data = self.packet.to_ip();
        let most = if self.packet.src.is_ipv6() { MOST + 40 } else { MOST };
        match data.len() <= most {
            true => Ok(data),
            false => Err(Failure::Usage(format!(
                "len={}: the packet would have {} bytes, an IP packet has at most {most}",
                self.packet.len,
                data.len()
            ))),
        }
    }

    /// How this packet finds its interface, where others do by `usual`. A direction that was said
    /// holds against the addresses; they tell which interface is meant, if none was named.
    pub(crate) fn attribution(
        &self,
        usual: &Attribution,
        policy: &CompiledPolicy,
    ) -> Result<Attribution, Failure> {
        let Some(direction) = self.direction else { return Ok(usual.clone()) };
        let ends = (self.packet.src, self.packet.dst);
        let sides = usual.sides(policy, &LinkInfo::NONE, ends, None);
        let meant = match direction {
            Direction::Ingress => sides.ingress,
            Direction::Egress => sides.egress,
        };
        let one = match (meant, usual.only.as_deref()) {
            // By its addresses it goes this way, perhaps translated by a gateway: judge that side.
            (Some(side), _) if usual.direction.is_none() => {
                let only = Attribution { only: Some(vec![side.interface]), ..usual.clone() };
                let sides = only.sides(policy, &LinkInfo::NONE, ends, None);
                let other = match direction {
                    Direction::Ingress => sides.egress,
                    Direction::Egress => sides.ingress,
                };
                if other.is_none() {
                    return Ok(only);
                }
                side.interface
            }
            (_, Some([one])) => *one,
            _ => {
                let address = match direction {
                    Direction::Ingress => self.packet.dst,
                    Direction::Egress => self.packet.src,
                };
                return Err(Failure::Usage(format!(
                    "{direction} of which interface? {address} is no interface's address; name it \
                     with --interface ({})",
                    crate::traffic::known_interfaces(policy)
                )));
            }
        };
        Ok(Attribution { only: Some(vec![one]), direction: Some(direction), ..usual.clone() })
    }
}

/// The words of a packet that was typed as one argument or as several. An argument `quote=…` with
/// spaces was quoted for the shell, which took the quotation marks away.
fn split(args: &[String]) -> Vec<String> {
    let mut words = Vec::new();
    for arg in args {
        match arg.split_once('=') {
            Some(("quote", value)) if !value.starts_with('"') => {
                words.push(format!("quote=\"{value}\""));
            }
            _ => {
                let (before, quote) = match arg.find("quote=\"") {
                    Some(at) => arg.split_at(at),
                    None => (arg.as_str(), ""),
                };
                words.extend(before.split_whitespace().map(str::to_owned));
                if !quote.is_empty() {
                    words.push(quote.to_owned());
                }
            }
        }
    }
    words
}

fn seconds_of(text: &str, what: &str) -> Result<Timestamp, Failure> {
    let seconds: Option<f64> = text.parse().ok().filter(|s: &f64| s.is_finite() && s.abs() < 4e9);
    let nanos = seconds.map(|s| (s * 1e6).round() as i64 * 1000);
    nanos.map(Timestamp::from_nanos).ok_or_else(|| {
        Failure::Usage(format!("{what}: \"@{text}\" is not a time: @SECONDS, such as @1.5"))
    })
}

/// What is wrong, and where: the word at fault is underlined.
fn unreadable(text: &str, error: &SpecError, what: &str) -> Failure {
    let (at, len) = match error.word().and_then(|word| Some((place(text, word)?, word))) {
        Some((at, word)) => (text[..at].chars().count(), word.chars().count().max(1)),
        None => (text.chars().count() + usize::from(!text.is_empty()), 1),
    };
    let (indent, marks) = (" ".repeat(at), "^".repeat(len));
    Failure::Usage(format!("{what} cannot be read: {error}\n  {text}\n  {indent}{marks}"))
}

/// Where a word stands in a text: as a whole word if it does, else as part of one.
fn place(text: &str, word: &str) -> Option<usize> {
    let whole = text.match_indices(word).map(|(at, _)| at).find(|&at| {
        let before = text[..at].chars().next_back().is_none_or(char::is_whitespace);
        let after = text[at + word.len()..].chars().next().is_none_or(char::is_whitespace);
        before && after
    });
    whole.or_else(|| text.find(word))
}
