//! One declaration a setting: its doc comment, name, type, default and range stand in one place, and the reader, the
//! JSON Schema and the reference page are all made from it.
//!
//! [`settings!`] declares a section in which everything has a default; [`record!`] an item of a list, in which a field
//! without a default must be given, and which remembers where it was written.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde_json::{Value, json};

use crate::diagnostic::{At, Report, quote};
use crate::yaml::{Key, Kind, Node};

/// Something that can stand in a configuration file.
pub(crate) trait Setting: Sized {
    /// `None`: it cannot be understood, and the reason is reported.
    fn read(node: &Node, to: &mut Report) -> Option<Self>;

    /// JSON Schema, draft 2020-12.
    fn schema() -> Value;

    /// As it would be written in a file; `null` for what is not said.
    fn show(&self) -> Value;
}

/// A key of a section, for the schema and the reference page.
pub(crate) struct Field {
    /// Kebab-case.
    pub key: String,
    /// The doc comment, one line an element.
    pub doc: &'static [&'static str],
    pub schema: fn() -> Value,
    /// `null`: must be given, or is off when not given.
    pub default: Value,
    pub required: bool,
    /// `[lowest, highest]`
    pub range: Option<(Value, Value)>,
}

/// `stream_depth` to `stream-depth`; a trailing underscore, there to avoid a word of Rust, falls.
pub(crate) fn key_of(field: &str) -> String {
    field.trim_start_matches("r#").trim_end_matches('_').replace('_', "-")
}

/// The schema of a map with fixed keys.
pub(crate) fn schema_of(doc: &[&str], fields: &[Field]) -> Value {
    let mut properties = serde_json::Map::new();
    for field in fields {
        let mut schema = (field.schema)();
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".to_owned(), Value::String(prose(field.doc)));
            if !field.default.is_null() {
                object.insert("default".to_owned(), field.default.clone());
            }
            if let Some((low, high)) = &field.range {
                if low.is_number() {
                    object.insert("minimum".to_owned(), low.clone());
                    object.insert("maximum".to_owned(), high.clone());
                } else {
                    object.insert("x-range".to_owned(), json!([low, high]));
                }
            }
        }
        properties.insert(field.key.clone(), schema);
    }
    let required: Vec<&String> = fields.iter().filter(|field| field.required).map(|field| &field.key).collect();
    // As declared: the order of a map is not to be relied on.
    let order: Vec<&String> = fields.iter().map(|field| &field.key).collect();
    let mut schema =
        json!({"type": "object", "additionalProperties": false, "properties": properties, "x-order": order, "description": prose(doc)});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// Lines of a doc comment to text: an empty line parts paragraphs.
pub(crate) fn prose(doc: &[&str]) -> String {
    doc.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// The entries of a map. Nothing at all is an empty map, so that a section's name may stand alone.
pub(crate) fn entries<'n>(node: &'n Node, what: &str, keys: &[Field], to: &mut Report) -> Option<&'n [(Key, Node)]> {
    match &node.kind {
        Kind::Map(entries) => Some(entries),
        Kind::Null => Some(&[]),
        Kind::Scalar { .. } | Kind::List(_) => {
            let known: Vec<&str> = keys.iter().map(|field| field.key.as_str()).collect();
            let help = format!("keys that may stand in it: {}", known.join(", "));
            let place = if what.is_empty() { "at the top".to_owned() } else { format!("for `{what}`") };
            to.error(node.at, "wrong-type", format!("expected a map {place}, found {}", node.what()), help);
            None
        }
    }
}

pub(crate) fn unknown_key(key: &Key, what: &str, fields: &[Field], to: &mut Report) {
    let known: Vec<&str> = fields.iter().map(|field| field.key.as_str()).collect();
    let place = if what.is_empty() { "at the top".to_owned() } else { format!("in `{what}`") };
    let help = if let Some(near) = nearest(&key.text, known.iter().copied()) {
        format!("did you mean `{near}`?")
    } else {
        let elsewhere: Vec<String> = crate::schema::paths_ending_with(&key.text);
        match elsewhere.as_slice() {
            [] => format!("known here: {}", known.join(", ")),
            paths => format!("it belongs at `{}`", paths.join("` or `")),
        }
    };
    to.error(key.at, "unknown-key", format!("unknown key {} {place}", quote(&key.text)), help);
}

pub(crate) fn missing_key(at: At, key: &str, what: &str, doc: &'static [&'static str], to: &mut Report) {
    let first = prose(doc).split("\n\n").next().unwrap_or_default().replace('\n', " ");
    to.error(at, "missing-key", format!("`{key}` is missing in `{what}`"), format!("`{key}`: {first}"));
}

