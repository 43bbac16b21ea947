//! The live map: who runs, who talks to whom and what became of it, what was alerted and dropped; drawn again and again.
//!
//! On a terminal it is a screen that is written over from its top left corner; nothing of the terminal's state is changed, so
//! there is nothing to restore however the program ends. Elsewhere it is a line now and then, and one for each event.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bulkhead_api::{Client, ClientError, Coverage, EventQuery, PathKind, Status, WorkloadView};
use bulkhead_model::Event;
use serde::Serialize;

use crate::event_text::{happening, parties};
use crate::failure::Failure;
use crate::output::{Colour, Format, Out, Style};
use crate::status::word;
use crate::table::{Cell, Table, cut};
use crate::units::{bytes, percent, plural, seconds, time_of_day};
use crate::workloads::{addresses, mode_cell, protected_cell};

const SCREEN_EVERY: Duration = Duration::from_secs(1);
const LINES_EVERY: Duration = Duration::from_secs(5);
/// Events asked for at a time: more than any screen shows.
const EVENTS_MAX: usize = 100;
/// What a terminal has when it does not say.
const SIZE: (usize, usize) = (100, 30);
/// Workloads and pairs are shown at least so many each, if there are, before events get the rest.
const ROWS_MIN: usize = 3;

/// Draws until the agent ends, or the reader goes away.
pub fn watch(client: &Client, out: &mut Out, every: Option<Duration>) -> Result<(), Failure> {
    let screen = out.is_terminal() && out.format() == Format::Text;
    let every = every.unwrap_or(if screen { SCREEN_EVERY } else { LINES_EVERY });
    let mut before: Option<Snapshot> = None;
    loop {
        let now = Snapshot::take(client, before.as_ref())?;
        match (out.format(), screen) {
            (Format::Json, _) => out.json_line(&now)?,
            (Format::Text, true) => {
                let (style, size) = (out.style(), out.size().unwrap_or(SIZE));
                let lines = draw(&now, before.as_ref(), size, style);
                out.raw(&over_the_last(&lines, before.is_none()))?;
            }
            (Format::Text, false) => out.lines(tell(&now, before.as_ref()))?,
        }
        out.flush()?;
        before = Some(now);
        std::thread::sleep(every);
    }
}

/// What the agent said at one moment.
#[derive(Debug, Serialize)]
pub struct Snapshot {
    status: Status,
    workloads: Vec<WorkloadView>,
    coverage: Coverage,
    /// The newest, oldest of them first.
    events: Vec<Event>,
    #[serde(skip)]
    taken: Instant,
}

impl Snapshot {
    fn take(client: &Client, before: Option<&Self>) -> Result<Self, ClientError> {
        let newest = before.and_then(|before| before.events.last()).map(|event| event.event_id);
        let mut events: Vec<Event> = before.map(|before| before.events.clone()).unwrap_or_default();
        events.extend(client.events(&EventQuery { since: newest, limit: Some(EVENTS_MAX), ..EventQuery::default() })?);
        events.drain(..events.len().saturating_sub(EVENTS_MAX));
        Ok(Self { status: client.status()?, workloads: client.workloads()?, coverage: client.coverage()?, events, taken: Instant::now() })
    }

    fn newest(&self) -> u64 {
        self.events.last().map_or(0, |event| event.event_id)
    }
}

/// Between two workloads on one kind of path, whatever the address family.
#[derive(Debug, Clone, Copy, Default)]
struct Traffic {
    carried: u64,
    inspected: u64,
    bypassed: u64,
    dropped: u64,
    gap: u64,
}

type Pair<'a> = (&'a str, &'a str, PathKind);

fn traffic(coverage: &Coverage) -> BTreeMap<Pair<'_>, Traffic> {
    let mut all: BTreeMap<Pair<'_>, Traffic> = BTreeMap::new();
    for pair in &coverage.pairs {
        let sum = all.entry((&pair.src, &pair.dst, pair.kind)).or_default();
        sum.carried = sum.carried.saturating_add(pair.carried_bytes);
        sum.inspected = sum.inspected.saturating_add(pair.inspected_bytes);
        sum.bypassed = sum.bypassed.saturating_add(pair.bypassed_bytes());
        sum.dropped = sum.dropped.saturating_add(pair.dropped_bytes());
        sum.gap = sum.gap.saturating_add(pair.gap_bytes);
    }
    all
}

/// The cursor to the top; each line cleared to its end; what is left of a longer screen cleared. A last line without line feed, so that
/// a screen that is just full does not scroll.
fn over_the_last(lines: &[String], first: bool) -> String {
    let clear = if first { "\x1b[2J" } else { "" };
    format!("{clear}\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\n"))
}

