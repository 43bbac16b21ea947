//! The samples of docs/cli.md are the golden files that the other tests compare with.

#[path = "../../../service/api/tests/kit/docs.rs"]
mod docs;

use std::path::Path;

#[test]
fn the_samples_are_what_the_program_prints() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let names = ["no-agent", "status", "watch", "workloads", "events", "why", "mode", "coverage", "policy-refused", "replay"];
    let samples: Vec<(&str, String)> =
        names.map(|name| (name, std::fs::read_to_string(golden.join(format!("{name}.txt"))).unwrap())).into();
    docs::compare("cli.md", &samples);
}
