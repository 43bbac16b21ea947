//! What the server needs of the agent.

use std::task::{Context, Poll};

use bulkhead_model::Event;
use bulkhead_store::{Followed, Follower};

use crate::{
    ApiError, ArmRequest, Armed, Coverage, Done, EventQuery, Metric, ModeChange, ModeChanged, ModeView, PolicyChange, PolicyView, Reloaded,
    Status, Why, WorkloadView,
};

/// Implemented by the agent. Calls come from threads of the server (at most [`crate::server::CALLS_MAX`] at a time) and may block
/// for as long as a disk read takes; after [`crate::server::REQUEST_SECS_MAX`] the asker is told that the agent is busy,
/// and the call goes on holding its place until it returns.
pub trait Backend: Send + Sync + 'static {
    fn status(&self) -> Result<Status, ApiError>;

    /// Ordered by name.
    fn workloads(&self) -> Result<Vec<WorkloadView>, ApiError>;

    /// Oldest first.
    fn events(&self, query: &EventQuery) -> Result<Vec<Event>, ApiError>;

    /// All events from now on; the server filters.
    fn follow(&self) -> Result<Box<dyn Follow>, ApiError>;

    /// `not-found` when no such event is kept.
    fn why(&self, event_id: u64) -> Result<Why, ApiError>;

    fn coverage(&self) -> Result<Coverage, ApiError>;

    /// Puts a container's network on the path now, if it is not there. Waits for less than a second. `not-found` when there is
    /// no such process.
    fn arm(&self, request: &ArmRequest) -> Result<Armed, ApiError>;

    fn mode(&self) -> Result<ModeView, ApiError>;

    /// As a whole or not at all.
    fn set_mode(&self, change: &ModeChange) -> Result<ModeChanged, ApiError>;

    fn policy(&self) -> Result<PolicyView, ApiError>;

    /// Says what [`Backend::apply_policy`] would, and changes nothing.
    fn check_policy(&self, text: &str) -> Result<PolicyChange, ApiError>;

    /// Checks, then applies whole. `refused` with every problem found, and the running policy stays.
    fn apply_policy(&self, text: &str) -> Result<PolicyChange, ApiError>;

    /// Reads configuration and rules again from where they are. `refused` as for [`Backend::apply_policy`].
    fn reload(&self) -> Result<Reloaded, ApiError>;

    /// Begins to take everything off the host again and to end the agent; returns before that is done.
    fn down(&self) -> Result<Done, ApiError>;

    fn metrics(&self) -> Result<Vec<Metric>, ApiError>;
}

/// A live view of the events; [`bulkhead_store::Follower`] is one.
pub trait Follow: Send {
    /// `Ready(None)`: there will be no more.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Followed>>;
}

impl Follow for Follower {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Followed>> {
        Follower::poll_next(self, context)
    }
}
