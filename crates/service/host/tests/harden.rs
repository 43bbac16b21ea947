//! A root directory is hardened and taken back, also when it is cut off before any single act.

mod tree;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use bulkhead_host::apply::{Error, Hands};
use bulkhead_host::services::{Nobody, Services};
use bulkhead_host::{Options, Root, WalkScope, collect};
use bulkhead_posture::plan::{Act, Change, Plan, Step};
use bulkhead_posture::snapshot::HostSnapshot;
use bulkhead_posture::{Profile, Selection, Status, Waivers, audit, plan};
use tree::Tree;

const NOBODY: Nobody = Nobody { host: false };

fn look(root: &Root) -> HostSnapshot {
    collect(&Options { root: root.clone(), observe: None, walk: WalkScope::System, rbac: None })
}

fn nothing(_: &str) -> Result<(), Error> {
    Ok(())
}

/// Of the profile; then what is applied only when it is named: a service, shared files, set-id bits.
const NAMED: [&str; 7] = [
    "service.cups",
    "docker.icc",
    "docker.userland-proxy",
    "surface.ctrl-alt-del",
    "surface.set-id-unowned",
    "surface.world-writable-files",
    "ssh.allow-tcp-forwarding",
];

fn named(root: &Root, ids: &[&str]) -> Plan {
    let plan = plan(&look(root), Profile::ContainerHost, &Selection::Controls(ids.iter().map(|&id| id.to_owned()).collect()));
    assert_eq!(plan.skipped, [], "all of them fail here");
    let made: BTreeSet<&str> = plan.steps.iter().map(|step| step.control.as_str()).collect();
    assert_eq!(made, ids.iter().copied().collect());
    plan
}

#[test]
fn what_failed_has_passed_after_hardening_and_everything_is_as_before_after_undo() {
    let tree = Tree::bad("roundtrip");
    let root = tree.root();
    let before = tree.state();
    let hands = Hands { root: &root, services: &NOBODY, tick: &nothing };
    let whole = plan(&look(&root), Profile::ContainerHost, &Selection::Profile);
    assert!(whole.steps.len() > 30, "{} steps", whole.steps.len());
    let apply = |plan: &Plan| {
        plan.steps.iter().for_each(|step| drop(hands.apply(step).unwrap_or_else(|error| panic!("{}: {error}", step.control))))
    };
    apply(&whole);
    let more = named(&root, &NAMED);
    apply(&more);
    let report = audit(&look(&root), Profile::ContainerHost, &Waivers::default(), 0);
    for step in whole.steps.iter().chain(&more.steps) {
        let finding = report.find(&step.control).unwrap();
        assert_eq!(finding.status, Status::Passed, "{}: {:?}", finding.id, finding.evidence);
    }
    assert_ne!(tree.state(), before);
    for record in hands.journal().unwrap().records().unwrap().iter().rev() {
        hands.undo(record, false).unwrap_or_else(|error| panic!("{}: {error}", record.control));
    }
    tree.assert_state(&before);
}

#[test]
fn a_run_that_is_cut_off_before_any_act_is_taken_back_whole() {
    let tree = Tree::bad("cut");
    let root = tree.root();
    let before = tree.state();
    // One step of every kind of change: the others are of the same kinds.
    let wanted = [
        "sysctl.kernel.kptr_restrict",
        "module.dccp",
        "docker.log-limit",
        "file.shadow",
        "ssh.x11-forwarding",
        "service.cups",
        "surface.set-id-unowned",
        "surface.ctrl-alt-del",
    ];
    let plan = named(&root, &wanted);
    let mut cuts = 0;
    loop {
        let left = Cell::new(cuts);
        let tick = |what: &str| match left.get() {
            0 => Err(Error::Stopped(what.to_owned())),
            more => {
                left.set(more - 1);
                Ok(())
            }
        };
        let cut = Hands { root: &root, services: &NOBODY, tick: &tick };
        let whole = plan.steps.iter().try_for_each(|step| cut.apply(step).map(drop));
        let finished = match whole {
            Ok(()) => true,
            Err(Error::Stopped(_)) => false,
            Err(error) => panic!("after {cuts} acts: {error}"),
        };
        // The next run is cut off once itself, in the middle of taking back, and then comes to its end.
        let left = Cell::new(cuts % 7);
        let tick = |what: &str| match left.get() {
            0 => Err(Error::Stopped(what.to_owned())),
            more => {
                left.set(more - 1);
                Ok(())
            }
        };
        let again = Hands { root: &root, services: &NOBODY, tick: &tick };
        let _ = take_all_back(&again);
        take_all_back(&Hands { root: &root, services: &NOBODY, tick: &nothing })
            .unwrap_or_else(|error| panic!("after {cuts} acts: {error}"));
        tree.assert_state(&before);
        if finished {
            break;
        }
        cuts += 1;
    }
    assert!(cuts >= 50, "only {cuts} acts");
}

