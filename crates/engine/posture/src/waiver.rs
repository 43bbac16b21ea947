//! Findings that somebody answers for: who, why and until when, in a file under version control.
//!
//! ```yaml
//! waivers:
//!   - control: docker.icc
//!     owner: platform team
//!     reason: the old shop needs the default bridge until it moves
//!     expires: 2027-03-31
//!   - control: container.root-user
//!     match: "db ("          # only evidence that holds this text
//!     owner: …
//! ```

use serde::Serialize;
use serde_json::Value;

use crate::audit::Finding;
use crate::control::Status;

/// Waivers in one file.
pub const WAIVERS_MAX: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiver {
    pub control: String,
    pub owner: String,
    pub reason: String,
    /// Last day on which it holds, in days since 1970, and as it was written.
    pub expires: u64,
    pub expires_text: String,
    pub matching: Option<String>,
}

/// What stands in a finding that is waived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waived {
    pub owner: String,
    pub reason: String,
    pub expires: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waivers(Vec<Waiver>);

impl Waivers {
    /// Reads a file. The error names the first entry that is wrong: a waiver without owner, reason or end is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let tree = bulkhead_policy::plain_tree(text)?;
        let list = match &tree {
            Value::Null => return Ok(Self::default()),
            Value::Object(map) if map.keys().all(|key| key == "waivers") => match map.get("waivers") {
                Some(Value::Array(list)) => list.as_slice(),
                Some(Value::Null) | None => &[],
                Some(_) => return Err("`waivers` is no list".to_owned()),
            },
            _ => return Err("it has to hold `waivers:` with a list, and nothing else".to_owned()),
        };
        if list.len() > WAIVERS_MAX {
            return Err(format!("it has {} waivers; at most {WAIVERS_MAX} are read", list.len()));
        }
        list.iter()
            .enumerate()
            .map(|(at, entry)| waiver(entry).map_err(|why| format!("waiver {}: {why}", at + 1)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub fn controls(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|waiver| waiver.control.as_str())
    }

    /// Takes the evidence that is waived out of the list; the waiver, where nothing is left.
    pub(crate) fn waive(&self, control: &str, evidence: &mut Vec<String>, today: u64) -> Option<Waived> {
        let valid: Vec<&Waiver> = self.0.iter().filter(|waiver| waiver.control == control && today <= waiver.expires).collect();
        let whole = valid.iter().find(|waiver| waiver.matching.is_none());
        let covers = |line: &str| valid.iter().find(|waiver| waiver.matching.as_deref().is_some_and(|text| line.contains(text)));
        let all = evidence.iter().map(|line| covers(line)).collect::<Vec<_>>();
        let by = match whole {
            Some(waiver) => waiver,
            None if !all.is_empty() && all.iter().all(Option::is_some) => all.first().copied().flatten()?,
            None => {
                let keep: Vec<bool> = all.iter().map(Option::is_none).collect();
                let mut keep = keep.into_iter();
                evidence.retain(|_| keep.next().unwrap_or(true));
                return None;
            }
        };
        Some(Waived { owner: by.owner.clone(), reason: by.reason.clone(), expires: by.expires_text.clone() })
    }

    /// Those that waive nothing, with the reason.
    pub(crate) fn idle(&self, findings: &[Finding], today: u64) -> Vec<String> {
        let mut idle = Vec::new();
        for waiver in &self.0 {
            match findings.iter().find(|finding| finding.id == waiver.control) {
                None => idle.push(format!("{}: there is no such control in this profile", waiver.control)),
                Some(_) if today > waiver.expires => {
                    idle.push(format!("{}: it expired on {} (owner: {})", waiver.control, waiver.expires_text, waiver.owner))
                }
                Some(finding) if finding.status != Status::Failed => {
                    idle.push(format!("{}: the control is {}", waiver.control, finding.status.name()))
                }
                Some(_) => {}
            }
        }
        idle
    }
}

fn waiver(entry: &Value) -> Result<Waiver, String> {
    let map = entry.as_object().ok_or("it is no map")?;
    if let Some(key) = map.keys().find(|key| !["control", "owner", "reason", "expires", "match"].contains(&key.as_str())) {
        return Err(format!("`{key}` is no field of a waiver"));
    }
    let field = |name: &str| match map.get(name) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        _ => Err(format!("`{name}` is missing")),
    };
    let expires_text = field("expires")?;
    let expires = days(&expires_text).ok_or_else(|| format!("`expires: {expires_text}` is no date; write 2027-03-31"))?;
    let matching = if map.contains_key("match") { Some(field("match")?) } else { None };
    Ok(Waiver { control: field("control")?, owner: field("owner")?, reason: field("reason")?, expires, expires_text, matching })
}

/// Days since 1970 of `2027-03-31`; proleptic Gregorian, as Howard Hinnant's `days_from_civil` reckons.
pub fn days(text: &str) -> Option<u64> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    let (year, month, day): (i64, i64, i64) = (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    u64::try_from(days).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "waivers:\n  - control: docker.icc\n    owner: platform\n    reason: legacy\n    expires: 2027-03-31\n";

    #[test]
    fn a_waiver_holds_to_the_end_of_its_last_day() {
        let waivers = Waivers::parse(ONE).unwrap();
        let end = days("2027-03-31").unwrap();
        assert_eq!(end, 20_908);
        assert!(waivers.waive("docker.icc", &mut vec!["x".into()], end).is_some());
        assert!(waivers.waive("docker.icc", &mut vec!["x".into()], end + 1).is_none());
        assert!(waivers.waive("docker.tls", &mut vec!["x".into()], end).is_none());
    }

    #[test]
    fn a_waiver_of_one_piece_leaves_the_others_open() {
        let text = format!("{ONE}    match: 'db ('\n");
        let waivers = Waivers::parse(&text).unwrap();
        let mut evidence = vec!["db (1): root".to_owned(), "web (2): root".to_owned()];
        assert!(waivers.waive("docker.icc", &mut evidence, 1).is_none());
        assert_eq!(evidence, ["web (2): root"]);
        assert!(waivers.waive("docker.icc", &mut vec!["db (1): root".to_owned()], 1).is_some());
    }

    #[test]
    fn a_waiver_without_owner_reason_or_end_is_refused() {
        for missing in ["owner", "reason", "expires", "control"] {
            let text: String = ONE
                .lines()
                .filter(|line| !line.trim_start().trim_start_matches("- ").starts_with(missing))
                .map(|line| format!("{line}\n"))
                .collect();
            let text = if missing == "control" { text.replace("    owner", "  - owner") } else { text };
            let error = Waivers::parse(&text).expect_err(missing);
            assert!(error.contains(missing), "{error}");
        }
        for date in ["2027-02-29", "2027-13-01", "soon", "2027-1-1", "20270101"] {
            assert!(Waivers::parse(&ONE.replace("2027-03-31", date)).is_err(), "{date}");
        }
    }
}
