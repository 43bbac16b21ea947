//! The report for a person: controls first, then what they rest on.

use std::fmt::Write;

use crate::Report;
use crate::grade::Grade;

/// Columns below which wrapping would only hurt.
const WIDTH_MIN: usize = 60;

pub fn report(r: &Report, width: usize) -> String {
    let width = width.max(WIDTH_MIN);
    let mut out = String::new();
    let gib = r.host.memory_bytes as f64 / f64::from(1 << 30);
    line(&mut out, &format!("{}, Linux {}, {} CPUs, {gib:.1} GiB, cgroup {}", r.distribution, r.kernel, r.host.cpus, r.host.cgroup));
    if !r.host.root {
        line(&mut out, "Not run as root: most hooks refuse; run it with sudo for the truth.");
    }
    line(&mut out, "");
    for control in &r.controls {
        line(&mut out, &format!("{:<2}{:<17}{}", control.grade, control.name, control.grade.meaning()));
        wrapped(&mut out, "    ", control.how, width);
        if !control.raise.is_empty() {
            wrapped(&mut out, "    to raise: ", control.raise, width);
        }
    }
    line(&mut out, "");
    let works: Vec<_> = r.probes.iter().filter(|p| p.ok).map(|p| p.id).collect();
    wrapped(&mut out, "works:    ", &works.join(", "), width);
    for probe in r.probes.iter().filter(|p| !p.ok) {
        wrapped(&mut out, "refused:  ", &format!("{} ({}): {}", probe.id, probe.what, probe.detail), width);
    }
    for engine in &r.engines {
        let version = engine.version.as_deref().unwrap_or(if engine.reachable { "version unknown" } else { "does not answer" });
        wrapped(&mut out, "engine:   ", &format!("{} {version} at {}", engine.kind, engine.endpoint), width);
    }
    if r.engines.is_empty() {
        line(&mut out, "engine:   none found; other network namespaces are still protected");
    }
    for conflict in &r.conflicts {
        wrapped(&mut out, "beside:   ", &format!("{} ({}): {}", conflict.name, conflict.evidence, conflict.effect), width);
    }
    line(&mut out, "");
    line(&mut out, verdict(r));
    out
}

fn verdict(r: &Report) -> &'static str {
    match r.controls.iter().find(|c| c.id == crate::grade::PATH).map(|c| c.grade) {
        Some(Grade::A) => "This host can be protected: every packet of a container can be judged before it is delivered.",
        Some(Grade::B) => "This host can be protected with the gaps named above.",
        Some(Grade::C) => "This host can be watched, not protected.",
        Some(Grade::None) | None => "This host cannot be protected as it is.",
    }
}

fn line(out: &mut String, text: &str) {
    let _ = writeln!(out, "{text}"); // writing to a String cannot fail
}

/// Breaks at spaces; further lines are indented below the text of the first.
fn wrapped(out: &mut String, lead: &str, text: &str, width: usize) {
    let indent = " ".repeat(lead.chars().count());
    let mut current = lead.to_owned();
    let mut columns = lead.chars().count();
    let mut empty = true;
    for word in text.split_whitespace() {
        let word: String = word.chars().filter(|c| !c.is_control()).collect();
        let len = word.chars().count();
        if !empty && columns + 1 + len > width {
            line(out, &current);
            current.clone_from(&indent);
            columns = indent.len();
            empty = true;
        }
        if !empty {
            current.push(' ');
            columns += 1;
        }
        current.push_str(&word);
        columns += len;
        empty = false;
    }
    line(out, &current);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_below_their_text() {
        let mut out = String::new();
        wrapped(&mut out, "to raise: ", "one two three four five", 20);
        assert_eq!(out, "to raise: one two\n          three four\n          five\n");
    }

    #[test]
    fn control_characters_of_a_detail_do_not_reach_the_terminal() {
        let mut out = String::new();
        wrapped(&mut out, "x ", "\u{1b}[31mred", 80);
        assert_eq!(out, "x [31mred\n");
    }
}