/// As many lines as the screen has at most, none longer than it is wide.
fn draw(now: &Snapshot, before: Option<&Snapshot>, (columns, rows): (usize, usize), style: Style) -> Vec<String> {
    let mut lines = head(now, columns, style);
    let room = rows.saturating_sub(lines.len() + 6);
    let (workloads, pairs) = (now.workloads.len(), now.coverage.pairs.len());
    let part = (room / 3).max(ROWS_MIN);
    let for_workloads = workloads.min(part + part.saturating_sub(pairs.clamp(1, part)) / 2);
    let for_pairs = part + part.saturating_sub(for_workloads.max(1));
    section(&mut lines, workload_table(now, for_workloads), columns, style);
    section(&mut lines, pair_table(now, before, for_pairs), columns, style);
    let for_events = rows.saturating_sub(lines.len() + 2);
    section(&mut lines, event_table(now, for_events), columns, style);
    lines.truncate(rows);
    lines
}

fn section(lines: &mut Vec<String>, (table, more): (Table, Option<String>), columns: usize, style: Style) {
    lines.push(String::new());
    lines.extend(table.render(style, Some(columns)));
    lines.extend(more.map(|more| style.paint(&cut(&more, columns), Colour::Faint)));
}

fn head(now: &Snapshot, columns: usize, style: Style) -> Vec<String> {
    let status = &now.status;
    let (word, colour) = word(status);
    let path = format!("{}, {}", status.path.kind.name(), plural(u64::from(status.path.interfaces_armed), "interface"));
    let mode = format!("protect {}, monitor {}, unprotected {}", status.mode.protect, status.mode.monitor, status.mode.unprotected);
    let rest = format!("  {path}  {mode}  up {}", seconds(status.uptime_secs));
    let title = format!("bulkhead {word}");
    let mut lines =
        vec![format!("{}{}", style.paint(&cut(&title, columns), colour), cut(&rest, columns.saturating_sub(title.chars().count())))];
    let all = traffic(&now.coverage).into_values().fold(Traffic::default(), |sum, pair| Traffic {
        carried: sum.carried.saturating_add(pair.carried),
        inspected: sum.inspected.saturating_add(pair.inspected),
        bypassed: sum.bypassed.saturating_add(pair.bypassed),
        dropped: sum.dropped.saturating_add(pair.dropped),
        gap: sum.gap.saturating_add(pair.gap),
    });
    let covered = format!(
        "coverage {}  carried {}, inspected {}, bypassed {}, dropped {}, gap {}",
        percent(now.coverage.total_percent),
        bytes(all.carried),
        bytes(all.inspected),
        bytes(all.bypassed),
        bytes(all.dropped),
        bytes(all.gap)
    );
    lines.push(style.paint(&cut(&covered, columns), if now.coverage.complete { Colour::Good } else { Colour::Bad }));
    for reason in status.degraded.iter().take(3) {
        let line = crate::output::printable(&format!("degraded: {reason}"));
        lines.push(style.paint(&cut(&line, columns), Colour::Warn));
    }
    lines
}

fn workload_table(now: &Snapshot, rows: usize) -> (Table, Option<String>) {
    let mut table = Table::new(["WORKLOAD", "MODE", "PROTECTED", "ADDRESSES", "IMAGE"]);
    for view in now.workloads.iter().take(rows) {
        let image = view.workload.image.as_deref().unwrap_or("-");
        table.row([
            Cell::new(&view.workload.name).colour(Colour::Head),
            mode_cell(view),
            protected_cell(view),
            addresses(view).into(),
            image.into(),
        ]);
    }
    (table, more(now.workloads.len(), rows, "workload"))
}

fn pair_table(now: &Snapshot, before: Option<&Snapshot>, rows: usize) -> (Table, Option<String>) {
    let mut table = Table::new(["FROM", "TO", "PATH", "RATE", "CARRIED", "INSPECTED", "BYPASSED", "DROPPED", "GAP"]);
    let earlier = before.map(|before| (traffic(&before.coverage), now.taken.duration_since(before.taken).as_secs_f64()));
    let rate = |pair: &Pair<'_>, traffic: &Traffic| {
        let (earlier, secs) = earlier.as_ref()?;
        let grown = traffic.carried.saturating_sub(earlier.get(pair).map_or(0, |traffic| traffic.carried));
        Some((grown as f64 / secs.max(0.001)) as u64)
    };
    let mut pairs: Vec<_> = traffic(&now.coverage).into_iter().map(|(pair, traffic)| (rate(&pair, &traffic), pair, traffic)).collect();
    pairs.sort_by(|(a_rate, a, a_traffic), (b_rate, b, b_traffic)| (b_rate, b_traffic.carried, a).cmp(&(a_rate, a_traffic.carried, b)));
    let total = pairs.len();
    for (rate, (src, dst, kind), traffic) in pairs.into_iter().take(rows) {
        let rate = rate.map_or("-".to_owned(), |rate| format!("{}/s", bytes(rate)));
        let bad = |count: u64, colour| Cell::number(bytes(count)).colour(if count == 0 { Colour::Faint } else { colour });
        table.row([
            src.into(),
            Cell::new(format!("-> {dst}")).colour(if traffic.dropped > 0 { Colour::Bad } else { Colour::Plain }),
            kind.name().into(),
            Cell::number(rate),
            Cell::number(bytes(traffic.carried)),
            Cell::number(bytes(traffic.inspected)),
            Cell::number(bytes(traffic.bypassed)),
            bad(traffic.dropped, Colour::Bad),
            bad(traffic.gap, Colour::Bad),
        ]);
    }
    (table, more(total, rows, "pair"))
}