pub(crate) fn check_range<T: Setting + PartialOrd>(
    value: &T,
    range: &std::ops::RangeInclusive<T>,
    key: &str,
    at: At,
    to: &mut Report,
) -> bool {
    if range.contains(value) {
        return true;
    }
    let text = |value: &T| value.show().as_str().map_or_else(|| value.show().to_string(), str::to_owned);
    let message = format!("{} is out of range for `{key}`", quote(&text(value)));
    to.error(at, "out-of-range", message, format!("from {} to {}", text(range.start()), text(range.end())));
    false
}

/// The known word nearest to a mistyped one, if any is near: a third of its letters may be wrong.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase().replace(['_', ' '], "-");
    known.map(|k| (distance(&word, k), k)).filter(|(d, k)| *d <= (k.chars().count() / 3).max(1)).min_by_key(|(d, _)| *d).map(|(_, k)| k)
}

/// Optimal string alignment distance: insertions, deletions, substitutions, neighbours swapped.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let substituted = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substituted.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// Declares a section: all fields have a default.
macro_rules! settings {
    (
        $(#[doc = $head:literal])*
        pub struct $name:ident as $what:literal {
            $( $(#[doc = $doc:literal])* $field:ident : $ty:ty = $default:expr $(=> $range:expr)? ; )*
        }
    ) => {
        $(#[doc = $head])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: $ty, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $name {
            pub(crate) fn fields() -> Vec<crate::setting::Field> {
                vec![$( crate::setting::Field {
                    key: crate::setting::key_of(stringify!($field)),
                    doc: &[$($doc),*],
                    schema: <$ty as crate::setting::Setting>::schema,
                    default: { let default: $ty = $default; crate::setting::Setting::show(&default) },
                    required: false,
                    range: crate::setting::range_of!($ty $(, $range)?),
                }, )*]
            }
        }

        impl crate::setting::Setting for $name {
            fn read(node: &crate::yaml::Node, to: &mut crate::diagnostic::Report) -> Option<Self> {
                let fields = Self::fields();
                let mut read = Self::default();
                let mut good = true;
                for (key, value) in crate::setting::entries(node, $what, &fields, to)? {
                    $( if key.text == crate::setting::key_of(stringify!($field)) {
                        match <$ty as crate::setting::Setting>::read(value, to) {
                            Some(v) => {
                                $( good &= crate::setting::check_range(&v, &($range), &key.text, value.at, to); )?
                                read.$field = v;
                            }
                            None => good = false,
                        }
                        continue;
                    } )*
                    crate::setting::unknown_key(key, $what, &fields, to);
                    good = false;
                }
                good.then_some(read)
            }

            fn schema() -> serde_json::Value {
                crate::setting::schema_of(&[$($head),*], &Self::fields())
            }

            fn show(&self) -> serde_json::Value {
                let mut map = serde_json::Map::new();
                $( map.insert(crate::setting::key_of(stringify!($field)), crate::setting::Setting::show(&self.$field)); )*
                serde_json::Value::Object(map)
            }
        }
    };
}

/// Declares an item of a list: fields without a default must be given.
macro_rules! record {
    (
        $(#[doc = $head:literal])*
        pub struct $name:ident as $what:literal {
            $( $(#[doc = $doc:literal])* $field:ident : $ty:ty $(= $default:expr)? ; )*
        }
    ) => {
        $(#[doc = $head])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: $ty, )*
            /// Where it was written.
            pub origin: crate::Origin,
        }

        impl $name {
            pub(crate) fn fields() -> Vec<crate::setting::Field> {
                vec![$( crate::setting::Field {
                    key: crate::setting::key_of(stringify!($field)),
                    doc: &[$($doc),*],
                    schema: <$ty as crate::setting::Setting>::schema,
                    default: crate::setting::default_of!($ty $(, $default)?),
                    required: crate::setting::required!($($default)?),
                    range: None,
                }, )*]
            }
        }

        impl crate::setting::Setting for $name {
            fn read(node: &crate::yaml::Node, to: &mut crate::diagnostic::Report) -> Option<Self> {
                let fields = Self::fields();
                let mut good = true;
                $( let mut $field: Option<$ty> = None; )*
                for (key, value) in crate::setting::entries(node, $what, &fields, to)? {
                    $( if key.text == crate::setting::key_of(stringify!($field)) {
                        $field = <$ty as crate::setting::Setting>::read(value, to);
                        if $field.is_none() {
                            // Reported; not to be reported as missing too.
                            good = false;
                        }
                        continue;
                    } )*
                    crate::setting::unknown_key(key, $what, &fields, to);
                    good = false;
                }
                let all_read = good;
                $( let $field = match $field {
                    Some(value) => Some(value),
                    None => crate::setting::or_default!(
                        { if all_read { crate::setting::missing_key(node.at, &crate::setting::key_of(stringify!($field)), $what, &[$($doc),*], to); } }
                        $(, $default)?
                    ),
                }; )*
                good.then_some(())?;
                Self { $( $field: $field?, )* origin: to.origin(node.at) }.checked(node, to)
            }

            fn schema() -> serde_json::Value {
                crate::setting::schema_of(&[$($head),*], &Self::fields())
            }

            fn show(&self) -> serde_json::Value {
                let mut map = serde_json::Map::new();
                $( match crate::setting::Setting::show(&self.$field) {
                    serde_json::Value::Null => {}
                    value => { map.insert(crate::setting::key_of(stringify!($field)), value); }
                } )*
                serde_json::Value::Object(map)
            }
        }
    };
}

/// Declares an enum whose values are words.
macro_rules! words {
    (
        $(#[doc = $head:literal])*
        pub enum $name:ident { $( $(#[doc = $doc:literal])* $variant:ident = $word:literal ),* $(,)? }
    ) => {
        $(#[doc = $head])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $( $(#[doc = $doc])* #[serde(rename = $word)] $variant, )* }

        impl $name {
            /// As written in the configuration.
            pub const fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        crate::setting::read_words!($name { $( $variant = $word [$($doc),*], )* });
    };
}

/// The reader of an enum whose values are words, also for one declared elsewhere.
macro_rules! read_words {
    ($name:ident { $( $variant:ident = $word:literal [$($doc:literal),*] ),* $(,)? }) => {
        impl crate::setting::Setting for $name {
            fn read(node: &crate::yaml::Node, to: &mut crate::diagnostic::Report) -> Option<Self> {
                match crate::setting::word(node, &[$($word),*], to)? {
                    $( $word => Some(Self::$variant), )*
                    _ => None,
                }
            }

            fn schema() -> serde_json::Value {
                serde_json::json!({
                    "enum": [$($word),*],
                    "x-words": { $( $word: crate::setting::prose(&[$($doc),*]) ),* },
                })
            }

            fn show(&self) -> serde_json::Value {
                match self { $( Self::$variant => serde_json::Value::String($word.to_owned()), )* }
            }
        }
    };
}

macro_rules! range_of {
    ($ty:ty) => {
        None
    };
    ($ty:ty, $range:expr) => {{
        let range: std::ops::RangeInclusive<$ty> = $range;
        Some((crate::setting::Setting::show(range.start()), crate::setting::Setting::show(range.end())))
    }};
}

macro_rules! default_of {
    ($ty:ty) => {
        serde_json::Value::Null
    };
    ($ty:ty, $default:expr) => {{
        let default: $ty = $default;
        crate::setting::Setting::show(&default)
    }};
}

macro_rules! required {
    () => {
        true
    };
    ($default:expr) => {
        false
    };
}

macro_rules! or_default {
    ($missing:block) => {{
        $missing
        None
    }};
    ($missing:block, $default:expr) => {
        Some($default)
    };
}

pub(crate) use {default_of, or_default, range_of, read_words, record, required, settings, words};

/// One of a few words, in the spelling given by `words`. `Off` and `OFF` are understood too.
pub(crate) fn word(node: &Node, words: &[&'static str], to: &mut Report) -> Option<&'static str> {
    let list = || words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ");
    let Kind::Scalar { text, .. } = &node.kind else {
        to.error(node.at, "wrong-type", format!("expected one word, found {}", node.what()), format!("one of {}", list()));
        return None;
    };
    let found = words.iter().copied().find(|w| w.eq_ignore_ascii_case(text));
    if found.is_none() {
        let help = match nearest(text, words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? One of {}", list()),
            None => format!("one of {}", list()),
        };
        to.error(node.at, "bad-value", format!("{} is not one of the words that may stand here", quote(text)), help);
    }
    found
}

/// The text of a scalar; `what` says what is expected: `a size`.
pub(crate) fn scalar<'n>(node: &'n Node, what: &str, example: &str, to: &mut Report) -> Option<&'n str> {
    match &node.kind {
        Kind::Scalar { text, .. } => Some(text),
        Kind::Null | Kind::List(_) | Kind::Map(_) => {
            to.error(node.at, "wrong-type", format!("expected {what}, found {}", node.what()), format!("for example `{example}`"));
            None
        }
    }
}

impl Setting for bool {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        match &node.kind {
            Kind::Scalar { text, quoted: false } if text.eq_ignore_ascii_case("true") => Some(true),
            Kind::Scalar { text, quoted: false } if text.eq_ignore_ascii_case("false") => Some(false),
            _ => {
                to.error(node.at, "wrong-type", format!("expected `true` or `false`, found {}", node.what()), "write `true` or `false`");
                None
            }
        }
    }

    fn schema() -> Value {
        json!({"type": "boolean"})
    }

    fn show(&self) -> Value {
        Value::Bool(*self)
    }
}

macro_rules! number {
    ($ty:ty) => {
        impl Setting for $ty {
            fn read(node: &Node, to: &mut Report) -> Option<Self> {
                let text = scalar(node, "a number", "10", to)?;
                let digits = text.replace('_', "");
                let parsed = match digits.strip_prefix("0x") {
                    Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => Self::from_str_radix(hex, 16).ok(),
                    Some(_) => None,
                    None if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
                    None => None,
                };
                if parsed.is_none() {
                    let help = format!("a whole number from 0 to {}, digits only, or 0x and hexadecimal digits", Self::MAX);
                    to.error(node.at, "bad-value", format!("{} is not a number that fits here", quote(text)), help);
                }
                parsed
            }

            fn schema() -> Value {
                json!({"type": "integer", "minimum": 0, "maximum": Self::MAX})
            }

            fn show(&self) -> Value {
                json!(self)
            }
        }
    };
}
number!(u16);
number!(u32);

impl Setting for String {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        scalar(node, "text", "some text", to).map(str::to_owned)
    }

    fn schema() -> Value {
        json!({"type": "string"})
    }

    fn show(&self) -> Value {
        Value::String(self.clone())
    }
}

/// Not given, or given as nothing, is `None`.
impl<T: Setting> Setting for Option<T> {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        match node.kind {
            Kind::Null => Some(None),
            _ => T::read(node, to).map(Some),
        }
    }

    fn schema() -> Value {
        T::schema()
    }

    fn show(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::show)
    }
}

/// A list; a value alone is a list of one. All items are read, so that all mistakes are reported.
impl<T: Setting + Debug> Setting for Vec<T> {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        match &node.kind {
            Kind::Null => Some(Self::new()),
            Kind::List(items) if items.len() > crate::LIST_ITEMS_MAX => {
                let message = format!("the list has {} items; the cap is {}", items.len(), crate::LIST_ITEMS_MAX);
                to.error(node.at, "too-large", message, "use patterns with `*` in place of many items");
                None
            }
            Kind::List(items) => {
                let read: Vec<Option<T>> = items.iter().map(|item| T::read(item, to)).collect();
                read.into_iter().collect()
            }
            Kind::Scalar { .. } | Kind::Map(_) => T::read(node, to).map(|one| vec![one]),
        }
    }

    fn schema() -> Value {
        json!({"type": "array", "items": T::schema(), "maxItems": crate::LIST_ITEMS_MAX})
    }

    fn show(&self) -> Value {
        Value::Array(self.iter().map(T::show).collect())
    }
}

/// A map with the user's own keys.
impl<T: Setting> Setting for BTreeMap<String, T> {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        match &node.kind {
            Kind::Null => Some(Self::new()),
            Kind::Map(entries) if entries.len() > crate::LIST_ITEMS_MAX => {
                let message = format!("the map has {} keys; the cap is {}", entries.len(), crate::LIST_ITEMS_MAX);
                to.error(node.at, "too-large", message, "no more keys than that in one map");
                None
            }
            Kind::Map(entries) => {
                let read: Vec<Option<(String, T)>> =
                    entries.iter().map(|(key, value)| T::read(value, to).map(|v| (key.text.clone(), v))).collect();
                read.into_iter().collect()
            }
            Kind::Scalar { .. } | Kind::List(_) => {
                to.error(node.at, "wrong-type", format!("expected a map, found {}", node.what()), "write `key: value` lines");
                None
            }
        }
    }

    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": T::schema(), "maxProperties": crate::LIST_ITEMS_MAX})
    }

    fn show(&self) -> Value {
        if self.is_empty() { Value::Null } else { Value::Object(self.iter().map(|(k, v)| (k.clone(), v.show())).collect()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_word_finds_its_neighbour_and_rubbish_finds_none() {
        let known = ["stream-depth", "flows-max", "mode", "fail"];
        assert_eq!(nearest("stream_dept", known.into_iter()), Some("stream-depth"));
        assert_eq!(nearest("mdoe", known.into_iter()), Some("mode"));
        assert_eq!(nearest("fial", known.into_iter()), Some("fail"));
        assert_eq!(nearest("colour", known.into_iter()), None);
        assert_eq!(nearest("", known.into_iter()), None);
        assert_eq!(nearest(&"m".repeat(10_000), known.into_iter()), None);
    }
}
