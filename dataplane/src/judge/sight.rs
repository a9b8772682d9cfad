//! What a frame is and which way it goes: all that can be known of it before any state is asked, so
//! that many frames can be looked at before the first of them is judged.

use sgwall_conntrack::Probe;
use sgwall_packet::{Headers, Kind, LinkType, ParseError, parse_into};

use super::{FrameInput, Judge, Route};
use crate::attribution::Sides;

/// A frame that was looked at: what it is and which way it goes. Made to be used again, because
/// headers that are moved cost more than reading them.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    pub(super) what: What,
    /// If it is an IP packet.
    pub(super) headers: Headers,
    pub(super) route: Route,
}

/// What a frame is.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Ip,
    Arp,
    /// Something else that is no IP.
    Other,
    Unreadable(LinkType, ParseError),
    UnknownLinkType,
}

impl Sight {
    /// That of a frame of no link type.
    pub const NOTHING: Sight = Sight {
        what: What::UnknownLinkType,
        headers: Headers::NONE,
        route: Route { sides: Sides { egress: None, ingress: None, origin: None }, segment: None },
    };
}

impl Judge {
    /// Finds out what a frame is and which way it goes, under the policy in force: no state is asked.
    #[inline]
    pub fn look(&self, frame: &FrameInput<'_>, sight: &mut Sight) {
        let Some(link) = frame.link else {
            sight.what = What::UnknownLinkType;
            return;
        };
        sight.what = match parse_into(link, frame.data, frame.wire_len as usize, &mut sight.headers)
        {
            Ok(Kind::Ip) => {
                let (policy, headers) = (self.pipeline.policy(), &sight.headers);
                let ends = (headers.src, headers.dst);
                sight.route.sides =
                    self.attribution.sides(policy, &headers.link, ends, frame.recorded);
                What::Ip
            }
            Ok(Kind::Arp) => What::Arp,
            Ok(Kind::Other) => What::Other,
            Err(error) => What::Unreadable(link, error),
        };
    }

    /// The flow of a packet on the side that judges it first, to be looked up by [`Self::locate`].
    #[inline]
    #[must_use]
    pub fn probe_of(&self, sight: &Sight) -> Probe {
        match sight.what {
            What::Ip => self.probe(&sight.headers, &sight.route),
            _ => Probe::NOTHING,
        }
    }
}
