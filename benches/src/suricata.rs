//! A peer on the same work: Suricata as an inline IPS on a netfilter queue, in the scene's host namespace, with the same
//! rule file. Bridged packets reach netfilter by `br_netfilter`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bulkhead_sys::netns::Netns;
use bulkhead_sys::sysctl;

use crate::Error;
use crate::child::{Running, TempDir, installed, run_to_end};

/// It compiles a full set of rules in about a minute.
const START: Duration = Duration::from_secs(300);
const RULE: [&str; 7] = ["FORWARD", "-j", "NFQUEUE", "--queue-num", "0", "-m", "comment"];
const SETTING: &str = "net/bridge/bridge-nf-call-iptables";

#[derive(Debug)]
pub struct Suricata {
    process: Option<Running>,
    host: Netns,
    dir: std::path::PathBuf,
}

impl Suricata {
    /// A program that is needed and missing.
    pub fn missing() -> Option<&'static str> {
        ["suricata", "iptables"].into_iter().find(|program| !installed(program))
    }

    /// Starts it, waits until it takes packets, and only then sends it some.
    pub fn start(host: &Netns, rules: &Path, dir: &TempDir) -> Result<Self, Error> {
        let (logs, output) = (dir.path().join("suricata"), dir.path().join("suricata.out"));
        std::fs::create_dir_all(&logs).map_err(Error::io(format!("make {}", logs.display())))?;
        let mut command = Command::new("suricata");
        command.args(["-c", "/etc/suricata/suricata.yaml", "-q", "0", "-S"]).arg(rules).arg("-l").arg(&logs);
        command.arg("--pidfile").arg(logs.join("suricata.pid"));
        let mut process = Running::start("suricata", host, &mut command, &output)?;
        let log = logs.join("suricata.log");
        process.wait_for("ready", START, || {
            let said = [&output, &log].map(|path| std::fs::read_to_string(path).unwrap_or_default());
            said.iter().any(|text| text.contains("Engine started") || text.contains("engine started")).then_some(())
        })?;
        let suricata = Self { process: Some(process), host: host.try_clone()?, dir: dir.path().to_owned() };
        host.run(|| sysctl::write(SETTING, "1"))??;
        suricata.rule("-I")?;
        Ok(suricata)
    }

    fn rule(&self, action: &str) -> Result<(), Error> {
        let mut command = Command::new("iptables");
        command.arg("-w").arg(action).args(RULE).args(["--comment", crate::scene::PREFIX]);
        run_to_end("iptables", &self.host, &mut command, &self.dir, Duration::from_secs(10)).map(drop)
    }
}

impl Drop for Suricata {
    fn drop(&mut self) {
        let _ = self.rule("-D"); // it may not have been added
        self.process.take();
    }
}
