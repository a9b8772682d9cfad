//! What a frame is and which way it goes: all that can be known of it before any state is asked, so
//! that many frames can be looked at before the first of them is judged.

use sgwall_conntrack::Probe;
use sgwall_packet::{Headers, Kind, LinkType, ParseError, Timestamp, parse_into};

use super::{FrameInput, Judge, Plain, Route, Sink};
use crate::attribution::Sides;
use crate::verdict::{DropReason, PassReason, SkipReason, Verdict};

/// A frame that was looked at: what it is and which way it goes. Made to be used again, because
/// headers that are moved cost more than reading them.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    what: What,
    /// If it is an IP packet.
    headers: Headers,
    route: Route,
}

/// What a frame is.
#[derive(Clone, Copy, Debug)]
enum What {
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

    /// The headers of an IP packet; of anything else they mean nothing.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.headers
    }
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
                let (policy, sides) = (self.pipeline.policy(), &mut sight.route.sides);
                self.attribution.find_sides(policy, &sight.headers, frame.recorded, sides);
                What::Ip
            }
            Ok(Kind::Arp) => What::Arp,
            Ok(Kind::Other) => What::Other,
            Err(error) => What::Unreadable(link, error),
        };
    }

    /// The flow of a packet on the side that judges it first, to be looked up by [`Self::locate`], in
    /// place of [`Probe::NOTHING`].
    #[inline]
    pub fn probe_seen(&self, sight: &Sight, out: &mut Probe) {
        if matches!(sight.what, What::Ip) {
            self.probe_into(&sight.headers, &sight.route, out);
        }
    }

    /// Judges a frame that was [looked at](Self::look) under the same policy, as [`Self::judge`]
    /// does. `probe` is what [`Self::locate`] has found of its flow, if it was asked.
    pub fn judge_seen(
        &mut self,
        frame: FrameInput<'_>,
        sight: &Sight,
        probe: Option<&Probe>,
        sink: Sink<'_>,
    ) {
        self.advance(frame.time, sink);
        self.judge_due(&frame, sight, probe, sink);
    }

    /// Judges a frame that was [looked at](Self::look), if it is a packet of which there is nothing
    /// to tell but one verdict; see [`Self::judge_plain`]. `None`: nothing has changed but the time,
    /// and [`Self::judge_seen`] must judge it.
    #[inline(always)]
    pub fn judge_plain_seen(
        &mut self,
        time: Timestamp,
        data: &[u8],
        sight: &Sight,
        probe: &Probe,
    ) -> Option<Plain> {
        let now = self.clock.advance(time);
        self.pipeline.advance(now);
        // What is released is to be told of first.
        let is_plain = matches!(sight.what, What::Ip) && !self.pipeline.has_released();
        is_plain.then(|| self.judge_plain(now, data, &sight.headers, &sight.route, probe))?
    }

    /// Judges a frame for which time has passed.
    fn judge_due(
        &mut self,
        frame: &FrameInput<'_>,
        sight: &Sight,
        probe: Option<&Probe>,
        sink: Sink<'_>,
    ) {
        let Sight { what, headers, route } = sight;
        match what {
            What::Ip if route.sides.is_empty() => {
                self.skip(frame, Some(headers), None, SkipReason::NotOurs, sink);
            }
            What::Ip => {
                self.judge_sides(frame, headers, route, probe, sink);
                self.release(sink);
            }
            What::Arp => {
                self.whole_frame(frame, None, Verdict::pass(PassReason::Arp), None, sink);
            }
            What::Other => {
                self.whole_frame(frame, None, Verdict::drop(DropReason::NotIp), None, sink);
            }
            What::Unreadable(link, error) => self.unreadable(frame, *link, *error, sink),
            What::UnknownLinkType => {
                self.skip(frame, None, None, SkipReason::UnknownLinkType, sink);
            }
        }
    }
}
