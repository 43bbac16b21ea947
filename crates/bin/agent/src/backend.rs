//! The API's questions answered from the agent's state. Changes are checked whole, then put in force whole.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bulkhead_api::{
    ApiError, ArmRequest, Armed, Backend, Coverage, Done, EngineState as EngineView, EngineStats, EventCounts, EventQuery, FailMode,
    Follow, Metric, MetricKind, ModeChange, ModeChanged, ModeRule, ModeSummary, ModeView, PathState, PathTechnique, PolicyChange,
    PolicyView, Problem, Protected, Reloaded, Severity, Status, Why, WorkloadClass, WorkloadView,
};
use bulkhead_bpf::path::monotonic_ns;
use bulkhead_inventory::EngineState;
use bulkhead_model::{Event, EventBody, Mode, Network, Runtime, Workload};
use bulkhead_policy::{Fail, OVERRIDES_FILE, PolicySnapshot, Selector, Source, render_overrides, set_override};
use bulkhead_sys::procfs::Process;
use serde_json::json;

use crate::builtin;
use crate::files::{self, Loaded};
use crate::hold::wall_clock;
use crate::record::blank;
use crate::rulebook;
use crate::state::{Ending, InForce, Route, State, lock};
use crate::supervise::coverage_now;
use bulkhead_bpf::layout::QUEUE_FRAMES;

pub struct AgentBackend {
    state: Arc<State>,
}

impl AgentBackend {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }
}

impl Backend for AgentBackend {
    fn status(&self) -> Result<Status, ApiError> {
        Ok(status(&self.state))
    }

    fn workloads(&self) -> Result<Vec<WorkloadView>, ApiError> {
        Ok(workload_views(&self.state))
    }

    fn events(&self, query: &EventQuery) -> Result<Vec<Event>, ApiError> {
        self.state.store.query(query).map_err(|error| ApiError::internal(error.to_string()))
    }

    fn follow(&self) -> Result<Box<dyn Follow>, ApiError> {
        let follower = self.state.store.follow().map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(Box::new(follower))
    }

    fn why(&self, event_id: u64) -> Result<Why, ApiError> {
        let query = EventQuery { id: Some(event_id), limit: Some(1), ..EventQuery::default() };
        let event = self.events(&query)?.pop().ok_or_else(|| {
            ApiError::not_found(format!("there is no event {event_id}")).help("`bulkhead events` lists the events that are kept")
        })?;
        Ok(why(&self.state, event))
    }

    fn coverage(&self) -> Result<Coverage, ApiError> {
        coverage_now(&self.state).map(|(report, _)| report).ok_or_else(|| ApiError::internal("the path is not up"))
    }

    fn arm(&self, request: &ArmRequest) -> Result<Armed, ApiError> {
        crate::arm::arm(&self.state, request)
    }

    fn mode(&self) -> Result<ModeView, ApiError> {
        let in_force = self.state.in_force();
        let config = &in_force.loaded.config;
        let rules = config
            .overrides
            .iter()
            .chain(&config.workloads)
            .filter_map(|rule| {
                Some(ModeRule { selector: rule.match_.to_string(), mode: rule.mode?, source: Some(rule.origin.to_string()) })
            })
            .collect();
        let workloads = workload_views(&self.state).into_iter().map(|view| (view.workload.name, view.mode)).collect();
        Ok(ModeView { default: config.mode, rules, workloads })
    }

