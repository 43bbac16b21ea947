//! YAML of others (a kubelet's configuration, a static pod, a list of waivers) as a plain tree, under the caps of our own.

use serde_json::{Map, Number, Value};

use crate::Source;
use crate::diagnostic::Report;
use crate::yaml::{Budget, Kind, Node, read};

/// The one document of a text. Words that are not quoted become numbers, truth values or nothing as YAML 1.2 has it.
/// The error is a phrase for a person: the first mistake and its line.
pub fn plain_tree(text: &str) -> Result<Value, String> {
    // A document may begin with its mark; what stands before it is comment.
    let sources = [Source::from_bytes("", text.as_bytes()).map_err(|found| first(&found))?];
    let mut report = Report::new(&sources);
    let tree = read(0, text, &mut Budget::new(), &mut report);
    let found = report.into_diagnostics();
    match tree {
        Some(node) => Ok(plain(node)),
        None => Err(first(&found)),
    }
}

fn first(found: &[crate::Diagnostic]) -> String {
    found.first().map_or_else(|| "it cannot be read".to_owned(), |mistake| mistake.message.clone())
}

/// As deep as [`crate::DEPTH_MAX`] allows.
fn plain(node: Node) -> Value {
    match node.kind {
        Kind::Null => Value::Null,
        Kind::Scalar { text, quoted: true } => Value::String(text),
        Kind::Scalar { text, quoted: false } => scalar(text),
        Kind::List(items) => Value::Array(items.into_iter().map(plain).collect()),
        Kind::Map(items) => Value::Object(items.into_iter().map(|(key, node)| (key.text, plain(node))).collect::<Map<_, _>>()),
    }
}

fn scalar(text: String) -> Value {
    match text.as_str() {
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        "null" | "Null" | "NULL" | "~" => Value::Null,
        _ => match text.parse::<i64>() {
            Ok(number) => Value::Number(Number::from(number)),
            Err(_) => Value::String(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_the_types_that_the_text_means() {
        let tree = plain_tree("a: 1\nb: 'true'\nc: {d: true, e: [x, ~]}\n").unwrap();
        assert_eq!(tree, serde_json::json!({"a": 1, "b": "true", "c": {"d": true, "e": ["x", null]}}));
        assert_eq!(plain_tree("{\"json\": 0}").unwrap(), serde_json::json!({"json": 0}));
    }

    #[test]
    fn what_is_no_yaml_says_why() {
        assert!(plain_tree("a: [1").is_err());
        assert!(plain_tree(&"[".repeat(1000)).is_err());
    }
}
