//! Problems in configuration and rules, as the agent sends them, for a person: `file:line:column: error[code]: message`.

use bulkhead_api::{Problem, Severity};

use crate::output::printable;

pub fn text(problem: &Problem) -> String {
    let mut place: Vec<String> = problem.file.iter().map(|file| printable(file)).collect();
    place.extend([problem.line, problem.column].into_iter().map_while(|number| number).map(|number| number.to_string()));
    let place = if place.is_empty() { String::new() } else { place.join(":") + ": " };
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let sid = problem.sid.map_or(String::new(), |sid| format!(" (sid {sid})"));
    let help = problem.help.as_ref().map_or(String::new(), |help| format!("\n  help: {}", printable(help)));
    format!("{place}{severity}[{}]: {}{sid}{help}", printable(&problem.code), printable(&problem.message))
}