    fn set_mode(&self, change: &ModeChange) -> Result<ModeChanged, ApiError> {
        // One for all stands behind all rules: it is a new default.
        let selector = Selector::parse(change.selector.as_deref().unwrap_or("*"))
            .map_err(|error| ApiError::refused(error.to_string(), Vec::new()).help("write a name with `*`, or `image=…,label.KEY=…`"))?;
        let in_force = self.state.in_force();
        let mut overrides: Vec<_> =
            in_force.loaded.config.overrides.iter().filter(|rule| rule.origin.source.ends_with(OVERRIDES_FILE)).cloned().collect();
        if !set_override(&mut overrides, selector.clone(), change.mode) {
            return Err(ApiError::refused("too many overrides", Vec::new()).help("write rules under `workloads:` instead"));
        }
        let written = files::write_overrides(&in_force.loaded.conf_d, &render_overrides(&overrides))
            .map_err(|error| ApiError::internal(error.to_string()))?;
        let loaded = files::load_config(&self.state.config_path).map_err(refused)?;
        let revision = put_in_force(&self.state, loaded, None);
        let policy = &self.state.in_force().snapshot;
        let names = workload_views(&self.state)
            .into_iter()
            // For those that a rule says otherwise of, a change of the default is none.
            .filter(|view| selector.matches(&view.workload) && policy.mode_of(&view.workload) == change.mode)
            .map(|view| view.workload.name)
            .collect();
        self.state.recorder.operation(
            "mode-changed",
            format!("{} is {} now", selector, mode_name(change.mode)),
            [("file", json!(written.display().to_string())), ("policy_revision", json!(revision))],
        );
        Ok(ModeChanged { selector: change.selector.clone(), mode: change.mode, workloads: names, policy_revision: revision })
    }

    fn policy(&self) -> Result<PolicyView, ApiError> {
        let in_force = self.state.in_force();
        let text = in_force.loaded.sources.iter().map(|source| format!("# {}\n{}\n", source.name, source.text)).collect();
        Ok(PolicyView { revision: in_force.snapshot.revision(), applied: in_force.applied, sources: in_force.origin, text })
    }

    fn check_policy(&self, text: &str) -> Result<PolicyChange, ApiError> {
        let loaded = parse_policy(&self.state, text)?;
        let problems = policy_problems(&loaded);
        Ok(PolicyChange {
            applied: false,
            revision: self.state.in_force().snapshot.revision(),
            problems,
            changes: changes(&self.state, &loaded),
        })
    }

    fn apply_policy(&self, text: &str) -> Result<PolicyChange, ApiError> {
        let loaded = parse_policy(&self.state, text)?;
        let segmented =
            bulkhead_policy::compile_segments(&PolicySnapshot::compile(&loaded.config, 0), &self.state.inventory.snapshot().workloads);
        if let Some(problem) = segmented.problems.first() {
            return Err(ApiError::refused(problem.to_string(), Vec::new()));
        }
        let problems = policy_problems(&loaded);
        let changes = changes(&self.state, &loaded);
        // Rules before the file: a text that is refused must not be what the next start reads.
        let rulebook = rulebook::load_all(&loaded.config).map_err(|message| ApiError::refused(message, Vec::new()))?;
        files::write_whole(&self.state.config_path, text.as_bytes()).map_err(|error| ApiError::internal(error.to_string()))?;
        let revision = put_in_force(&self.state, loaded, Some(rulebook));
        self.state.recorder.operation("policy-applied", format!("revision {revision}"), [("policy_revision", json!(revision))]);
        Ok(PolicyChange { applied: true, revision, problems, changes })
    }

    fn reload(&self) -> Result<Reloaded, ApiError> {
        reload(&self.state)
    }

    fn down(&self) -> Result<Done, ApiError> {
        self.state.end(Ending::Down);
        Ok(Done { message: "everything is being taken off the host".into() })
    }

    fn metrics(&self) -> Result<Vec<Metric>, ApiError> {
        Ok(metrics(&self.state))
    }
}