fn take_all_back(hands: &Hands<'_>) -> Result<(), Error> {
    hands.recover()?;
    for record in hands.journal()?.records()?.iter().rev() {
        hands.undo(record, false)?;
    }
    hands.journal()?.close()
}

#[test]
fn what_somebody_else_changed_since_is_not_overwritten_unless_forced() {
    let tree = Tree::bad("conflict");
    let root = tree.root();
    let hands = Hands { root: &root, services: &NOBODY, tick: &nothing };
    let only = |id: &str| {
        bulkhead_posture::plan(&look(&root), Profile::ContainerHost, &Selection::Controls(BTreeSet::from([id.to_owned()]))).steps.remove(0)
    };
    hands.apply(&only("docker.icc")).unwrap();
    hands.apply(&only("docker.log-limit")).unwrap();
    let records = hands.journal().unwrap().records().unwrap();
    let error = hands.undo(&records[0], false).unwrap_err().to_string();
    assert!(error.contains("step 2 changed /etc/docker/daemon.json after step 1"), "{error}");
    tree.write("etc/docker/daemon.json", "{\"debug\": true}\n");
    let error = hands.undo(&records[1], false).unwrap_err().to_string();
    assert!(error.contains("changed by somebody else"), "{error}");
    assert_eq!(tree.read("etc/docker/daemon.json"), "{\"debug\": true}\n");
    hands.undo(&records[1], true).unwrap();
    hands.undo(&records[0], false).unwrap();
    assert_eq!(tree.read("etc/docker/daemon.json"), tree::DAEMON_JSON);
}

#[test]
fn a_step_whose_ground_has_moved_is_refused_and_a_step_that_fails_is_taken_back() {
    let tree = Tree::bad("refused");
    let root = tree.root();
    let hands = Hands { root: &root, services: &NOBODY, tick: &nothing };
    let selection = Selection::Controls(BTreeSet::from(["docker.icc".to_owned()]));
    let step = bulkhead_posture::plan(&look(&root), Profile::ContainerHost, &selection).steps.remove(0);
    tree.write("etc/docker/daemon.json", "{}\n");
    let before = tree.state();
    assert!(matches!(hands.apply(&step), Err(Error::Precondition(_))));
    tree.assert_state(&before);
    // The second change has no file to change: the first one must not stay.
    let step = Step {
        control: "made-up".into(),
        title: "made up".into(),
        changes: vec![
            Change::File { path: "/etc/new/deep/file".into(), before: None, after: "x\n".into(), mode: 0o600 },
            Change::Link { path: "/etc/docker/daemon.json/impossible".into(), target: Some("/dev/null".into()) },
        ],
        affects: Vec::new(),
        notes: Vec::new(),
    };
    hands.apply(&step).unwrap_err();
    tree.assert_state(&before);
    let stop = Step {
        control: "x".into(),
        title: "x".into(),
        changes: vec![Change::Unit { name: "ssh.service".into(), act: Act::Stop }],
        affects: Vec::new(),
        notes: Vec::new(),
    };
    assert!(matches!(hands.apply(&stop), Err(Error::Precondition(why)) if why.contains("never switched off")));
}

