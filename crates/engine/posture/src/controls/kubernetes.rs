//! A node of Kubernetes: the kubelet's settings and the static pods of a control plane.

use serde_json::Value;

use crate::control::Want::{AtLeast, Holds, NoneOf, One, Set};
use crate::control::{Area, Check, Control, Outcome, Risk, Severity, Want};
use crate::snapshot::Fact;
use crate::view::{View, flag};

/// Id, field, flag, wanted, default, severity, source, why.
type Kubelet = (&'static str, &'static str, &'static str, Want, &'static str, Severity, &'static str, &'static str);

const KUBELET: &[Kubelet] = &[
    (
        "anonymous-auth",
        "authentication.anonymous.enabled",
        "--anonymous-auth",
        One(&["false"]),
        "true",
        Severity::Critical,
        "CIS-Kubernetes-1.11 4.2.1",
        "Whoever reaches port 10250 runs commands in every pod.",
    ),
    (
        "authorization-mode",
        "authorization.mode",
        "--authorization-mode",
        One(&["Webhook"]),
        "AlwaysAllow",
        Severity::Critical,
        "CIS-Kubernetes-1.11 4.2.2",
        "Whoever is let in may do everything.",
    ),
    (
        "client-ca",
        "authentication.x509.clientCAFile",
        "--client-ca-file",
        Set,
        "",
        Severity::High,
        "CIS-Kubernetes-1.11 4.2.3",
        "Without it clients cannot prove who they are.",
    ),
    (
        "read-only-port",
        "readOnlyPort",
        "--read-only-port",
        One(&["0"]),
        "0",
        Severity::High,
        "CIS-Kubernetes-1.11 4.2.4",
        "Pods, their environments and addresses for everybody.",
    ),
    (
        "streaming-idle",
        "streamingConnectionIdleTimeout",
        "--streaming-connection-idle-timeout",
        NoneOf(&["0", "0s"]),
        "4h0m0s",
        Severity::Low,
        "CIS-Kubernetes-1.11 4.2.5",
        "Streams that nobody uses stay open for ever.",
    ),
    (
        "iptables-util-chains",
        "makeIPTablesUtilChains",
        "--make-iptables-util-chains",
        One(&["true"]),
        "true",
        Severity::Low,
        "CIS-Kubernetes-1.11 4.2.6",
        "The kubelet keeps the chains that other parts rely on.",
    ),
    (
        "protect-kernel-defaults",
        "protectKernelDefaults",
        "--protect-kernel-defaults",
        One(&["true"]),
        "false",
        Severity::Low,
        "CIS-Kubernetes-1.11 4.2 (before 1.8)",
        "Otherwise the kubelet changes the kernel's settings at its start.",
    ),
    (
        "event-rate",
        "eventRecordQPS",
        "--event-qps",
        AtLeast(0),
        "50",
        Severity::Info,
        "CIS-Kubernetes-1.11 4.2.8",
        "Events that tell of an attack are lost in a flood.",
    ),
    (
        "rotate-client-certificates",
        "rotateCertificates",
        "--rotate-certificates",
        One(&["true"]),
        "true",
        Severity::Medium,
        "CIS-Kubernetes-1.11 4.2.10",
        "Certificates that end take the node with them; those that never end are stolen for ever.",
    ),
    (
        "seccomp-default",
        "seccompDefault",
        "--seccomp-default",
        One(&["true"]),
        "false",
        Severity::Medium,
        "CIS-Kubernetes-1.11 4.2.14",
        "Without it pods run without a filter of system calls.",
    ),
    (
        "pod-pids-limit",
        "podPidsLimit",
        "--pod-max-pids",
        AtLeast(1),
        "-1",
        Severity::Medium,
        "CIS-Kubernetes-1.11 4.2.13",
        "A fork bomb in one pod stops the node.",
    ),
    (
        "tls-ciphers",
        "tlsCipherSuites",
        "--tls-cipher-suites",
        NoneOf(&[
            "TLS_RSA_WITH_RC4_128_SHA",
            "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
            "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
            "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
            "TLS_RSA_WITH_AES_128_CBC_SHA256",
        ]),
        "",
        Severity::Low,
        "CIS-Kubernetes-1.11 4.2.12",
        "Broken ciphers give tokens away.",
    ),
    (
        "ip-address-deny",
        "enableDebuggingHandlers",
        "--enable-debugging-handlers",
        One(&["true", "false"]),
        "true",
        Severity::Info,
        "Bulkhead",
        "Handlers for exec and logs can be switched off where nobody uses them.",
    ),
];

