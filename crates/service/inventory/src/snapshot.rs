//! What the inventory hands out: an immutable picture of the host's workloads, and its changes.

use std::path::PathBuf;

use bulkhead_model::{Interface, Workload};

use crate::EngineKind;

/// All workloads of one moment. Never changes; the next moment is another one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Grows by one with every published snapshot; 0 is the one without workloads before the first look.
    pub revision: u64,
    /// By ascending [`Workload::key`], each key once.
    pub workloads: Vec<Workload>,
    /// In the order of the configuration.
    pub engines: Vec<EngineStatus>,
    /// Why the last look at the kernel failed, when it did: what is listed may be old or incomplete.
    pub problem: Option<String>,
    /// As of this snapshot; [`crate::Inventory::counters`] has the newest.
    pub counters: Counters,
}

impl Snapshot {
    /// The workload with this key.
    pub fn by_key(&self, key: &str) -> Option<&Workload> {
        let at = self.workloads.binary_search_by(|workload| workload.key.as_str().cmp(key)).ok()?;
        self.workloads.get(at)
    }

    /// Whose interface has its other end at this index on the host.
    pub fn by_host_ifindex(&self, host_ifindex: u32) -> Option<(&Workload, &Interface)> {
        self.workloads.iter().find_map(|workload| {
            let interface = workload.interfaces.iter().find(|interface| interface.host_ifindex == Some(host_ifindex))?;
            Some((workload, interface))
        })
    }
}

/// One configured engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineStatus {
    pub kind: EngineKind,
    /// Its socket; for [`EngineKind::PodmanStorage`] the directory.
    pub socket: PathBuf,
    pub state: EngineState,
    /// Running containers it told of, also those of its last answer while it is down.
    pub containers: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// Not asked yet.
    Starting,
    /// No socket there.
    Absent,
    Up {
        /// As it calls itself: `28.2.2`.
        version: String,
    },
    /// It does not answer, or not in its own language. What it told before still counts for
    /// processes that still run.
    Down {
        /// For a person, one line.
        reason: String,
    },
}

/// Counts since the inventory started. Everything that was cut, refused or thrown away is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Looks at all processes and namespaces.
    pub scans: u64,
    /// How long the last of them took.
    pub scan_micros: u64,
    /// Answers of engines, events included.
    pub engine_answers: u64,
    /// Connections to engines that ended in an error of any sort, absent sockets excepted.
    pub engine_failures: u64,
    /// Of them: no answer in time.
    pub engine_timeouts: u64,
    /// Of them: answers above a cap.
    pub engine_oversized: u64,
    /// Of them: answers that are not the engine's language.
    pub engine_malformed: u64,
    /// Containers, labels and ports of engines beyond their caps.
    pub listed_beyond_cap: u64,
    /// Containers that an engine calls running and no process was found for, in the last resolution.
    pub unlocated: u64,
    /// Claims of engines that the kernel contradicts (a pid that is another's), in the last resolution.
    pub contradicted: u64,
    /// Containers claimed by two engines, in the last resolution; the first keeps them.
    pub claimed_twice: u64,
    /// Workloads, interfaces and addresses beyond their caps, in the last resolution.
    pub resolved_beyond_cap: u64,
    /// Processes and namespaces that the last look could not read (ended meanwhile, or no right to).
    pub unreadable: u64,
    /// Processes and namespaces beyond the caps of the last look.
    pub scanned_beyond_cap: u64,
    /// Subscribers that did not keep up and were told to start anew.
    pub subscriber_overflows: u64,
}

/// What happened to one workload between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Added(Workload),
    /// As it was last.
    Removed(Workload),
    /// As it is now.
    Changed(Workload),
    /// The subscriber did not keep up and changes were lost: take the snapshot instead.
    Resync,
}

/// The changes that lead from `before` to `after`, both sorted by key: removals first.
pub(crate) fn differences(before: &[Workload], after: &[Workload]) -> Vec<Change> {
    let (mut removed, mut others) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(o), Some(n)) if o.key == n.key => {
                if o != n {
                    others.push(Change::Changed((*n).clone()));
                }
                old.next();
                new.next();
            }
            (Some(o), n) if n.is_none_or(|n| o.key < n.key) => {
                removed.push(Change::Removed((*o).clone()));
                old.next();
            }
            (_, Some(n)) => {
                others.push(Change::Added((*n).clone()));
                new.next();
            }
            (Some(_), None) => {
                old.next();
            }
        }
    }
    removed.append(&mut others);
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::{Network, Runtime};

    fn workload(key: &str, name: &str) -> Workload {
        Workload {
            key: key.into(),
            name: name.into(),
            image: None,
            labels: Default::default(),
            runtime: Runtime::Docker,
            pid: 1,
            cgroup: "/".into(),
            network: Network::Host,
            interfaces: Vec::new(),
            published: Vec::new(),
        }
    }

    #[test]
    fn differences_name_what_came_what_went_and_what_changed() {
        let before = [workload("a", "a"), workload("b", "b"), workload("d", "d")];
        let after = [workload("b", "renamed"), workload("c", "c"), workload("d", "d"), workload("e", "e")];
        let expected = [
            Change::Removed(workload("a", "a")),
            Change::Changed(workload("b", "renamed")),
            Change::Added(workload("c", "c")),
            Change::Added(workload("e", "e")),
        ];
        assert_eq!(differences(&before, &after), expected);
        assert_eq!(differences(&after, &after), []);
        assert_eq!(differences(&before, &[]).len(), 3);
        assert_eq!(differences(&[], &after).len(), 4);
    }

    #[test]
    fn a_workload_is_found_by_key() {
        let snapshot = Snapshot { workloads: vec![workload("a", "x"), workload("c", "y")], ..Snapshot::default() };
        assert_eq!(snapshot.by_key("c").map(|w| w.name.as_str()), Some("y"));
        assert_eq!(snapshot.by_key("b"), None);
    }
}
