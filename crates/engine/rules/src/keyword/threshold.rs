//! threshold and detection_filter.

use super::{Args, Keyword, Value, keyword};
use crate::diagnostic::Problem;
use crate::tree::{Body, Threshold, ThresholdKind, Track, UniqueOn};

pub(super) const KEYWORDS: &[Keyword] = &[
    keyword("threshold", Value::Required, false, |args| Ok(Body::Threshold(threshold(args, true)?))),
    keyword("detection_filter", Value::Required, false, |args| Ok(Body::DetectionFilter(threshold(args, false)?))),
];

impl Track {
    pub const fn name(self) -> &'static str {
        match self {
            Self::BySource => "by_src",
            Self::ByDestination => "by_dst",
            Self::ByRule => "by_rule",
            Self::ByBoth => "by_both",
            Self::ByFlow => "by_flow",
        }
    }
}

fn threshold(args: &Args<'_>, with_type: bool) -> Result<Threshold, Problem> {
    let (mut kind, mut track, mut count, mut seconds) = (None, None, None, None);
    let (mut multiplier, mut unique_on) = (None, None);
    for member in args.list() {
        let (key, value) = member.split_once(char::is_whitespace).unwrap_or((member, ""));
        // What follows the value is passed over, as the reference engine does: a published rule has
        // `track by_src reference:url,...`, and the parts after the next comma are not ours either.
        let value = value.split_whitespace().next().unwrap_or("");
        let number = || match super::args::integer(value) {
            Some(number @ 1..=0xffff_ffff) => Ok(number as u32),
            _ => Err(Problem::value(format!("`{}` is not a number from 1 up", crate::header::shorten(value)))),
        };
        let twice = match key {
            "type" if with_type => kind
                .replace(match value {
                    "limit" => ThresholdKind::Limit,
                    "threshold" => ThresholdKind::Threshold,
                    "both" => ThresholdKind::Both,
                    "backoff" => ThresholdKind::Backoff { multiplier: 0 },
                    _ => return Err(args.bad().help("the type is limit, threshold, both or backoff")),
                })
                .is_some(),
            "track" => track
                .replace(match value {
                    "by_src" => Track::BySource,
                    "by_dst" => Track::ByDestination,
                    "by_rule" => Track::ByRule,
                    "by_both" => Track::ByBoth,
                    "by_flow" => Track::ByFlow,
                    _ => return Err(args.bad().help("track by_src, by_dst, by_rule, by_both or by_flow")),
                })
                .is_some(),
            "count" => count.replace(number()?).is_some(),
            "seconds" => seconds.replace(number()?).is_some(),
            "multiplier" if with_type => multiplier.replace(number()?).is_some(),
            "unique_on" => unique_on
                .replace(match value {
                    "src_port" => UniqueOn::SourcePort,
                    "dst_port" => UniqueOn::DestinationPort,
                    _ => return Err(args.bad().help("unique_on src_port or dst_port")),
                })
                .is_some(),
            _ if kind.is_some() == with_type && track.is_some() && count.is_some() && seconds.is_some() => break,
            _ => return Err(args.bad()),
        };
        if twice {
            return Err(Problem::value(format!("`{key}` is given twice")));
        }
    }
    let kind = if with_type { kind } else { Some(ThresholdKind::Filter) };
    let (kind, seconds) = match (kind, multiplier) {
        (Some(ThresholdKind::Backoff { .. }), Some(multiplier @ 2..)) if seconds.is_none() && unique_on.is_none() => {
            (Some(ThresholdKind::Backoff { multiplier }), Some(0))
        }
        (Some(ThresholdKind::Backoff { .. }), _) => return Err(args.bad().help("backoff has a track, a count and a multiplier from 2 up")),
        (_, Some(_)) => return Err(args.bad().help("only the type backoff has a multiplier")),
        (kind, None) => (kind, seconds),
    };
    if unique_on.is_some() && track == Some(Track::ByFlow) {
        return Err(args.bad().help("a flow has one pair of ports"));
    }
    match (kind, track, count, seconds) {
        (Some(kind), Some(track), Some(count), Some(seconds)) => Ok(Threshold { kind, track, count, seconds, unique_on }),
        _ => Err(args.bad().help("give type, track, count and seconds")),
    }
}
