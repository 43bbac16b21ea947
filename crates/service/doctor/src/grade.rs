//! From probes to grades: what each control can do on this host, why, and what would raise it. Pure.

use std::fmt;

use serde::Serialize;

use crate::engines::Engine;
use crate::probes::Probed;

/// Id of the control that decides whether the host can be protected at all.
pub const PATH: &str = "path";

/// How early a control acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Grade {
    /// Blocks before the act.
    A,
    /// Cuts or kills what has begun, or blocks with stated gaps.
    B,
    /// Only sees.
    C,
    /// Not available.
    #[serde(rename = "-")]
    None,
}

impl Grade {
    /// What the letter means, in words.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::A => "blocks before the act",
            Self::B => "cuts or kills, or blocks with a gap",
            Self::C => "only sees",
            Self::None => "not available",
        }
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::None => "-",
        })
    }
}

/// One control and what it can do here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Control {
    /// Kebab-case, stable.
    pub id: &'static str,
    pub name: &'static str,
    pub grade: Grade,
    /// By which means.
    pub how: &'static str,
    /// The probes that led to the grade.
    pub evidence: Vec<String>,
    /// What would raise it; empty at grade A without a gap.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub raise: &'static str,
}

/// Grades all controls.
pub fn controls(probed: &Probed, engines: &[Engine]) -> Vec<Control> {
    vec![path(probed), segmentation(probed), egress(probed), container_start(probed, engines), file_open(probed), exec(probed)]
}

fn path(p: &Probed) -> Control {
    let tcx = p.ok("tcx") && p.ok("tap") && p.ok("ring-buffer");
    let (grade, how, raise) = if tcx {
        (Grade::A, "tcx on every container interface; payload is held through a multi-queue TAP until it is judged", "")
    } else if nfqueue(p) && p.ok("br-netfilter") {
        (Grade::B, "NFQUEUE: judges what netfilter sees, not VLAN-tagged frames or macvlan", RAISE_TCX)
    } else if nfqueue(p) {
        (
            Grade::B,
            "NFQUEUE: judges routed traffic; traffic inside one bridge needs br_netfilter, which `bulkhead run` switches on",
            RAISE_TCX,
        )
    } else if p.ok("tracepoint") {
        (Grade::C, "tracepoints: connections are seen, packets are not", RAISE_TCX)
    } else {
        (Grade::None, "neither tcx nor NFQUEUE can be used", RAISE_TCX)
    };
    control(
        PATH,
        "network path",
        grade,
        how,
        raise,
        p,
        &["tcx", "tap", "ring-buffer", "nfqueue", "nfqueue-xt", "nfqueue-nft", "br-netfilter"],
    )
}

fn segmentation(p: &Probed) -> Control {
    let (grade, how, raise) = if p.ok("tcx") {
        (Grade::A, "tcx: the first packet of a denied pair is dropped in the kernel", "")
    } else if nfqueue(p) {
        (Grade::B, "NFQUEUE: the agent drops the first packet of a denied pair; nobody does while it is dead and `fail` is open", RAISE_TCX)
    } else if p.ok("tracepoint") {
        (Grade::C, "tracepoints: connections are seen", RAISE_TCX)
    } else {
        (Grade::None, "nothing here can drop a packet between workloads", RAISE_TCX)
    };
    control("segmentation", "segmentation", grade, how, raise, p, &["tcx", "nfqueue", "nfqueue-xt", "nfqueue-nft", "br-netfilter"])
}

fn egress(p: &Probed) -> Control {
    let (grade, how, raise) = match (p.ok("tcx"), p.ok("cgroup-connect")) {
        (true, true) => (Grade::A, "tcx drops the packet; the cgroup's connect() hook can refuse the call and name the process", ""),
        (true, false) => (Grade::A, "tcx drops the first packet that leaves", "cgroup v2 with BPF, to name the process that connects"),
        (false, true) => {
            (Grade::A, "the cgroup's connect() hook refuses the call; raw sockets and inbound answers are not seen", RAISE_TCX)
        }
        (false, false) if nfqueue(p) => (Grade::B, "NFQUEUE: packets leaving are dropped by the agent", RAISE_TCX),
        (false, false) => (Grade::None, "nothing here can stop traffic that leaves", RAISE_TCX),
    };
    control("egress", "egress", grade, how, raise, p, &["tcx", "cgroup-connect", "nfqueue"])
}

