//! `GET /v1/events/follow`: an answer without end, as JSON lines or as server-sent events.
//! With `since`, what the store has comes first, and no event is missed or told twice in between.
//! Source of the second form: WHATWG HTML, section 9.2 "Server-sent events".

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bulkhead_model::Event;
use bulkhead_store::Followed;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};

use super::KEEPALIVE_SECS;
use crate::{EventQuery, Follow};

/// Bytes handed to the connection at a time.
const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Events that no one asked for, passed over before others get their turn on this thread.
const PASSED_OVER_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    JsonLines,
    ServerSent,
}

impl Form {
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::JsonLines => "application/x-ndjson",
            Self::ServerSent => "text/event-stream",
        }
    }

    fn event(self, event: &Event, out: &mut Vec<u8>) {
        if self == Self::ServerSent {
            out.extend_from_slice(format!("id: {}\nevent: {}\ndata: ", event.event_id, event.body.type_name()).as_bytes());
        }
        let start = out.len();
        if serde_json::to_writer(&mut *out, event).is_err() {
            out.truncate(start);
        }
        self.end(out);
    }

    fn lagged(self, count: u64, out: &mut Vec<u8>) {
        let prefix = if self == Self::ServerSent { "event: lagged\ndata: " } else { "" };
        out.extend_from_slice(format!("{prefix}{{\"event_type\":\"lagged\",\"lagged\":{count}}}").as_bytes());
        self.end(out);
    }

    fn keepalive(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self == Self::ServerSent { b":\n\n" } else { b"\n" });
    }

    fn end(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self == Self::ServerSent { b"\n\n" } else { b"\n" });
    }
}

pub(super) struct FollowBody {
    form: Form,
    /// Of the store, told first.
    before: VecDeque<Event>,
    follower: Box<dyn Follow>,
    filter: EventQuery,
    /// Events up to here have been told.
    told: u64,
    keepalive: Pin<Box<Sleep>>,
    ended: bool,
    begun: bool,
    _place: OwnedSemaphorePermit,
}

impl FollowBody {
    pub fn new(form: Form, before: Vec<Event>, follower: Box<dyn Follow>, filter: EventQuery, place: OwnedSemaphorePermit) -> Self {
        let told = before.last().map(|event| event.event_id).max(filter.since).unwrap_or(0);
        let keepalive = Box::pin(sleep(Duration::from_secs(KEEPALIVE_SECS)));
        Self { form, before: before.into(), follower, filter, told, keepalive, ended: false, begun: false, _place: place }
    }

    fn gather(&mut self, context: &mut Context<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.begun {
            // So that the head of the answer leaves at once.
            self.begun = true;
            self.form.keepalive(&mut out);
        }
        while out.len() < FRAME_BYTES_MAX
            && let Some(event) = self.before.pop_front()
        {
            self.form.event(&event, &mut out);
        }
        let mut passed_over = 0;
        while out.len() < FRAME_BYTES_MAX && self.before.is_empty() && !self.ended {
            match self.follower.poll_next(context) {
                Poll::Ready(Some(Followed::Event(event))) => {
                    if event.event_id > self.told && self.filter.matches(&event) {
                        self.told = event.event_id;
                        self.form.event(&event, &mut out);
                    } else {
                        passed_over += 1;
                        if passed_over >= PASSED_OVER_MAX {
                            context.waker().wake_by_ref();
                            break;
                        }
                    }
                }
                Poll::Ready(Some(Followed::Lagged(count))) => self.form.lagged(count, &mut out),
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        out
    }
}

impl Body for FollowBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let body = self.get_mut();
        let mut out = body.gather(context);
        if out.is_empty() {
            if body.ended {
                return Poll::Ready(None);
            }
            if body.keepalive.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            body.form.keepalive(&mut out);
        }
        body.keepalive.as_mut().reset(Instant::now() + Duration::from_secs(KEEPALIVE_SECS));
        // Registers the waker again, should the connection come back only when woken.
        let _ = body.keepalive.as_mut().poll(context);
        Poll::Ready(Some(Ok(Frame::data(out.into()))))
    }
}
