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
        clock = clock.max(record.at);
        pipeline.expire(clock, EXPIRE_BUDGET);
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
