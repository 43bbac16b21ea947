//! `bulkhead rules update` against a publisher on the loopback.

#[path = "../../../service/api/tests/kit/mod.rs"]
mod kit;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use kit::{Lab, TestDir};
use md5::{Digest, Md5};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

const RULES: &str = "alert tcp any any -> any any (msg:\"one\"; content:\"a\"; classtype:theirs; sid:2000001; rev:1;)\n";
const MORE: &str = "alert tcp any any -> any any (msg:\"two\"; content:\"b\"; sid:2000002; rev:1;)\n";
const WRONG: &str = "alert tcp any any -> any any (msg:\"two\"; contnet:\"b\"; sid:2000002; rev:1;)\n";
const CLASSES: &str = "config classification: theirs,Of theirs,1\n";

/// Answers GET with what it was given, else 404, until the process ends. What begins with `http` is where to look instead.
struct Publisher {
    scheme: &'static str,
    port: u16,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Publisher {
    fn start() -> Self {
        Self::start_with(None)
    }

    /// With the certificate in `tls/`, of 127.0.0.1 and by an authority that nobody trusts.
    fn secure() -> Self {
        let read = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name);
        let certificate = CertificateDer::from_pem_file(read("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(read("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Self::start_with(Some(Arc::new(config)))
    }

    fn start_with(tls: Option<Arc<ServerConfig>>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let files: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
        let published = Arc::clone(&files);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                match &tls {
                    Some(config) => {
                        let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                        let mut secure = StreamOwned::new(connection, stream);
                        answer(&mut secure, &published);
                        secure.conn.send_close_notify();
                        let _ = secure.flush();
                    }
                    None => answer(&mut &stream, &published),
                }
            }
        });
        Self { scheme, port, files }
    }

    fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme, self.port)
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        self.files.lock().unwrap().insert(path.to_owned(), bytes.to_vec());
    }

    /// With its MD5 beside it, as the publisher of ET Open has it.
    fn publish(&self, path: &str, bytes: &[u8]) {
        self.put(path, bytes);
        let sum: String = Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        self.put(&format!("{path}.md5"), format!("{sum}\n").as_bytes());
    }
}

