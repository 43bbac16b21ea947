//! What cargo knows of the packages: `cargo metadata`, read from its JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The one target that the program is made for. Others would ask for packages that nobody has here.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DependencyKind {
    Normal,
    /// Of tests, examples and benches.
    Development,
    Build,
}

/// A package of the workspace.
#[derive(Debug, Clone, Default)]
pub struct Member {
    pub name: String,
    /// Folder relative to the root; `""` for the root itself.
    pub folder: String,
    pub dependencies: BTreeSet<(String, DependencyKind)>,
    /// Root files of its libraries and programs, relative to the workspace's root.
    pub roots: Vec<String>,
    /// Does it take the lints of the workspace?
    pub workspace_lints: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Metadata {
    pub members: BTreeMap<String, Member>,
    /// Every package that is built, ours too, with its SPDX expression.
    pub licences: BTreeMap<String, Option<String>>,
}

impl Metadata {
    /// Asks cargo; nothing is downloaded and the lock file is not touched.
    pub fn read(root: &Path) -> Result<Self, String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", PLATFORM])
            .current_dir(root)
            .output()
            .map_err(|error| format!("start cargo: {error}"))?;
        if !output.status.success() {
            return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        let mut metadata = Self::parse(&output.stdout)?;
        for member in metadata.members.values_mut() {
            let manifest = root.join(&member.folder).join("Cargo.toml");
            let text = std::fs::read_to_string(&manifest).map_err(|error| format!("read {}: {error}", manifest.display()))?;
            member.workspace_lints = takes_workspace_lints(&text);
        }
        Ok(metadata)
    }

    /// From cargo's JSON, format version 1.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(json).map_err(|error| format!("cargo metadata is not JSON: {error}"))?;
        let root = text(&value["workspace_root"]);
        let ours: BTreeSet<&str> = array(&value["workspace_members"]).filter_map(Value::as_str).collect();
        let mut metadata = Self::default();
        for package in array(&value["packages"]) {
            let name = text(&package["name"]).to_owned();
            let version = text(&package["version"]);
            metadata.licences.insert(format!("{name} {version}"), package["license"].as_str().map(str::to_owned));
            if !ours.contains(text(&package["id"])) {
                continue;
            }
            let relative = |path: &str| path.strip_prefix(root).unwrap_or(path).trim_start_matches('/').to_owned();
            let mut member = Member {
                folder: relative(text(&package["manifest_path"])).trim_end_matches("Cargo.toml").trim_end_matches('/').to_owned(),
                name: name.clone(),
                ..Member::default()
            };
            for dependency in array(&package["dependencies"]) {
                let kind = match dependency["kind"].as_str() {
                    Some("dev") => DependencyKind::Development,
                    Some("build") => DependencyKind::Build,
                    _ => DependencyKind::Normal,
                };
                member.dependencies.insert((text(&dependency["name"]).to_owned(), kind));
            }
            for target in array(&package["targets"]) {
                if array(&target["kind"]).any(|kind| matches!(text(kind), "lib" | "bin" | "proc-macro")) {
                    member.roots.push(relative(text(&target["src_path"])));
                }
            }
            metadata.members.insert(name, member);
        }
        if metadata.members.is_empty() {
            return Err("cargo metadata names no package of the workspace".into());
        }
        Ok(metadata)
    }
}

fn takes_workspace_lints(manifest: &str) -> bool {
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if section == "[lints]" && line.replace(' ', "") == "workspace=true" {
            return true;
        }
    }
    false
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_from_what_they_depend_on() {
        let json = r#"{"workspace_root":"/r","workspace_members":["path+file:///r/a#a"],"packages":[
            {"name":"a","version":"1.0.0","id":"path+file:///r/a#a","license":"MIT","manifest_path":"/r/a/Cargo.toml",
             "dependencies":[{"name":"b","kind":null},{"name":"c","kind":"dev"}],
             "targets":[{"kind":["lib"],"src_path":"/r/a/src/lib.rs"},{"kind":["test"],"src_path":"/r/a/tests/t.rs"}]},
            {"name":"b","version":"2.0.0","id":"registry#b@2.0.0","license":null,"manifest_path":"/x/Cargo.toml","dependencies":[],"targets":[]}]}"#;
        let metadata = Metadata::parse(json.as_bytes()).unwrap();
        let a = &metadata.members["a"];
        assert_eq!((metadata.members.len(), a.folder.as_str(), a.roots.as_slice()), (1, "a", &["a/src/lib.rs".to_owned()][..]));
        assert!(a.dependencies.contains(&("c".to_owned(), DependencyKind::Development)));
        assert_eq!(metadata.licences["b 2.0.0"], None);
    }

    #[test]
    fn lints_of_the_workspace_are_found_in_their_section_only() {
        assert!(takes_workspace_lints("[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"));
        assert!(!takes_workspace_lints("[lints.rust]\n[dependencies]\nworkspace = true\n"));
    }
}
