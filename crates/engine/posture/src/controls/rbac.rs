//! Rights in a cluster, from a dump that the operator gives: `kubectl get clusterroles,clusterrolebindings,roles,rolebindings -A -o json`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::control::{Area, Check, Control, Outcome, Severity};
use crate::snapshot::Fact;
use crate::view::View;

pub fn controls() -> Vec<Control> {
    let rbac = |id: &str, title: &str, severity, source, why, check: fn(&View<'_>) -> Outcome| {
        Control::new(id, title, Area::Kubernetes, severity, Check::Other(check))
            .because(why)
            .source(&[source])
            .remedy("give the account a role with the verbs and resources it needs, in its namespace")
            .when_named()
    };
    vec![
        rbac(
            "rbac.cluster-admin",
            "cluster-admin is bound to administrators only",
            Severity::High,
            "CIS-Kubernetes-1.11 5.1.1",
            "It may do everything, everywhere.",
            cluster_admin,
        ),
        rbac(
            "rbac.secrets",
            "few may read secrets",
            Severity::Medium,
            "CIS-Kubernetes-1.11 5.1.2",
            "A secret is often the right to more.",
            secrets,
        ),
        rbac(
            "rbac.wildcards",
            "no role holds wildcards",
            Severity::Medium,
            "CIS-Kubernetes-1.11 5.1.3",
            "It grows with everything that is added later.",
            wildcards,
        ),
        rbac(
            "rbac.create-pods",
            "few may make pods",
            Severity::Medium,
            "CIS-Kubernetes-1.11 5.1.4",
            "Whoever makes a pod has the secrets of its namespace, and the node where nothing forbids it.",
            create_pods,
        ),
        rbac(
            "rbac.escalate",
            "nobody may bind, escalate or impersonate",
            Severity::High,
            "CIS-Kubernetes-1.11 5.1.8",
            "Each gives the rights of others.",
            escalate,
        ),
        rbac(
            "rbac.nodes-proxy",
            "nobody may use nodes/proxy",
            Severity::High,
            "CIS-Kubernetes-1.11 5.1.10",
            "It runs commands in every pod of a node, past the audit log.",
            nodes_proxy,
        ),
        rbac(
            "rbac.tokens",
            "few may make tokens of accounts",
            Severity::High,
            "CIS-Kubernetes-1.11 5.1.13",
            "A token is the account.",
            tokens,
        ),
        rbac(
            "rbac.webhooks",
            "few may change admission webhooks",
            Severity::Medium,
            "CIS-Kubernetes-1.11 5.1.12",
            "They see and change everything that is made.",
            webhooks,
        ),
        rbac(
            "rbac.anonymous",
            "nothing is bound to everybody",
            Severity::Critical,
            "CIS-Kubernetes-1.11 5.1",
            "system:anonymous and system:unauthenticated are everybody who reaches the port.",
            anonymous,
        ),
    ]
}

/// One rule of a role that is bound, and to whom.
struct Grant<'a> {
    role: &'a str,
    subject: String,
    rule: &'a Value,
}

/// Groups and accounts of the cluster itself.
fn is_system(subject: &str) -> bool {
    subject.contains("system:masters")
        || subject.contains("system:kube-")
        || subject.contains("system:node")
        || subject.starts_with("ServiceAccount kube-system/")
        || subject.contains("kubeadm:cluster-admins")
}

fn objects<'a>(view: &View<'a>) -> Result<&'a Vec<Value>, Outcome> {
    match &view.snapshot.rbac {
        Fact::Known(tree) => match tree.get("items").and_then(Value::as_array) {
            Some(items) => Ok(items),
            None => Err(Outcome::unknown("the dump of RBAC has no list of items")),
        },
        Fact::Absent => Err(match super::kubernetes::node(view) {
            Ok(()) => Outcome::not_applicable("no dump of the cluster's RBAC was given (--rbac FILE)"),
            Err(outcome) => outcome,
        }),
        Fact::Unreadable(why) => Err(Outcome::unknown(why.clone())),
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn subjects(binding: &Value) -> Vec<String> {
    let list = binding.get("subjects").and_then(Value::as_array).into_iter().flatten();
    list.map(|subject| match text(subject, "/namespace") {
        "" => format!("{} {}", text(subject, "/kind"), text(subject, "/name")),
        namespace => format!("{} {namespace}/{}", text(subject, "/kind"), text(subject, "/name")),
    })
    .collect()
}

/// What is bound to whom, the system's own apart.
fn grants<'a>(items: &'a [Value]) -> Vec<Grant<'a>> {
    let mut roles: BTreeMap<(&str, &str, &str), &Value> = BTreeMap::new();
    for item in items.iter().filter(|item| text(item, "/kind").ends_with("Role")) {
        roles.insert((text(item, "/kind"), text(item, "/metadata/namespace"), text(item, "/metadata/name")), item);
    }
    let mut grants = Vec::new();
    for binding in items.iter().filter(|item| text(item, "/kind").ends_with("RoleBinding")) {
        let (kind, name) = (text(binding, "/roleRef/kind"), text(binding, "/roleRef/name"));
        let namespace = if kind == "Role" { text(binding, "/metadata/namespace") } else { "" };
        let Some(role) = roles.get(&(kind, namespace, name)) else { continue };
        for subject in subjects(binding).into_iter().filter(|subject| !is_system(subject)) {
            for rule in role.get("rules").and_then(Value::as_array).into_iter().flatten() {
                grants.push(Grant { role: name, subject: subject.clone(), rule });
            }
        }
    }
    grants
}