/// Reads configuration and rules again; the running ones stay when anything is wrong.
pub fn reload(state: &Arc<State>) -> Result<Reloaded, ApiError> {
    let loaded = files::load_config(&state.config_path).map_err(refused)?;
    let book = rulebook::load_all(&loaded.config).map_err(|message| ApiError::refused(message, Vec::new()))?;
    let broken: Vec<Problem> = book.problems.iter().filter(|problem| problem.severity == Severity::Error).cloned().collect();
    if !broken.is_empty() {
        return Err(ApiError::refused("rules are wrong; the running set stays in force", broken));
    }
    let (rules, problems) = (book.counts.clone(), book.problems.clone());
    let revision = put_in_force(state, loaded, Some(book));
    state.recorder.operation(
        "policy-applied",
        format!("revision {revision}, {} rules", rules.loaded),
        [("policy_revision", json!(revision))],
    );
    Ok(Reloaded { policy_revision: revision, rules, problems })
}

fn put_in_force(state: &State, loaded: Loaded, book: Option<rulebook::Rulebook>) -> u64 {
    let before = state.in_force();
    let revision = before.snapshot.revision() + 1;
    let rules = match book {
        Some(book) => {
            state.engine.swap_rules(&book.ruleset);
            // The set before is gone now.
            bulkhead_sys::memory::give_back();
            match &*lock(&state.route) {
                Route::Tcx(path) => path.path.forget_bypassed_by_policy(),
                Route::Queue(path) => path.forget_bypassed(),
                Route::None { .. } => {}
            }
            book.counts
        }
        None => before.rules,
    };
    state.set_in_force(InForce {
        snapshot: Arc::new(PolicySnapshot::compile(&loaded.config, revision)),
        applied: wall_clock(),
        rules,
        origin: loaded.sources.iter().map(|source| source.name.clone()).collect(),
        loaded,
    });
    state.wait_synced();
    revision
}

fn parse_policy(state: &State, text: &str) -> Result<Loaded, ApiError> {
    let in_force = state.in_force();
    let name = state.config_path.display().to_string();
    let mut sources: Vec<Source> = vec![Source::new(name.clone(), text)];
    sources.extend(in_force.loaded.sources.iter().filter(|source| source.name != name).cloned());
    let config = bulkhead_policy::parse(&sources).map_err(|diagnostics| refused(files::Error::Config(diagnostics)))?;
    Ok(Loaded { config, sources, conf_d: in_force.loaded.conf_d })
}

fn policy_problems(loaded: &Loaded) -> Vec<Problem> {
    bulkhead_policy::lint(&loaded.config).iter().map(problem).collect()
}

fn refused(error: files::Error) -> ApiError {
    match error {
        files::Error::Config(diagnostics) => {
            ApiError::refused("the configuration is wrong; the running one stays in force", diagnostics.iter().map(problem).collect())
        }
        other => ApiError::refused(other.to_string(), Vec::new()),
    }
}

fn problem(diagnostic: &bulkhead_policy::Diagnostic) -> Problem {
    Problem {
        severity: match diagnostic.severity {
            bulkhead_policy::Severity::Error => Severity::Error,
            bulkhead_policy::Severity::Warning => Severity::Warning,
        },
        code: diagnostic.code.to_string(),
        file: Some(diagnostic.source.clone()),
        line: Some(diagnostic.line),
        column: Some(diagnostic.column),
        sid: None,
        message: diagnostic.message.clone(),
        help: diagnostic.help.clone(),
    }
}

fn changes(state: &State, loaded: &Loaded) -> Vec<String> {
    let before = state.in_force().snapshot;
    let after = PolicySnapshot::compile(&loaded.config, 0);
    let mut lines = Vec::new();
    for workload in &state.inventory.snapshot().workloads {
        let (old, new) = (before.settings_of(workload), after.settings_of(workload));
        if old.mode != new.mode {
            lines.push(format!("{}: {} becomes {}", workload.name, mode_name(old.mode), mode_name(new.mode)));
        }
        if old.fail != new.fail || old.inspect != new.inspect {
            lines.push(format!("{}: fail or inspect change", workload.name));
        }
    }
    if before.segment_rules() != after.segment_rules() || before.segment_default() != after.segment_default() {
        lines.push("segments change".into());
    }
    lines
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Monitor => "monitor",
        Mode::Protect => "protect",
    }
}

