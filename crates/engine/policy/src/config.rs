//! The configuration file, section by section. The doc comments are the reference text of `docs/configuration.md`,
//! and the JSON Schema is made from the same declarations.

use std::time::Duration;

use bulkhead_model::Mode;

use crate::diagnostic::Report;
use crate::selector::{Glob, Selector};
use crate::setting::{read_words, record, settings, words};
use crate::units::ByteSize;
use crate::values::{AbsolutePath, Engine, GroupName, Listen, MarkMask, Peer, PortRange, Proto, Variables, Workers};
use crate::yaml::Node;

settings! {
    /// The whole configuration. Every key has a default that works: an empty file is a good one.
    pub struct Config as "" {
        /// Whether judgements are carried out, for workloads about which no rule says otherwise.
        mode: Mode = Mode::Monitor;
        /// What happens to traffic that nobody can judge, because the agent is stopped, hung or overrun.
        fail: Fail = Fail::Open;
        /// Age of the agent's last sign of life after which the kernel takes it for dead and applies `fail`.
        fail_after: Duration = Duration::from_millis(500) => Duration::from_millis(100)..=Duration::from_secs(60);
        /// Rules that stand before `workloads`. Written by `bulkhead mode` into `conf.d/90-overrides.yaml`.
        overrides: Vec<WorkloadRule> = Vec::new();
        /// Settings for some workloads. For each field, the first rule that matches and says something decides.
        workloads: Vec<WorkloadRule> = Vec::new();
        /// Who may talk to whom.
        segments: Segments = Segments::default();
        /// Signatures.
        rules: Rules = Rules::default();
        /// How deep, and within which caps, traffic is inspected.
        inspect: Inspect = Inspect::default();
        /// How packets reach the inspection.
        path: PathSettings = PathSettings::default();
        /// Where workloads are found.
        inventory: Inventory = Inventory::default();
        /// Where events go.
        events: Events = Events::default();
        /// How the agent is spoken to.
        api: Api = Api::default();
        /// The check that all traffic is accounted for.
        coverage: Coverage = Coverage::default();
    }
}

record! {
    /// Settings for the workloads that a selector matches.
    pub struct WorkloadRule as "workloads[]" {
        /// Which workloads.
        match_: Selector;
        /// Whether judgements are carried out for them.
        mode: Option<Mode> = None;
        /// What happens to their traffic when nobody can judge it.
        fail: Option<Fail> = None;
        /// How much of their traffic is inspected.
        inspect: Option<Inspection> = None;
        /// For people.
        comment: Option<String> = None;
    }
}

impl WorkloadRule {
    fn checked(self, node: &Node, to: &mut Report) -> Option<Self> {
        if self.mode.is_none() && self.fail.is_none() && self.inspect.is_none() {
            let help = "give at least one of `mode`, `fail`, `inspect`";
            to.error(
                node.at,
                "missing-key",
                format!("the rule for {} says nothing", crate::diagnostic::quote(&self.match_.to_string())),
                help,
            );
            return None;
        }
        Some(self)
    }
}

settings! {
    /// Who may open connections to whom. The kernel decides on the first packet, without waiting for the agent.
    pub struct Segments as "segments" {
        /// For traffic that no rule matches.
        default: Action = Action::Allow;
        /// The first rule that matches decides.
        rules: Vec<SegmentRule> = Vec::new();
    }
}

record! {
    /// One rule. It matches by who opens the connection; the answers belong to the connection.
    pub struct SegmentRule as "segments.rules[]" {
        /// Shown by `why` and in events. Without one, the rule is named by its place in the list.
        name: Option<String> = None;
        /// The side that opens the connection.
        from: Peer;
        /// The side that is connected to.
        to: Peer;
        /// `tcp`, `udp`, `icmp` (both versions), `sctp`, `any`, or an IP protocol number.
        proto: Proto = Proto::Any;
        /// Ports of the side that is connected to; none means all. A rule with ports and `proto: any` matches the protocols that have ports.
        ports: Vec<PortRange> = Vec::new();
        /// What happens to it.
        action: Action;
        /// For people.
        comment: Option<String> = None;
    }
}

impl SegmentRule {
    fn checked(self, node: &Node, to: &mut Report) -> Option<Self> {
        if !self.ports.is_empty() && !self.proto.may_name_ports() {
            let message = format!("the protocol `{}` has no ports", self.proto);
            to.error(node.at, "conflict", message, "take `ports` away, or use `tcp`, `udp`, `sctp` or `any`");
            return None;
        }
        let runs = crate::segments::join_ranges(&self.ports).len();
        if runs > crate::PAIR_RULES_MAX {
            let message = format!("{runs} separate ports and ranges in one rule; the cap is {}", crate::PAIR_RULES_MAX);
            to.error(node.at, "too-large", message, "use wider ranges");
            return None;
        }
        Some(self)
    }
}

