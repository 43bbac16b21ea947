//! The whole check on this repository.

use std::path::Path;

#[test]
fn the_house_is_in_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies below the root");
    let problems = bulkhead_xtask::check(root).expect("the tree can be read");
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), text.join("\n"));
}
