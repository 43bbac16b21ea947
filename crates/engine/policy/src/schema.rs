//! What is made from the declarations of the settings: the JSON Schema and the reference page.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::config::Config;
use crate::setting::Setting;

/// JSON Schema (draft 2020-12) of one configuration file: what `packaging/bulkhead.schema.json` holds.
pub fn json_schema() -> Value {
    let mut schema = Config::schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Bulkhead configuration");
    // A file may say nothing, and a section's name may stand alone.
    schema["type"] = json!(["object", "null"]);
    published(schema)
}

/// The text of the schema, as committed.
pub fn json_schema_text() -> String {
    format!("{:#}\n", json_schema())
}

/// The tables of `docs/configuration.md`.
pub fn reference() -> String {
    let mut page = String::new();
    section(&mut page, "", &Config::schema());
    page
}

/// Dotted paths of all settings with this key: for a key that stands in the wrong place.
pub(crate) fn paths_ending_with(key: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk("", &Config::schema(), &mut |path, last| {
        if last == key {
            found.push(path.to_owned());
        }
    });
    found.truncate(3);
    found
}

/// Without what only the reference page needs, and with what the reader lets pass: a section's name alone, one value in
/// place of a list. Keys in lexical order, whatever keeps the map.
fn published(schema: Value) -> Value {
    match schema {
        Value::Object(mut map) => {
            let is = |map: &serde_json::Map<String, Value>, kind: &str| map.get("type").is_some_and(|t| t == kind);
            if is(&map, "object") && !map.contains_key("required") {
                map.insert("type".to_owned(), json!(["object", "null"]));
            }
            if is(&map, "array") && map.get("items").is_some_and(|items| items["properties"].is_object()) {
                map.insert("type".to_owned(), json!(["array", "null"]));
            } else if is(&map, "array") {
                let items = map.get("items").cloned().unwrap_or_default();
                let mut list = serde_json::Map::from_iter([("type".to_owned(), json!(["array", "null"]))]);
                list.extend(["items", "maxItems"].iter().filter_map(|key| map.remove_entry(*key)));
                map.remove("type");
                map.insert("anyOf".to_owned(), json!([list, items]));
            }
            let mut entries: Vec<(String, Value)> = map.into_iter().filter(|(key, _)| key != "x-order").collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(entries.into_iter().map(|(key, value)| (key, published(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(published).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => schema,
    }
}

/// Calls with the path and the key of each setting.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &str)) {
    for (key, property) in properties(schema) {
        let below = join(path, key);
        visit(&below, key);
        match property.get("items") {
            Some(items) => walk(&format!("{below}[]"), items, visit),
            None => walk(&below, property, visit),
        }
    }
}

/// In the order in which they are declared.
fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let order = schema.get("x-order").and_then(Value::as_array).into_iter().flatten();
    order.filter_map(|key| key.as_str()).filter_map(|key| Some((key, schema.get("properties")?.get(key)?)))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn section(page: &mut String, path: &str, schema: &Value) {
    let title = if path.is_empty() { "At the top".to_owned() } else { format!("`{path}`") };
    let _ = writeln!(page, "## {title}\n\n{}\n", schema["description"].as_str().unwrap_or_default());
    let mut below = Vec::new();
    for (key, property) in properties(schema) {
        let items = property.get("items").filter(|items| items.get("properties").is_some());
        let inner = items.or_else(|| property.get("properties").map(|_| property));
        let selector = selector_of(property).or_else(|| property.get("items").and_then(selector_of));
        let below_path = if items.is_some() { format!("{}[]", join(path, key)) } else { join(path, key) };
        setting(page, key, property, schema, inner.map(|_| below_path.as_str()), selector.is_some());
        if let Some(inner) = inner {
            below.push((below_path, inner));
        }
    }
    page.push('\n');
    for (path, inner) in below {
        section(page, &path, inner);
    }
}

fn setting(page: &mut String, key: &str, property: &Value, parent: &Value, below: Option<&str>, is_selector: bool) {
    let required = parent["required"].as_array().is_some_and(|keys| keys.iter().any(|k| k == key));
    let description = property["description"].as_str().unwrap_or_default().replace("\n\n", "\n\n  ").replace('\n', " ");
    let _ = write!(page, "- **`{key}`**");
    if let Some(below) = below {
        let what = if property.get("items").is_some() { "list" } else { "map" };
        let _ = writeln!(page, " ({what}; see [`{below}`](#{})): {description}", anchor(below));
        return;
    }
    let _ = write!(page, " ({}", kind(property));
    match property.get("default") {
        _ if required => page.push_str(", must be given"),
        Some(Value::Array(items)) if items.is_empty() => page.push_str(", default none"),
        Some(Value::Object(_)) | None => {}
        Some(default) => {
            let _ = write!(page, ", default `{}`", shown(default));
        }
    }
    let numeric = property.get("default").is_some_and(Value::is_number);
    if let Some([low, high]) = property["x-range"].as_array().map(Vec::as_slice) {
        let _ = write!(page, ", from {} to {}", shown(low), shown(high));
    } else if let (true, Some(low), Some(high)) = (numeric, property.get("minimum"), property.get("maximum")) {
        let _ = write!(page, ", from {low} to {high}");
    }
    let _ = writeln!(page, "): {description}");
    let with_words = [Some(property), property.get("items")].into_iter().flatten().find(|schema| schema.get("x-words").is_some());
    for word in with_words.and_then(|schema| schema["enum"].as_array()).into_iter().flatten().filter_map(Value::as_str) {
        let meaning = with_words.and_then(|schema| schema["x-words"][word].as_str()).unwrap_or_default();
        let _ = writeln!(page, "  - `{word}`: {meaning}");
    }
    if let Some(Value::Object(defaults)) = property.get("default") {
        let sorted: std::collections::BTreeMap<&String, &Value> = defaults.iter().collect();
        for (name, value) in sorted {
            let _ = writeln!(page, "  - default `{name}`: `{}`", shown(value));
        }
    }
    if is_selector {
        page.push_str("  See [selectors](policy.md#selectors).\n");
    }
}

fn selector_of(property: &Value) -> Option<&str> {
    property["x-type"].as_str().filter(|kind| matches!(*kind, "selector" | "peer"))
}

fn kind(property: &Value) -> String {
    if let Some(items) = property.get("items") {
        return format!("list of {}", plural(&kind(items)));
    }
    match property["x-type"].as_str() {
        Some("peer") => return "`any`, `world`, `host` or a selector".to_owned(),
        Some(named) => return named.to_owned(),
        None => {}
    }
    if property.get("x-words").is_some() {
        return "word".to_owned();
    }
    match property["type"].as_str() {
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("integer") => "number".to_owned(),
        Some("object") => "map".to_owned(),
        Some("string") => "text".to_owned(),
        _ => "word or number".to_owned(),
    }
}

fn plural(kind: &str) -> String {
    if kind == "port or range" { "ports and ranges".to_owned() } else { format!("{kind}s") }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// As forges make anchors of headings: letters, digits and hyphens stay, spaces become hyphens.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}