fn event_table(now: &Snapshot, rows: usize) -> (Table, Option<String>) {
    let mut table = Table::new(["TIME", "EVENT", "TYPE", "WHO", "WHAT"]);
    for event in now.events.iter().rev().take(rows) {
        let (what, colour) = happening(&event.body);
        table.row([
            time_of_day(event.timestamp).into(),
            Cell::number(event.event_id.to_string()),
            event.body.type_name().into(),
            parties(event).into(),
            Cell::new(what).colour(colour),
        ]);
    }
    (table, None)
}

fn more(total: usize, shown: usize, what: &str) -> Option<String> {
    let hidden = total.saturating_sub(shown);
    (hidden > 0).then(|| format!("and {} more", plural(hidden as u64, what)))
}

/// A line on how it stands, when anything moved, and a line for each new event.
fn tell(now: &Snapshot, before: Option<&Snapshot>) -> Vec<String> {
    let since = before.map_or(0, Snapshot::newest);
    let news = now.events.iter().filter(|event| event.event_id > since);
    let mut lines: Vec<String> = news
        .map(|event| {
            let parties = parties(event);
            let parties = if parties.is_empty() { parties } else { parties + "  " };
            let what = happening(&event.body).0;
            format!("{}  {}  {}  {parties}{what}", time_of_day(event.timestamp), event.event_id, event.body.type_name())
        })
        .collect();
    let line = summary(now);
    if !lines.is_empty() || before.map(summary).as_ref() != Some(&line) {
        lines.push(line);
    }
    lines
}

fn summary(now: &Snapshot) -> String {
    let carried = now.coverage.pairs.iter().map(|pair| pair.carried_bytes).fold(0, u64::saturating_add);
    format!(
        "bulkhead {}: {}, {} armed, {} carried, coverage {}",
        word(&now.status).0,
        plural(now.workloads.len() as u64, "workload"),
        plural(u64::from(now.status.path.interfaces_armed), "interface"),
        bytes(carried),
        percent(now.coverage.total_percent)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::{Lab, alert, operation};

    fn visible(line: &str) -> usize {
        let mut chars = line.chars();
        let mut count = 0;
        while let Some(c) = chars.next() {
            match c {
                '\x1b' => _ = chars.by_ref().find(|c| *c == 'm'),
                _ => count += 1,
            }
        }
        count
    }

    #[test]
    fn no_screen_is_too_small_and_none_is_overrun() {
        let lab = Lab::start();
        (0..200).for_each(|sid| lab.agent.send(alert(sid)));
        lab.agent.send_now(operation("x", "\x1b[2J\x1b]0;title\x07"));
        let client = lab.client();
        let before = Snapshot::take(&client, None).unwrap();
        let now = Snapshot::take(&client, Some(&before)).unwrap();
        for (columns, rows) in [(1, 1), (20, 5), (40, 12), (80, 24), (100, 30), (250, 80), (80, 8), (60, 200)] {
            let lines = draw(&now, Some(&before), (columns, rows), Style::PLAIN);
            assert!(lines.len() <= rows, "{columns}x{rows}: {}", lines.len());
            // Below some 50 columns the tables are as narrow as they can be.
            assert!(lines.iter().all(|line| visible(line) <= columns.max(60)), "{columns}x{rows}: {lines:#?}");
            assert!(lines.iter().all(|line| !line.contains(['\x1b', '\x07'])), "{columns}x{rows}");
        }
    }

    #[test]
    fn an_ordinary_screen_has_workloads_traffic_and_events() {
        let lab = Lab::start();
        (0..50).for_each(|sid| lab.agent.send(alert(sid)));
        lab.agent.store.flush().unwrap();
        let now = Snapshot::take(&lab.client(), None).unwrap();
        let screen = draw(&now, None, (100, 30), Style::PLAIN).join("\n");
        for word in [
            "bulkhead protecting",
            "coverage 100 %",
            "attacker",
            "-> web",
            "same-bridge",
            "-> world",
            "LAB command injection",
            "host's network",
        ] {
            assert!(screen.contains(word), "{word}:\n{screen}");
        }
        assert_eq!(screen.lines().count(), 30, "what is left is filled with events:\n{screen}");
    }

    #[test]
    fn a_look_adds_what_is_new_and_forgets_what_is_old() {
        let lab = Lab::start();
        (0..EVENTS_MAX as u32).for_each(|sid| lab.agent.send(alert(sid)));
        lab.agent.store.flush().unwrap();
        let client = lab.client();
        let before = Snapshot::take(&client, None).unwrap();
        lab.agent.send_now(alert(7));
        let now = Snapshot::take(&client, Some(&before)).unwrap();
        assert_eq!((now.events.len(), now.newest()), (EVENTS_MAX, EVENTS_MAX as u64 + 1));
        let news = tell(&now, Some(&before));
        assert!(news.len() == 2 && news[0].contains("(sid 7)"), "{news:?}");
        let same = Snapshot::take(&client, Some(&now)).unwrap();
        assert!(tell(&same, Some(&now)).is_empty(), "nothing new, nothing told");
    }
}
