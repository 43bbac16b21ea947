use super::*;
use crate::grpc::protobuf::put_number;

fn task(container: &str, id: &str, pid: u64, status: u64) -> Vec<u8> {
    let (mut task, mut list) = (Vec::new(), Vec::new());
    put_bytes(&mut task, 1, container.as_bytes());
    put_bytes(&mut task, 2, id.as_bytes());
    put_number(&mut task, 3, pid);
    put_number(&mut task, 4, status);
    put_bytes(&mut list, 1, &task);
    list
}

fn container(id: &str, image: &str, labels: &[(&str, &str)]) -> Vec<u8> {
    let (mut container, mut message) = (Vec::new(), Vec::new());
    put_bytes(&mut container, 1, id.as_bytes());
    for (key, value) in labels {
        let mut member = Vec::new();
        put_bytes(&mut member, 1, key.as_bytes());
        put_bytes(&mut member, 2, value.as_bytes());
        put_bytes(&mut container, 2, &member);
    }
    put_bytes(&mut container, 3, image.as_bytes());
    // The OCI specification, which is large and not looked at.
    put_bytes(&mut container, 5, &[0xff; 3000]);
    put_bytes(&mut message, 1, &container);
    message
}

fn parsed(message: &[u8], namespace: &str) -> Container {
    let tasks = BTreeMap::from([("c1".to_owned(), 42)]);
    parse_container(message, namespace, &tasks, &mut 0).expect("a sound message").expect("a running container")
}

#[test]
fn tasks_that_have_a_process_are_running() {
    let list = [task("", "c1", 42, 2), task("c2", "c2", 43, 4), task("", "stopped", 44, 3), task("", "c3", 0, 2), task("", "made", 45, 1)]
        .concat();
    let running = parse_tasks(&list).expect("a list");
    assert_eq!(running, BTreeMap::from([("c1".to_owned(), 42), ("c2".to_owned(), 43), ("made".to_owned(), 45)]));
    assert_eq!(parse_tasks(&[]), Ok(BTreeMap::new()));
    assert_eq!(parse_tasks(&task("", "c1", u64::MAX, 2)), Ok(BTreeMap::new()), "a pid beyond 32 bits is none");
}

#[test]
fn a_container_without_a_task_is_not_running() {
    assert_eq!(parse_container(&container("c9", "i", &[]), "default", &BTreeMap::new(), &mut 0), Ok(None));
}

#[test]
fn plain_containers_are_named_by_their_id_and_nerdctls_by_its_label() {
    let plain = parsed(&container("c1", "docker.io/library/redis:7", &[]), "default");
    assert_eq!((plain.name.as_str(), plain.image.as_deref(), plain.pid), ("c1", Some("docker.io/library/redis:7"), Some(42)));
    assert_eq!((plain.runtime, plain.id.as_str()), (Runtime::Containerd, "default/c1"));
    let (tasks, id) = (BTreeMap::from([("d".repeat(64), 42)]), "d".repeat(64));
    let unique = parse_container(&container(&id, "i", &[]), "default", &tasks, &mut 0).expect("sound").expect("running");
    assert_eq!(unique.id, id, "ids that engines make are unique as they are");
    let ports =
        r#"[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":"0.0.0.0"},{"HostPort":1,"ContainerPort":1,"Protocol":"x"}]"#;
    let named = parsed(&container("c1", "i", &[("nerdctl/name", "web"), ("nerdctl/ports", ports)]), "default");
    assert_eq!(named.name, "web");
    let (v4, web) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), "tcp".to_owned());
    assert_eq!(named.published, [Published { host_address: v4, host_port: 8080, container_port: 80, protocol: web }]);
    let broken = parsed(&container("c1", "i", &[("nerdctl/ports", "[{")]), "default");
    assert_eq!(broken.published, []);
}

#[test]
fn kubernetes_containers_are_named_by_pod_and_container() {
    let pod = [("io.kubernetes.pod.namespace", "shop"), ("io.kubernetes.pod.name", "web-0")];
    let sandbox = parsed(&container("c1", "pause:3.9", &[pod.as_slice(), &[("io.cri-containerd.kind", "sandbox")]].concat()), "k8s.io");
    assert_eq!((sandbox.name.as_str(), sandbox.sandbox, sandbox.runtime), ("shop/web-0", true, Runtime::Cri));
    let nginx = [pod.as_slice(), &[("io.cri-containerd.kind", "container"), ("io.kubernetes.container.name", "nginx")]].concat();
    let nginx = parsed(&container("c1", "nginx", &nginx), "k8s.io");
    assert_eq!((nginx.name.as_str(), nginx.sandbox, nginx.runtime), ("shop/web-0/nginx", false, Runtime::Cri));
}

#[test]
fn labels_beyond_the_cap_are_counted() {
    let labels: Vec<(String, String)> = (0..LABELS_MAX + 5).map(|n| (format!("k{n}"), "v".to_owned())).collect();
    let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut beyond_cap = 0;
    let tasks = BTreeMap::from([("c1".to_owned(), 42)]);
    let parsed = parse_container(&container("c1", "i", &labels), "default", &tasks, &mut beyond_cap).expect("sound").expect("running");
    assert_eq!((parsed.labels.len(), beyond_cap), (LABELS_MAX, 5));
}

#[test]
fn a_cut_message_is_an_error_and_never_a_panic() {
    let whole = container("c1", "image", &[("a", "b")]);
    let tasks = BTreeMap::from([("c1".to_owned(), 42)]);
    for end in 1..whole.len() {
        assert!(parse_container(whole.get(..end).expect("within"), "default", &tasks, &mut 0).is_err(), "cut at {end}");
    }
    let whole = task("c1", "c1", 42, 2);
    for end in 1..whole.len() {
        assert!(parse_tasks(whole.get(..end).expect("within")).is_err(), "cut at {end}");
    }
}
