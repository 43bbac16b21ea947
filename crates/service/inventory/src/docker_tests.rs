use super::*;

const WEB: &str = "4a1d5f0c2b3e4a1d5f0c2b3e4a1d5f0c2b3e4a1d5f0c2b3e4a1d5f0c2b3e0123";
const DB: &str = "b7c8d9e0f1a2b7c8d9e0f1a2b7c8d9e0f1a2b7c8d9e0f1a2b7c8d9e0f1a24567";

/// The shape of Docker 20.10's answer to inspect, shortened where nothing is read.
fn inspected(state: &str, host_config: &str, ports: &str) -> String {
    format!(
        r#"{{"Id":"{WEB}","Created":"2026-11-01T10:00:00.5Z","Path":"nginx","Args":[],
        "State":{state},
        "Image":"sha256:aaaa","Name":"/web","RestartCount":0,"Driver":"overlay2","Platform":"linux",
        "HostConfig":{host_config},
        "Mounts":[],"GraphDriver":{{"Name":"overlay2","Data":null}},
        "Config":{{"Hostname":"4a1d5f0c2b3e","Image":"nginx:1.27","Labels":{{"com.docker.compose.service":"web","tier":"front"}},"Env":["A=b"]}},
        "NetworkSettings":{{"Bridge":"","SandboxID":"9f","SandboxKey":"/var/run/docker/netns/9f","Ports":{ports},
            "Networks":{{"bridge":{{"IPAddress":"198.51.100.2"}}}}}}}}"#
    )
}

const RUNNING: &str =
    r#"{"Status":"running","Running":true,"Paused":false,"Restarting":false,"OOMKilled":false,"Dead":false,"Pid":4242,"ExitCode":0}"#;
const BRIDGE: &str = r#"{"NetworkMode":"default","PortBindings":{},"CgroupParent":""}"#;

fn described(json: &str) -> (Container, u64) {
    serde_json::from_str::<Inspected>(json).expect("an answer to inspect").into_container(Runtime::Docker)
}

fn published(host: &str, host_port: u16, container_port: u16, protocol: &str) -> Published {
    Published { host_address: host.parse().expect("an address"), host_port, container_port, protocol: protocol.into() }
}

#[test]
fn an_inspected_container_is_described_in_full() {
    let ports = r#"{"443/tcp":null,"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"53/udp":[{"HostIp":"","HostPort":"5353"}]}"#;
    let (container, beyond_cap) = described(&inspected(RUNNING, BRIDGE, ports));
    assert_eq!(beyond_cap, 0);
    assert_eq!((container.id.as_str(), container.name.as_str(), container.image.as_deref()), (WEB, "web", Some("nginx:1.27")));
    assert_eq!((container.pid, container.joins.as_deref(), container.may_use_host), (Some(4242), None, false));
    assert_eq!(container.labels.get("tier").map(String::as_str), Some("front"));
    assert_eq!(
        container.published,
        [published("0.0.0.0", 5353, 53, "udp"), published("0.0.0.0", 8080, 80, "tcp"), published("::", 8080, 80, "tcp")]
    );
}

