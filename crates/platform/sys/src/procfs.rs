//! Processes as `/proc` shows them.
//!
//! A process may end between two reads, and its number be given to another: compare
//! [`Process::start_ticks`] where that matters. Names and command lines are the process's own
//! words and prove nothing. Every read is capped. Source: `proc(5)`.

use crate::call::read_file;
use crate::{Errno, OsError};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes read of one small file below `/proc/PID`.
const FILE_BYTES_MAX: usize = 64 * 1024;
/// Processes told of: Linux' own limit (`PID_MAX_LIMIT`).
const PIDS_MAX: usize = 4 * 1024 * 1024;
/// Lines of `/proc/PID/cgroup`: one for each v1 hierarchy and one for v2.
const CGROUP_LINES_MAX: usize = 64;

/// Why something about a process could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file could not be read; see [`Error::is_gone`].
    #[error(transparent)]
    Os(#[from] OsError),
    /// The file has not the shape that `proc(5)` gives.
    #[error("unexpected contents of {path}")]
    Shape {
        /// The file.
        path: PathBuf,
    },
}

impl Error {
    /// Has the process ended?
    pub fn is_gone(&self) -> bool {
        matches!(self, Error::Os(error) if error.is(libc::ENOENT) || error.is(libc::ESRCH))
    }
}

/// All process numbers, ascending.
pub fn pids() -> Result<Vec<u32>, OsError> {
    let entries = fs::read_dir("/proc").map_err(|e| OsError::io("list processes", &e))?;
    let mut pids: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).take(PIDS_MAX).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// A process, by its number. Makes no claim that it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    /// Its number in the PID namespace that `/proc` shows.
    pub pid: u32,
}

/// The control groups of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cgroups {
    /// Path in the unified hierarchy (v2), as seen from our cgroup namespace: `/system.slice/docker-….scope`.
    pub v2: Option<String>,
    /// Controllers (`cpu,cpuacct`, `name=systemd`) and path for each v1 hierarchy.
    pub v1: Vec<(String, String)>,
}

impl Cgroups {
    /// The paths, v2 first, without those that are the root.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.v2.iter().chain(self.v1.iter().map(|(_, path)| path)).map(String::as_str).filter(|path| *path != "/")
    }
}

/// User, groups and capabilities of a process (`/proc/PID/status`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Name, at most 15 bytes, chosen by the process.
    pub comm: String,
    /// Number of the thread group's leader.
    pub tgid: u32,
    /// Parent.
    pub ppid: u32,
    /// Numbers of the process in the PID namespaces it is in, outermost first; the last is its own view.
    pub ns_pids: Vec<u32>,
    /// Real, effective, saved and filesystem user.
    pub uids: [u32; 4],
    /// Real, effective, saved and filesystem group.
    pub gids: [u32; 4],
    /// Effective capabilities, one bit each (`CAP_…`).
    pub cap_effective: u64,
    /// Capabilities that can be taken.
    pub cap_permitted: u64,
    /// Capabilities that an exec cannot exceed.
    pub cap_bounding: u64,
    /// Can exec gain privileges no more?
    pub no_new_privs: bool,
    /// 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
    /// Resident memory, bytes; 0 for kernel threads.
    pub rss_bytes: u64,
}

impl Process {
    /// This program.
    pub fn own() -> Self {
        Process { pid: std::process::id() }
    }

    /// Its control groups.
    pub fn cgroups(&self) -> Result<Cgroups, Error> {
        Ok(parse_cgroups(&self.text("cgroup")?))
    }

    /// Its name, at most 15 bytes.
    pub fn comm(&self) -> Result<String, Error> {
        Ok(self.text("comm")?.trim_end_matches('\n').to_owned())
    }

    /// Its program file as the directory entry has it; ends in ` (deleted)` when that is gone.
    pub fn exe(&self) -> Result<PathBuf, Error> {
        let path = self.path("exe");
        fs::read_link(&path).map_err(|e| OsError::io(format!("read {}", path.display()), &e).into())
    }

