//! The program itself, asked as a user would ask it; an agent without a datapath answers.
//!
//! What it prints is compared with the files in `golden/`. `GOLDEN=write cargo test -p bulkhead --test verbs` writes them anew.

#[path = "../../../service/api/tests/kit/mod.rs"]
mod kit;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;

use kit::{Lab, TestDir, alert, drop_event, operation};
use serde_json::Value;

fn bulkhead(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command.env_clear().env("BULKHEAD_SOCKET", socket).stdin(Stdio::null());
    command
}

fn ask(lab: &Lab, arguments: &[&str]) -> Output {
    bulkhead(lab.server.socket()).args(arguments).output().unwrap()
}

fn offline(arguments: &[&str]) -> Output {
    bulkhead(Path::new("/nonexistent/s")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

#[track_caller]
fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&path, found).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{} is out of date; `GOLDEN=write` writes it anew. Found:\n{found}", path.display());
}

/// Three events: an alert, a drop, and what a hostile name would look like.
fn busy_lab() -> Lab {
    let lab = Lab::start();
    lab.agent.send(alert(2001));
    lab.agent.send(drop_event());
    lab.agent.send_now(operation("interface-armed", "veth0a1b2c3 of web\x1b[2J\nforged line"));
    lab
}

const VERBS: [&[&str]; 29] = [
    &[],
    &["run"],
    &["doctor"],
    &["status"],
    &["workloads"],
    &["events"],
    &["why"],
    &["mode"],
    &["coverage"],
    &["policy"],
    &["policy", "check"],
    &["policy", "apply"],
    &["rules"],
    &["rules", "check"],
    &["rules", "fmt"],
    &["rules", "list"],
    &["rules", "search"],
    &["rules", "show"],
    &["rules", "update"],
    &["rules", "enable"],
    &["rules", "disable"],
    &["replay"],
    &["reload"],
    &["down"],
    &["oci-hook"],
    &["oci-runtime"],
    &["version"],
    &["completions"],
    &["man"],
];

#[test]
fn help_is_as_it_was_agreed() {
    for verb in VERBS {
        let output = offline(&[verb, &["--help"][..]].concat());
        assert_eq!(code(&output), 0);
        golden(&["help", &verb.join("-")].join("-"), text(&output.stdout));
    }
}

#[test]
fn what_people_see() {
    let lab = busy_lab();
    let cases: [(&str, &[&str], i32); 12] = [
        ("status", &["status"], 0),
        ("workloads", &["ls"], 0),
        ("workloads-selected", &["workloads", "label.app=web"], 0),
        ("events", &["events"], 0),
        ("events-filtered", &["events", "-t", "drop", "-w", "web", "-n", "5"], 0),
        ("why", &["why", "1"], 0),
        ("mode", &["mode"], 0),
        ("mode-selected", &["mode", "web"], 0),
        ("coverage", &["coverage", "--interfaces"], 0),
        ("policy-show", &["policy", "show"], 0),
        ("reload", &["reload"], 0),
        ("version", &["version"], 0),
    ];
    for (name, arguments, exit) in cases {
        let output = ask(&lab, arguments);
        assert_eq!(code(&output), exit, "{name}: {}", text(&output.stderr));
        golden(name, text(&output.stdout));
        assert!(!output.stdout.contains(&0x1b), "{name} has a control sequence in it");
    }
}

