//! `bulkhead scan` as a user runs it: what it finds, what it says it could not read, and how it exits.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bulkhead-scan-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn scan(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bulkhead")).arg("scan").args(arguments).output().expect("the program runs")
}

fn object(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The test file of EICAR, put together here, so that this file is not one.
fn eicar() -> Vec<u8> {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat().into_bytes()
}

fn archive(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    builder.append_data(&mut header, name, bytes).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn a_folder_is_walked_and_archives_are_unpacked() {
    let folder = Folder::new("walk");
    folder.write("clean/readme", b"nothing here");
    folder.write("deep/er/upload.tar", &archive("inner/eicar.com", &eicar()));
    std::os::unix::fs::symlink("/", folder.0.join("link")).unwrap();
    let output = scan(&["--json", text(&folder.0)]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let found = object(&output);
    assert_eq!(found["files"], 2);
    assert_eq!(found["passed_over"], 1, "links are not followed");
    let findings = found["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0]["name"], "Test_EICAR");
    assert_eq!(findings[0]["action"], "block");
    assert_eq!(findings[0]["place"], serde_json::json!(["inner/eicar.com"]));
    assert!(findings[0]["path"].as_str().unwrap().ends_with("deep/er/upload.tar"));
    assert_eq!(found["incomplete"], serde_json::json!([]));

    let words = String::from_utf8(scan(&[text(&folder.0)]).stdout).unwrap();
    assert!(words.contains("upload.tar!inner/eicar.com  Test_EICAR (bulkhead/test-files.yar)"), "{words}");

    let sarif = object(&scan(&["--sarif", text(&folder.0)]));
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(sarif["runs"][0]["results"][0]["ruleId"], "Test_EICAR");
}

#[test]
fn what_is_clean_what_is_locked_and_what_is_not_there_have_codes_of_their_own() {
    let folder = Folder::new("codes");
    let clean = folder.write("clean", b"nothing here");
    assert_eq!(scan(&[text(&clean)]).status.code(), Some(0));
    // One encrypted entry, as its local header says.
    let mut locked = b"PK\x03\x04\x14\x00\x01\x00\x00\x00\0\0\0\0\0\0\0\0\x04\0\0\0\x04\0\0\0\x01\0\0\0x????".to_vec();
    locked.extend(b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\x23\0\0\0\0\0");
    let locked = folder.write("locked.zip", &locked);
    let output = scan(&["--json", text(&locked)]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(object(&output)["incomplete"][0]["reason"], "encrypted");
    assert_eq!(scan(&["/nowhere/to/be/found"]).status.code(), Some(2));
    assert_eq!(scan(&[]).status.code(), Some(2));
}

#[test]
fn signatures_of_the_user_are_taken_by_file_and_by_folder() {
    let folder = Folder::new("signatures");
    folder.write("set/own.yar", b"rule own { strings: $a = \"find me\" condition: $a }\nrule broken { condition: nothing }");
    folder.write("set/own.ndb", b"Own.Body:0:*:66696e64206d65\n");
    folder.write("set/notes.txt", b"not a signature");
    let file = folder.write("target", b"please find me");
    let output = scan(&["--json", "--no-builtin", "--signatures", text(&folder.0.join("set")), text(&file)]);
    assert_eq!(output.status.code(), Some(1));
    let found = object(&output);
    let mut names: Vec<&str> = found["findings"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["Own.Body", "own"]);
    assert_eq!(found["signatures"]["loaded_total"], 2);
    assert_eq!(found["signatures"]["unsupported"]["a module or a name that is not there"], 1);
    assert_eq!(scan(&["--signatures", text(&folder.0.join("set/notes.txt")), text(&file)]).status.code(), Some(2));
    assert_eq!(scan(&["--no-builtin", text(&file)]).status.code(), Some(2), "nothing to look for");
}
