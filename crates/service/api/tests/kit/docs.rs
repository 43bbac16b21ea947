//! Samples in documents that a test produces: a line `<!-- sample NAME -->`, and behind it a fenced block.

use std::path::Path;

/// Compares every sample with its block in `docs/NAME`, or writes it there when `GOLDEN=write` is set.
#[track_caller]
pub fn compare(document: &str, samples: &[(&str, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).unwrap().join("docs").join(document);
    let mut text = std::fs::read_to_string(&path).unwrap();
    let write = std::env::var_os("GOLDEN").is_some_and(|value| value == "write");
    for (name, sample) in samples {
        let mark = format!("<!-- sample {name} -->\n");
        let at = text.find(&mark).unwrap_or_else(|| panic!("docs/{document} has no `{}`", mark.trim())) + mark.len();
        let start = at + text[at..].find('\n').expect("a fence") + 1;
        let end = start + text[start..].find("```").expect("the end of the fence");
        let sample = format!("{}\n", sample.trim_end());
        if write {
            text.replace_range(start..end, &sample);
        } else {
            assert!(
                text[start..end] == sample,
                "docs/{document}: `{name}` is out of date; `GOLDEN=write` writes it anew. Found:\n{sample}"
            );
        }
    }
    let marks = text.matches("<!-- sample ").count();
    assert_eq!(marks, samples.len(), "docs/{document} has samples that no test makes");
    if write {
        std::fs::write(&path, text).unwrap();
    }
}
