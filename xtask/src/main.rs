//! `cargo run -p bulkhead-xtask -- check`: the house checks. `... -- edges`: the table of edges as the crates stand.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use bulkhead_xtask::metadata::Metadata;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let outcome = match std::env::args().nth(1).as_deref() {
        Some("check") => bulkhead_xtask::check(root).map(|problems| {
            for problem in &problems {
                println!("{problem}");
            }
            println!("{} problems", problems.len());
            problems.is_empty()
        }),
        Some("edges") => Metadata::read(root).map(|metadata| {
            print!("{}", bulkhead_xtask::edges::render(&metadata));
            true
        }),
        _ => {
            eprintln!("usage: bulkhead-xtask check | edges");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(4)
        }
    }
}