settings! {
    /// Signatures in the Suricata language.
    pub struct Rules as "rules" {
        /// Whether the rules that come with the program are used (`docs/builtin-rules.md`). They are read before all files.
        built_in: bool = true;
        /// Rule files, read in the order of their names. Names of files and folders may hold `*`.
        files: Vec<AbsolutePath> = paths(&["/etc/bulkhead/rules/*.rules", "/var/lib/bulkhead/rules/current/*/*.rules"]);
        /// Classes of rules with their priorities (`classification.config`). Of two with one name the first counts.
        classification: Vec<AbsolutePath> = paths(&["/etc/bulkhead/rules/classification.config", "/var/lib/bulkhead/rules/current/*/classification.config"]);
        /// Where references of rules lead (`reference.config`). Of two with one name the first counts.
        reference: Vec<AbsolutePath> = paths(&["/etc/bulkhead/rules/reference.config", "/var/lib/bulkhead/rules/current/*/reference.config"]);
        /// Suppressions and thresholds (`threshold.config`).
        threshold: Vec<AbsolutePath> = paths(&["/etc/bulkhead/rules/threshold.config"]);
        /// Which rules are left out (`disable.conf` of rule-update tools). Written by `bulkhead rules disable`.
        disable_files: Vec<AbsolutePath> = paths(&["/etc/bulkhead/rules/disable.conf"]);
        /// Which rules are used though they are commented out, or named by `disable-files` (`enable.conf`). Written by `bulkhead rules enable`.
        enable_files: Vec<AbsolutePath> = paths(&["/etc/bulkhead/rules/enable.conf"]);
        /// What is changed in which rules (`modify.conf`).
        modify_files: Vec<AbsolutePath> = paths(&["/etc/bulkhead/rules/modify.conf"]);
        /// Which rules' action becomes `drop` (`drop.conf`).
        drop_files: Vec<AbsolutePath> = paths(&["/etc/bulkhead/rules/drop.conf"]);
        /// Variables used in the rules, without the `$`. Those given here are added to the defaults.
        variables: Variables = Variables::default();
        /// Signature ids that are left out.
        disable: Vec<u32> = Vec::new();
        /// Signature ids whose action becomes `drop`.
        drop: Vec<u32> = Vec::new();
        /// Signature ids whose action becomes `alert`.
        alert: Vec<u32> = Vec::new();
    }
}

fn paths(fixed: &[&'static str]) -> Vec<AbsolutePath> {
    fixed.iter().map(|path| AbsolutePath::fixed(path)).collect()
}

settings! {
    /// How deep, and within which caps, traffic is inspected.
    pub struct Inspect as "inspect" {
        /// Bytes of each direction of a stream that are inspected; what follows is let through by the kernel.
        stream_depth: ByteSize = ByteSize::mib(1) => ByteSize::kib(4)..=ByteSize::gib(1024);
        /// Flows that are remembered at the same time.
        flows_max: u32 = 262_144 => 1_024..=16_777_216;
        /// Memory for stream data that waits for a gap to be filled.
        stream_memory: ByteSize = ByteSize::mib(256) => ByteSize::mib(1)..=ByteSize::gib(256);
        /// Memory for fragments that wait for the rest of their packet.
        fragment_memory: ByteSize = ByteSize::mib(16) => ByteSize::kib(256)..=ByteSize::gib(16);
        /// Stop inspecting a flow when only ciphertext follows.
        bypass_encrypted: bool = true;
        /// Packets that cannot be read: broken headers, or bytes that contradict those already judged. Carried out in `protect` only.
        unverifiable: Unverifiable = Unverifiable::Drop;
        /// What happens to new traffic when a cap of this section is reached. `closed` is carried out in `protect` only.
        on_cap: Fail = Fail::Open;
        /// Whether a wrong checksum makes a packet invisible to the inspection, as it is to the receiver.
        checksum: Checksum = Checksum::Verify;
    }
}

settings! {
    /// How packets reach the inspection.
    pub struct PathSettings as "path" {
        /// Which hooks of the kernel are used.
        kind: PathKind = PathKind::Auto;
        /// Which interfaces of containers are put under inspection.
        interfaces: Interfaces = Interfaces::default();
        /// Bits of the packet mark that may be used. Change it when another program of this host uses the same ones.
        mark_mask: MarkMask = MarkMask(0x0f00_0000);
        /// What happens to packets of a container interface that is not under inspection yet.
        guard_unknown: GuardUnknown = GuardUnknown::Drop;
        /// Threads that inspect.
        workers: Workers = Workers::Auto;
        /// Microseconds that an idle thread waits awake before it sleeps: lower latency, more processor time.
        spin_us: u32 = 0 => 0..=1_000;
    }
}

settings! {
    /// Interfaces by their name on the host, or within the container where they have no end on the host.
    pub struct Interfaces as "path.interfaces" {
        /// Patterns of names, of which one must match.
        include: Vec<Glob> = Glob::new("*").into_iter().collect();
        /// Patterns of names, of which none may match. Traffic of an excluded interface is not protected, and `coverage` says so.
        exclude: Vec<Glob> = Vec::new();
    }
}

settings! {
    /// Where workloads are found. Engines are asked only, never told.
    pub struct Inventory as "inventory" {
        /// Docker.
        docker: Engine = Engine::Auto;
        /// Podman.
        podman: Engine = Engine::Auto;
        /// containerd and other engines that speak the Kubernetes runtime interface.
        containerd: Engine = Engine::Auto;
        /// Network namespaces that no engine claims.
        namespaces: bool = true;
    }
}

settings! {
    /// Where events go.
    pub struct Events as "events" {
        /// JSON lines in Suricata's EVE format.
        eve: Eve = Eve::default();
        /// The database behind `bulkhead events`.
        store: Store = Store::default();
    }
}

settings! {
    /// JSON lines in Suricata's EVE format.
    pub struct Eve as "events.eve" {
        /// The file.
        path: AbsolutePath = AbsolutePath::fixed("/var/log/bulkhead/eve.json");
        /// Size at which the file is put aside and compressed.
        rotate_size: ByteSize = ByteSize::mib(100) => ByteSize::kib(64)..=ByteSize::gib(64);
        /// Files that are kept aside.
        rotate_keep: u16 = 5 => 0..=1_000;
        /// Kinds of events that are written.
        types: Vec<EventType> = EventType::ALL.to_vec();
    }
}

settings! {
    /// The database behind `bulkhead events`.
    pub struct Store as "events.store" {
        /// The file.
        path: AbsolutePath = AbsolutePath::fixed("/var/lib/bulkhead/events.db");
        /// Size at which the oldest events are thrown away.
        size_max: ByteSize = ByteSize::mib(512) => ByteSize::mib(8)..=ByteSize::gib(1024);
    }
}

settings! {
    /// How the agent is spoken to.
    pub struct Api as "api" {
        /// The socket of the API.
        socket: AbsolutePath = AbsolutePath::fixed("/run/bulkhead/bulkhead.sock");
        /// Group whose members may use the socket, next to root. It may be absent: then only root may.
        group: GroupName = GroupName::fixed("bulkhead");
        /// Where Prometheus metrics are served: a loopback address and port, or `off`.
        metrics: Listen = Listen::At(std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464));
    }
}