const fn fail_mode(fail: Fail) -> FailMode {
    match fail {
        Fail::Open => FailMode::Open,
        Fail::Closed => FailMode::Closed,
    }
}

pub fn status(state: &State) -> Status {
    let in_force = state.in_force();
    let config = &in_force.loaded.config;
    let inventory = state.inventory.snapshot();
    let unarmed = lock(&state.unarmed).clone();
    let mut degraded = lock(&state.problems).clone();
    let mut heartbeat_age_ms = None;
    let mut engine = state.engine.counters();
    let path = match &*lock(&state.route) {
        Route::Tcx(path) => {
            let now = monotonic_ns();
            let oldest = (0..path.workers.count())
                .map(|queue| now.saturating_sub(path.maps.shared.heartbeat(queue).load(std::sync::atomic::Ordering::Relaxed)))
                .max()
                .unwrap_or(0);
            heartbeat_age_ms = Some(oldest / 1_000_000);
            if oldest > config.fail_after.as_nanos() as u64 {
                degraded.push(format!("a worker has not answered for {} ms", oldest / 1_000_000));
            }
            if !path.workers.alive() {
                degraded.push("a worker has ended".into());
            }
            let (mut held, mut full) = (0, 0);
            for (name, value) in path.maps.counters() {
                if name == "queue_full" {
                    full = value;
                }
                engine.insert(format!("kernel.{name}"), value);
            }
            for (name, value) in path.workers.stats.rows() {
                engine.insert(format!("hold.{name}"), value);
            }
            let mut lost = 0;
            for (_, value) in path.maps.pairs() {
                use bulkhead_bpf::layout::class;
                let returned = value.packets[class::INSPECTED] + value.packets[class::DROP_ENGINE];
                held += value.packets[class::HELD].saturating_sub(returned);
            }
            if let Ok(mut netlink) = bulkhead_sys::netlink::Netlink::open()
                && let Ok(Some(tap)) = netlink.link(path.tap_ifindex())
            {
                lost = tap.stats.tx_dropped;
            }
            PathState {
                kind: PathTechnique::Tcx,
                interfaces_armed: path.path.armed().count() as u32,
                interfaces_unarmed: unarmed.clone(),
                held_packets: held.saturating_sub(lost),
                held_packets_max: u64::from(QUEUE_FRAMES) * path.workers.count() as u64,
                held_refused: lost + full,
            }
        }
        Route::Queue(path) => {
            if !path.alive() {
                degraded.push("a worker has ended".into());
            }
            let age = path.heartbeat_age_ns();
            heartbeat_age_ms = Some(age / 1_000_000);
            if age > config.fail_after.as_nanos() as u64 {
                degraded.push(format!("a worker has not answered for {} ms", age / 1_000_000));
            }
            degraded.extend(path.problems());
            for (name, value) in path.counters() {
                engine.insert(format!("queue.{name}"), value);
            }
            let (held_packets, held_packets_max, held_refused) = path.held();
            PathState {
                kind: PathTechnique::Nfqueue,
                interfaces_armed: path.interfaces() as u32,
                interfaces_unarmed: unarmed.clone(),
                held_packets,
                held_packets_max,
                held_refused,
            }
        }
        Route::None { reason } => {
            degraded.push(reason.clone());
            PathState {
                kind: PathTechnique::None,
                interfaces_armed: 0,
                interfaces_unarmed: Vec::new(),
                held_packets: 0,
                held_packets_max: 0,
                held_refused: 0,
            }
        }
    };
    degraded.extend(unarmed.iter().map(|reason| format!("not armed: {reason}")));
    let views = workload_views(state);
    let mut mode = ModeSummary { default: config.mode, ..ModeSummary::default() };
    for view in &views {
        match (&view.protected, view.mode) {
            (Protected::No(_), _) => mode.unprotected += 1,
            (Protected::Yes, Mode::Monitor) => mode.monitor += 1,
            (Protected::Yes, Mode::Protect) => mode.protect += 1,
        }
    }
    let enforcing =
        !matches!(path.kind, PathTechnique::None) && heartbeat_age_ms.is_none_or(|age| u128::from(age) <= config.fail_after.as_millis());
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        started: state.started,
        uptime_secs: state.started_at.elapsed().as_secs(),
        enforcing,
        degraded,
        mode,
        path,
        fail: fail_mode(config.fail),
        heartbeat_age_ms,
        engine: EngineStats(engine),
        inventory: inventory
            .engines
            .iter()
            .map(|engine| EngineView {
                name: format!("{:?}", engine.kind).to_lowercase(),
                connected: matches!(engine.state, EngineState::Up { .. }),
                workloads: engine.containers as u32,
                detail: match &engine.state {
                    EngineState::Starting => Some("not asked yet".into()),
                    EngineState::Absent => Some(format!("no socket at {}", engine.socket.display())),
                    EngineState::Up { version } => Some(version.clone()),
                    EngineState::Down { reason } => Some(reason.clone()),
                },
            })
            .collect(),
        rules: in_force.rules,
        events: EventCounts::from(&state.store.stats()),
        rss_bytes: Process::own().rss_bytes().unwrap_or(0),
        policy_revision: in_force.snapshot.revision(),
    }
}

