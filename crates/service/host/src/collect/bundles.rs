//! Containers as they were ordered: Docker's files of each container, and the bundles of runtimes (`config.json` of the OCI
//! runtime specification), which Docker, containerd, CRI-O and Podman all write.

use serde_json::Value;

use bulkhead_posture::snapshot::{Bind, Container, Declared};
use bulkhead_posture::{Fact, meaning};

use crate::root::Root;

/// Bytes of one of these files.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Entries of one list in them.
const LIST_MAX: usize = 1024;

/// Docker's containers, running or not, from its data directory.
pub fn docker(root: &Root, data_root: &str, found: &mut dyn FnMut(Container)) -> Fact<usize> {
    let folder = format!("{data_root}/containers");
    let names = match root.names(&folder) {
        Fact::Known(names) => names,
        Fact::Absent => return Fact::Absent,
        Fact::Unreadable(why) => return Fact::Unreadable(format!("{folder}: {why}")),
    };
    let mut count = 0;
    for id in names.into_iter().filter(|name| bulkhead_inventory::cgroup::is_id(name)) {
        let own = format!("{folder}/{id}");
        let config = json(root, &format!("{own}/config.v2.json"));
        let host = json(root, &format!("{own}/hostconfig.json"));
        count += 1;
        let mut container = Container { id, runtime: "docker".to_owned(), own_folders: vec![own.clone()], ..Container::default() };
        container.declared = match (&config, &host) {
            (Ok(config), Ok(host)) => {
                container.name = text(config, "/Name").trim_start_matches('/').to_owned();
                container.image = text(config, "/Config/Image").to_owned();
                container.running = config.pointer("/State/Running").and_then(Value::as_bool) == Some(true);
                let image = text(config, "/Image").trim_start_matches("sha256:").to_owned();
                container.image_made = image_made(root, data_root, &image);
                let layer = root.line(&format!("{data_root}/image/overlay2/layerdb/mounts/{}/mount-id", container.id));
                if let Fact::Known(layer) = layer {
                    container.own_folders.push(format!("{data_root}/overlay2/{layer}"));
                }
                Fact::Known(docker_order(config, host))
            }
            (Err(why), _) | (_, Err(why)) => Fact::Unreadable(why.clone()),
        };
        found(container);
    }
    Fact::Known(count)
}

/// When an image was made, in seconds since 1970.
fn image_made(root: &Root, data_root: &str, image: &str) -> Option<u64> {
    if image.is_empty() || !image.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let tree = json(root, &format!("{data_root}/image/overlay2/imagedb/content/sha256/{image}")).ok()?;
    let day = bulkhead_posture::waiver::days(text(&tree, "/created").get(..10)?)?;
    Some(day * 86_400)
}

