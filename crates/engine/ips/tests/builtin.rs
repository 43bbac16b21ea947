//! The rules that the repository carries: each blocks its attack (three tell of it only) and lets its benign twin pass, and no
//! twin raises any of them.

mod kit;
#[path = "kit/builtin.rs"]
mod rules;

use std::collections::BTreeSet;

use bulkhead_rules::Action;

#[test]
fn every_rule_blocks_its_attack_and_lets_its_twin_pass() {
    let ruleset = rules::ruleset();
    let fixtures = rules::fixtures();
    let sids: BTreeSet<u32> = ruleset.rules().map(|rule| rule.sid).collect();
    assert!(sids.len() >= 150, "{} rules", sids.len());
    for attack in [true, false] {
        let told: BTreeSet<u32> = fixtures.iter().filter(|fixture| fixture.attack == attack).map(|fixture| fixture.sid).collect();
        assert_eq!(sids, told, "rules and fixtures (attack: {attack})");
    }
    // What a busy client does too is told, and not blocked.
    let told_only: BTreeSet<u32> = ruleset.rules().filter(|rule| rule.action == Action::Alert).map(|rule| rule.sid).collect();
    assert!(told_only.len() <= 3, "{told_only:?}");
    let mut wrong = Vec::new();
    for fixture in &fixtures {
        let (found, blocked) = rules::play(&ruleset, fixture);
        if fixture.attack && !(found.contains(&fixture.sid) && blocked != told_only.contains(&fixture.sid)) {
            wrong.push(format!("{} attack: {found:?}, blocked: {blocked}", fixture.sid));
        } else if !fixture.attack && (!found.is_empty() || blocked) {
            wrong.push(format!("{} benign: {found:?}", fixture.sid));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