/// An init system that starts nothing that is masked, as systemd does.
struct Init<'a> {
    root: &'a Root,
    running: RefCell<BTreeMap<String, bool>>,
    acts: RefCell<Vec<String>>,
}

impl Services for Init<'_> {
    fn active(&self, name: &str) -> Option<bool> {
        Some(self.running.borrow().get(name).copied().unwrap_or(false))
    }

    fn act(&self, name: &str, act: Act) -> Result<(), String> {
        let masked = self.root.link(&format!("/etc/systemd/system/{name}")).as_deref() == Some("/dev/null");
        if act == Act::Start && masked {
            return Err(format!("{name} is masked"));
        }
        self.acts.borrow_mut().push(format!("{act:?} {name}"));
        if act != Act::Reload {
            self.running.borrow_mut().insert(name.to_owned(), act == Act::Start);
        }
        Ok(())
    }

    fn reload_units(&self) {}

    fn check_configuration(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn a_unit_that_ran_runs_again_after_undo_and_settings_are_read_again() {
    let tree = Tree::bad("units");
    let root = tree.root();
    let before = tree.state();
    let running = BTreeMap::from([("cups.service".to_owned(), true), ("ssh.service".to_owned(), true)]);
    let init = Init { root: &root, running: RefCell::new(running), acts: RefCell::new(Vec::new()) };
    let hands = Hands { root: &root, services: &init, tick: &nothing };
    let mut snapshot = look(&root);
    if let bulkhead_posture::Fact::Known(units) = &mut snapshot.units {
        units.iter_mut().for_each(|unit| unit.active = Some(["cups.service", "ssh.service"].contains(&unit.name.as_str())));
    }
    let ids = ["service.cups", "ssh.x11-forwarding"].map(str::to_owned);
    let made = plan(&snapshot, Profile::ContainerHost, &Selection::Controls(ids.into()));
    for step in &made.steps {
        hands.apply(step).unwrap_or_else(|error| panic!("{}: {error}", step.control));
    }
    assert_eq!(init.active("cups.service"), Some(false));
    take_all_back(&hands).unwrap();
    assert_eq!(init.active("cups.service"), Some(true), "{:?}", init.acts);
    assert_eq!(init.acts.borrow().iter().filter(|act| *act == "Reload ssh.service").count(), 2, "{:?}", init.acts);
    tree.assert_state(&before);
}

#[test]
fn a_service_is_switched_off_only_when_nobody_used_it_or_it_was_named() {
    let tree = Tree::bad("unused");
    let mut snapshot = look(&tree.root());
    let steps = |snapshot: &HostSnapshot| {
        plan(snapshot, Profile::ContainerHost, &Selection::Profile).steps.into_iter().filter(|step| step.control == "service.cups").count()
    };
    assert_eq!(steps(&snapshot), 0, "its use was not watched");
    let used = |snapshot: &mut HostSnapshot, connections, seconds| {
        snapshot.observed_seconds = Some(seconds);
        if let bulkhead_posture::Fact::Known(units) = &mut snapshot.units {
            for unit in units.iter_mut() {
                unit.usage = Some(bulkhead_posture::snapshot::Usage { connections, ..Default::default() });
            }
        }
    };
    used(&mut snapshot, 3, 600);
    assert_eq!(steps(&snapshot), 0, "somebody connected");
    used(&mut snapshot, 0, 10);
    assert_eq!(steps(&snapshot), 0, "ten seconds tell nothing");
    used(&mut snapshot, 0, 600);
    assert_eq!(steps(&snapshot), 1);
    // The way in is not switched off even when it is named.
    let named =
        plan(&snapshot, Profile::ContainerHost, &Selection::Units(BTreeSet::from(["ssh.service".to_owned(), "docker.service".to_owned()])));
    assert!(named.steps.is_empty() && named.skipped.len() == 2, "{named:?}");
}
