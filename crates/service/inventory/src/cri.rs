//! The Kubernetes Container Runtime Interface, for CRI-O (containerd is asked in its own language).
//!
//! It has no events everywhere, and no pids in its lists; both come from the kernel: a container
//! that starts is found by its cgroup (`crio-ID.scope`), and its name is asked for here, at once
//! when such a one without a name was found, else every few seconds. Source: kubernetes/cri-api
//! pkg/apis/runtime/v1/api.proto (`Version`, `ListPodSandbox`, `ListContainers`).

use std::collections::BTreeMap;
use std::convert::Infallible;

use bulkhead_model::Runtime;

use crate::containerd::kubernetes_name;
use crate::engine::{CONTAINERS_MAX, LABELS_MAX, Link, Session, Update};
use crate::grpc;
use crate::grpc::protobuf::{entry, fields, put_bytes, put_number};
use crate::resolve::Container;
use crate::socket::Error;

const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Follows one CRI service.
#[derive(Default)]
pub(crate) struct Cri {
    told: BTreeMap<String, Container>,
}

impl Session for Cri {
    fn follow(&mut self, link: &Link) -> Result<Infallible, Error> {
        self.told.clear();
        let answer = call(link, "Version", &[])?;
        let version = version(&answer)?;
        loop {
            let mut containers = BTreeMap::new();
            let mut beyond_cap = 0;
            // PodSandboxFilter { state = 2: PodSandboxStateValue { state: SANDBOX_READY = 0 } }
            let mut ready = Vec::new();
            put_bytes(&mut ready, 2, &[]);
            let mut sandboxes = Vec::new();
            put_bytes(&mut sandboxes, 1, &ready);
            parse(&call(link, "ListPodSandbox", &sandboxes)?, &SANDBOX, &mut containers, &mut beyond_cap)?;
            // ContainerFilter { state = 2: ContainerStateValue { state = 1: CONTAINER_RUNNING = 1 } }
            let (mut state, mut filter, mut running) = (Vec::new(), Vec::new(), Vec::new());
            put_number(&mut state, 1, 1);
            put_bytes(&mut filter, 2, &state);
            put_bytes(&mut running, 1, &filter);
            parse(&call(link, "ListContainers", &running)?, &CONTAINER, &mut containers, &mut beyond_cap)?;
            link.beyond_cap(beyond_cap)?;
            link.send(Update::Only { engine: link.engine, ids: containers.keys().cloned().collect() })?;
            for (id, container) in &containers {
                if self.told.get(id) != Some(container) {
                    link.running(container.clone())?;
                }
            }
            self.told = containers;
            link.up(&version)?;
            if link.pause() {
                return Err(Error::Stopped);
            }
        }
    }
}

/// Where a list's element keeps what we want: field numbers in `PodSandbox` and `Container`.
struct Shape {
    labels: u64,
    /// `ImageSpec`, whose field 1 is the name.
    image: Option<u64>,
}

const SANDBOX: Shape = Shape { labels: 5, image: None };
const CONTAINER: Shape = Shape { labels: 8, image: Some(4) };

fn call(link: &Link, method: &str, message: &[u8]) -> Result<Vec<u8>, Error> {
    let (stream, _open, deadline) = link.connect()?;
    let answer = grpc::unary(stream, &format!("/runtime.v1.RuntimeService/{method}"), &[], message, MESSAGE_BYTES_MAX, deadline)?;
    link.send(Update::Answered)?;
    Ok(answer)
}

/// `VersionResponse`: runtime_name = 2, runtime_version = 3.
fn version(answer: &[u8]) -> Result<String, Error> {
    let (mut name, mut version) = (String::new(), String::new());
    for field in fields(answer) {
        match field? {
            (2, value) => name = value.text(),
            (3, value) => version = value.text(),
            (_, _) => {}
        }
    }
    Ok(format!("{name} {version}"))
}

/// Takes a list's elements (field 1) into `containers`.
fn parse(answer: &[u8], shape: &Shape, containers: &mut BTreeMap<String, Container>, beyond_cap: &mut u64) -> Result<(), Error> {
    for field in fields(answer) {
        let (1, element) = field? else { continue };
        let (mut id, mut image, mut labels) = (String::new(), None, BTreeMap::new());
        for field in fields(element.bytes()) {
            match field? {
                (1, value) => id = value.text(),
                (number, value) if number == shape.labels => {
                    if labels.len() < LABELS_MAX {
                        let (key, value) = entry(value.bytes())?;
                        labels.insert(key, value);
                    } else {
                        *beyond_cap += 1;
                    }
                }
                (number, value) if shape.image == Some(number) => {
                    for field in fields(value.bytes()) {
                        if let (1, name) = field? {
                            image = Some(name.text()).filter(|image| !image.is_empty());
                        }
                    }
                }
                (_, _) => {}
            }
        }
        if containers.len() >= CONTAINERS_MAX {
            *beyond_cap += 1;
            continue;
        }
        let container = Container {
            name: kubernetes_name(&labels).unwrap_or_else(|| id.clone()),
            image,
            labels,
            runtime: Runtime::Cri,
            pid: None,
            joins: None,
            may_use_host: true,
            sandbox: shape.image.is_none(),
            published: Vec::new(),
            id: id.clone(),
        };
        containers.insert(id, container);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of one element: id, labels as given, and for a container its image.
    fn list(id: &str, labels: &[(&str, &str)], shape: &Shape) -> Vec<u8> {
        let mut element = Vec::new();
        put_bytes(&mut element, 1, id.as_bytes());
        if let Some(number) = shape.image {
            let mut image = Vec::new();
            put_bytes(&mut image, 1, b"registry.example/web:1");
            put_bytes(&mut element, u32::try_from(number).expect("small"), &image);
        }
        for (key, value) in labels {
            let mut member = Vec::new();
            put_bytes(&mut member, 1, key.as_bytes());
            put_bytes(&mut member, 2, value.as_bytes());
            put_bytes(&mut element, u32::try_from(shape.labels).expect("small"), &member);
        }
        let mut list = Vec::new();
        put_bytes(&mut list, 1, &element);
        list
    }

    #[test]
    fn a_pods_sandbox_and_its_container_are_named_by_their_labels() {
        let mut containers = BTreeMap::new();
        let pod = [("io.kubernetes.pod.namespace", "shop"), ("io.kubernetes.pod.name", "web-0")];
        parse(&list("s1", &pod, &SANDBOX), &SANDBOX, &mut containers, &mut 0).expect("a sandbox");
        let named = [pod.as_slice(), &[("io.kubernetes.container.name", "nginx")]].concat();
        parse(&list("c1", &named, &CONTAINER), &CONTAINER, &mut containers, &mut 0).expect("a container");
        let sandbox = containers.get("s1").expect("told");
        assert_eq!((sandbox.name.as_str(), sandbox.sandbox, &sandbox.image), ("shop/web-0", true, &None));
        let container = containers.get("c1").expect("told");
        assert_eq!((container.name.as_str(), container.sandbox), ("shop/web-0/nginx", false));
        assert_eq!(container.image.as_deref(), Some("registry.example/web:1"));
    }

    #[test]
    fn a_cut_list_is_an_error_or_an_empty_one_and_never_a_panic() {
        let whole = list("c1", &[("a", "b")], &CONTAINER);
        for end in 1..whole.len() {
            assert!(parse(whole.get(..end).expect("within"), &CONTAINER, &mut BTreeMap::new(), &mut 0).is_err(), "cut at {end}");
        }
        assert_eq!(parse(&[], &CONTAINER, &mut BTreeMap::new(), &mut 0), Ok(()));
    }
}
