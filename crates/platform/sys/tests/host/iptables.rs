use crate::root_only;
use bulkhead_sys::iptables::{Error, Family, check, restore, save, version};
use bulkhead_sys::netns::Netns;
use std::os::fd::AsFd;

const RULES: &str = "*mangle\n:BULKHEAD-TEST - [0:0]\n-A BULKHEAD-TEST -p udp --dport 7 -j DROP\nCOMMIT\n";

#[test]
fn rules_are_applied_in_the_namespace_and_stay_beside_others() {
    root_only!("rules_are_applied_in_the_namespace_and_stay_beside_others");
    for family in Family::BOTH {
        let netns = Netns::create().unwrap();
        let at = Some(netns.as_fd());
        match restore(family, "*mangle\n-A FORWARD -m mark --mark 0x7 -j ACCEPT\nCOMMIT\n", at) {
            Err(Error::Missing { program }) => {
                println!("NOT RUN: rules_are_applied_in_the_namespace_and_stay_beside_others: {program} is not installed");
                return;
            }
            other => other.unwrap(),
        }
        check(family, RULES, at).unwrap();
        assert!(!save(family, Some("mangle"), at).unwrap().contains("BULKHEAD-TEST"), "a check changes nothing");
        restore(family, RULES, at).unwrap();
        // A chain that is declared anew is emptied first: the same text twice is the same rules once.
        restore(family, RULES, at).unwrap();
        let saved = save(family, Some("mangle"), at).unwrap();
        assert_eq!(saved.matches("-A BULKHEAD-TEST ").count(), 1, "{saved}");
        assert!(saved.contains("-A FORWARD -m mark --mark 0x7 -j ACCEPT"), "{saved}");
        assert!(!save(family, None, None).unwrap().contains("BULKHEAD-TEST"), "the host's own rules are not touched");
    }
}

#[test]
fn a_text_with_one_bad_rule_changes_nothing() {
    root_only!("a_text_with_one_bad_rule_changes_nothing");
    let netns = Netns::create().unwrap();
    let at = Some(netns.as_fd());
    let bad = "*mangle\n:BULKHEAD-TEST - [0:0]\n-A BULKHEAD-TEST -j DROP\n-A BULKHEAD-TEST -j NO-SUCH-TARGET\nCOMMIT\n";
    match restore(Family::V4, bad, at) {
        Err(Error::Missing { program }) => println!("NOT RUN: a_text_with_one_bad_rule_changes_nothing: {program} is not installed"),
        Err(Error::Refused { program, code: Some(code), message }) => {
            assert_eq!(program, "iptables-restore");
            assert!(code != 0 && message.contains("NO-SUCH-TARGET"), "{message}");
            assert!(!save(Family::V4, Some("mangle"), at).unwrap().contains("BULKHEAD-TEST"));
            assert!(version(Family::V4).unwrap().starts_with("iptables v"), "{:?}", version(Family::V4));
        }
        other => panic!("{other:?}"),
    }
}