#[test]
fn what_programs_see_is_what_the_agent_said() {
    use bulkhead_api::Backend;
    let lab = busy_lab();
    let value = |result| serde_json::to_value::<Value>(result).unwrap();
    assert_eq!(json(&ask(&lab, &["status", "-o", "json"])), value(serde_json::to_value(lab.agent.status().unwrap()).unwrap()));
    assert_eq!(json(&ask(&lab, &["-o", "json", "ls"])), value(serde_json::to_value(lab.agent.workloads().unwrap()).unwrap()));
    assert_eq!(json(&ask(&lab, &["-o", "json", "coverage"])), value(serde_json::to_value(lab.agent.coverage().unwrap()).unwrap()));
    assert_eq!(json(&ask(&lab, &["-o", "json", "why", "2"])), value(serde_json::to_value(lab.agent.why(2).unwrap()).unwrap()));
    assert_eq!(json(&ask(&lab, &["-o", "json", "mode"])), value(serde_json::to_value(lab.agent.mode().unwrap()).unwrap()));
    assert_eq!(json(&ask(&lab, &["-o", "json", "policy", "show"])), value(serde_json::to_value(lab.agent.policy().unwrap()).unwrap()));
    assert_eq!(json(&ask(&lab, &["-o", "json", "reload"]))["policy_revision"], 7);
    assert_eq!(json(&ask(&lab, &["-o", "json", "mode", "web"]))["workloads"]["web"], "protect");
    let lines: Vec<Value> =
        text(&ask(&lab, &["-o", "json", "events"]).stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|event| event["event_id"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(json(&offline(&["-o", "json", "version"]))["api"], "v1");
    let schema = json(&offline(&["policy", "schema"]));
    assert!(schema["properties"]["mode"].is_object(), "{schema}");
}

#[test]
fn a_degraded_agent_and_a_gap_show_in_the_exit_code() {
    let lab = busy_lab();
    lab.agent.degraded.lock().unwrap().push("docker's socket does not answer".to_owned());
    lab.agent.complete.store(false, Ordering::Relaxed);
    let status = ask(&lab, &["status"]);
    assert_eq!(code(&status), 3);
    golden("status-degraded", text(&status.stdout));
    let coverage = ask(&lab, &["coverage"]);
    assert_eq!(code(&coverage), 1);
    golden("coverage-gap", text(&coverage.stdout));
    assert_eq!(code(&ask(&lab, &["status", "-o", "json"])), 3);
}

#[test]
fn without_an_agent_it_is_said_where_it_was_looked_for_and_how_to_start_it() {
    let verbs: [&[&str]; 11] = [
        &["status"],
        &["status", "--watch"],
        &["ls"],
        &["events"],
        &["events", "-f"],
        &["why", "1"],
        &["mode"],
        &["mode", "protect"],
        &["coverage"],
        &["policy", "show"],
        &["reload"],
    ];
    for verb in verbs {
        let output = offline(verb);
        assert_eq!(code(&output), 3, "{verb:?}");
        assert_eq!(text(&output.stdout), "", "{verb:?}");
        golden("no-agent", text(&output.stderr));
    }
    let output = offline(&["-o", "json", "status"]);
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&error["exit"], &error["error"]["code"]), (&Value::from(3), &Value::from("not-found")));
}