    /// Its arguments, at most 64 KiB of them.
    pub fn cmdline(&self) -> Result<Vec<String>, Error> {
        let path = self.path("cmdline");
        let bytes = match read_file(&path, FILE_BYTES_MAX) {
            Err(error) if error.is(libc::EFBIG) => return Err(Error::Shape { path }),
            other => other?,
        };
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        Ok(bytes.split(|&b| b == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect())
    }

    /// User, groups, capabilities.
    pub fn status(&self) -> Result<Status, Error> {
        parse_status(&self.text("status")?).ok_or_else(|| self.shape("status"))
    }

    /// When it started, in clock ticks since boot (`sysconf(_SC_CLK_TCK)` a second): together with
    /// the number it names a process for the whole uptime.
    pub fn start_ticks(&self) -> Result<u64, Error> {
        stat_field(&self.text("stat")?, STAT_STARTTIME).ok_or_else(|| self.shape("stat"))
    }

    /// CPU time it used so far, user and system together.
    pub fn cpu_time(&self) -> Result<Duration, Error> {
        let stat = self.text("stat")?;
        let ticks = stat_field(&stat, STAT_UTIME).zip(stat_field(&stat, STAT_STIME)).map(|(user, system)| user.saturating_add(system));
        ticks.map(ticks_to_duration).ok_or_else(|| self.shape("stat"))
    }

    /// Resident memory, bytes.
    pub fn rss_bytes(&self) -> Result<u64, Error> {
        let text = self.text("statm")?;
        let pages: Option<u64> = text.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse().ok());
        // SAFETY: no pointers.
        let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(1) as u64;
        pages.map(|pages| pages.saturating_mul(page_size)).ok_or_else(|| self.shape("statm"))
    }

    /// The inode of its network namespace, as in [`crate::netns::Netns::inode`].
    pub fn netns_inode(&self) -> Result<u64, Error> {
        self.ns_inode("net")
    }

    /// The inode of its namespace `kind`: `net`, `pid`, `mnt`, `user`, `uts`, `ipc`, `cgroup`.
    pub fn ns_inode(&self, kind: &str) -> Result<u64, Error> {
        let path = self.path("ns").join(kind);
        let target = fs::read_link(&path).map_err(|e| OsError::io(format!("read {}", path.display()), &e))?;
        let inode = target.to_str().and_then(|target| target.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok());
        inode.ok_or(Error::Shape { path })
    }

    fn path(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(file)
    }

    fn shape(&self, file: &str) -> Error {
        Error::Shape { path: self.path(file) }
    }

