//! All controls, by area.

mod accounts;
mod container;
mod container_reach;
mod distribution;
mod engine;
mod files;
mod kernel;
mod kubernetes;
mod modules;
mod mounts;
mod rbac;
mod services;
mod ssh;
mod surface;
mod sysctl;

use crate::control::{Control, by_weight};

pub use container_reach::is_wide;
pub use kubernetes::{kubelet, manifest};
pub use mounts::mount_of;
pub use services::describe as describe_unit;
pub use ssh::server as ssh_server;

/// Every control of every profile, worst first.
pub fn catalogue() -> Vec<Control> {
    let mut all = Vec::new();
    all.extend(distribution::controls());
    all.extend(surface::controls());
    all.extend(services::controls());
    all.extend(ssh::controls());
    all.extend(accounts::controls());
    all.extend(files::controls());
    all.extend(sysctl::controls());
    all.extend(modules::controls());
    all.extend(mounts::controls());
    all.extend(kernel::controls());
    all.extend(engine::controls());
    all.extend(container::controls());
    all.extend(container_reach::controls());
    all.extend(kubernetes::controls());
    all.extend(rbac::controls());
    all.sort_by(by_weight);
    all
}

/// What a collector is to look at, so that every control can be answered.
pub struct Wanted {
    pub sysctls: Vec<&'static str>,
    pub modules: Vec<&'static str>,
    pub files: Vec<&'static str>,
}

pub fn wanted() -> Wanted {
    let mut wanted =
        Wanted { sysctls: sysctl::ALSO_READ.to_vec(), modules: modules::ALSO_LOOKED_FOR.to_vec(), files: files::ALSO_LOOKED_AT.to_vec() };
    for control in catalogue() {
        match control.check {
            crate::control::Check::Sysctl { key, .. } => wanted.sysctls.push(key),
            crate::control::Check::ModuleBlocked(module) => wanted.modules.push(module),
            crate::control::Check::FileMode { paths, .. } => wanted.files.extend(paths),
            crate::control::Check::MountOption { .. }
            | crate::control::Check::Ssh { .. }
            | crate::control::Check::ServiceOff(_)
            | crate::control::Check::PackagesAbsent(_)
            | crate::control::Check::Containers(_)
            | crate::control::Check::Kubelet { .. }
            | crate::control::Check::Manifest { .. }
            | crate::control::Check::Other(_) => {}
        }
    }
    wanted.files.extend(crate::view::ENGINE_PROGRAMS);
    wanted.files.extend(distribution::TRAIT_FILES);
    wanted
}