fn docker_order(config: &Value, host: &Value) -> Declared {
    let mut declared = Declared {
        privileged: flag(host, "/Privileged"),
        capabilities_added: strings(host, "/CapAdd"),
        user: Some(text(config, "/Config/User").to_owned()),
        groups_added: strings(host, "/GroupAdd"),
        devices: list(host, "/Devices").map(|device| text(device, "/PathOnHost").to_owned()).take(LIST_MAX).collect(),
        device_rules: strings(host, "/DeviceCgroupRules"),
        security_options: strings(host, "/SecurityOpt"),
        read_only_root: flag(host, "/ReadonlyRootfs"),
        masked_paths: optional(host, "/MaskedPaths"),
        read_only_paths: optional(host, "/ReadonlyPaths"),
        memory_max: number(host, "/Memory"),
        pids_max: number(host, "/PidsLimit"),
        cpu_limited: Some(
            ["/NanoCpus", "/CpuQuota", "/CpuShares"].iter().any(|field| number(host, field).unwrap_or(0) != 0)
                || !text(host, "/CpusetCpus").is_empty(),
        ),
        restart: Some(text(host, "/RestartPolicy/Name").to_owned()),
        restart_max: number(host, "/RestartPolicy/MaximumRetryCount"),
        health_check: Some(config.pointer("/Config/Healthcheck/Test/0").and_then(Value::as_str).is_some_and(|first| first != "NONE")),
        network: Some(text(host, "/NetworkMode").to_owned()),
        log_driver: Some(text(host, "/LogConfig/Type").to_owned()),
        runtime: Some(text(host, "/Runtime").to_owned()),
        ulimits: Some(list(host, "/Ulimits").next().is_some()),
        ..Declared::default()
    };
    for (field, name) in [
        ("/PidMode", "pid"),
        ("/IpcMode", "ipc"),
        ("/UTSMode", "uts"),
        ("/UsernsMode", "user"),
        ("/NetworkMode", "net"),
        ("/CgroupnsMode", "cgroup"),
    ] {
        if text(host, field) == "host" {
            declared.host_namespaces.push(name.to_owned());
        }
    }
    for mount in config.pointer("/MountPoints").and_then(Value::as_object).into_iter().flatten().map(|(_, mount)| mount).take(LIST_MAX) {
        if text(mount, "/Type") == "bind" {
            declared.binds.push(Bind {
                source: text(mount, "/Source").to_owned(),
                target: text(mount, "/Destination").to_owned(),
                writable: flag(mount, "/RW") != Some(false),
                propagation: text(mount, "/Propagation").to_owned(),
            });
        }
    }
    for (port, bindings) in host.pointer("/PortBindings").and_then(Value::as_object).into_iter().flatten().take(LIST_MAX) {
        for binding in bindings.as_array().into_iter().flatten().take(LIST_MAX) {
            let address = text(binding, "/HostIp");
            let address = if address.is_empty() { "0.0.0.0" } else { address };
            declared.published.push(format!("{address}:{}->{port}", text(binding, "/HostPort")));
        }
    }
    declared.secret_names = secret_names(&strings(config, "/Config/Env"));
    declared
}

/// An OCI bundle. The runtime's own names of things stand for what engines call them.
pub fn bundle(root: &Root, path: &str) -> Result<(Declared, Value), String> {
    let tree = json(root, path)?;
    let mut declared = Declared {
        user: tree.pointer("/process/user/uid").map(|uid| format!("{uid}:{}", tree.pointer("/process/user/gid").unwrap_or(&Value::Null))),
        groups_added: list(&tree, "/process/user/additionalGids").map(Value::to_string).take(LIST_MAX).collect(),
        capabilities_added: strings(&tree, "/process/capabilities/bounding"),
        read_only_root: flag(&tree, "/root/readonly"),
        masked_paths: Some(strings(&tree, "/linux/maskedPaths")),
        read_only_paths: Some(strings(&tree, "/linux/readonlyPaths")),
        memory_max: number(&tree, "/linux/resources/memory/limit"),
        pids_max: number(&tree, "/linux/resources/pids/limit"),
        cpu_limited: Some(tree.pointer("/linux/resources/cpu/quota").is_some() || tree.pointer("/linux/resources/cpu/shares").is_some()),
        ..Declared::default()
    };
    for (kind, name) in [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")] {
        if !list(&tree, "/linux/namespaces").any(|namespace| text(namespace, "/type") == kind) {
            declared.host_namespaces.push(name.to_owned());
        }
    }
    if tree.pointer("/linux/seccomp").is_none() {
        declared.security_options.push("seccomp=unconfined".to_owned());
    }
    if flag(&tree, "/process/noNewPrivileges") == Some(true) {
        declared.security_options.push("no-new-privileges".to_owned());
    }
    for rule in list(&tree, "/linux/resources/devices").filter(|rule| flag(rule, "/allow") == Some(true)).take(LIST_MAX) {
        let part =
            |name: &str| number(rule, name).filter(|number| *number >= 0).map_or_else(|| "*".to_owned(), |number| number.to_string());
        let kind = match text(rule, "/type") {
            "" => "a",
            kind => kind,
        };
        declared.device_rules.push(format!("{kind} {}:{} {}", part("/major"), part("/minor"), text(rule, "/access")));
    }
    for mount in list(&tree, "/mounts").take(LIST_MAX) {
        let options = strings(mount, "/options");
        let bind = text(mount, "/type") == "bind" || options.iter().any(|option| option == "bind" || option == "rbind");
        if bind {
            declared.binds.push(Bind {
                source: text(mount, "/source").to_owned(),
                target: text(mount, "/destination").to_owned(),
                writable: !options.iter().any(|option| option == "ro"),
                propagation: options
                    .iter()
                    .find(|option| option.ends_with("shared") || option.ends_with("slave"))
                    .cloned()
                    .unwrap_or_default(),
            });
        }
    }
    declared.secret_names = secret_names(&strings(&tree, "/process/env"));
    Ok((declared, tree))
}

