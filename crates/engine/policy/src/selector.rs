//! Which workloads are meant. A selector is a set of conditions that must all hold; each is a pattern with `*` (any
//! run of characters, also `/`) and `?` (any one character), compared with capitals and small letters told apart.

use std::collections::BTreeMap;
use std::fmt;

use bulkhead_model::{Runtime, Workload};
use serde_json::{Value, json};

use crate::diagnostic::{Report, quote};
use crate::setting::{Setting, nearest, read_words, scalar, settings};
use crate::yaml::{Kind, Node};

/// Bytes of a pattern.
pub const GLOB_BYTES_MAX: usize = 256;

/// A pattern. Matching a text of n characters takes at most n × [`GLOB_BYTES_MAX`] steps, whatever the two are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob(String);

impl Glob {
    pub fn new(pattern: &str) -> Result<Self, SelectorError> {
        if pattern.is_empty() {
            return Err(SelectorError::EmptyPattern);
        }
        if pattern.len() > GLOB_BYTES_MAX {
            return Err(SelectorError::LongPattern { bytes: pattern.len() });
        }
        if pattern.chars().any(char::is_control) {
            return Err(SelectorError::ControlCharacter);
        }
        Ok(Self(pattern.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn matches(&self, text: &str) -> bool {
        let (mut pattern, mut text) = (self.0.chars(), text.chars());
        // Where to go on when what follows the last `*` does not fit: only the last one ever needs to take more.
        let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
        loop {
            let mut ahead = pattern.clone();
            match ahead.next() {
                Some('*') => {
                    pattern = ahead;
                    retry = Some((pattern.clone(), text.clone()));
                    continue;
                }
                None if text.as_str().is_empty() => return true,
                Some(want) => {
                    let mut text_ahead = text.clone();
                    if text_ahead.next().is_some_and(|c| want == '?' || want == c) {
                        (pattern, text) = (ahead, text_ahead);
                        continue;
                    }
                }
                None => {}
            }
            let Some((after_star, from)) = &mut retry else { return false };
            if from.next().is_none() {
                return false;
            }
            (pattern, text) = (after_star.clone(), from.clone());
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The operator's mistake in a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("an empty pattern matches nothing")]
    EmptyPattern,
    #[error("a pattern of {bytes} bytes; the cap is {GLOB_BYTES_MAX}")]
    LongPattern { bytes: usize },
    #[error("a control character in a pattern")]
    ControlCharacter,
    #[error("no condition at all")]
    NoCondition,
    #[error("the condition `{0}` is not known; known are name, image, label.KEY, runtime, key")]
    UnknownCondition(String),
    #[error("the condition `{0}` is given twice")]
    TwiceGiven(String),
    #[error("the runtime `{0}` is not known; known are docker, containerd, cri, podman, namespace")]
    UnknownRuntime(String),
    #[error("world, host and any name other ends of traffic than containers")]
    Reserved(String),
}

settings! {
    /// Conditions on a workload; all that are given must hold. At least one must be given.
    ///
    /// Patterns may hold `*` and `?`. In place of the map, a text may stand: a pattern for the name (`web*`), or conditions parted by
    /// commas (`image=nginx*,label.app=shop`).
    pub struct Conditions as "match" {
        /// Pattern for the container's name.
        name: Option<Glob> = None;
        /// Pattern for the image as the runtime names it. `docker.io/` and `docker.io/library/` in front of it may be left out.
        image: Option<Glob> = None;
        /// Label keys, and a pattern for the value of each.
        label: BTreeMap<String, Glob> = BTreeMap::new();
        /// The engine that runs it.
        runtime: Option<Runtime> = None;
        /// Pattern for the runtime's own id, or `netns:<inode>` for a bare network namespace.
        key: Option<Glob> = None;
    }
}

/// At least one condition; all must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector(Conditions);

impl Selector {
    pub fn new(conditions: Conditions) -> Result<Self, SelectorError> {
        if conditions == Conditions::default() { Err(SelectorError::NoCondition) } else { Ok(Self(conditions)) }
    }

    /// Containers whose name matches.
    pub fn named(pattern: &str) -> Result<Self, SelectorError> {
        Ok(Self(Conditions { name: Some(Glob::new(pattern)?), ..Conditions::default() }))
    }

    /// Reads `web*`, or `image=nginx*,label.app=shop,runtime=docker`: the form used on the command line.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let text = text.trim();
        if matches!(text, "world" | "host" | "any") {
            return Err(SelectorError::Reserved(text.to_owned()));
        }
        let mut conditions = Conditions::default();
        for term in text.split(',') {
            let (key, value) = term.split_once('=').unwrap_or(("name", term));
            let (key, value) = (key.trim(), value.trim());
            let twice = match key {
                "name" => conditions.name.replace(Glob::new(value)?).is_some(),
                "image" => conditions.image.replace(Glob::new(value)?).is_some(),
                "key" => conditions.key.replace(Glob::new(value)?).is_some(),
                "runtime" => {
                    let known = |(word, _): &&(&str, Runtime)| *word == value;
                    let runtime = RUNTIMES.iter().find(known).ok_or_else(|| SelectorError::UnknownRuntime(value.to_owned()))?;
                    conditions.runtime.replace(runtime.1).is_some()
                }
                _ => match key.strip_prefix("label.") {
                    Some(label) if !label.is_empty() => conditions.label.insert(label.to_owned(), Glob::new(value)?).is_some(),
                    _ => return Err(SelectorError::UnknownCondition(key.to_owned())),
                },
            };
            if twice {
                return Err(SelectorError::TwiceGiven(key.to_owned()));
            }
        }
        Self::new(conditions)
    }

    pub fn conditions(&self) -> &Conditions {
        &self.0
    }

    pub fn matches(&self, workload: &Workload) -> bool {
        let Conditions { name, image, label, runtime, key } = &self.0;
        name.as_ref().is_none_or(|glob| glob.matches(&workload.name))
            && image.as_ref().is_none_or(|glob| workload.image.as_deref().is_some_and(|image| matches_image(glob, image)))
            && label.iter().all(|(key, glob)| workload.labels.get(key).is_some_and(|value| glob.matches(value)))
            && runtime.is_none_or(|runtime| workload.runtime == runtime)
            && key.as_ref().is_none_or(|glob| glob.matches(&workload.key))
    }

    /// Whether it matches all workloads there can be: `*`.
    pub fn is_everything(&self) -> bool {
        let any = Self(Conditions { name: Some(Glob("*".to_owned())), ..Conditions::default() });
        self.covers(&any)
    }

    /// Whether every workload that `other` matches is surely matched by `self` too. May say no where yes is true.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        fn glob(wide: Option<&Glob>, narrow: Option<&Glob>) -> bool {
            match (wide, narrow) {
                (None, _) => true,
                (Some(wide), Some(narrow)) => wide.as_str() == "*" || wide == narrow,
                (Some(_), None) => false,
            }
        }
        let (wide, narrow) = (&self.0, &other.0);
        // Every workload has a name and a key: `*` there is no condition.
        let all = |wide: &Option<Glob>, narrow: &Option<Glob>| {
            wide.as_ref().is_some_and(|g| g.as_str() == "*") || glob(wide.as_ref(), narrow.as_ref())
        };
        all(&wide.name, &narrow.name)
            && glob(wide.image.as_ref(), narrow.image.as_ref())
            && all(&wide.key, &narrow.key)
            && wide.runtime.is_none_or(|runtime| narrow.runtime == Some(runtime))
            && wide.label.iter().all(|(key, value)| glob(Some(value), narrow.label.get(key)))
    }
}

/// Docker names an image of its hub `nginx:1`, containerd names the same `docker.io/library/nginx:1`.
fn matches_image(glob: &Glob, image: &str) -> bool {
    let hub = image.strip_prefix("docker.io/");
    glob.matches(image)
        || hub.is_some_and(|rest| glob.matches(rest))
        || hub.and_then(|rest| rest.strip_prefix("library/")).is_some_and(|rest| glob.matches(rest))
}

/// In the form that [`Selector::parse`] reads, where there is one.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conditions { name, image, label, runtime, key } = &self.0;
        let mut terms: Vec<String> = Vec::new();
        terms.extend(name.iter().map(|glob| format!("name={glob}")));
        terms.extend(image.iter().map(|glob| format!("image={glob}")));
        terms.extend(label.iter().map(|(key, glob)| format!("label.{key}={glob}")));
        terms.extend(runtime.iter().map(|runtime| format!("runtime={}", runtime.show().as_str().unwrap_or_default())));
        terms.extend(key.iter().map(|glob| format!("key={glob}")));
        match (terms.as_slice(), name) {
            ([_], Some(name)) if !name.as_str().contains(['=', ',']) && !matches!(name.as_str(), "world" | "host" | "any") => {
                write!(f, "{name}")
            }
            _ => f.write_str(&terms.join(",")),
        }
    }
}

