//! Names and images of Podman's containers out of its storage, while its API service is not running
//! (it is started by socket activation only, if at all). The files list stopped containers too;
//! which run tells the kernel. Source: containers/storage, `containers.go` (type Container) and
//! `overlay-containers/containers.json`.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bulkhead_model::Runtime;
use serde::Deserialize;

use crate::bounded::CappedVec;
use crate::engine::CONTAINERS_MAX;
use crate::resolve::Container;
use crate::socket::one_line;
use crate::{EngineState, cgroup};

const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The storage driver is part of the directory's name.
const DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];
const FILES: [&str; 2] = ["containers.json", "volatile-containers.json"];

/// One storage directory.
pub(crate) struct Storage {
    root: PathBuf,
    seen: Vec<Stamp>,
    pub state: EngineState,
    pub containers: Vec<Container>,
    /// Containers beyond the cap.
    pub refused: u64,
}

/// Enough to see whether a file was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Storage {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, seen: Vec::new(), state: EngineState::Starting, containers: Vec::new(), refused: 0 }
    }

    /// Reads the files if they changed since last time.
    pub(crate) fn refresh(&mut self) {
        let paths = DRIVERS.iter().flat_map(|driver| FILES.iter().map(move |file| format!("{driver}-containers/{file}")));
        let present: Vec<Stamp> = paths.filter_map(|path| Stamp::of(self.root.join(path))).collect();
        if present == self.seen && self.state != EngineState::Starting {
            return;
        }
        let mut containers = Vec::new();
        let mut refused = 0;
        self.state = if present.is_empty() { EngineState::Absent } else { EngineState::Up { version: "files".into() } };
        for stamp in &present {
            match read(&stamp.path) {
                Ok(list) => {
                    refused += list.refused;
                    containers.extend(list.items.into_iter().filter_map(Stored::into_container));
                }
                Err(error) => {
                    let reason = format!("{}: {error}", stamp.path.display());
                    self.state = EngineState::Down { reason: one_line(&reason) };
                    // Names that were read before are better than none.
                    containers.append(&mut self.containers);
                }
            }
        }
        (self.containers, self.refused, self.seen) = (containers, refused, present);
    }
}

impl Stamp {
    fn of(path: PathBuf) -> Option<Self> {
        let metadata: Metadata = fs::metadata(&path).ok().filter(Metadata::is_file)?;
        Some(Self { path, inode: metadata.ino(), length: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}

fn read(path: &Path) -> io::Result<CappedVec<Stored, CONTAINERS_MAX>> {
    let file = File::open(path)?;
    Ok(serde_json::from_reader(BufReader::new(file.take(FILE_BYTES_MAX)))?)
}

#[derive(Debug, Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: CappedVec<String, 64>,
    /// JSON within JSON.
    #[serde(default)]
    metadata: String,
}

#[derive(Debug, Deserialize, Default)]
struct StoredMetadata {
    #[serde(rename = "image-name", default)]
    image_name: String,
    #[serde(default)]
    name: String,
}

impl Stored {
    /// None for what is not a container of Podman (Buildah keeps working containers here too).
    fn into_container(self) -> Option<Container> {
        if !cgroup::is_id(&self.id) {
            return None;
        }
        let metadata: StoredMetadata = serde_json::from_str(&self.metadata).unwrap_or_default();
        let name = self.names.items.into_iter().next().or(Some(metadata.name)).filter(|name| !name.is_empty());
        Some(Container {
            name: name.unwrap_or_else(|| self.id.clone()),
            image: Some(metadata.image_name).filter(|image| !image.is_empty()),
            labels: BTreeMap::new(),
            runtime: Runtime::Podman,
            pid: None,
            joins: None,
            may_use_host: true,
            sandbox: false,
            published: Vec::new(),
            id: self.id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "9c1ab2d3e4f50617283940a1b2c3d4e5f60718293a4b5c6d7e8f901234567890";

    #[test]
    fn names_are_read_when_the_file_appears_and_kept_when_it_breaks() {
        let root = std::env::temp_dir().join(format!("bulkhead-storage-{}", std::process::id()));
        let dir = root.join("overlay-containers");
        fs::create_dir_all(&dir).expect("a directory");
        let mut storage = Storage::new(root.clone());
        storage.refresh();
        assert_eq!((&storage.state, storage.containers.len()), (&EngineState::Absent, 0));

        let file = dir.join("containers.json");
        let metadata = r#"{\"image-name\":\"localhost/web:1\",\"image-id\":\"x\",\"name\":\"web\"}"#;
        fs::write(
            &file,
            format!(r#"[{{"id":"{ID}","names":["web"],"image":"x","metadata":"{metadata}","flags":{{"a":1}}}},{{"id":"buildah"}}]"#),
        )
        .expect("written");
        storage.refresh();
        assert_eq!(storage.state, EngineState::Up { version: "files".into() });
        let names: Vec<_> = storage.containers.iter().map(|c| (c.name.as_str(), c.image.as_deref())).collect();
        assert_eq!(names, [("web", Some("localhost/web:1"))]);

        for rubbish in ["[{", "{}", "\u{1}", "[{\"id\":5}]"] {
            fs::write(&file, rubbish).expect("written");
            storage.refresh();
            assert!(matches!(storage.state, EngineState::Down { .. }), "{rubbish}");
            assert_eq!(storage.containers.len(), 1, "{rubbish}");
        }
        fs::remove_dir_all(&root).expect("removed");
        storage.refresh();
        assert_eq!((&storage.state, storage.containers.len()), (&EngineState::Absent, 0));
    }
}