pub fn workload_views(state: &State) -> Vec<WorkloadView> {
    let directory = state.registry.current();
    let in_force = state.in_force();
    let armed: std::collections::HashSet<u32> = match &*lock(&state.route) {
        Route::Tcx(path) => path.path.armed().map(|armed| armed.wanted.workload).collect(),
        Route::Queue(path) => path.workloads().into_iter().collect(),
        Route::None { .. } => std::collections::HashSet::new(),
    };
    let mut views: Vec<WorkloadView> = directory
        .entries
        .values()
        .map(|entry| {
            let workload = &entry.workload;
            WorkloadView {
                workload: workload.clone(),
                id: entry.id.0,
                class: match (&workload.network, workload.runtime) {
                    (Network::Host, _) => WorkloadClass::HostNetwork,
                    (_, Runtime::Namespace) => WorkloadClass::Namespace,
                    _ => WorkloadClass::Container,
                },
                mode: entry.mode,
                fail: if entry.fail_closed { FailMode::Closed } else { FailMode::Open },
                protected: protected(workload, armed.contains(&entry.id.0), &directory, &armed),
                selected_by: in_force.snapshot.origins_of(workload)[0].map(ToString::to_string),
            }
        })
        .collect();
    views.sort_by(|a, b| a.workload.name.cmp(&b.workload.name));
    views
}

fn protected(workload: &Workload, armed: bool, directory: &crate::registry::Directory, all: &std::collections::HashSet<u32>) -> Protected {
    match &workload.network {
        Network::Host => Protected::No("it uses the host's network".into()),
        Network::Shared { with, .. } => {
            let owner = directory.entries.values().find(|entry| entry.workload.key == *with || entry.workload.name == *with);
            match owner {
                Some(owner) if all.contains(&owner.id.0) => Protected::Yes,
                _ => Protected::No(format!("it shares the network of {with}, which is not on the path")),
            }
        }
        Network::Own { .. } if armed => Protected::Yes,
        Network::Own { .. } if workload.interfaces.is_empty() => Protected::No("it has no network interface".into()),
        Network::Own { .. } => Protected::No("no interface of it is armed".into()),
    }
}