fn has(rule: &Value, field: &str, wanted: &[&str]) -> bool {
    rule.get(field)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .any(|found| found == "*" || wanted.contains(&found))
}

fn granted(view: &View<'_>, bad: impl Fn(&Value) -> bool, fine: &str) -> Outcome {
    match objects(view) {
        Ok(items) => {
            let mut found: Vec<String> =
                grants(items).iter().filter(|grant| bad(grant.rule)).map(|grant| format!("{} by {}", grant.subject, grant.role)).collect();
            found.sort();
            found.dedup();
            Outcome::of_list(found, fine)
        }
        Err(outcome) => outcome,
    }
}

fn bound(view: &View<'_>, bad: impl Fn(&str, &str) -> bool, fine: &str) -> Outcome {
    match objects(view) {
        Ok(items) => {
            let mut found = Vec::new();
            for binding in items.iter().filter(|item| text(item, "/kind").ends_with("RoleBinding")) {
                let role = text(binding, "/roleRef/name");
                found.extend(
                    subjects(binding)
                        .into_iter()
                        .filter(|subject| bad(role, subject))
                        .map(|subject| format!("{subject} by {}", text(binding, "/metadata/name"))),
                );
            }
            Outcome::of_list(found, fine)
        }
        Err(outcome) => outcome,
    }
}

fn cluster_admin(view: &View<'_>) -> Outcome {
    bound(view, |role, subject| role == "cluster-admin" && !is_system(subject), "only the system's own groups")
}

fn anonymous(view: &View<'_>) -> Outcome {
    // Bound by default, to what everybody may know.
    let usual = ["system:public-info-viewer", "kubeadm:bootstrap-signer-clusterinfo"];
    bound(
        view,
        |role, subject| (subject.ends_with("system:anonymous") || subject.ends_with("system:unauthenticated")) && !usual.contains(&role),
        "only what everybody may know",
    )
}

fn secrets(view: &View<'_>) -> Outcome {
    granted(view, |rule| has(rule, "resources", &["secrets"]) && has(rule, "verbs", &["get", "list", "watch"]), "none outside the system")
}

fn wildcards(view: &View<'_>) -> Outcome {
    granted(view, |rule| has(rule, "resources", &[]) || has(rule, "verbs", &[]), "none")
}

fn create_pods(view: &View<'_>) -> Outcome {
    let makes = ["pods", "deployments", "daemonsets", "statefulsets", "jobs", "cronjobs", "replicasets", "replicationcontrollers"];
    granted(view, |rule| has(rule, "resources", &makes) && has(rule, "verbs", &["create", "update", "patch"]), "none outside the system")
}

fn escalate(view: &View<'_>) -> Outcome {
    granted(view, |rule| has(rule, "verbs", &["bind", "escalate", "impersonate"]), "none")
}

fn nodes_proxy(view: &View<'_>) -> Outcome {
    granted(view, |rule| has(rule, "resources", &["nodes/proxy"]), "none")
}

fn tokens(view: &View<'_>) -> Outcome {
    granted(view, |rule| has(rule, "resources", &["serviceaccounts/token"]) && has(rule, "verbs", &["create"]), "none outside the system")
}

fn webhooks(view: &View<'_>) -> Outcome {
    let kinds = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];
    granted(
        view,
        |rule| has(rule, "resources", &kinds) && has(rule, "verbs", &["create", "update", "patch", "delete"]),
        "none outside the system",
    )
}