#[test]
fn what_is_asked_wrongly_is_a_usage_error() {
    let lab = busy_lab();
    let cases: [&[&str]; 14] = [
        &["bogus"],
        &["status", "--bogus"],
        &["status", "--interval", "5"],
        &["events", "-t", "alarm"],
        &["events", "-n", "-1"],
        &["events", "--from", "yesterday"],
        &["why"],
        &["why", "one"],
        &["why", "99"],
        &["mode", "web", "enforce"],
        &["mode", "colour=red"],
        &["ls", "colour=red"],
        &["policy", "apply", "/nonexistent"],
        &["-o", "xml", "status"],
    ];
    for arguments in cases {
        let output = ask(&lab, arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        assert!(text(&output.stderr).starts_with("error: "), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_mode_is_changed_for_a_selector_or_for_all_others() {
    let lab = busy_lab();
    let output = ask(&lab, &["mode", "name=web*", "protect"]);
    assert_eq!((code(&output), text(&output.stdout)), (0, "mode protect for `name=web*`, 1 workload at this moment: web\n"));
    let output = ask(&lab, &["mode", "protect"]);
    assert_eq!((code(&output), text(&output.stdout)), (0, "mode protect for the default, 1 workload at this moment: web\n"));
    assert_eq!(*lab.agent.default_mode.lock().unwrap(), bulkhead_model::Mode::Protect);
}

fn file(dir: &TestDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_policy_is_applied_or_refused_with_every_problem() {
    let lab = busy_lab();
    let dir = TestDir::new();
    let good = file(&dir, "good.yaml", "mode: protect\n");
    let output = ask(&lab, &["policy", "apply", "--check", good.to_str().unwrap()]);
    assert_eq!(
        (code(&output), text(&output.stdout)),
        (0, "- default mode monitor -> protect\ngood, and not applied; in force is still revision 7\n")
    );
    let output = ask(&lab, &["policy", "apply", good.to_str().unwrap()]);
    assert_eq!((code(&output), text(&output.stdout)), (0, "- default mode monitor -> protect\napplied; in force is revision 8\n"));
    let bad = file(&dir, "bad.yaml", "nonsense: 1\n");
    let output = ask(&lab, &["policy", "apply", bad.to_str().unwrap()]);
    assert_eq!(code(&output), 2);
    golden("policy-refused", text(&output.stderr));
    assert_eq!(*lab.agent.policy.lock().unwrap(), "mode: protect\n", "what was in force stays");
    let huge = file(&dir, "huge.yaml", &"#".repeat(2 * 1024 * 1024));
    assert_eq!(code(&ask(&lab, &["policy", "apply", huge.to_str().unwrap()])), 2);
    assert_eq!(code(&ask(&lab, &["policy", "apply", "/dev/zero"])), 2);
}

#[test]
fn a_policy_is_checked_without_an_agent() {
    let dir = TestDir::new();
    let good = file(&dir, "good.yaml", "mode: protect\n");
    let output = offline(&["policy", "check", good.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", text(&output.stdout));
    let bad = file(&dir, "bad.yaml", "mode: protekt\nfial: open\n");
    let output = offline(&["policy", "check", bad.to_str().unwrap()]);
    assert_eq!(code(&output), 2);
    let shown = text(&output.stdout);
    assert!(shown.contains("protekt") && shown.contains("fial") && shown.contains("bad.yaml:2:1"), "{shown}");
    let output = offline(&["-o", "json", "policy", "check", bad.to_str().unwrap()]);
    let checked = json(&output);
    assert_eq!(code(&output), 2);
    assert_eq!((&checked["ok"], checked["diagnostics"].as_array().unwrap().len()), (&Value::Bool(false), 2));
}

const RULES: &str = "\
# a comment
alert tcp any any -> any 80 (msg:\"one\"; content:\"abc\"; sid:1; rev:1;)
alert tcp any any -> any 80 (msg:\"two\"; contnet:\"abc\"; sid:2; rev:1;)
";

#[test]
fn rules_are_checked_and_what_does_not_load_is_named() {
    let dir = TestDir::new();
    let rules = file(&dir, "lab.rules", RULES);
    let path = rules.to_str().unwrap();
    let output = offline(&["rules", "check", path, "-o", "json"]);
    assert_eq!(code(&output), 1);
    let checked = json(&output);
    assert_eq!((&checked["loaded"], &checked["unsupported"], &checked["wrong"]), (&Value::from(1), &Value::from(0), &Value::from(1)));
    let diagnostics = checked["diagnostics"].as_array().unwrap();
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(
        (&diagnostics[0]["file"], &diagnostics[0]["line"], &diagnostics[0]["sid"]),
        (&Value::from(path), &Value::from(3), &Value::from(2))
    );
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&checked), "diagnostics loaded unsupported wrong");
    assert_eq!(keys(&diagnostics[0]), "code file help line message sid");
    assert_eq!((&diagnostics[0]["code"], &diagnostics[0]["help"]), (&Value::from("BHR0011"), &Value::from("did you mean `content`?")));
    let output = offline(&["rules", "check", path]);
    let shown = text(&output.stdout);
    assert!(shown.starts_with(&format!("{path}:3:")) && shown.ends_with("1 loaded, 0 unsupported, 1 wrong, 0 disabled\n"), "{shown}");
    let good = file(&dir, "good.rules", RULES.lines().nth(1).unwrap());
    let output = offline(&["rules", "check", good.to_str().unwrap(), good.to_str().unwrap()]);
    assert_eq!((code(&output), text(&output.stdout)), (0, "2 loaded, 0 unsupported, 0 wrong, 0 disabled\n"));
    assert_eq!(code(&offline(&["rules", "check", "/nonexistent.rules"])), 2);
}

#[test]
fn rules_are_mended_where_it_is_certain_how() {
    let dir = TestDir::new();
    let text =
        RULES.replace("content:\"abc\"; sid:1;", "contnt:\"abc\"; nocse; sid:1;") + "alert tcp any any -> any 80 (msg:\"x\"; sid:x;)\n";
    let rules = file(&dir, "lab.rules", &text);
    let output = offline(&["rules", "check", "--fix", rules.to_str().unwrap(), "-o", "json"]);
    let checked = json(&output);
    assert_eq!((code(&output), &checked["loaded"], &checked["wrong"]), (1, &Value::from(2), &Value::from(1)));
    let mended = RULES.replace("contnet", "content").replace("content:\"abc\"; sid:1;", "content:\"abc\"; nocase; sid:1;");
    assert_eq!(std::fs::read_to_string(&rules).unwrap(), mended + "alert tcp any any -> any 80 (msg:\"x\"; sid:x;)\n");
}

#[test]
fn lints_are_told_in_json_when_asked_for_and_do_not_fail() {
    let dir = TestDir::new();
    let rules = file(&dir, "lab.rules", "alert tcp !any any -> any any (msg:\"one\"; content:\"a\"; sid:1;)\n");
    let check = |more: &[&str]| {
        let output = offline(&[&["rules", "check", rules.to_str().unwrap(), "-o", "json"], more].concat());
        (code(&output), json(&output)["diagnostics"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect::<Vec<_>>())
    };
    assert_eq!(check(&[]), (0, vec![]));
    assert_eq!(check(&["--lints"]), (0, vec![Value::from("BHR0032")]));
}

#[test]
fn the_files_beside_rules_are_read() {
    let dir = TestDir::new();
    let rules = file(
        &dir,
        "lab.rules",
        &(RULES.to_owned() + "# alert tcp any any -> any 80 (msg:\"three\"; content:\"abc\"; classtype:mine; sid:3; rev:1;)\n"),
    );
    let option = |name: &str, text: &str| [format!("--{name}"), file(&dir, name, text).display().to_string()];
    let arguments: Vec<String> = [
        option("disable", "2\n"),
        option("enable", "group:lab\n"),
        option("modify", "1 \"one\" \"uno\"\n"),
        option("drop", "re:one\n"),
        option("classification", "config classification: mine,Mine,2\n"),
        option("reference", "config reference: own https://example.org/\n"),
        option("threshold", "suppress gen_id 1, sig_id 1\n"),
    ]
    .concat();
    let all: Vec<&str> = ["rules", "check", rules.to_str().unwrap()].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    let output = offline(&all);
    assert!(text(&output.stdout).ends_with("2 loaded, 0 unsupported, 1 wrong, 0 disabled\n"), "enabled again: {}", text(&output.stdout));
    file(&dir, "enable", "3\n");
    let output = offline(&all);
    assert_eq!((code(&output), text(&output.stdout)), (0, "2 loaded, 0 unsupported, 0 wrong, 0 disabled\n"));
    let bad = file(&dir, "threshold", "suppress everything\n");
    let output = offline(&[&all[..], &["-o", "json"]].concat());
    let checked = json(&output);
    assert_eq!(
        (code(&output), &checked["wrong"], &checked["diagnostics"][0]["file"]),
        (1, &Value::from(1), &Value::from(bad.to_str().unwrap()))
    );
}

#[test]
fn rules_are_listed_found_shown_and_switched() {
    let dir = TestDir::new();
    let more = "\
# alert tcp any any -> any 80 (msg:\"three\"; content:\"shell\"; classtype:web-application-attack; reference:own,7; metadata:cve 2021_1; sid:3; rev:4;)
alert tcp any any -> any 80 (msg:\"four\"; luajit:x.lua; sid:4; rev:1;)
";
    let rules = file(&dir, "lab.rules", &(RULES.to_owned() + more));
    let at = |name: &str| dir.path().join(name).display().to_string();
    let reference = file(&dir, "reference.config", "config reference: own https://example.org/\n");
    let config = format!(
        "rules: {{built-in: false, files: ['{}'], disable-files: ['{}'], enable-files: ['{}'], reference: ['{}']}}\n",
        rules.display(),
        at("disable.conf"),
        at("enable.conf"),
        reference.display()
    );
    let config = file(&dir, "bulkhead.yaml", &config);
    let ask = |arguments: &[&str]| offline(&[&["rules"], arguments, &["--config", config.to_str().unwrap()]].concat());
    let states = || {
        let listed = json(&ask(&["list", "-o", "json"]));
        listed
            .as_array()
            .unwrap()
            .iter()
            .map(|one| format!("{}:{}", one["sid"], one["state"].as_str().unwrap()))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(states(), "1:loaded 2:wrong 3:disabled 4:unsupported");
    let found = json(&ask(&["list", "--state", "disabled", "-o", "json"]));
    assert_eq!((found.as_array().unwrap().len(), &found[0]["msg"], &found[0]["line"]), (1, &Value::from("three"), &Value::from(4)));
    let output = ask(&["list"]);
    assert!(text(&output.stdout).ends_with("1 loaded, 1 unsupported, 1 wrong, 1 disabled\n"), "{}", text(&output.stdout));

    let found = json(&ask(&["search", "SHELL", "2021_1", "-o", "json"]));
    assert_eq!((found.as_array().unwrap().len(), &found[0]["sid"]), (1, &Value::from(3)));
    assert_eq!(code(&ask(&["search", "nowhere"])), 1);

    let shown = &json(&ask(&["show", "3", "-o", "json"]))[0];
    assert_eq!((&shown["category"], &shown["priority"]), (&Value::from("Web Application Attack"), &Value::from(1)));
    assert_eq!((&shown["references"][0], &shown["metadata"]["cve"][0]), (&Value::from("https://example.org/7"), &Value::from("2021_1")));
    assert!(shown["text"].as_str().unwrap().starts_with("alert tcp any any -> any 80 (msg:\"three\";"));
    assert!(text(&ask(&["show", "2"]).stdout).contains("`contnet` is not a keyword"));
    assert_eq!(code(&ask(&["show", "99"])), 2);

    let read = |name: &str| std::fs::read_to_string(at(name)).unwrap_or_default();
    assert_eq!(code(&ask(&["enable", "re:shell", "-o", "json"])), 0);
    assert_eq!(code(&ask(&["disable", "1", "2"])), 0);
    assert_eq!((read("enable.conf").as_str(), read("disable.conf").as_str()), ("re:shell\n", "1\n2\n"));
    assert_eq!(states(), "1:disabled 3:loaded 4:unsupported");
    assert_eq!(code(&ask(&["enable", "1"])), 0);
    assert_eq!(code(&ask(&["enable", "1"])), 0);
    assert_eq!((read("enable.conf").as_str(), read("disable.conf").as_str()), ("re:shell\n1\n", "2\n"));
    assert_eq!(code(&ask(&["disable", "re:shell"])), 0);
    assert_eq!(states(), "1:loaded 3:disabled 4:unsupported");
    for wrong in ["99", "re:(", "nonsense"] {
        assert_eq!(code(&ask(&["disable", wrong])), 2, "{wrong}");
    }
    assert_eq!(read("disable.conf"), "2\nre:shell\n");
}

#[test]
fn the_rules_that_come_with_the_program_are_listed_and_can_be_left_out() {
    let dir = TestDir::new();
    let listed = |config: &str, words: &[&str]| {
        let config = file(&dir, "bulkhead.yaml", config);
        offline(&[&["rules"], words, &["--config", config.to_str().unwrap(), "-o", "json"]].concat())
    };
    let loaded = json(&listed("", &["list", "--state", "loaded"]));
    let loaded = loaded.as_array().unwrap();
    assert!(loaded.len() >= 150 && loaded.iter().all(|one| one["file"].as_str().unwrap().starts_with("built-in/")));
    assert_eq!(json(&listed("", &["list"])).as_array().unwrap().len(), loaded.len(), "none is wrong, unsupported or disabled");
    let shown = json(&listed("", &["show", &loaded[0]["sid"].to_string()]));
    assert_eq!((&shown[0]["state"], &shown[0]["file"]), (&Value::from("loaded"), &loaded[0]["file"]));
    assert_eq!(json(&listed("rules: {built-in: false}\n", &["list"])).as_array().unwrap().len(), 0);
    // Files of one's own are looked at alone.
    let rules = file(&dir, "own.rules", RULES);
    assert_eq!(json(&listed("", &["list", "--state", "loaded", "--file", rules.to_str().unwrap()])).as_array().unwrap().len(), 1);
}

#[test]
fn rules_are_formatted_in_place_and_what_cannot_be_read_stays() {
    let dir = TestDir::new();
    let rules = file(&dir, "lab.rules", RULES);
    let path = rules.to_str().unwrap();
    assert_eq!(code(&offline(&["rules", "fmt", "--check", path])), 0);
    let untidy = RULES.replace("msg:\"one\"; ", "msg:  \"one\" ;");
    std::fs::write(&rules, &untidy).unwrap();
    let output = offline(&["rules", "fmt", "--check", path]);
    assert_eq!((code(&output), text(&output.stdout)), (1, format!("{path}\n").as_str()));
    assert_eq!(std::fs::read_to_string(&rules).unwrap(), untidy);
    let output = offline(&["rules", "fmt", path, "-o", "json"]);
    assert_eq!((code(&output), &json(&output)["changed"][0]), (0, &Value::from(path)));
    assert_eq!(std::fs::read_to_string(&rules).unwrap(), RULES);
    std::fs::write(&rules, b"# \xff\n").unwrap();
    assert_ne!(code(&offline(&["rules", "fmt", path])), 0);
    assert_eq!(std::fs::read(&rules).unwrap(), b"# \xff\n");
}

#[test]
fn following_shows_what_was_and_what_comes_and_ends_with_the_agent() {
    let mut lab = busy_lab();
    let mut child =
        bulkhead(lab.server.socket()).args(["events", "-f", "-n", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("interface-armed"));
    lab.agent.send(alert(2002));
    assert!(lines.next().unwrap().contains("(sid 2002)"));
    lab.server.stop();
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let lab = busy_lab();
    let mut child =
        bulkhead(lab.server.socket()).args(["events", "-f", "-n", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    drop(lines);
    lab.agent.send(alert(1));
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn watching_without_a_terminal_tells_news_line_by_line() {
    let lab = busy_lab();
    let mut child = bulkhead(lab.server.socket())
        .args(["status", "--watch", "--interval", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first: Vec<String> = lines.by_ref().take(4).collect();
    golden("watch", &(first.join("\n") + "\n"));
    lab.agent.send(alert(2002));
    assert!(lines.next().unwrap().contains("(sid 2002)"));
    assert!(lines.next().unwrap().starts_with("bulkhead protecting: "));
    drop(lab);
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn watching_on_a_terminal_writes_over_the_last_screen_and_changes_nothing_of_the_terminal() {
    let lab = busy_lab();
    let program = env!("CARGO_BIN_EXE_bulkhead");
    let shell =
        format!("stty columns 90 rows 20; exec '{program}' --socket '{}' status --watch --interval 1", lab.server.socket().display());
    let mut command = Command::new("script");
    command.args(["-qec", &shell, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("NOT RUN: watching_on_a_terminal_writes_over_the_last_screen_and_changes_nothing_of_the_terminal (no script(1))");
        return;
    };
    let mut shown = Vec::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    // The second screen is there when the cursor has gone home twice and the rest was cleared twice.
    while text_count(&shown, "\x1b[J") < 2 {
        assert!(reader.read_until(b'J', &mut shown).unwrap() > 0, "{}", String::from_utf8_lossy(&shown));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let shown = String::from_utf8(shown).unwrap();
    let screens: Vec<&str> = shown.split("\x1b[H").skip(1).collect();
    assert_eq!((screens.len(), shown.matches("\x1b[2J").count()), (2, 1), "cleared once, then written over:\n{shown}");
    for screen in screens {
        assert!(screen.contains("attacker") && screen.contains("-> web") && screen.contains("LAB command injection"), "{screen}");
        assert!(screen.matches('\n').count() < 20, "it would scroll:\n{screen}");
    }
    for private in ["\x1b[?", "\x1bc", "\x1b]"] {
        assert!(!shown.contains(private), "{private:?} changes the terminal");
    }
    assert!(shown.contains("\x1b[32m"), "colours on a terminal");
}

fn text_count(bytes: &[u8], what: &str) -> usize {
    String::from_utf8_lossy(bytes).matches(what).count()
}

#[test]
fn watching_as_json_gives_one_whole_look_per_line() {
    let lab = busy_lab();
    let mut child = bulkhead(lab.server.socket()).args(["status", "--watch", "-o", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let look: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(look["status"]["pid"], 4711);
    assert_eq!(look["events"].as_array().unwrap().len(), 3);
    assert!(look["coverage"]["complete"].as_bool().unwrap() && look["workloads"].is_array());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn down_waits_until_the_agent_s_process_has_ended() {
    let mut lab = busy_lab();
    let mut agent = Command::new("sleep").arg("600").spawn().unwrap();
    *lab.agent.pid.lock().unwrap() = agent.id();
    let mut child = bulkhead(lab.server.socket()).arg("down").stdout(Stdio::piped()).spawn().unwrap();
    while !lab.agent.down.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
    lab.server.stop();
    assert_eq!(child.try_wait().unwrap(), None, "the socket is gone, the process is not");
    agent.kill().unwrap();
    agent.wait().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), text(&output.stdout)), (0, "taken off 2 interfaces; the host is as it was\n"));
}

#[test]
fn the_manual_and_the_completions_come_from_the_same_definition() {
    let page = offline(&["man"]);
    assert!(code(&page) == 0 && text(&page.stdout).contains(".TH bulkhead 1"), "{}", text(&page.stdout));
    let dir = TestDir::new();
    assert_eq!(code(&offline(&["man", "--dir", dir.path().to_str().unwrap()])), 0);
    for verb in VERBS.iter().filter(|verb| !verb.is_empty()) {
        assert!(dir.path().join(format!("bulkhead-{}.1", verb.join("-"))).exists(), "{verb:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = offline(&["completions", shell]);
        assert!(code(&script) == 0 && text(&script.stdout).contains("coverage"), "{shell}");
    }
}
