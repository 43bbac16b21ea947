//! Compiles bpf/*/*.bpf.c with clang to CO-RE objects that are embedded in the binary.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const PROGRAMS: [&str; 2] = ["net/path", "net/guard"];

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../../bpf");
    let out = PathBuf::from(env::var("OUT_DIR").unwrap());
    println!("cargo:rerun-if-changed={}", root.display());
    println!("cargo:rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang-19".to_string());

    // libbpf-sys installs libbpf's own headers; its uapi headers know tcx where the distribution's do not.
    let headers = PathBuf::from(env::var("DEP_BPF_INCLUDE").expect("libbpf-sys tells where its headers are"));
    let uapi = uapi_headers(&headers);
    let machine = env::var("CARGO_CFG_TARGET_ARCH").unwrap();
    for program in PROGRAMS {
        let object = out.join(format!("{}.o", program.replace('/', "_")));
        let mut command = Command::new(&clang);
        command.args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", "-Wno-unused-function"]);
        command.arg("-I").arg(root.join("include")).arg("-I").arg(&headers);
        if let Some(uapi) = &uapi {
            command.arg("-I").arg(uapi);
        }
        command.arg("-I").arg(format!("/usr/include/{machine}-linux-gnu"));
        command.arg("-c").arg(root.join(format!("{program}.bpf.c"))).arg("-o").arg(&object);
        // The debug paths would differ from build to build.
        command.arg(format!("-ffile-prefix-map={}=.", root.display()));
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(status) => panic!("{clang} could not compile {program}.bpf.c ({status})"),
            Err(error) => panic!("{clang} cannot be run ({error}); install clang-19 or set CLANG"),
        }
    }
}

/// The folder of `linux/bpf.h` that comes with libbpf's sources.
fn uapi_headers(installed: &Path) -> Option<PathBuf> {
    let candidates = [installed.join("uapi"), installed.join("bpf/uapi")];
    for candidate in candidates {
        if candidate.join("linux/bpf.h").exists() {
            return Some(candidate);
        }
    }
    // Not installed: look beside the crate's sources, where the registry unpacked them.
    let home = env::var("CARGO_HOME").map(PathBuf::from).or_else(|_| env::var("HOME").map(|home| Path::new(&home).join(".cargo"))).ok()?;
    for registry in fs::read_dir(home.join("registry/src")).ok()?.flatten() {
        for package in fs::read_dir(registry.path()).ok()?.flatten() {
            let uapi = package.path().join("libbpf/include/uapi");
            if package.file_name().to_string_lossy().starts_with("libbpf-sys-1.7") && uapi.join("linux/bpf.h").exists() {
                return Some(uapi);
            }
        }
    }
    None
}