#[test]
fn network_modes_are_read() {
    let mode = |mode: &str| {
        let (container, _) = described(&inspected(RUNNING, &format!(r#"{{"NetworkMode":"{mode}"}}"#), "null"));
        (container.joins, container.may_use_host)
    };
    assert_eq!(mode("host"), (None, true));
    assert_eq!(mode("none"), (None, false));
    assert_eq!(mode(&format!("container:{DB}")), (Some(DB.to_owned()), true));
    assert_eq!(mode("container:db"), (None, true), "a name that is no id cannot be followed");
}

#[test]
fn ports_that_are_no_ports_are_left_out() {
    let ports = r#"{"x/tcp":[{"HostIp":"","HostPort":"1"}],"80/tcp":[{"HostIp":"nowhere","HostPort":"1"},{"HostIp":"","HostPort":"70000"},{"HostIp":"","HostPort":""},{}],"81/icmp":[{"HostIp":"","HostPort":"1"}],"9":[{"HostIp":"","HostPort":"9"}]}"#;
    let (container, _) = described(&inspected(RUNNING, BRIDGE, ports));
    assert_eq!(container.published, [published("0.0.0.0", 9, 9, "tcp")]);
    let many: Vec<String> = (0..2000).map(|_| r#"{"HostIp":"","HostPort":"7"}"#.to_owned()).collect();
    let (container, beyond_cap) = described(&inspected(RUNNING, BRIDGE, &format!(r#"{{"7/tcp":[{}]}}"#, many.join(","))));
    assert_eq!((container.published.len(), beyond_cap), (1, 2000 - PORTS_MAX as u64));
}

#[test]
fn null_and_absent_parts_are_empty_ones() {
    let json = format!(
        r#"{{"Id":"{WEB}","Name":null,"State":{{"Running":true,"Pid":5}},"Config":{{"Labels":null}},"HostConfig":{{}},"NetworkSettings":{{"Ports":null}}}}"#
    );
    assert!(serde_json::from_str::<Inspected>(&json).is_err(), "a name is text");
    let (container, _) = described(&json.replace("null,\"State", "\"\",\"State"));
    assert_eq!((container.name.as_str(), &container.image, container.labels.len()), (WEB, &None, 0));
}

#[test]
fn a_list_describes_enough_without_inspect() {
    let json = format!(
        r#"[{{"Id":"{WEB}","Names":["/db/web-alias","/web"],"Image":"nginx:1.27","ImageID":"sha256:aa","Command":"x","Created":1,
        "Ports":[{{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}},{{"PrivatePort":443,"Type":"tcp"}}],
        "Labels":{{"tier":"front"}},"State":"running","Status":"Up 3 minutes","HostConfig":{{"NetworkMode":"host"}},
        "NetworkSettings":{{"Networks":{{}}}},"Mounts":[]}}]"#
    );
    let list: CappedVec<ListEntry, CONTAINERS_MAX> = serde_json::from_str(&json).expect("a list");
    let container = list.items.into_iter().next().expect("one").into_container(Runtime::Podman);
    assert_eq!((container.name.as_str(), container.pid, container.may_use_host), ("web", None, true));
    assert_eq!(container.published, [published("0.0.0.0", 8080, 80, "tcp")]);
    assert_eq!(container.runtime, Runtime::Podman);
}

#[test]
fn events_name_the_container_to_look_at() {
    let about = |json: String| serde_json::from_str::<Event>(&json).expect("an event").container().map(str::to_owned);
    let event = |kind: &str, action: &str| {
        format!(
            r#"{{"status":"{action}","id":"{WEB}","from":"nginx","Type":"{kind}","Action":"{action}",
            "Actor":{{"ID":"{WEB}","Attributes":{{"image":"nginx","name":"web","container":"{DB}"}}}},"scope":"local","time":1,"timeNano":2}}"#
        )
    };
    for action in ["start", "die", "rename", "pause", "unpause", "update", "destroy", "stop", "restart"] {
        assert_eq!(about(event("container", action)).as_deref(), Some(WEB), "{action}");
    }
    for action in ["exec_create: sh -c true", "health_status: healthy", "top", "create", "attach", "kill"] {
        assert_eq!(about(event("container", action)), None, "{action}");
    }
    assert_eq!(about(event("network", "connect")).as_deref(), Some(DB));
    assert_eq!(about(event("network", "disconnect")).as_deref(), Some(DB));
    assert_eq!(about(event("network", "create")), None);
    assert_eq!(about(event("image", "start")), None);
    assert_eq!(about(format!(r#"{{"status":"start","id":"{WEB}"}}"#)).as_deref(), Some(WEB), "before API 1.22");
    assert_eq!(about(r#"{"Type":"container","Action":"start","Actor":{"ID":"../../version"}}"#.to_owned()), None);
    assert_eq!(about("{}".to_owned()), None);
}

#[test]
fn the_version_of_the_api_is_the_newest_that_both_know() {
    let prefix = |newest: &str, least: &str| {
        let version = Version { version: "28.2.2".into(), api_version: newest.into(), min_api_version: least.into() };
        version.prefix()
    };
    assert_eq!(prefix("1.41", "1.12"), "/v1.41");
    assert_eq!(prefix("1.41", ""), "/v1.41");
    assert_eq!(prefix("1.99", "1.44"), "/v1.51");
    assert_eq!(prefix("2.3", "1.44"), "/v1.51");
    assert_eq!(prefix("1.99", "1.60"), "");
    assert_eq!(prefix("new\r\nX: y", "1.1"), "");
}