fn container_start(p: &Probed, engines: &[Engine]) -> Control {
    const HOLD: &str =
        "Bulkhead's OCI runtime wrapper or hook in every engine (docs/oci.md): each start then waits until its interfaces are armed";
    let held = engines.iter().filter(|engine| engine.holds_start.is_some()).count();
    let (grade, how, raise) = if held > 0 && held == engines.len() {
        (Grade::A, "each engine's runtime or hook makes a start wait until the container's interfaces are armed", "")
    } else if p.ok("netfilter-link") || p.ok("nfqueue") {
        if held > 0 {
            (
                Grade::B,
                "some engines' starts wait; elsewhere an interface is armed on its netlink event, and what comes from a bridge through one that is not yet is dropped",
                HOLD,
            )
        } else {
            (
                Grade::B,
                "an interface is armed on its netlink event, and what comes from a bridge through one that is not yet is dropped; the start itself is not held",
                HOLD,
            )
        }
    } else {
        (Grade::C, "an interface is armed on its netlink event; the start is not held, and nothing drops what is faster", HOLD)
    };
    let mut control = control("container-start", "container start", grade, how, raise, p, &["netfilter-link", "tp-btf"]);
    control.evidence.extend(engines.iter().map(|engine| {
        let holds = engine.holds_start.as_deref().unwrap_or("nothing found that holds a start");
        format!("{} at {}: {holds}", engine.kind, engine.endpoint)
    }));
    control
}

fn file_open(p: &Probed) -> Control {
    const RAISE: &str = "run as root with CAP_SYS_ADMIN on a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS";
    let (grade, how, raise) = if p.ok("fanotify-open") && p.ok("fanotify-overlay") {
        (Grade::A, "fanotify: one mark on the engine's filesystem judges every container's opens", "")
    } else if p.ok("fanotify-open") {
        (
            Grade::A,
            "fanotify: each container's overlay must be marked as it starts",
            "Linux 6.8: one mark then judges all overlays above it",
        )
    } else if p.ok("lsm") {
        (Grade::A, "BPF security module", "")
    } else if p.ok("tracepoint") {
        (Grade::C, "tracepoints: opens are seen", RAISE)
    } else {
        (Grade::None, "no hook sees opens", RAISE)
    };
    control("file-open", "file open", grade, how, raise, p, &["fanotify-open", "fanotify-overlay", "lsm"])
}

fn exec(p: &Probed) -> Control {
    const RAISE: &str = "run as root with CAP_SYS_ADMIN on a kernel with fanotify permission events";
    let (grade, how, raise) = match (p.ok("lsm"), p.ok("fanotify-exec"), p.ok("tp-btf")) {
        (true, _, _) => (Grade::A, "BPF security module: every exec, in-memory files too", ""),
        (false, true, true) => (
            Grade::A,
            "fanotify judges files before they run; an in-memory file is killed before its first instruction (that part is B)",
            "a kernel that admits BPF LSM programs, to refuse in-memory files too",
        ),
        (false, true, false) => {
            (Grade::A, "fanotify judges files before they run; in-memory files are not seen", "BTF and BPF tracing, to see in-memory files")
        }
        (false, false, true) => (Grade::B, "the process is killed before its first instruction", RAISE),
        (false, false, false) if p.ok("tracepoint") => (Grade::C, "tracepoints: execs are seen", RAISE),
        (false, false, false) => (Grade::None, "no hook sees execs", RAISE),
    };
    control("exec", "exec", grade, how, raise, p, &["fanotify-exec", "lsm", "tp-btf"])
}

const RAISE_TCX: &str = "Linux 6.6 with CONFIG_BPF_SYSCALL and CONFIG_TUN, run as root with CAP_BPF and CAP_NET_ADMIN";