/// Id, component, flag, wanted, default where the flag is not given, severity, source, why.
type Manifest = (&'static str, &'static str, &'static str, Want, Option<&'static str>, Severity, &'static str, &'static str);

const MANIFESTS: &[Manifest] = &[
    (
        "apiserver.anonymous-auth",
        "kube-apiserver",
        "--anonymous-auth",
        One(&["false"]),
        Some("true"),
        Severity::Medium,
        "CIS-Kubernetes-1.11 1.2.1",
        "Unknown callers are let in as system:anonymous, and a wrong binding gives them rights.",
    ),
    (
        "apiserver.token-auth-file",
        "kube-apiserver",
        "--token-auth-file",
        One(&[""]),
        Some(""),
        Severity::High,
        "CIS-Kubernetes-1.11 1.2.2",
        "Tokens in a file never end.",
    ),
    (
        "apiserver.kubelet-client",
        "kube-apiserver",
        "--kubelet-client-certificate",
        Set,
        Some(""),
        Severity::Medium,
        "CIS-Kubernetes-1.11 1.2.4",
        "The server must prove itself to kubelets.",
    ),
    (
        "apiserver.kubelet-ca",
        "kube-apiserver",
        "--kubelet-certificate-authority",
        Set,
        Some(""),
        Severity::Medium,
        "CIS-Kubernetes-1.11 1.2.5",
        "Otherwise anybody may be a kubelet.",
    ),
    (
        "apiserver.authorization-allow",
        "kube-apiserver",
        "--authorization-mode",
        NoneOf(&["AlwaysAllow"]),
        Some("AlwaysAllow"),
        Severity::Critical,
        "CIS-Kubernetes-1.11 1.2.6",
        "Whoever is let in may do everything.",
    ),
    (
        "apiserver.authorization-node",
        "kube-apiserver",
        "--authorization-mode",
        Holds("Node"),
        Some("AlwaysAllow"),
        Severity::High,
        "CIS-Kubernetes-1.11 1.2.7",
        "A node is to read only what its own pods need.",
    ),
    (
        "apiserver.authorization-rbac",
        "kube-apiserver",
        "--authorization-mode",
        Holds("RBAC"),
        Some("AlwaysAllow"),
        Severity::High,
        "CIS-Kubernetes-1.11 1.2.8",
        "Rights must be given by roles.",
    ),
    (
        "apiserver.admission-always",
        "kube-apiserver",
        "--enable-admission-plugins",
        NoneOf(&["AlwaysAdmit"]),
        Some(""),
        Severity::High,
        "CIS-Kubernetes-1.11 1.2.10",
        "It admits everything.",
    ),
    (
        "apiserver.admission-node",
        "kube-apiserver",
        "--enable-admission-plugins",
        Holds("NodeRestriction"),
        Some(""),
        Severity::High,
        "CIS-Kubernetes-1.11 1.2.15",
        "A node could change other nodes' objects.",
    ),
    (
        "apiserver.admission-images",
        "kube-apiserver",
        "--enable-admission-plugins",
        Holds("AlwaysPullImages"),
        Some(""),
        Severity::Info,
        "CIS-Kubernetes-1.11 1.2.11",
        "Whoever knows an image's name uses it without the right to pull.",
    ),
    (
        "apiserver.profiling",
        "kube-apiserver",
        "--profiling",
        One(&["false"]),
        Some("true"),
        Severity::Low,
        "CIS-Kubernetes-1.11 1.2.16",
        "Profiles tell how the server works inside.",
    ),
    (
        "apiserver.audit-log",
        "kube-apiserver",
        "--audit-log-path",
        Set,
        Some(""),
        Severity::Medium,
        "CIS-Kubernetes-1.11 1.2.17",
        "Nobody knows who did what.",
    ),
    (
        "apiserver.audit-age",
        "kube-apiserver",
        "--audit-log-maxage",
        AtLeast(30),
        Some("0"),
        Severity::Low,
        "CIS-Kubernetes-1.11 1.2.18",
        "A break-in is found after weeks.",
    ),
    (
        "apiserver.service-account-lookup",
        "kube-apiserver",
        "--service-account-lookup",
        One(&["true"]),
        Some("true"),
        Severity::Medium,
        "CIS-Kubernetes-1.11 1.2.22",
        "Tokens of accounts that are deleted would still be good.",
    ),
    (
        "apiserver.etcd-ca",
        "kube-apiserver",
        "--etcd-cafile",
        Set,
        Some(""),
        Severity::High,
        "CIS-Kubernetes-1.11 1.2.26",
        "Otherwise anybody may be etcd.",
    ),
    (
        "apiserver.encryption",
        "kube-apiserver",
        "--encryption-provider-config",
        Set,
        Some(""),
        Severity::Medium,
        "CIS-Kubernetes-1.11 1.2.27",
        "Secrets lie in etcd and its backups as they are.",
    ),
    (
        "apiserver.tls-ciphers",
        "kube-apiserver",
        "--tls-cipher-suites",
        NoneOf(&["TLS_RSA_WITH_RC4_128_SHA", "TLS_RSA_WITH_3DES_EDE_CBC_SHA"]),
        Some(""),
        Severity::Low,
        "CIS-Kubernetes-1.11 1.2.29",
        "Broken ciphers give tokens away.",
    ),
    (
        "controller.service-account-credentials",
        "kube-controller-manager",
        "--use-service-account-credentials",
        One(&["true"]),
        Some("false"),
        Severity::Medium,
        "CIS-Kubernetes-1.11 1.3.3",
        "Every controller should have its own rights only.",
    ),
    (
        "controller.root-ca",
        "kube-controller-manager",
        "--root-ca-file",
        Set,
        Some(""),
        Severity::Medium,
        "CIS-Kubernetes-1.11 1.3.5",
        "Pods must be able to know the server.",
    ),
    (
        "controller.bind-address",
        "kube-controller-manager",
        "--bind-address",
        One(&["127.0.0.1", "::1"]),
        Some("0.0.0.0"),
        Severity::Medium,
        "CIS-Kubernetes-1.11 1.3.7",
        "Its port is for this host only.",
    ),
    (
        "controller.profiling",
        "kube-controller-manager",
        "--profiling",
        One(&["false"]),
        Some("true"),
        Severity::Low,
        "CIS-Kubernetes-1.11 1.3.2",
        "Profiles tell how it works inside.",
    ),
    (
        "scheduler.bind-address",
        "kube-scheduler",
        "--bind-address",
        One(&["127.0.0.1", "::1"]),
        Some("0.0.0.0"),
        Severity::Medium,
        "CIS-Kubernetes-1.11 1.4.2",
        "Its port is for this host only.",
    ),
    (
        "scheduler.profiling",
        "kube-scheduler",
        "--profiling",
        One(&["false"]),
        Some("true"),
        Severity::Low,
        "CIS-Kubernetes-1.11 1.4.1",
        "Profiles tell how it works inside.",
    ),
    (
        "etcd.client-auth",
        "etcd",
        "--client-cert-auth",
        One(&["true"]),
        Some("false"),
        Severity::Critical,
        "CIS-Kubernetes-1.11 2.2",
        "Whoever reaches its port has all secrets.",
    ),
    (
        "etcd.peer-auth",
        "etcd",
        "--peer-client-cert-auth",
        One(&["true"]),
        Some("false"),
        Severity::High,
        "CIS-Kubernetes-1.11 2.5",
        "Whoever reaches its port becomes a member.",
    ),
    (
        "etcd.auto-tls",
        "etcd",
        "--auto-tls",
        One(&["false"]),
        Some("false"),
        Severity::Medium,
        "CIS-Kubernetes-1.11 2.3",
        "Certificates that it signs itself prove nothing.",
    ),
];

