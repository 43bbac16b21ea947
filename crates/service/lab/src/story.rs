//! What protection does, shown with the lab, step by step. Each step says what was expected and what was seen.
//!
//! The agent is reached through [`Judge`]; without one the story shows the same acts on an unprotected host.

use std::time::{Duration, Instant};

use bulkhead_model::{Event, EventBody, Mode};
use serde::Serialize;

use crate::act::{Observation, Request};
use crate::servers::Role;
use crate::{Family, Lab};

/// The agent, as far as the story needs it. Errors are sentences for a person.
pub trait Judge {
    /// Sets the mode of the lab's workloads.
    fn set_mode(&mut self, mode: Mode) -> Result<(), String>;
    /// Names of workloads that are on the path.
    fn protected(&mut self) -> Result<Vec<String>, String>;
    /// Events since this was last asked.
    fn events(&mut self) -> Result<Vec<Event>, String>;
    /// Bytes inspected, bypassed for a reason or dropped, of those that the lab's workloads sent and got; in per cent.
    fn coverage_percent(&mut self) -> Result<f64, String>;
}

/// One step of the story.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Kebab-case, stable.
    pub id: &'static str,
    /// What was done and what had to come of it.
    pub title: &'static str,
    pub ok: bool,
    /// What was seen.
    pub seen: String,
}

/// The whole story.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Story {
    /// An agent took part.
    pub protected: bool,
    /// `docker` or `namespaces`.
    pub runtime: &'static str,
    pub steps: Vec<Step>,
}

impl Story {
    /// Everything came as it had to.
    pub fn ok(&self) -> bool {
        self.steps.iter().all(|s| s.ok)
    }
}

/// How long an event or a state may take to show.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tells the story; each step is handed to `show` as soon as it is known.
pub fn tell(lab: &Lab, judge: Option<&mut dyn Judge>, show: &mut dyn FnMut(&Step)) -> Story {
    let runtime = if lab.in_docker() { "docker" } else { "namespaces" };
    let mut teller = Teller { lab, steps: Vec::new(), show };
    let protected = judge.is_some();
    match judge {
        Some(judge) => teller.with_agent(judge),
        None => teller.without_agent(),
    }
    Story { protected, runtime, steps: teller.steps }
}

struct Teller<'a> {
    lab: &'a Lab,
    steps: Vec<Step>,
    show: &'a mut dyn FnMut(&Step),
}