fn why(state: &State, event: Event) -> Why {
    let directory = state.registry.current();
    let in_force = state.in_force();
    let mut explanation = Vec::new();
    let mut made = Why {
        rule: None,
        rule_source: None,
        policy: None,
        policy_source: None,
        workloads: Vec::new(),
        next: Vec::new(),
        explanation: Vec::new(),
        event: event.clone(),
    };
    let names = event.workload.as_ref().map(|pair| (pair.src.name.clone(), pair.dest.name.clone()));
    if let (Some((src, dest)), Some(src_ip), Some(dest_ip)) = (&names, event.src_ip, event.dest_ip) {
        let port = |port: Option<u16>| port.map_or(String::new(), |port| format!(" port {port}"));
        explanation.push(format!(
            "A {} packet went from {src} ({src_ip}{}) to {dest} ({dest_ip}{}){}.",
            event.proto.as_deref().unwrap_or("packet"),
            port(event.src_port),
            port(event.dest_port),
            event.in_iface.as_ref().map_or(String::new(), |name| format!(", seen at {name}")),
        ));
    }
    let alert = match &event.body {
        EventBody::Alert { alert, .. } => Some(alert),
        EventBody::Drop { alert, .. } => alert.as_ref(),
        EventBody::Flow { .. } | EventBody::Anomaly { .. } | EventBody::Stats { .. } | EventBody::Operation { .. } => None,
    };
    if let Some(alert) = alert {
        explanation.push(format!(
            "Rule {}:{} revision {} matched: {} ({}, severity {}).",
            alert.gid, alert.signature_id, alert.rev, alert.signature, alert.category, alert.severity
        ));
        made.rule_source.clone_from(&alert.rule_source);
        made.rule = alert.rule_source.as_deref().and_then(rule_text);
        if alert.would_have_blocked {
            explanation.push("Neither side is in protect mode, so it passed; in protect mode it would have been blocked.".into());
            if let Some((_, dest)) = &names {
                made.next.push(format!("bulkhead mode {dest} protect   # block it next time"));
            }
        } else if alert.action == bulkhead_model::AlertAction::Blocked {
            explanation.push("One side is in protect mode, so the packet was dropped before its last byte reached the receiver, and the flow was condemned.".into());
        }
    }
    if let EventBody::Drop { drop, .. } = &event.body {
        explanation.push(format!("{}: {}. Decided by the {}.", drop.verdict, drop.explanation, drop.tier));
        if drop.reason == "segment"
            && let Some(rule) = in_force
                .snapshot
                .segment_rules()
                .iter()
                .find(|rule| rule.name.as_ref().is_some_and(|name| drop.explanation.contains(name.as_str())))
        {
            made.policy = Some(format!("{} from {} to {}", rule.name.as_deref().unwrap_or(""), rule.from, rule.to));
            made.policy_source = Some(rule.origin.to_string());
        }
    }
    match &event.body {
        EventBody::Anomaly { anomaly } => {
            explanation.push(format!("The packet breaks its protocol: {} ({}).", anomaly.event, anomaly.r#type))
        }
        EventBody::Operation { operation } => explanation.push(format!("The agent says: {} ({}).", operation.message, operation.action)),
        EventBody::Flow { flow } => explanation.push(format!(
            "The flow ended ({}): {} packets to the server, {} to the client.",
            flow.reason.as_deref().unwrap_or("no reason"),
            flow.pkts_toserver,
            flow.pkts_toclient
        )),
        EventBody::Alert { .. } | EventBody::Drop { .. } | EventBody::Stats { .. } => {}
    }
    if let Some(pair) = &event.workload {
        explanation.push(format!("Policy revision {} was in force; it is {} now.", pair.policy_revision, directory.policy_revision));
        let keys = [pair.src.id.as_deref(), pair.dest.id.as_deref()];
        made.workloads = workload_views(state).into_iter().filter(|view| keys.contains(&Some(view.workload.key.as_str()))).collect();
    }
    made.next.push("bulkhead coverage   # what was judged between these two".into());
    made.explanation = explanation;
    made
}

/// The line that a rule's source names.
fn rule_text(source: &str) -> Option<String> {
    let (file, line) = source.rsplit_once(':')?;
    let text = match builtin::text(file) {
        Some(text) => text.to_owned(),
        None => String::from_utf8_lossy(&files::read_rules(&PathBuf::from(file)).ok()?).into_owned(),
    };
    text.lines().nth(line.parse::<usize>().ok()?.checked_sub(1)?).map(str::to_owned)
}

/// EVE's `stats` event.
pub fn send_stats(state: &State) {
    let mut tree = serde_json::Map::new();
    tree.insert("uptime".into(), json!(state.started_at.elapsed().as_secs()));
    let status = status(state);
    for (name, value) in &status.engine.0 {
        let mut place = &mut tree;
        let mut parts = name.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                place.insert(part.to_owned(), json!(value));
                break;
            }
            let next = place.entry(part.to_owned()).or_insert_with(|| json!({}));
            let Some(next) = next.as_object_mut() else { break };
            place = next;
        }
    }
    state.recorder.send(Event { body: EventBody::Stats { stats: serde_json::Value::Object(tree) }, ..blank(wall_clock()) });
}