    fn text(&self, file: &str) -> Result<String, Error> {
        let bytes = read_file(&self.path(file), FILE_BYTES_MAX)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Takes `/proc/PID/cgroup` apart: `hierarchy:controllers:path`, v2 is `0::path`. A path may hold colons.
pub fn parse_cgroups(text: &str) -> Cgroups {
    let mut cgroups = Cgroups::default();
    for line in text.lines().take(CGROUP_LINES_MAX) {
        let mut fields = line.splitn(3, ':');
        let (Some(hierarchy), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        match (hierarchy, controllers) {
            ("0", "") => cgroups.v2 = Some(path.to_owned()),
            _ => cgroups.v1.push((controllers.to_owned(), path.to_owned())),
        }
    }
    cgroups
}

/// Takes `/proc/PID/status` apart; `None` when a line that every process has is absent or broken.
pub fn parse_status(text: &str) -> Option<Status> {
    let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
    let numbers = |key: &str| field(key).map(|line| line.split_ascii_whitespace().map_while(|n| n.parse().ok()).collect::<Vec<u32>>());
    let bits = |key: &str| field(key).and_then(|line| u64::from_str_radix(line, 16).ok());
    let four = |key: &str| numbers(key)?.try_into().ok();
    Some(Status {
        comm: field("Name")?.to_owned(),
        tgid: field("Tgid")?.parse().ok()?,
        ppid: field("PPid")?.parse().ok()?,
        ns_pids: numbers("NSpid").unwrap_or_default(),
        uids: four("Uid")?,
        gids: four("Gid")?,
        cap_effective: bits("CapEff")?,
        cap_permitted: bits("CapPrm")?,
        cap_bounding: bits("CapBnd")?,
        no_new_privs: field("NoNewPrivs").is_some_and(|value| value != "0"),
        seccomp: field("Seccomp").and_then(|value| value.parse().ok()).unwrap_or(0),
        rss_bytes: field("VmRSS").and_then(|value| value.strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024),
    })
}

/// Field `n` (counted from 1, as in `proc_pid_stat(5)`) of a `stat` line. The name in field 2 may
/// hold spaces and parentheses: fields are counted behind the last `)`.
fn stat_field(text: &str, n: usize) -> Option<u64> {
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(n.checked_sub(3)?)?.parse().ok()
}

fn ticks_to_duration(ticks: u64) -> Duration {
    // SAFETY: no pointers.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
    Duration::from_secs(ticks / per_second) + Duration::from_millis(ticks % per_second * 1000 / per_second)
}

/// The load of the host: processes that ran or waited to, averaged over 1, 5 and 15 minutes.
pub fn load_average() -> Result<[f64; 3], Error> {
    let path = Path::new("/proc/loadavg");
    let bytes = read_file(path, FILE_BYTES_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut numbers = text.split_ascii_whitespace().map_while(|n| n.parse().ok());
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(one), Some(five), Some(fifteen)) => Ok([one, five, fifteen]),
        _ => Err(Error::Shape { path: path.into() }),
    }
}

/// The kernel's release, such as `6.1.0-18-amd64`.
pub fn kernel_release() -> Result<String, OsError> {
    let bytes = read_file(Path::new("/proc/sys/kernel/osrelease"), FILE_BYTES_MAX)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// Does a process with this number live (or wait to be reaped)?
pub fn exists(pid: u32) -> bool {
    match crate::process::probe(pid) {
        Ok(()) | Err(OsError { errno: Errno(libc::EPERM), .. }) => true,
        Err(_) => false,
    }
}

const STAT_UTIME: usize = 14;
const STAT_STIME: usize = 15;
const STAT_STARTTIME: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_cgroup_lines_are_read() {
        let text = "12:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/system.slice/a:b\nrubbish\n3:\n";
        let cgroups = parse_cgroups(text);
        assert_eq!(cgroups.v2.as_deref(), Some("/system.slice/a:b"));
        assert_eq!(cgroups.v1, [("cpu,cpuacct".into(), "/docker/abc".into()), ("name=systemd".into(), "/docker/abc".into())]);
        assert_eq!(cgroups.paths().count(), 3);
    }

    #[test]
    fn the_number_of_cgroup_lines_is_capped() {
        assert_eq!(parse_cgroups(&"1:a:/b\n".repeat(10_000)).v1.len(), CGROUP_LINES_MAX);
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields_of_stat() {
        let fields: Vec<String> = (4..=30).map(|n| n.to_string()).collect();
        let line = format!("77 (a) 1 (b)) S {}", fields.join(" "));
        assert_eq!(stat_field(&line, STAT_UTIME), Some(14));
        assert_eq!(stat_field(&line, STAT_STARTTIME), Some(22));
        assert_eq!(stat_field(&line, 3), None);
        assert_eq!(stat_field(&line, 1), None);
        assert_eq!(stat_field("77 S 1 2 3", STAT_UTIME), None);
    }

    #[test]
    fn a_status_without_its_capabilities_is_refused() {
        let text = "Name:\tx\nTgid:\t5\nPPid:\t1\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nCapPrm:\t00ff\nCapEff:\t01\nCapBnd:\tff\nNSpid:\t5\t1\nVmRSS:\t  12 kB\n";
        let status = parse_status(text).unwrap();
        assert_eq!((status.uids, status.gids, status.cap_permitted), ([1, 2, 3, 4], [5, 6, 7, 8], 255));
        assert_eq!((status.ns_pids, status.rss_bytes), (vec![5, 1], 12 * 1024));
        assert_eq!(parse_status(&text.replace("CapEff:\t01", "CapEff:\tzz")), None);
        assert_eq!(parse_status(&text.replace("Uid:\t1\t2\t3\t4", "Uid:\t1\t2\t3")), None);
        assert_eq!(parse_status(""), None);
    }

    #[test]
    fn the_own_process_reads_well() {
        let own = Process::own();
        let status = own.status().unwrap();
        assert_eq!(status.tgid, own.pid);
        assert!(own.rss_bytes().unwrap() > 0 && status.rss_bytes > 0);
        assert!(own.start_ticks().unwrap() > 0);
        assert!(own.exe().unwrap().is_absolute());
        assert!(own.cpu_time().unwrap() < Duration::from_secs(3600));
        assert!(!own.comm().unwrap().is_empty() && !own.cmdline().unwrap().is_empty());
        assert!(own.netns_inode().unwrap() > 0 && own.ns_inode("pid").unwrap() > 0);
        assert!(own.cgroups().unwrap().paths().count() < CGROUP_LINES_MAX);
        assert!(pids().unwrap().contains(&own.pid));
        assert!(exists(own.pid));
        assert!(load_average().unwrap()[0] >= 0.0 && !kernel_release().unwrap().is_empty());
    }

    #[test]
    fn a_process_that_is_not_there_is_gone() {
        // Beyond PID_MAX_LIMIT.
        let nobody = Process { pid: 4_194_304 + 7 };
        assert!(nobody.comm().unwrap_err().is_gone());
        assert!(nobody.exe().unwrap_err().is_gone());
        assert!(!exists(nobody.pid));
    }
}