pub fn controls() -> Vec<Control> {
    let kubelet = KUBELET.iter().map(|&(id, field, flag, want, default, severity, source, why)| {
        Control::new(
            format!("kubelet.{id}"),
            format!("kubelet: {field} is {}", want.text()),
            Area::Kubernetes,
            severity,
            Check::Kubelet { field, flag, want, default },
        )
        .because(why)
        .source(&[source])
        .remedy(format!("`{field}` in /var/lib/kubelet/config.yaml, then `systemctl restart kubelet`"))
        .risk(Risk::Medium, "pods of this node while the kubelet starts anew")
        .when_named()
    });
    let manifests = MANIFESTS.iter().map(|&(id, component, flag, want, default, severity, source, why)| {
        let text = if want == One(&[""]) { "not set".to_owned() } else { want.text() };
        Control::new(
            id,
            format!("{component}: {flag} is {text}"),
            Area::Kubernetes,
            severity,
            Check::Manifest { component, flag, want, default },
        )
        .because(why)
        .source(&[source])
        .remedy(format!("`{flag}` in /etc/kubernetes/manifests/{component}.yaml"))
        .risk(Risk::High, "the control plane starts anew")
        .when_named()
    });
    let mut all: Vec<Control> = kubelet.chain(manifests).collect();
    all.push(
        Control::new(
            "kubernetes.static-pods",
            "static pods are those of the control plane",
            Area::Kubernetes,
            Severity::Medium,
            Check::Other(static_pods),
        )
        .because("A static pod passes no admission, and comes back when it is deleted: a good place to stay.")
        .source(&["Bulkhead"])
        .remedy("take the file out of the folder of manifests")
        .when_named(),
    );
    all
}