impl Teller<'_> {
    fn with_agent(&mut self, judge: &mut dyn Judge) {
        let armed = self.wait_armed(judge);
        self.step("armed", "the lab's containers are on the path", armed);
        let monitor = judge.set_mode(Mode::Monitor).and_then(|()| judge.events()).map(|_| "mode monitor".into());
        self.step("monitor", "the lab is put into monitor mode", monitor);
        self.benign("monitor-benign");
        self.act("monitor-attack", "monitor: an exploit arrives, as nothing is blocked", Family::V4, &Request::injection(), arrived);
        let alerted = wait_event(judge, |e| signature(e) == Some(9_000_001));
        self.step("monitor-alert", "monitor: it is alerted, with what protect would have done", alerted);

        let protect = judge.set_mode(Mode::Protect).and_then(|()| judge.events()).map(|_| "mode protect".into());
        self.step("protect", "the lab is put into protect mode", protect);
        self.act("protect-attack", "protect: the exploit is blocked", Family::V4, &Request::injection(), blocked);
        let told = wait_event(judge, is_block);
        self.step("protect-event", "protect: an event says so", told);
        self.act("protect-split", "protect: so it is when cut over two segments", Family::V4, &Request::split_injection(), blocked);
        self.act("protect-ipv6", "protect: and over IPv6", Family::V6, &Request::injection(), blocked);
        self.act("protect-jndi", "protect: and with a JNDI lookup in a header", Family::V4, &Request::lookup(), blocked);
        self.benign("protect-benign");
        const KEPT_OFF: [(&str, &str, Family); 2] = [
            ("segment-ipv4", "protect: the attacker does not reach the database, from the first packet on", Family::V4),
            ("segment-ipv6", "protect: nor does it over IPv6", Family::V6),
        ];
        for (id, title, family) in KEPT_OFF {
            let seen = self.lab.act(Role::Attacker, Role::Database, family, &Request::query());
            let kept_off = if seen.connected { Err(told_of(&seen)) } else { Ok(told_of(&seen)) };
            self.step(id, title, kept_off);
        }
        let query = self.lab.act(Role::Web, Role::Database, Family::V4, &Request::query());
        self.step("segment-allowed", "protect: the web service reaches the database", answered(&query));
        let coverage = judge.coverage_percent().and_then(|p| {
            let words = format!("{p:.2} %");
            if p >= 100.0 { Ok(words) } else { Err(words) }
        });
        self.step("coverage", "all bytes between the lab's containers are accounted for", coverage);
    }

    fn without_agent(&mut self) {
        self.benign("benign");
        self.act("attack", "no agent runs: the exploit arrives", Family::V4, &Request::injection(), arrived);
        self.act("attack-split", "no agent runs: cut over two segments it arrives too", Family::V4, &Request::split_injection(), arrived);
        let seen = self.lab.act(Role::Attacker, Role::Database, Family::V4, &Request::query());
        self.step("reach", "no agent runs: the attacker reaches the database", answered(&seen));
    }

    fn benign(&mut self, id: &'static str) {
        self.act(id, "an ordinary request is answered", Family::V4, &Request::benign(), answered);
    }

    fn act(
        &mut self,
        id: &'static str,
        title: &'static str,
        family: Family,
        request: &Request,
        judge: fn(&Observation) -> Result<String, String>,
    ) {
        let seen = self.lab.act(Role::Attacker, Role::Web, family, request);
        self.step(id, title, judge(&seen));
    }

    fn step(&mut self, id: &'static str, title: &'static str, outcome: Result<String, String>) {
        let ok = outcome.is_ok();
        let step = Step { id, title, ok, seen: outcome.unwrap_or_else(|e| e) };
        (self.show)(&step);
        self.steps.push(step);
    }

    fn wait_armed(&self, judge: &mut dyn Judge) -> Result<String, String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let protected = judge.protected()?;
            let missing: Vec<&str> =
                self.lab.nodes().iter().map(|n| n.name.as_str()).filter(|n| !protected.iter().any(|p| p == n)).collect();
            if missing.is_empty() {
                return Ok(self.lab.nodes().iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(", "));
            }
            if Instant::now() >= end {
                return Err(format!("not on the path: {}", missing.join(", ")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn answered(seen: &Observation) -> Result<String, String> {
    if seen.answered() && !seen.exploited { Ok(told_of(seen)) } else { Err(told_of(seen)) }
}

fn arrived(seen: &Observation) -> Result<String, String> {
    if seen.exploited { Ok(told_of(seen)) } else { Err(told_of(seen)) }
}

fn blocked(seen: &Observation) -> Result<String, String> {
    if seen.connected && !seen.exploited && seen.answer.is_empty() { Ok(told_of(seen)) } else { Err(told_of(seen)) }
}

/// The last line of the answer (behind the HTTP head), or why there was none.
fn told_of(seen: &Observation) -> String {
    let last = seen.answer.lines().last().unwrap_or_default();
    match (&seen.error, seen.connected) {
        (Some(error), true) => format!("connected, then {error} after {} ms", seen.millis),
        (Some(error), false) => format!("{error} after {} ms", seen.millis),
        (None, _) => format!("`{last}` in {} ms", seen.millis),
    }
}

fn wait_event(judge: &mut dyn Judge, wanted: impl Fn(&Event) -> bool) -> Result<String, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(event) = judge.events()?.iter().find(|e| wanted(e)) {
            return Ok(sentence(event));
        }
        if Instant::now() >= end {
            return Err("no event came".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn signature(event: &Event) -> Option<u32> {
    match &event.body {
        EventBody::Alert { alert, .. } => Some(alert.signature_id),
        EventBody::Drop { alert, .. } => alert.as_ref().map(|a| a.signature_id),
        EventBody::Flow { .. } | EventBody::Anomaly { .. } | EventBody::Stats { .. } | EventBody::Operation { .. } => None,
    }
}

fn is_block(event: &Event) -> bool {
    match &event.body {
        EventBody::Alert { alert, .. } => alert.action == bulkhead_model::AlertAction::Blocked,
        EventBody::Drop { drop, .. } => drop.verdict == "blocked",
        EventBody::Flow { .. } | EventBody::Anomaly { .. } | EventBody::Stats { .. } | EventBody::Operation { .. } => false,
    }
}

fn sentence(event: &Event) -> String {
    let sides = event.workload.as_ref().map_or_else(String::new, |w| format!("{} -> {}: ", w.src.name, w.dest.name));
    let what = match &event.body {
        EventBody::Alert { alert, .. } if alert.would_have_blocked => format!("{} (protect would have blocked it)", alert.signature),
        EventBody::Alert { alert, .. } => alert.signature.clone(),
        EventBody::Drop { drop, .. } => drop.explanation.clone(),
        EventBody::Flow { .. } | EventBody::Anomaly { .. } | EventBody::Stats { .. } | EventBody::Operation { .. } => {
            event.body.type_name().into()
        }
    };
    format!("{sides}{what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(connected: bool, answer: &str, exploited: bool, error: Option<&str>) -> Observation {
        Observation { connected, answer: answer.into(), exploited, error: error.map(str::to_owned), millis: 3 }
    }

    #[test]
    fn only_silence_after_a_connection_counts_as_blocked() {
        assert!(blocked(&seen(true, "", false, Some("timed out"))).is_ok());
        assert!(blocked(&seen(true, "", false, Some("connection reset"))).is_ok());
        assert!(blocked(&seen(true, "uid=0(root)", true, None)).is_err());
        assert!(blocked(&seen(false, "", false, Some("timed out"))).is_err(), "a host that nobody can reach proves nothing");
        assert!(blocked(&seen(true, "HTTP/1.1 404", false, None)).is_err());
    }

    #[test]
    fn an_exploit_is_no_ordinary_answer() {
        assert!(answered(&seen(true, "1 host is alive", false, None)).is_ok());
        assert!(answered(&seen(true, "uid=0(root)", true, None)).is_err());
        assert!(answered(&seen(true, "", false, None)).is_err());
        assert_eq!(told_of(&seen(true, "HTTP/1.1 200 OK\r\n\r\nhello", false, None)), "`hello` in 3 ms");
    }
}
