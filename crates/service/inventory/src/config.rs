//! Where the container engines are and how patient the inventory is.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of an [`crate::Inventory`]. [`Config::default`] fits an ordinary host: an engine whose
/// socket is not there costs one failed `connect` every two seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Sockets of Docker engines.
    pub docker: Vec<PathBuf>,
    /// Sockets of Podman's API service (`podman.socket`). Podman containers are found without it
    /// too, by their cgroup; the service adds names, images, labels and published ports.
    pub podman: Vec<PathBuf>,
    /// Podman's storage directories (`graphroot`, `runroot`): names and images while its API service is not running.
    pub podman_storage: Vec<PathBuf>,
    /// Sockets of containerd. Its namespaces `moby` and `plugins.moby` are Docker's and left out.
    pub containerd: Vec<PathBuf>,
    /// Sockets that speak the Kubernetes Container Runtime Interface and are not containerd: CRI-O.
    pub cri: Vec<PathBuf>,
    /// How long one question to an engine may take, from connect to the answer's last byte.
    pub request_timeout: Duration,
    /// How often an engine whose events flow is listed anew: heals lost events, notices a hung engine.
    pub resync_interval: Duration,
    /// How often all processes and namespaces are looked at. Stretched on a host where one look
    /// takes long, so that looking costs at most 1/400 of a core.
    pub scan_interval: Duration,
    /// First and longest pause before an engine that failed is tried again; doubled in between.
    pub backoff: (Duration, Duration),
    /// How often it is looked whether an absent engine's socket has appeared.
    pub absent_interval: Duration,
    /// How often an engine that has no events (CRI-O) is asked.
    pub poll_interval: Duration,
    /// Changes that may wait for one subscriber; past that it gets [`crate::Change::Resync`].
    pub subscriber_queue_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            docker: vec!["/var/run/docker.sock".into()],
            podman: vec!["/run/podman/podman.sock".into()],
            podman_storage: vec!["/var/lib/containers/storage".into(), "/run/containers/storage".into()],
            containerd: vec!["/run/containerd/containerd.sock".into(), "/run/k3s/containerd/containerd.sock".into()],
            cri: vec!["/run/crio/crio.sock".into()],
            request_timeout: Duration::from_secs(3),
            resync_interval: Duration::from_secs(30),
            scan_interval: Duration::from_secs(10),
            backoff: (Duration::from_millis(100), Duration::from_secs(5)),
            absent_interval: Duration::from_secs(2),
            poll_interval: Duration::from_secs(5),
            subscriber_queue_max: 4096,
        }
    }
}

impl Config {
    /// No engine at all: only what the kernel shows. A base for tests and unusual hosts.
    pub fn without_engines() -> Self {
        Self {
            docker: Vec::new(),
            podman: Vec::new(),
            podman_storage: Vec::new(),
            containerd: Vec::new(),
            cri: Vec::new(),
            ..Self::default()
        }
    }

    /// Takes a value in the form of the Docker client's `DOCKER_HOST`: `unix:///path` or a bare
    /// path. Engines behind TCP or SSH run elsewhere and are refused.
    pub fn set_docker_host(&mut self, value: &str) -> Result<(), ConfigError> {
        let path = value.strip_prefix("unix://").unwrap_or(value);
        if !path.starts_with('/') {
            return Err(ConfigError::NotLocal { value: value.chars().take(200).collect() });
        }
        self.docker = vec![PathBuf::from(path)];
        Ok(())
    }
}

/// A setting that cannot be used; the operator's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "`{value}` is not a socket of this host: write `unix:///path/to/docker.sock`, an engine reached over the network protects nothing here"
    )]
    NotLocal { value: String },
}

/// What sort of engine, in order of precedence: where two claim the same container, the first is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EngineKind {
    Docker,
    Podman,
    Cri,
    Containerd,
    /// Podman's files, read while its service is not running.
    PodmanStorage,
}

impl EngineKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Cri => "cri",
            Self::Containerd => "containerd",
            Self::PodmanStorage => "podman-storage",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_host_on_this_machine_is_taken_and_one_elsewhere_is_refused() {
        let mut config = Config::default();
        config.set_docker_host("unix:///srv/docker.sock").expect("a unix socket");
        assert_eq!(config.docker, [PathBuf::from("/srv/docker.sock")]);
        config.set_docker_host("/srv/other.sock").expect("a path");
        assert_eq!(config.docker, [PathBuf::from("/srv/other.sock")]);
        for elsewhere in ["tcp://198.51.100.7:2375", "ssh://host", "", "unix://", "docker.sock"] {
            assert!(matches!(config.set_docker_host(elsewhere), Err(ConfigError::NotLocal { .. })), "{elsewhere}");
        }
        assert_eq!(config.docker, [PathBuf::from("/srv/other.sock")], "a refused value changes nothing");
    }
}
