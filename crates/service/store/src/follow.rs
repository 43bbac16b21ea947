//! Live views of the log: each follower has a bounded queue of its own, so that the slowest of them harms itself alone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bulkhead_model::Event;

use crate::config::{FOLLOWER_QUEUE_MAX, FOLLOWERS_MAX};
use crate::{StoreError, lock};

/// What a follower sees next.
#[derive(Debug, Clone, PartialEq)]
pub enum Followed {
    Event(Arc<Event>),
    /// So many events before the next one were let go, because the follower was too slow.
    Lagged(u64),
}

/// Sees every event that the writer has numbered since it was made.
#[derive(Debug)]
pub struct Follower {
    line: Arc<Line>,
    followers: Arc<Followers>,
}

impl Follower {
    /// Waits. `None`: nothing came within `timeout`, or the store is closed ([`Follower::is_closed`]).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<Followed> {
        let until = Instant::now().checked_add(timeout);
        let mut state = lock(&self.line.state);
        loop {
            if let Some(next) = state.take() {
                return Some(next);
            }
            let left = until.map_or(timeout, |until| until.saturating_duration_since(Instant::now()));
            if state.closed || left.is_zero() {
                return None;
            }
            state = self.line.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// For a task of an async runtime: `Ready(None)` when the store is closed.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Followed>> {
        let mut state = lock(&self.line.state);
        if let Some(next) = state.take() {
            return Poll::Ready(Some(next));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    pub fn is_closed(&self) -> bool {
        lock(&self.line.state).closed
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.followers.remove(&self.line);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Followers {
    lines: Mutex<Vec<Arc<Line>>>,
    /// How many there are, so that the writer need not take the lock when there are none.
    count: AtomicUsize,
    lagged: AtomicU64,
}

impl Followers {
    pub fn add(self: &Arc<Self>) -> Result<Follower, StoreError> {
        let mut lines = lock(&self.lines);
        if lines.len() >= FOLLOWERS_MAX {
            return Err(StoreError::TooManyFollowers);
        }
        let line = Arc::new(Line::default());
        lines.push(line.clone());
        self.count.store(lines.len(), Ordering::Release);
        Ok(Follower { line, followers: self.clone() })
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }

    pub fn publish(&self, events: &[Arc<Event>]) {
        for line in lock(&self.lines).iter() {
            self.lagged.fetch_add(line.push(events), Ordering::Relaxed);
        }
    }

    pub fn close(&self) {
        for line in lock(&self.lines).iter() {
            line.close();
        }
    }

    fn remove(&self, line: &Arc<Line>) {
        let mut lines = lock(&self.lines);
        lines.retain(|other| !Arc::ptr_eq(other, line));
        self.count.store(lines.len(), Ordering::Release);
    }
}

#[derive(Debug, Default)]
struct Line {
    state: Mutex<LineState>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct LineState {
    /// `events.len() <= FOLLOWER_QUEUE_MAX`
    events: VecDeque<Arc<Event>>,
    /// Let go since the follower last looked; they came before everything in `events`.
    lagged: u64,
    closed: bool,
    waker: Option<Waker>,
}

impl LineState {
    fn take(&mut self) -> Option<Followed> {
        if self.lagged > 0 {
            return Some(Followed::Lagged(std::mem::take(&mut self.lagged)));
        }
        self.events.pop_front().map(Followed::Event)
    }
}

impl Line {
    /// Returns how many events were let go.
    fn push(&self, events: &[Arc<Event>]) -> u64 {
        let mut state = lock(&self.state);
        let mut gone = 0;
        for event in events {
            if state.events.len() >= FOLLOWER_QUEUE_MAX {
                state.events.pop_front();
                gone += 1;
            }
            state.events.push_back(event.clone());
        }
        state.lagged += gone;
        self.wake(&mut state);
        gone
    }

    fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.wake(&mut state);
    }

    fn wake(&self, state: &mut LineState) {
        self.arrived.notify_one();
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}