settings! {
    /// The check that the bytes that the kernel carried and the bytes that were inspected, bypassed or dropped are the same.
    pub struct Coverage as "coverage" {
        /// How often it is made.
        interval: Duration = Duration::from_secs(10) => Duration::from_secs(1)..=Duration::from_secs(3_600);
        /// Bytes of a pair that may be unaccounted for before the alarm is raised.
        alarm_bytes: ByteSize = ByteSize::kib(64) => ByteSize(0)..=ByteSize::gib(1024);
    }
}

words! {
    /// What happens to traffic that nobody can judge.
    pub enum Fail {
        /// It passes, uninspected and counted.
        Open = "open",
        /// It is dropped. Carried out in `protect` only: `monitor` never blocks.
        Closed = "closed",
    }
}

words! {
    /// What a segment rule does.
    pub enum Action {
        /// The connection may be opened, and is inspected.
        Allow = "allow",
        /// The first packet is dropped.
        Deny = "deny",
    }
}

words! {
    /// How much of a workload's traffic is inspected.
    pub enum Inspection {
        /// All of it.
        All = "all",
        /// None: the kernel carries it and counts it as bypassed. Segments still hold.
        Bypass = "bypass",
    }
}

words! {
    /// What happens to a packet that cannot be read.
    pub enum Unverifiable {
        /// It is dropped.
        Drop = "drop",
        /// It passes.
        Accept = "accept",
    }
}

words! {
    /// What checksums are good for.
    pub enum Checksum {
        /// A packet with a wrong one is not inspected, since its receiver throws it away.
        Verify = "verify",
        /// They are not looked at.
        Ignore = "ignore",
    }
}

words! {
    /// Which hooks of the kernel are used.
    pub enum PathKind {
        /// tcx where the kernel has it, else nfqueue.
        Auto = "auto",
        /// BPF at the container's interface; Linux 6.6 or newer.
        Tcx = "tcx",
        /// The netfilter queue.
        Nfqueue = "nfqueue",
    }
}

words! {
    /// What happens to packets of a container interface that is not under inspection yet.
    pub enum GuardUnknown {
        /// They are dropped until it is.
        Drop = "drop",
        /// They pass, and are counted as not inspected.
        Allow = "allow",
    }
}

words! {
    /// Kinds of events.
    pub enum EventType {
        /// A signature matched.
        Alert = "alert",
        /// A packet was dropped, or would have been.
        Drop = "drop",
        /// A flow ended.
        Flow = "flow",
        /// A packet or stream breaks its protocol.
        Anomaly = "anomaly",
        /// Counters.
        Stats = "stats",
        /// What the agent itself does.
        Operation = "operation",
    }
}

impl EventType {
    pub const ALL: [Self; 6] = [Self::Alert, Self::Drop, Self::Flow, Self::Anomaly, Self::Stats, Self::Operation];
}

read_words!(Mode {
    Monitor = "monitor" [" Alerts and would-have-blocked events; nothing is blocked."],
    Protect = "protect" [" Judgements are carried out."],
});