fn metrics(state: &State) -> Vec<Metric> {
    let status = status(state);
    let mut list = vec![
        Metric::gauge("bulkhead_enforcing", "1 when verdicts reach the wire", f64::from(u8::from(status.enforcing))),
        Metric::gauge("bulkhead_degraded", "Reasons for which it cannot do all it was told", status.degraded.len() as f64),
        Metric::gauge("bulkhead_interfaces_armed", "Interfaces under inspection", f64::from(status.path.interfaces_armed)),
        Metric::gauge("bulkhead_held_packets", "Packets with the engine now", status.path.held_packets as f64),
        Metric::counter("bulkhead_held_refused_total", "Packets that found the queue full", status.path.held_refused),
        Metric::gauge("bulkhead_resident_memory_bytes", "Memory of the agent", status.rss_bytes as f64),
        Metric::gauge("bulkhead_rules_loaded", "Rules in force", status.rules.loaded as f64),
        Metric::gauge("bulkhead_policy_revision", "Revision in force", status.policy_revision as f64),
    ];
    let mut workloads = Metric::new("bulkhead_workloads", "Workloads by mode", MetricKind::Gauge);
    for (mode, count) in [("monitor", status.mode.monitor), ("protect", status.mode.protect), ("unprotected", status.mode.unprotected)] {
        workloads = workloads.sample([("mode", mode)], f64::from(count));
    }
    list.push(workloads);
    let mut engine = Metric::new("bulkhead_engine_total", "Counters of engine and kernel tier by name", MetricKind::Counter);
    for (name, value) in &status.engine.0 {
        engine = engine.sample([("counter", name.as_str())], *value as f64);
    }
    list.push(engine);
    if let Some((report, _)) = coverage_now(state) {
        list.push(Metric::gauge("bulkhead_coverage_percent", "Bytes judged of bytes carried", report.total_percent));
        let mut bytes = Metric::new("bulkhead_bytes_total", "Bytes by kind of path and what became of them", MetricKind::Counter);
        let mut sums: BTreeMap<(&str, String), u64> = BTreeMap::new();
        for pair in &report.pairs {
            *sums.entry((pair.kind.name(), "inspected".into())).or_default() += pair.inspected_bytes;
            for (reason, count) in &pair.bypassed {
                *sums.entry((pair.kind.name(), format!("bypassed-{reason}"))).or_default() += count;
            }
            for (reason, count) in &pair.dropped {
                *sums.entry((pair.kind.name(), format!("dropped-{reason}"))).or_default() += count;
            }
        }
        for ((kind, verdict), count) in &sums {
            bytes = bytes.sample([("path", *kind), ("verdict", verdict.as_str())], *count as f64);
        }
        list.push(bytes);
    }
    list
}