fn answer(stream: &mut (impl Read + Write), published: &Mutex<BTreeMap<String, Vec<u8>>>) {
    let request: Vec<String> =
        BufReader::new(&mut *stream).lines().map_while(Result::ok).take(64).take_while(|line| !line.is_empty()).collect();
    let path = request.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let found = published.lock().unwrap().get(path).cloned();
    let (status, body) = match found {
        Some(to) if to.starts_with(b"http") => (format!("302 Found\r\nLocation: {}", String::from_utf8(to).unwrap()), Vec::new()),
        Some(body) => ("200 OK".to_owned(), body),
        None => ("404 Not Found".to_owned(), Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).and_then(|()| stream.flush());
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

/// A host's folders in a place of their own.
struct Host {
    dir: TestDir,
    socket: PathBuf,
    /// A file of authorities.
    trusts: Option<PathBuf>,
}

impl Host {
    fn new() -> Self {
        let dir = TestDir::new();
        let root = dir.path();
        let at = |name: &str| root.join(name).display().to_string();
        let config = format!(
            "rules: {{built-in: false, files: ['{}'], classification: ['{}'], disable-files: ['{}']}}\n",
            at("rules/current/*/*.rules"),
            at("rules/current/*/classification.config"),
            at("disable.conf")
        );
        fs::write(root.join("bulkhead.yaml"), config).unwrap();
        Self { dir, socket: PathBuf::from("/nonexistent/s"), trusts: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        command.env_clear().env("BULKHEAD_SOCKET", &self.socket).stdin(Stdio::null());
        command.envs(self.trusts.iter().map(|path| ("SSL_CERT_FILE", path)));
        command.arg("rules").args(arguments).arg("--config").arg(self.path("bulkhead.yaml")).output().unwrap()
    }

    fn update(&self, arguments: &[&str]) -> Output {
        let (dir, sources) = (self.path("rules"), self.path("sources.conf"));
        let place = ["--dir", dir.to_str().unwrap(), "--sources", sources.to_str().unwrap(), "-o", "json"];
        self.ask(&[&["update"], arguments, &place].concat())
    }

    #[track_caller]
    fn updated(&self, arguments: &[&str]) -> Value {
        let output = self.update(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What it says and how it ends.
    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32, because: &str) {
        let before = self.tree();
        let output = self.update(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(because), "not `{because}`: {said}");
        assert_eq!(self.tree(), before, "nothing was changed");
    }

    /// Sids that the agent would load.
    fn loaded(&self) -> Vec<u64> {
        let output = self.ask(&["list", "--state", "loaded", "-o", "json"]);
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
        listed.as_array().unwrap().iter().map(|one| one["sid"].as_u64().unwrap()).collect()
    }

    /// Every file below `rules`, with its bytes; links with where they lead.
    fn tree(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn walk(folder: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let (path, kind) = (entry.path(), entry.file_type().unwrap());
                if kind.is_symlink() {
                    into.insert(path.clone(), fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes());
                } else if kind.is_dir() {
                    walk(&path, into);
                } else if entry.file_name() != ".lock" {
                    into.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        let mut all = BTreeMap::new();
        walk(&self.path("rules"), &mut all);
        all
    }
}

#[test]
fn a_published_archive_is_fetched_checked_and_used_and_the_one_before_comes_back() {
    let (host, publisher) = (Host::new(), Publisher::start());
    let url = publisher.url("/open/emerging.rules.tar.gz");
    fs::write(host.path("sources.conf"), format!("# of the test\net/open {url} md5\n")).unwrap();
    publisher.publish("/open/emerging.rules.tar.gz", &archive(&[("rules/a.rules", RULES), ("rules/classification.config", CLASSES)]));
    let updated = host.updated(&[]);
    let used = &updated["sources"][0];
    assert_eq!((&updated["changed"], &used["name"], &used["folder"]), (&Value::Bool(true), &"et/open".into(), &"et-open".into()));
    assert_eq!((&used["rules"], &used["checksum"], &used["origin"]), (&1.into(), &"md5".into(), &url.as_str().into()));
    assert_eq!(host.loaded(), [2_000_001]);
    let output = host.ask(&["show", "2000001"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("Of theirs (priority 1)"), "its own classes");
    assert_eq!(host.updated(&[])["changed"], Value::Bool(false), "nothing new");
    host.refused(&["--undo"], 2, "no set to go back to");

    publisher.publish(
        "/open/emerging.rules.tar.gz",
        &archive(&[("rules/a.rules", RULES), ("rules/b.rules", MORE), ("rules/classification.config", CLASSES)]),
    );
    assert_eq!(host.updated(&[])["sources"][0]["rules"], 2);
    assert_eq!(host.loaded(), [2_000_001, 2_000_002]);
    host.updated(&["--undo"]);
    assert_eq!(host.loaded(), [2_000_001]);
    host.updated(&["--undo"]);
    assert_eq!(host.loaded(), [2_000_001, 2_000_002]);

    // A second source beside it; then the first goes.
    let mine = host.path("mine.rules");
    fs::write(&mine, "alert udp any any -> any 53 (msg:\"mine\"; content:\"x\"; sid:7; rev:1;)\n").unwrap();
    assert_eq!(host.updated(&["--source", mine.to_str().unwrap()])["sources"][1]["checksum"], "none");
    assert_eq!(host.loaded(), [2_000_001, 2_000_002, 7]);
    let listed: Value = serde_json::from_slice(&host.update(&["--list"]).stdout).unwrap();
    assert_eq!((&listed["published"][0]["name"], &listed["used"][1]["name"]), (&"et/open".into(), &"mine".into()));
    host.updated(&["--remove", "et/open"]);
    assert_eq!(host.loaded(), [7]);
    let sets = fs::read_dir(host.path("rules/sets")).unwrap().count();
    assert_eq!(sets, 2, "that in use and the one before");
}

#[test]
fn what_is_damaged_wrong_or_not_there_changes_nothing() {
    let (host, publisher) = (Host::new(), Publisher::start());
    let good = archive(&[("a.rules", RULES), ("classification.config", CLASSES)]);
    publisher.publish("/good.tar.gz", &good);
    host.updated(&["--source", &publisher.url("/good.tar.gz")]);
    let refused = |path: &str, code: i32, because: &str| host.refused(&["--source", &publisher.url(path)], code, because);

    publisher.publish("/damaged.tar.gz", &good);
    publisher.put("/damaged.tar.gz", &good[..good.len() - 9]);
    refused("/damaged.tar.gz", 2, "its checksum is");
    publisher.publish("/cut.tar.gz", &good[..good.len() / 2]);
    refused("/cut.tar.gz", 2, "it is broken");
    publisher.publish("/wrong.tar.gz", &archive(&[("a.rules", RULES), ("b.rules", WRONG)]));
    refused("/wrong.tar.gz", 2, "b.rules: error[BHR0011] line 1, column 42, sid 2000002: `contnet` is not a keyword");
    publisher.publish("/classes.tar.gz", &archive(&[("a.rules", RULES), ("classification.config", "nonsense\n")]));
    refused("/classes.tar.gz", 2, "classification.config: error[BHR0033] line 1");
    publisher.publish("/empty.tar.gz", &archive(&[("a.rules", "# nothing\n")]));
    refused("/empty.tar.gz", 2, "there is no rule in it");
    publisher.publish("/page.html", b"<html>not found</html>");
    refused("/page.html", 2, "are wrong");
    publisher.put("/bare.rules", RULES.as_bytes());
    refused("/bare.rules", 2, "neither TLS nor a checksum");
    publisher.put("/empty-sum.rules", RULES.as_bytes());
    publisher.put("/empty-sum.rules.md5", b"\n");
    refused("/empty-sum.rules", 2, "its checksum is empty");
    refused("/nowhere.tar.gz", 3, "it is not there (404)");
    let secure = publisher.url("/good.tar.gz").replace("http:", "https:");
    host.refused(&["--source", &secure], 3, "cannot fetch");
    host.refused(&["--source", "no/such"], 2, "neither a source of the list nor an address nor a file");
    host.refused(&["--source", &publisher.url("/good.tar.gz"), "--name", "../up"], 2, "is not a name");
    fs::write(host.path("sources.conf"), format!("strict {} md5\n", publisher.url("/bare.rules"))).unwrap();
    host.refused(&["--source", "strict"], 2, "its checksum is not there");
    fs::write(host.path("sources.conf"), "strict ftp://x\n").unwrap();
    host.refused(&["--source", "strict"], 2, "sources.conf:1: this is not a source");
    assert_eq!(host.loaded(), [2_000_001]);
}

#[test]
fn tls_is_of_who_the_host_trusts_and_is_not_left() {
    let (mut host, secure, plain) = (Host::new(), Publisher::secure(), Publisher::start());
    secure.put("/set.rules", MORE.as_bytes());
    let set = secure.url("/set.rules");
    let certificates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    host.trusts = Some(certificates.join("server.key"));
    host.refused(&["--source", &set], 3, "cannot fetch");
    host.refused(&["--source", &set], 3, "certificate");
    host.trusts = Some(certificates.join("authority.pem"));
    host.refused(&["--source", &set.replace("127.0.0.1", "localhost")], 3, "certificate");
    plain.publish("/set.rules", MORE.as_bytes());
    secure.put("/out.rules", plain.url("/set.rules").as_bytes());
    host.refused(&["--source", &secure.url("/out.rules")], 3, "cannot fetch");
    assert_eq!(host.loaded(), Vec::<u64>::new());
    assert_eq!(host.updated(&["--source", &set])["sources"][0]["checksum"], "none");
    plain.put("/in.rules", secure.url("/set.rules").as_bytes());
    plain.put("/in.rules.md5", secure.url("/set.rules.md5").as_bytes());
    secure.put("/set.rules.md5", &plain.files.lock().unwrap()["/set.rules.md5"].clone());
    assert_eq!(host.updated(&["--source", &plain.url("/in.rules"), "--name", "in"])["sources"][1]["checksum"], "md5");
    assert_eq!(host.loaded(), [2_000_002, 2_000_002]);
}

#[test]
fn a_wrong_rule_that_the_operator_disabled_refuses_nothing() {
    let (host, publisher) = (Host::new(), Publisher::start());
    publisher.publish("/set.tar.gz", &archive(&[("a.rules", MORE.replace("2000002", "5").as_str()), ("b.rules", WRONG)]));
    host.refused(&["--source", &publisher.url("/set.tar.gz")], 2, "`contnet` is not a keyword");
    fs::write(host.path("disable.conf"), "2000002\n").unwrap();
    host.updated(&["--source", &publisher.url("/set.tar.gz")]);
    assert_eq!(host.loaded(), [5]);
}

#[test]
fn a_set_comes_from_a_file_with_what_is_known_of_it() {
    let host = Host::new();
    let path = host.path("set.rules");
    fs::write(&path, MORE).unwrap();
    let set = path.to_str().unwrap();
    let sum = "0".repeat(64);
    host.refused(&["--source", set, "--sha256", &sum], 2, "its checksum is");
    let updated = host.updated(&["--source", set]);
    let sum = updated["sources"][0]["sha256"].as_str().unwrap().to_owned();
    fs::write(host.path("set.rules.sha256"), format!("{sum}  set.rules\n")).unwrap();
    fs::write(host.path("other.rules"), RULES).unwrap();
    fs::write(host.path("other.rules.sha256"), format!("{sum}  set.rules\n")).unwrap();
    host.refused(&["--source", host.path("other.rules").to_str().unwrap()], 2, "and should be");
    let again = host.updated(&["--source", set, "--name", "again"]);
    assert_eq!((&again["sources"][1]["name"], &again["sources"][1]["checksum"]), (&"again".into(), &"sha256".into()));
    let given = host.updated(&["--source", set, "--name", "third", "--sha256", &sum]);
    assert_eq!(given["sources"][2]["checksum"], "given");
}

#[test]
fn one_update_runs_at_a_time_and_a_forged_state_leads_nowhere() {
    let host = Host::new();
    fs::write(host.path("set.rules"), MORE).unwrap();
    let path = host.path("set.rules");
    let set = ["--source", path.to_str().unwrap()];
    host.updated(&set);
    let lock = fs::File::open(host.path("rules/.lock")).unwrap();
    lock.lock().unwrap();
    host.refused(&set, 3, "another update is running");
    drop(lock);
    let forged = host.path("rules/sets/99");
    fs::create_dir(&forged).unwrap();
    let text = fs::read_to_string(host.path("rules/current/sources.json")).unwrap();
    fs::write(forged.join("sources.json"), text.replace("\"folder\": \"set\"", "\"folder\": \"../../..\"")).unwrap();
    fs::remove_file(host.path("rules/current")).unwrap();
    symlink("sets/99", host.path("rules/current")).unwrap();
    host.refused(&["--source", path.to_str().unwrap(), "--name", "x"], 2, "is not a name");
}

#[test]
fn a_running_agent_takes_it_or_everything_goes_back() {
    let lab = Lab::start();
    let mut host = Host::new();
    fs::write(host.path("set.rules"), MORE).unwrap();
    let path = host.path("set.rules");
    let set = ["--source", path.to_str().unwrap(), "--reload"];
    let failed = host.update(&set);
    assert_eq!(failed.status.code(), Some(3), "no agent answers");
    assert_eq!(host.loaded(), Vec::<u64>::new());
    host.socket = lab.server.socket().to_owned();
    assert_eq!(host.updated(&set)["reloaded"], Value::Bool(true));
    assert_eq!(host.loaded(), [2_000_002]);
}
