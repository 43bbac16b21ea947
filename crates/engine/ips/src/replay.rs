//! Offline replay: packets of a capture through a pipeline, with the capture's own clock.

use bulkhead_model::{Timestamp, Verdict};
use bulkhead_net::LinkType;

use crate::outcome::{EngineEvent, Outcome, PacketMeta};
use crate::pipeline::Pipeline;

/// Flows looked at per packet for time-outs; a capture's clock may jump.
const EXPIRE_BUDGET: usize = 64;

/// One packet of a capture.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub at: Timestamp,
    pub link: LinkType,
    pub bytes: &'a [u8],
    /// Bytes on the wire; more than `bytes` when the capture was cut.
    pub len_on_wire: u32,
}

/// What came of a capture.
#[derive(Debug, Default)]
pub struct Replayed {
    pub packets: u64,
    pub passed: u64,
    pub blocked: u64,
    pub events: Vec<EngineEvent>,
}

/// Replays records in their order. `inline`: drops are carried out, so the flow behind them is gone.
/// `watch` sees each packet's outcome.
pub fn replay<'a>(
    pipeline: &mut Pipeline,
    records: impl IntoIterator<Item = Record<'a>>,
    inline: bool,
    mut watch: impl FnMut(&Record<'a>, &Outcome),
) -> Replayed {
    let mut done = Replayed::default();
    let mut clock = Timestamp::default();
    for record in records {
        // Time-outs go by the packet at hand: in captures that were put together, times go back.
        clock = clock.max(record.at);
        pipeline.expire(record.at, EXPIRE_BUDGET);
        let meta = PacketMeta::captured(record.link, record.len_on_wire, inline);
        let outcome = pipeline.packet(record.at, &meta, record.bytes, &mut ());
        done.packets += 1;
        match outcome.verdict {
            Verdict::Accept | Verdict::BypassDirection(_) | Verdict::BypassFlow(_) => done.passed += 1,
            Verdict::Drop(_) | Verdict::DropFlow(_) | Verdict::Reject(_) => done.blocked += 1,
        }
        watch(&record, &outcome);
        done.events.extend(pipeline.drain_events());
    }
    pipeline.finish(clock);
    done.events.extend(pipeline.drain_events());
    done
}

/// Fuzz body: `bytes` are frames, each behind two bytes of length; the first byte chooses mode and link. Whatever
/// comes must end in a verdict, within the caps.
pub fn fuzz_frames(rules: std::sync::Arc<crate::Ruleset>, bytes: &[u8]) {
    let Some((choice, mut rest)) = bytes.split_first() else { return };
    let links = [LinkType::Ethernet, LinkType::RawIp, LinkType::LinuxCooked, LinkType::Null];
    let link = links[usize::from(choice >> 1) % links.len()];
    let mut config = crate::PipelineConfig { checksum: crate::Checksums::Ignore, events_max: 64, thresholds_max: 8, ..Default::default() };
    config.flow.flows_max = 4;
    config.lookback_memory_max = 1 << 16;
    config.bypass_no_rule = false;
    let mut pipeline = Pipeline::new(config, rules, 1);
    let mut at = Timestamp::from_secs(1_700_000_000);
    while let [high, low, frames @ ..] = rest {
        let (frame, after) = frames.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(frames.len()));
        at.0 += 1_000_000;
        let meta = PacketMeta::captured(link, frame.len() as u32, choice & 1 == 1);
        let outcome = pipeline.packet(at, &meta, frame, &mut ());
        assert!(meta.protect || outcome.verdict.passes(), "monitor mode blocked a packet");
        assert!(pipeline.flows() <= 4);
        rest = after;
    }
    assert!(pipeline.drain_events().count() <= 64);
    pipeline.finish(at);
}