/// Names of variables that look like secrets and have a value. The values are not kept.
fn secret_names(environment: &[String]) -> Vec<String> {
    const WORDS: [&str; 8] = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "PRIVATE_KEY", "CREDENTIAL"];
    let pairs = environment.iter().filter_map(|pair| pair.split_once('='));
    let secret = pairs.filter(|(name, value)| {
        let upper = name.to_ascii_uppercase();
        !value.is_empty() && !value.starts_with('/') && !upper.ends_with("_FILE") && WORDS.iter().any(|word| upper.contains(word))
    });
    secret.map(|(name, _)| name.to_owned()).take(64).collect()
}

fn json(root: &Root, path: &str) -> Result<Value, String> {
    match root.bytes(path, FILE_BYTES_MAX) {
        Fact::Known(bytes) => serde_json::from_slice(&bytes).map_err(|error| format!("{path} is not JSON: {error}")),
        Fact::Absent => Err(format!("{path} is not there")),
        Fact::Unreadable(why) => Err(format!("{path}: {why}")),
    }
}

pub fn text<'a>(tree: &'a Value, pointer: &str) -> &'a str {
    tree.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn flag(tree: &Value, pointer: &str) -> Option<bool> {
    tree.pointer(pointer).and_then(Value::as_bool)
}

fn number(tree: &Value, pointer: &str) -> Option<i64> {
    tree.pointer(pointer).and_then(Value::as_i64)
}

fn list<'a>(tree: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    tree.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn strings(tree: &Value, pointer: &str) -> Vec<String> {
    list(tree, pointer).filter_map(Value::as_str).map(str::to_owned).take(LIST_MAX).collect()
}

fn optional(tree: &Value, pointer: &str) -> Option<Vec<String>> {
    tree.pointer(pointer).filter(|value| value.is_array()).map(|_| strings(tree, pointer))
}

/// Folders of a bundle that are the engine's own, so that its hosts file is no reach into its data.
pub fn own_folders(declared: &Declared) -> Vec<String> {
    let own = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/shm", "/run/.containerenv", "/run/secrets", "/dev/termination-log"];
    let binds =
        declared.binds.iter().filter(|bind| own.contains(&bind.target.as_str()) && meaning::clean(&bind.source).matches('/').count() > 3);
    binds.map(|bind| bind.source.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_told_and_files_of_secrets_are_not() {
        let environment = ["DB_PASSWORD=x", "DB_PASSWORD_FILE=/run/secrets/db", "PATH=/bin", "api_key=1", "TOKEN=", "KEY_SECRET=/run/key"];
        assert_eq!(secret_names(&environment.map(str::to_owned)), ["DB_PASSWORD", "api_key"]);
    }

    #[test]
    fn a_docker_order_is_read_with_everything_that_counts() {
        let config = serde_json::json!({
            "Name": "/web", "Config": { "User": "", "Env": ["A=1"] }, "State": { "Running": false },
            "MountPoints": { "/x": { "Type": "bind", "Source": "/run", "Destination": "/x", "RW": true, "Propagation": "rprivate" },
                             "/v": { "Type": "volume", "Source": "/var/lib/docker/volumes/v/_data", "Destination": "/v", "RW": true } }
        });
        let host = serde_json::json!({
            "Privileged": false, "CapAdd": ["MKNOD"], "GroupAdd": ["0"], "PidMode": "host", "MaskedPaths": [], "ReadonlyPaths": null,
            "DeviceCgroupRules": ["b *:* rwm"], "PortBindings": { "80/tcp": [{ "HostIp": "", "HostPort": "8080" }] }
        });
        let declared = docker_order(&config, &host);
        assert_eq!(declared.binds.len(), 1);
        assert_eq!(declared.host_namespaces, ["pid"]);
        assert_eq!(declared.published, ["0.0.0.0:8080->80/tcp"]);
        assert_eq!((declared.masked_paths, declared.read_only_paths), (Some(vec![]), None));
        assert_eq!(declared.device_rules, ["b *:* rwm"]);
    }
}