fn nfqueue(p: &Probed) -> bool {
    p.ok("nfqueue") && (p.ok("nfqueue-xt") || p.ok("nfqueue-nft"))
}

fn control(
    id: &'static str,
    name: &'static str,
    grade: Grade,
    how: &'static str,
    raise: &'static str,
    p: &Probed,
    evidence: &[&str],
) -> Control {
    Control { id, name, grade, how, evidence: evidence.iter().map(|id| p.evidence(id)).collect(), raise }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::Probe;

    fn probed(ok: &[&'static str]) -> Probed {
        Probed::new(ok.iter().map(|&id| Probe { id, what: "", ok: true, detail: String::new(), micros: 0 }).collect())
    }

    fn grades(ok: &[&'static str]) -> Vec<(&'static str, Grade)> {
        controls(&probed(ok), &[]).iter().map(|c| (c.id, c.grade)).collect()
    }

    #[test]
    fn a_kernel_with_everything_blocks_before_the_act() {
        let all = [
            "tcx",
            "tap",
            "ring-buffer",
            "netfilter-link",
            "cgroup-connect",
            "fanotify-open",
            "fanotify-overlay",
            "fanotify-exec",
            "tp-btf",
        ];
        for (id, grade) in grades(&all) {
            assert_eq!(grade, if id == "container-start" { Grade::B } else { Grade::A }, "{id}");
        }
    }

    #[test]
    fn tcx_without_a_tap_is_no_path() {
        assert_eq!(grades(&["tcx", "ring-buffer"])[0], (PATH, Grade::None));
        assert_eq!(grades(&["tcx", "ring-buffer", "nfqueue", "nfqueue-xt"])[0], (PATH, Grade::B));
    }

    #[test]
    fn a_queue_that_no_rule_can_feed_is_no_path() {
        assert_eq!(grades(&["nfqueue", "br-netfilter", "tracepoint"])[0], (PATH, Grade::C));
        assert_eq!(grades(&["nfqueue", "br-netfilter", "nfqueue-nft"])[0], (PATH, Grade::B));
        assert_eq!(grades(&["nfqueue", "br-netfilter", "nfqueue-xt"])[1], ("segmentation", Grade::B));
    }

    #[test]
    fn a_bare_kernel_gets_no_letters_and_is_told_what_would_raise_each() {
        for control in controls(&probed(&[]), &[]) {
            assert!(matches!(control.grade, Grade::None | Grade::C), "{}", control.id);
            assert!(!control.raise.is_empty() && control.evidence.iter().all(|e| e.ends_with("was not tried")), "{control:?}");
        }
    }

    #[test]
    fn a_start_is_held_only_where_every_engine_holds_it() {
        let engine = |kind, holds: Option<&str>| Engine {
            kind,
            endpoint: format!("/run/{kind}.sock"),
            reachable: true,
            version: None,
            holds_start: holds.map(str::to_owned),
        };
        let graded = |engines: &[Engine]| {
            let all = controls(&probed(&["netfilter-link"]), engines);
            all.into_iter().find(|c| c.id == "container-start").expect("always listed")
        };
        let (ours, plain) = (engine("docker", Some("default runtime bulkhead")), engine("podman", None));
        assert_eq!(graded(std::slice::from_ref(&plain)).grade, Grade::B);
        let some = graded(&[ours.clone(), plain]);
        assert!(some.grade == Grade::B && some.how.starts_with("some engines") && some.raise.contains("docs/oci.md"), "{some:?}");
        let all = graded(&[ours]);
        assert!(all.grade == Grade::A && all.raise.is_empty(), "{all:?}");
        assert!(all.evidence.iter().any(|e| e == "docker at /run/docker.sock: default runtime bulkhead"), "{:?}", all.evidence);
    }

    #[test]
    fn grades_are_letters_in_json() {
        let words = serde_json::to_string(&[Grade::A, Grade::B, Grade::C, Grade::None]).expect("plain enum");
        assert_eq!(words, r#"["A","B","C","-"]"#);
    }
}
