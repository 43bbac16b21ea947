//! suricata-verify, all of it, in this process: each case's settings, rules and captures through [`bulkhead_eve::replay`], and its checks
//! on the lines that come out.
//!
//! `docs/conformance.md` lists the cases that do not pass, each with its reason. A listed case that passes fails the test, and so does
//! another one that does not, so that the list stays true. `./test conformance --bless` writes it anew and keeps the reasons;
//! `./test conformance CASE…` runs some cases and shows each check that fails with the events nearest to it.

mod case;
mod check;
mod list;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use case::{Result, Row};

/// A case that takes longer is a defect of the engine: the suite's largest capture has some megabytes.
const SECONDS_MAX: u64 = 120;

fn data() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/data/suricata-verify");
    root.join("cases.tsv").exists().then_some(root)
}

#[test]
fn suricata_verify_passes_but_for_the_cases_that_are_listed() {
    let Some(root) = data() else {
        println!("NOT RUN: suricata_verify_passes_but_for_the_cases_that_are_listed (../shared/data/suricata-verify is absent)");
        return;
    };
    let only = std::env::var("CASES").unwrap_or_default();
    let only: Vec<&str> = only.split_whitespace().collect();
    let rows = Row::all(&root);
    if !only.is_empty() {
        return some(&root, &rows, &only);
    }
    let results = all(&root, &rows);
    summary(&rows, &results);
    let failing: BTreeMap<String, list::Failing> = rows
        .iter()
        .zip(&results)
        .filter_map(|(row, (result, ..))| {
            let why = match result {
                Result::Pass | Result::Skipped => return None,
                Result::NotBuilt(what) => format!("not built: {what}"),
                Result::Fail(why) => why.clone(),
            };
            Some((row.name.clone(), list::Failing { class: row.class.clone(), why }))
        })
        .collect();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/conformance.md");
    if std::env::var_os("BLESS").is_some() {
        list::write(&page, &failing, &counts(&rows, &results));
        return;
    }
    let listed = list::read(&page);
    let unlisted: Vec<String> =
        failing.iter().filter(|(name, _)| !listed.contains_key(*name)).map(|(name, failing)| format!("{name}: {}", failing.why)).collect();
    let passing: Vec<&String> = listed.keys().filter(|name| !failing.contains_key(*name)).collect();
    assert!(unlisted.is_empty(), "these fail and are not in docs/conformance.md:\n{}", unlisted.join("\n"));
    assert!(passing.is_empty(), "these pass now; `./test conformance --bless` takes them off docs/conformance.md: {passing:?}");
}

type Finished = (Result, usize, usize);

/// All cases, on two cores.
fn all(root: &Path, rows: &[Row]) -> Vec<Finished> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Finished>>> = rows.iter().map(|_| Mutex::new(None)).collect();
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |cores| cores.get().min(8)) {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let at = rows.iter().position(|other| std::ptr::eq(other, row)).expect("a row of the table");
                    let begun = Instant::now();
                    let ran = std::panic::catch_unwind(|| case::run(root, row, false));
                    let finished = match ran {
                        Ok(_) if begun.elapsed().as_secs() > SECONDS_MAX => {
                            (Result::Fail(format!("took {} s", begun.elapsed().as_secs())), 0, 0)
                        }
                        Ok(ran) => (ran.result, ran.checked, ran.left_out),
                        Err(_) => (Result::Fail("panicked".to_owned()), 0, 0),
                    };
                    *results[at].lock().expect("nobody panics with it") = Some(finished);
                }
            });
        }
    });
    _ = std::panic::take_hook();
    results.into_iter().map(|result| result.into_inner().expect("nobody panics with it").expect("every row was run")).collect()
}

fn some(root: &Path, rows: &[Row], only: &[&str]) {
    let mut failed = Vec::new();
    for row in rows.iter().filter(|row| only.iter().any(|name| row.name == *name || row.name.starts_with(&format!("{name}/")))) {
        let ran = case::run(root, row, std::env::var_os("LINES").is_some());
        println!("== {} ({}): {:?}, {} checks, {} left out\n{}", row.name, row.class, ran.result, ran.checked, ran.left_out, ran.report);
        if matches!(ran.result, Result::Fail(_)) {
            failed.push(&row.name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// By class: passed, failed, not built, not of this version.
fn counts(rows: &[Row], results: &[Finished]) -> BTreeMap<String, [usize; 4]> {
    let mut counts: BTreeMap<String, [usize; 4]> = BTreeMap::new();
    for (row, (result, ..)) in rows.iter().zip(results) {
        let at = match result {
            Result::Pass => 0,
            Result::Fail(_) => 1,
            Result::NotBuilt(_) => 2,
            Result::Skipped => 3,
        };
        counts.entry(row.class.clone()).or_default()[at] += 1;
        counts.entry("all".to_owned()).or_default()[at] += 1;
    }
    counts
}

fn summary(rows: &[Row], results: &[Finished]) {
    let mut groups: BTreeMap<String, usize> = BTreeMap::new();
    for (row, (result, ..)) in rows.iter().zip(results) {
        if let Result::Fail(why) = result {
            println!("fails: {} ({}): {why}", row.name, row.class);
            *groups.entry(why.split([':', '{']).next().unwrap_or_default().chars().take(60).collect()).or_default() += 1;
        }
    }
    for (group, count) in groups {
        println!("{count:5} {group}");
    }
    for (class, [passed, failed, not_built, skipped]) in counts(rows, results) {
        println!("{class}: {passed} pass, {failed} fail, {not_built} not built, {skipped} of other versions");
    }
    let (checked, left_out) = results.iter().fold((0, 0), |(a, b), (_, checked, left_out)| (a + checked, b + left_out));
    println!("{checked} checks, {left_out} left out (`shell`, other versions)");
}
