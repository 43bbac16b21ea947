//! Which container a process belongs to, from its cgroup path. Pure.
//!
//! Every engine puts a container into a cgroup of its own that is named after the container's id of
//! 64 hexadecimal digits: `/docker/ID`, `/system.slice/docker-ID.scope`,
//! `/machine.slice/libpod-ID.scope/container`, `/kubepods.slice/…/cri-containerd-ID.scope`,
//! `/kubepods/burstable/podUID/ID`. It works while the engine is down, and a process cannot leave
//! it. What counts is the **outermost** id: below its own cgroup a privileged container may make
//! directories of any name, and must not become another container by that. Cgroups below
//! `/user.slice` are made by ordinary users and name nobody.

use bulkhead_model::Runtime;

/// A container as a cgroup path names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    /// 64 lower-case hexadecimal digits.
    pub id: &'a str,
    /// The engine that names cgroups this way; [`Runtime::Namespace`] when the path does not tell.
    pub runtime: Runtime,
}

/// The container that a path such as `/system.slice/docker-ID.scope/init` belongs to.
pub fn container(path: &str) -> Option<Named<'_>> {
    let mut parent = "";
    for (depth, component) in path.split('/').filter(|component| !component.is_empty()).take(COMPONENTS_MAX).enumerate() {
        if depth == 0 && component == "user.slice" {
            return None;
        }
        if let Some((prefix, id)) = split_id(component) {
            let runtime = match prefix {
                "docker" => Runtime::Docker,
                "libpod" => Runtime::Podman,
                "cri-containerd" | "crio" => Runtime::Cri,
                "nerdctl" => Runtime::Containerd,
                "" if parent == "docker" => Runtime::Docker,
                "" if parent == "libpod_parent" => Runtime::Podman,
                "" if path.starts_with("/kubepods") => Runtime::Cri,
                // The monitor beside the container (`libpod-conmon-ID`), not the container.
                prefix if prefix.ends_with("conmon") => return None,
                _ => Runtime::Namespace,
            };
            return Some(Named { id, runtime });
        }
        parent = component;
    }
    None
}

/// The path to show and to judge by: that of the unified hierarchy, unless it names no container
/// and one of the v1 hierarchies (`others`) does; `/` when there is none.
pub fn path<'a>(unified: Option<&'a str>, others: impl Iterator<Item = &'a str>) -> &'a str {
    let unified = unified.unwrap_or("/");
    if container(unified).is_some() {
        return unified;
    }
    others.take(HIERARCHIES_MAX).find(|path| container(path).is_some()).unwrap_or(unified)
}

/// Is this the id of a container: 64 lower-case hexadecimal digits?
pub fn is_id(text: &str) -> bool {
    text.len() == ID_LEN && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `docker-ID.scope` to (`docker`, ID), `ID` to (``, ID).
fn split_id(component: &str) -> Option<(&str, &str)> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let (prefix, id) = name.split_at_checked(name.len().checked_sub(ID_LEN)?)?;
    if !is_id(id) {
        return None;
    }
    if prefix.is_empty() { Some(("", id)) } else { Some((prefix.strip_suffix('-')?, id)) }
}

const ID_LEN: usize = 64;
/// The kernel's own limit for a path is 4096 bytes, and v1 has at most a dozen hierarchies.
const COMPONENTS_MAX: usize = 64;
const HIERARCHIES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4a1d5f0c2b3e4a1d5f0c2b3e4a1d5f0c2b3e4a1d5f0c2b3e4a1d5f0c2b3e0123";
    const OTHER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    #[test]
    fn each_engines_way_of_naming_is_known() {
        for (path, runtime) in [
            (format!("/docker/{ID}"), Runtime::Docker),
            (format!("/system.slice/docker-{ID}.scope"), Runtime::Docker),
            (format!("/system.slice/docker-{ID}.scope/init.scope"), Runtime::Docker),
            (format!("/machine.slice/libpod-{ID}.scope/container"), Runtime::Podman),
            (format!("/libpod_parent/libpod-{ID}"), Runtime::Podman),
            (format!("/kubepods.slice/kubepods-podab12.slice/cri-containerd-{ID}.scope"), Runtime::Cri),
            (format!("/kubepods/burstable/pod3e0b/{ID}"), Runtime::Cri),
            (format!("/kubepods.slice/kubepods-besteffort.slice/crio-{ID}.scope"), Runtime::Cri),
            (format!("/system.slice/nerdctl-{ID}.scope"), Runtime::Containerd),
            (format!("/batch/{ID}"), Runtime::Namespace),
            (format!("/../docker/{ID}"), Runtime::Docker),
        ] {
            assert_eq!(container(&path), Some(Named { id: ID, runtime }), "{path}");
        }
    }

    #[test]
    fn other_cgroups_name_no_container() {
        for path in [
            "",
            "/",
            "/system.slice/ssh.service",
            "/docker/short",
            &format!("/docker/{}", ID.to_uppercase()),
            &format!("/docker/x{ID}"),
            &format!("/docker/{ID}0"),
            &format!("/machine.slice/libpod-conmon-{ID}.scope"),
            &format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"),
            &format!("/docker/{}é{}", &ID[..31], &ID[..32]),
        ] {
            assert_eq!(container(path), None, "{path}");
        }
    }

    #[test]
    fn a_container_cannot_name_itself_another_one_further_down() {
        assert_eq!(container(&format!("/docker/{ID}/docker/{OTHER}")).map(|named| named.id), Some(ID));
        assert_eq!(container(&format!("/machine.slice/libpod-{ID}.scope/system.slice/docker-{OTHER}.scope")).map(|n| n.id), Some(ID));
    }

    #[test]
    fn the_unified_path_wins_unless_it_says_nothing() {
        let (docker, other) = (format!("/docker/{ID}"), format!("/docker/{OTHER}"));
        assert_eq!(path(Some(&docker), [other.as_str()].into_iter()), docker);
        assert_eq!(path(Some("/"), ["/x", docker.as_str()].into_iter()), docker);
        assert_eq!(path(None, [docker.as_str()].into_iter()), docker);
        assert_eq!(path(Some("/system.slice/cron.service"), ["/x"].into_iter()), "/system.slice/cron.service");
        assert_eq!(path(None, std::iter::empty()), "/");
    }
}