const RUNTIMES: [(&str, Runtime); 5] = [
    ("docker", Runtime::Docker),
    ("containerd", Runtime::Containerd),
    ("cri", Runtime::Cri),
    ("podman", Runtime::Podman),
    ("namespace", Runtime::Namespace),
];

read_words!(Runtime {
    Docker = "docker" [" Docker."],
    Containerd = "containerd" [" containerd's own clients."],
    Cri = "cri" [" Kubernetes, through containerd or CRI-O."],
    Podman = "podman" [" Podman."],
    Namespace = "namespace" [" A network namespace that no known engine claims."],
});

impl Setting for Glob {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        let text = scalar(node, "a pattern", "web*", to)?;
        match Self::new(text) {
            Ok(glob) => Some(glob),
            Err(error) => {
                to.error(node.at, "bad-value", format!("{} cannot be used: {error}", quote(text)), "for example `web*`");
                None
            }
        }
    }

    fn schema() -> Value {
        json!({"type": "string", "minLength": 1, "maxLength": GLOB_BYTES_MAX, "x-type": "pattern"})
    }

    fn show(&self) -> Value {
        Value::String(self.0.clone())
    }
}

impl Setting for Selector {
    fn read(node: &Node, to: &mut Report) -> Option<Self> {
        let (read, text) = match &node.kind {
            Kind::Scalar { text, .. } => (Self::parse(text), quote(text)),
            Kind::Null | Kind::Map(_) => (Self::new(Conditions::read(node, to)?), "this map".to_owned()),
            Kind::List(_) => {
                to.error(node.at, "wrong-type", "expected a selector, found a list", "write one rule for each selector");
                return None;
            }
        };
        match read {
            Ok(selector) => Some(selector),
            Err(error) => {
                let help = match &error {
                    SelectorError::UnknownCondition(word) => nearest(word, ["name", "image", "runtime", "key"].into_iter())
                        .map_or_else(|| "for example `image=nginx*,label.app=shop`".to_owned(), |near| format!("did you mean `{near}`?")),
                    SelectorError::NoCondition => "to match every container write `name: \"*\"`".to_owned(),
                    SelectorError::Reserved(_) => "to match a container of this name write `{name: …}`".to_owned(),
                    _ => "for example `web*` or `{image: \"nginx*\", label: {app: shop}}`".to_owned(),
                };
                to.error(node.at, "bad-value", format!("{text} is not a selector: {error}"), help);
                None
            }
        }
    }