/// Is there something to judge?
pub fn node(view: &View<'_>) -> Result<(), Outcome> {
    if view.has_kubelet() {
        return Ok(());
    }
    match view.snapshot.exists("/var/lib/kubelet") {
        Some(_) => Err(Outcome::not_applicable(
            "this is no node of Kubernetes: no kubelet runs, and there is neither /var/lib/kubelet nor /etc/kubernetes",
        )),
        None => Err(Outcome::unknown("whether this is a node of Kubernetes was not looked at")),
    }
}

pub fn kubelet(view: &View<'_>, field: &str, flag_name: &str, want: Want, default: &str) -> Outcome {
    if let Err(outcome) = node(view) {
        return outcome;
    }
    let given = view.snapshot.kubelet.known().and_then(|arguments| flag(arguments, flag_name));
    let (value, from) = match (given, &view.kubelet) {
        (Some(value), _) => (value, format!("flag {flag_name}")),
        (None, Fact::Known(tree)) => match field.split('.').try_fold(tree, |tree, part| tree.get(part)) {
            Some(value) => (plain(value), "its configuration".to_owned()),
            // What the file leaves out has another default than the flag: kubelet.config.k8s.io.
            None => (file_default(field, default).to_owned(), "the default".to_owned()),
        },
        (None, Fact::Absent) if view.snapshot.kubelet.known().is_some() => (default.to_owned(), "the default".to_owned()),
        (None, Fact::Absent) => return Outcome::not_applicable("this node runs no kubelet, and has no configuration of one"),
        (None, Fact::Unreadable(why)) => return Outcome::unknown(why.clone()),
    };
    judge(want, &value, &from, field)
}

fn file_default<'a>(field: &str, default: &'a str) -> &'a str {
    match field {
        "authentication.anonymous.enabled" => "false",
        "authorization.mode" => "Webhook",
        "rotateCertificates" => "false",
        _ => default,
    }
}

pub fn manifest(view: &View<'_>, component: &str, flag_name: &str, want: Want, default: Option<&str>) -> Outcome {
    if let Err(outcome) = node(view) {
        return outcome;
    }
    let name = format!("{component}.yaml");
    let Some(tree) = view.manifests.get(&name) else {
        return match view.snapshot.texts.get(&format!("{}/{name}", crate::view::MANIFESTS)) {
            Some(fact) if fact.unreadable().is_some() => Outcome::unknown(fact.unreadable().unwrap_or_default()),
            _ => Outcome::not_applicable(format!("this node runs no {component} as a static pod: there is no {name}")),
        };
    };
    if let Some(why) = tree.get("unreadable").and_then(Value::as_str) {
        return Outcome::unknown(format!("{name}: {why}"));
    }
    let containers = tree.pointer("/spec/containers").and_then(Value::as_array);
    let mut arguments = Vec::new();
    for container in containers.into_iter().flatten() {
        for key in ["command", "args"] {
            let list = container.get(key).and_then(Value::as_array).into_iter().flatten();
            arguments.extend(list.filter_map(Value::as_str).map(str::to_owned));
        }
    }
    match flag(&arguments, flag_name).or_else(|| arguments.iter().any(|argument| argument == flag_name).then(|| "true".to_owned())) {
        Some(value) => judge(want, &value, &name, flag_name),
        None => match default {
            Some(default) => judge(want, default, &format!("{name} does not set it"), flag_name),
            None => Outcome::failed(format!("{name} does not set {flag_name}")),
        },
    }
}

fn judge(want: Want, value: &str, from: &str, what: &str) -> Outcome {
    let text = format!("{what} is `{value}` ({from})");
    match want.accepts(value) {
        Some(true) => Outcome::passed(text),
        Some(false) => Outcome::failed(text),
        None => Outcome::unknown(format!("{text}, which is no number")),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn static_pods(view: &View<'_>) -> Outcome {
    if let Err(outcome) = node(view) {
        return outcome;
    }
    let usual = [
        "kube-apiserver.yaml",
        "kube-controller-manager.yaml",
        "kube-scheduler.yaml",
        "etcd.yaml",
        "kube-vip.yaml",
        "haproxy.yaml",
        "keepalived.yaml",
        "kube-proxy.manifest",
    ];
    let strange = view.manifests.keys().filter(|name| !usual.contains(&name.as_str()));
    Outcome::of_list(
        strange.map(|name| format!("{}/{name}", crate::view::MANIFESTS)).collect(),
        format!("{} static pods", view.manifests.len()),
    )
}
