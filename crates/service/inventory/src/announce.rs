//! A container of which its runtime tells us before its engine does: made, with its network, its program not started yet.
//!
//! The engine's event comes after the start. To have the container's name, image and labels with its first packet, the
//! engine is asked here and now. Docker holds a lock of the container while it starts it, so `inspect` would wait for the very
//! start that waits for us; its list does not take that lock, and tells of containers that do not run yet.

use std::time::{Duration, Instant};

use crate::engine::Update;
use crate::{EngineKind, EngineState, Inventory, cgroup, docker};

/// How long one engine may take for its answer: a start waits for it.
const ASK: Duration = Duration::from_millis(300);

impl Inventory {
    /// Looks at the process `pid` and its network now, and asks Docker who the container `id` is. True when it said so; the
    /// snapshot has it moments later.
    pub fn announce(&self, pid: u32, id: Option<&str>) -> bool {
        // A full queue means that the inventory is busy looking already.
        let _ = self.updates.try_send(Update::Process(pid));
        // Podman's files are read with a whole look.
        self.refresh_hint();
        let Some(id) = id.filter(|id| cgroup::is_id(id)) else { return false };
        let up: Vec<bool> = self.snapshot().engines.iter().map(|engine| matches!(engine.state, EngineState::Up { .. })).collect();
        for (engine, (kind, socket)) in self.engines.iter().enumerate() {
            if *kind != EngineKind::Docker || !up.get(engine).copied().unwrap_or(false) {
                continue;
            }
            // What it cannot tell in time, its event will.
            if let Ok(Some(mut container)) = docker::describe(socket, id, Instant::now() + ASK) {
                container.pid = Some(pid);
                return self.updates.try_send(Update::Announced { engine, container: Box::new(container) }).is_ok();
            }
        }
        false
    }
}