    fn schema() -> Value {
        json!({"anyOf": [{"type": "string", "minLength": 1}, Conditions::schema()], "x-type": "selector"})
    }

    fn show(&self) -> Value {
        let shown = self.0.show();
        let given = shown.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        Value::Object(given.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_people_expect() {
        let cases = [
            ("web", "web", true),
            ("web", "web1", false),
            ("web*", "web", true),
            ("web*", "web-1", true),
            ("*web", "a-web", true),
            ("w?b", "web", true),
            ("w?b", "wb", false),
            ("*", "", true),
            ("?", "", false),
            ("**", "x", true),
            ("a*b*c", "a--b--b--c", true),
            ("a*b*c", "a--c--b", false),
            ("registry.example/*:1.?", "registry.example/a/b:1.2", true),
            ("w?b", "wéb", true),
            ("Web", "web", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Glob::new(pattern).map(|g| g.matches(text)), Ok(expected), "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_more_than_its_bound() {
        // Exponential in a matcher that backtracks over every star: this would not end.
        let glob = Glob::new(&format!("{}b", "a*".repeat(100))).expect("within the cap");
        assert!(!glob.matches(&"a".repeat(100_000)));
    }

    #[test]
    fn the_text_form_is_read_back_as_it_is_shown() {
        for text in ["web*", "image=nginx*,label.app=shop", "runtime=docker", "name=host", "name=a,key=0123*"] {
            let selector = Selector::parse(text).expect(text);
            assert_eq!(selector.to_string(), text);
        }
        assert_eq!(Selector::parse(""), Err(SelectorError::EmptyPattern));
        assert_eq!(Selector::parse("host"), Err(SelectorError::Reserved("host".into())));
        assert_eq!(Selector::parse("colour=red"), Err(SelectorError::UnknownCondition("colour".into())));
        assert_eq!(Selector::parse("name=a,name=b"), Err(SelectorError::TwiceGiven("name".into())));
        assert_eq!(Selector::parse("runtime=lxc"), Err(SelectorError::UnknownRuntime("lxc".into())));
    }
}
