//! The netfilter rules of the fallback path as text, and their counters read back. Pure.
//!
//! ```text
//! FORWARD, INPUT, OUTPUT -> BULKHEAD: ours sent by us? back. In or out of an interface of containers? goto Q
//! Q: back from the queue to be condemned? D. To be let go? V. (count by interface) condemned? DROP. let go? back.
//!    the agent has answered lately? goto A. Else nobody judges: closed DROP, open back
//! A: closed: NFQUEUE; open: NFQUEUE --queue-bypass
//! ```
//!
//! The agent's heartbeat stands in an `xt_recent` list that it writes to; the rule looks whether the entry is young. So a
//! hung agent is treated as a dead one, by the kernel. Mangle's FORWARD sees a packet after DNAT and before SNAT, so both
//! directions of a flow have one tuple.
//!
//! A verdict that is to outlive its packet comes back as the packet's mark by NF_REPEAT, and becomes the connection's mark here.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use bulkhead_sys::iptables::Family;

/// Queue numbers from here on: first those that fail open, then those that fail closed.
pub const QUEUE_FIRST: u16 = 2300;
pub const CHAIN: &str = "BULKHEAD";
/// Before the name of what a rule counts, in its comment.
const COUNTS: &str = "bulkhead:";

/// Values of the mark's four bits, of packets and of connections.
pub mod mark {
    /// The connection is condemned.
    pub const DROP: u32 = 1;
    /// A packet that the agent has made.
    pub const OWN: u32 = 2;
    /// The connection is let go, in the generation that this belongs to.
    pub const fn bypass(generation: u64) -> u32 {
        3 + (generation % 13) as u32
    }
}

/// The host's end of a container's interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    /// A port of a bridge; else its own interface of the host.
    pub bridged: bool,
    pub closed: bool,
}

/// What the rules follow from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Bridges, and interfaces on no bridge.
    pub interfaces: Vec<String>,
    pub ports: Vec<Port>,
    /// Addresses of containers, and whether they fail closed.
    pub addresses: Vec<(IpAddr, bool)>,
    /// For what none of these names.
    pub default_closed: bool,
    pub queues: u16,
    pub mark_shift: u32,
    pub generation: u64,
    /// The heartbeat may be so old; `None` where the kernel cannot look.
    pub fail_seconds: Option<u64>,
    /// Chains come in two sets, so that one takes the other's place in one step and its counters can still be read.
    pub set: u8,
}

/// Name of the list that holds the heartbeat.
pub const fn heartbeat(family: Family) -> &'static str {
    match family {
        Family::V4 => "bulkhead4",
        Family::V6 => "bulkhead6",
    }
}

/// What is written to it.
pub const fn heartbeat_entry(family: Family) -> &'static str {
    match family {
        Family::V4 => "+0.0.0.0\n",
        Family::V6 => "+::\n",
    }
}

/// A text for `iptables-restore --noflush`: our chains with their rules, in the place of what they held.
pub fn text(family: Family, inputs: &Inputs) -> String {
    let (shift, set) = (inputs.mark_shift, inputs.set);
    let mask = 15u32 << shift;
    let marked = |value: u32| format!("0x{:x}/0x{mask:x}", value << shift);
    let (q, a) = (format!("{CHAIN}-Q{set}"), format!("{CHAIN}-A{set}"));
    let mut out = format!("*mangle\n:{CHAIN} - [0:0]\n:{q} - [0:0]\n:{a} - [0:0]\n:{CHAIN}-D - [0:0]\n:{CHAIN}-V - [0:0]\n");
    let mut rule = |chain: &str, rest: &str| _ = writeln!(out, "-A {chain} {rest}");
    rule(CHAIN, &format!("-m mark --mark {} -j RETURN", marked(mark::OWN)));
    for name in &inputs.interfaces {
        // Not a jump: what comes back from there is not to meet the next of these rules.
        rule(CHAIN, &format!("-i {name} -g {q}"));
        rule(CHAIN, &format!("-o {name} -g {q}"));
    }
    rule(&q, &format!("-m mark --mark {} -g {CHAIN}-D", marked(mark::DROP)));
    rule(&q, &format!("-m mark ! --mark {} -g {CHAIN}-V", marked(0)));
    for port in &inputs.ports {
        rule(&q, &format!("{} {}", from_port(port), counted(&format!("in:{}", port.name))));
    }
    rule(&q, &format!("-m connmark --mark {} {} -j DROP", marked(mark::DROP), counted("flow")));
    rule(&q, &format!("-m connmark --mark {} {} -j RETURN", marked(mark::bypass(inputs.generation)), counted("bypass")));
    if let Some(seconds) = inputs.fail_seconds {
        let any = if matches!(family, Family::V4) { "0.0.0.0" } else { "::" };
        let name = heartbeat(family);
        rule(&q, &format!("-m recent --name {name} --rcheck --seconds {seconds} --mask {any} --rsource -g {a}"));
        for (selector, closed) in selectors(family, inputs) {
            let (what, target) = if closed { ("fail-closed", "DROP") } else { ("fail-open", "RETURN") };
            rule(&q, &format!("{selector} {} -j {target}", counted(what)));
        }
    } else {
        rule(&q, &format!("-g {a}"));
    }
    let first = |closed: bool| if closed { QUEUE_FIRST + inputs.queues } else { QUEUE_FIRST };
    for (selector, closed) in selectors(family, inputs) {
        let queues = match inputs.queues {
            1 => format!("--queue-num {}", first(closed)),
            count => format!("--queue-balance {}:{}", first(closed), first(closed) + count - 1),
        };
        let (what, bypass) = if closed { ("queue-closed", "") } else { ("queue-open", " --queue-bypass") };
        rule(&a, &format!("{selector} {} -j NFQUEUE {queues}{bypass}", counted(what)));
    }
    let d = format!("{CHAIN}-D");
    rule(&d, &format!("-j CONNMARK --set-xmark {}", marked(mark::DROP)));
    rule(&d, &format!("{} -j DROP", counted("condemned")));
    let v = format!("{CHAIN}-V");
    rule(&v, &format!("-j CONNMARK --save-mark --nfmask 0x{mask:x} --ctmask 0x{mask:x}"));
    rule(&v, &format!("-j MARK --set-xmark {}", marked(0)));
    out.push_str("COMMIT\n");
    out
}

/// The hooks that jump to our chain.
const HOOKS: [&str; 3] = ["FORWARD", "INPUT", "OUTPUT"];

fn jumps(saved: &str, hook: &str) -> bool {
    let jump = format!("-A {hook} -j {CHAIN}");
    saved.lines().any(|line| line == jump)
}

/// Do all jumps to our chain stand in this table of `iptables-save`, and our chains, with something in them?
pub fn stand(saved: &str) -> bool {
    let filled = |chain: &str| saved.lines().any(|line| line.starts_with(&format!("-A {CHAIN}{chain}")));
    missing_jumps(saved).is_none() && filled(" ") && filled("-Q") && filled("-A")
}

/// The jumps to our chain that this table lacks, in front of all others. (Naming the chain in a `:` line would empty it.)
pub fn missing_jumps(saved: &str) -> Option<String> {
    let mut text = "*mangle\n".to_owned();
    for hook in HOOKS.into_iter().filter(|hook| !jumps(saved, hook)) {
        let _ = writeln!(text, "-I {hook} -j {CHAIN}");
    }
    text.push_str("COMMIT\n");
    (!HOOKS.into_iter().all(|hook| jumps(saved, hook))).then_some(text)
}

/// What takes one set of chains away; nothing leads to it any more.
pub fn without_set(set: u8) -> String {
    let (q, a) = (format!("{CHAIN}-Q{set}"), format!("{CHAIN}-A{set}"));
    format!("*mangle\n:{q} - [0:0]\n:{a} - [0:0]\n-X {q}\n-X {a}\nCOMMIT\n")
}

/// What takes away all chains of ours that `saved` (a table of `iptables-save`) has, and the jumps to them. `None`: none.
pub fn without_all(saved: &str) -> Option<String> {
    let ours = |name: &str| name == CHAIN || name.strip_prefix(CHAIN).is_some_and(|rest| rest.starts_with('-'));
    let chains: Vec<&str> =
        saved.lines().filter_map(|line| line.strip_prefix(':')?.split_whitespace().next()).filter(|name| ours(name)).collect();
    if chains.is_empty() {
        return None;
    }
    let mut text = "*mangle\n".to_owned();
    for chain in &chains {
        let _ = writeln!(text, ":{chain} - [0:0]");
    }
    for line in saved.lines() {
        let mut words = line.split_whitespace();
        let (Some("-A"), Some(from)) = (words.next(), words.next()) else { continue };
        if !ours(from) && words.any(ours) {
            let _ = writeln!(text, "-D{}", &line[2..]);
        }
    }
    for chain in &chains {
        let _ = writeln!(text, "-X {chain}");
    }
    text.push_str("COMMIT\n");
    Some(text)
}

/// Who fails how: the first that fits decides, and the last one always fits.
fn selectors(family: Family, inputs: &Inputs) -> Vec<(String, bool)> {
    let mut out = Vec::new();
    // Either end that fails closed decides; the rest matters only where it differs from the default.
    for closed in [true, false] {
        let needed = if closed { !inputs.default_closed || inputs.ports.iter().any(|port| !port.closed) } else { inputs.default_closed };
        if !needed {
            continue;
        }
        out.extend(inputs.ports.iter().filter(|port| port.closed == closed).map(|port| (from_port(port), closed)));
        let six = matches!(family, Family::V6);
        for (address, _) in inputs.addresses.iter().filter(|(address, is)| *is == closed && address.is_ipv6() == six) {
            out.push((format!("-s {address}"), closed));
            out.push((format!("-d {address}"), closed));
        }
    }
    out.push((String::new(), inputs.default_closed));
    out
}

/// By the interface, not by the address: that one is the sender's to choose.
fn from_port(port: &Port) -> String {
    if port.bridged { format!("-m physdev --physdev-in {}", port.name) } else { format!("-i {}", port.name) }
}

fn counted(what: &str) -> String {
    format!("-m comment --comment \"{COUNTS}{what}\"")
}

/// Packets and bytes by what they were counted as.
pub type Counts = BTreeMap<String, (u64, u64)>;

/// Adds what the rules of this set have counted, from `iptables-save -c`.
pub fn add_counts(saved: &str, set: u8, into: &mut Counts) {
    let chains = [format!("{CHAIN}-Q{set}"), format!("{CHAIN}-A{set}")];
    for line in saved.lines() {
        let Some((packets, bytes, rule)) = counters(line) else { continue };
        let mut words = rule.split_whitespace();
        let (Some("-A"), Some(chain)) = (words.next(), words.next()) else { continue };
        let Some((_, rest)) = rule.split_once("--comment ") else { continue };
        let comment = rest.split_whitespace().next().unwrap_or_default().trim_matches('"');
        let Some(what) = comment.strip_prefix(COUNTS) else { continue };
        if chains.iter().any(|own| own == chain) {
            let sum = into.entry(what.to_owned()).or_default();
            sum.0 += packets;
            sum.1 += bytes;
        }
    }
}

/// `[packets:bytes] rule`.
fn counters(line: &str) -> Option<(u64, u64, &str)> {
    let (counts, rule) = line.strip_prefix('[')?.split_once(']')?;
    let (packets, bytes) = counts.split_once(':')?;
    Some((packets.parse().ok()?, bytes.parse().ok()?, rule.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Inputs {
        Inputs {
            interfaces: vec!["br0".into(), "veth9".into()],
            ports: vec![
                Port { name: "veth1".into(), bridged: true, closed: true },
                Port { name: "veth9".into(), bridged: false, closed: false },
            ],
            addresses: vec![("203.0.113.2".parse().unwrap(), true), ("2001:db8::9".parse().unwrap(), false)],
            default_closed: false,
            queues: 2,
            mark_shift: 24,
            generation: 14,
            fail_seconds: Some(1),
            set: 1,
        }
    }

    #[test]
    fn who_fails_closed_waits_in_other_queues_and_is_dropped_without_an_agent() {
        let four = text(Family::V4, &inputs());
        for line in [
            "-A BULKHEAD -i br0 -g BULKHEAD-Q1",
            "-A BULKHEAD-Q1 -m connmark --mark 0x4000000/0xf000000 -m comment --comment \"bulkhead:bypass\" -j RETURN",
            "-A BULKHEAD-Q1 -m recent --name bulkhead4 --rcheck --seconds 1 --mask 0.0.0.0 --rsource -g BULKHEAD-A1",
            "-A BULKHEAD-Q1 -m physdev --physdev-in veth1 -m comment --comment \"bulkhead:fail-closed\" -j DROP",
            "-A BULKHEAD-A1 -d 203.0.113.2 -m comment --comment \"bulkhead:queue-closed\" -j NFQUEUE --queue-balance 2302:2303",
            "-A BULKHEAD-A1  -m comment --comment \"bulkhead:queue-open\" -j NFQUEUE --queue-balance 2300:2301 --queue-bypass",
        ] {
            assert!(four.lines().any(|other| other == line), "no {line} in\n{four}");
        }
        let six = text(Family::V6, &inputs());
        assert!(!six.contains("203.0.113.2") && six.contains("--mask :: ") && !six.contains("2001:db8::9"), "{six}");
        let closed = text(Family::V6, &Inputs { default_closed: true, ..inputs() });
        assert!(closed.contains("-s 2001:db8::9") && closed.ends_with("COMMIT\n"), "{closed}");
        // One rule decides for what nothing names, and it is the last of its chain.
        assert!(closed.contains(
            "-A BULKHEAD-A1  -m comment --comment \"bulkhead:queue-closed\" -j NFQUEUE --queue-balance 2302:2303\n-A BULKHEAD-D"
        ));
    }

    #[test]
    fn a_generation_lets_go_only_its_own() {
        let at = |generation| text(Family::V4, &Inputs { generation, ..inputs() });
        assert_ne!(at(1), at(2));
        assert!((0..40).all(|generation| (3..16).contains(&mark::bypass(generation))));
    }

    #[test]
    fn counters_are_read_from_the_set_that_is_asked_for() {
        let saved = "*mangle\n[0:0] -A FORWARD -j BULKHEAD\n[5:500] -A BULKHEAD-Q1 -m physdev --physdev-in veth1 -m comment --comment \"bulkhead:in:veth1\"\n\
                     [2:80] -A BULKHEAD-A1 -s 203.0.113.2/32 -m comment --comment \"bulkhead:queue-closed\" -j NFQUEUE --queue-balance 2302:2303\n\
                     [3:90] -A BULKHEAD-A1 -d 203.0.113.2/32 -m comment --comment bulkhead:queue-closed -j NFQUEUE --queue-balance 2302:2303\n\
                     [7:7] -A BULKHEAD-Q0 -m comment --comment \"bulkhead:flow\" -j DROP\n[x:y] rubbish\n[9:9] -A OTHER -m comment --comment \"bulkhead:flow\"\n";
        let mut counts = Counts::new();
        add_counts(saved, 1, &mut counts);
        assert_eq!(counts, Counts::from([("in:veth1".into(), (5, 500)), ("queue-closed".into(), (5, 170))]));
    }

    #[test]
    fn rules_that_somebody_took_away_are_missed() {
        let whole = "-A FORWARD -j BULKHEAD\n-A INPUT -j BULKHEAD\n-A OUTPUT -j BULKHEAD\n-A BULKHEAD -i br0 -g BULKHEAD-Q0\n-A BULKHEAD-Q0 -j DROP\n-A BULKHEAD-A0 -j DROP\n";
        assert!(stand(whole));
        for line in whole.lines() {
            assert!(!stand(&whole.replace(&format!("{line}\n"), "")), "nobody misses `{line}`");
        }
        assert_eq!(missing_jumps(&whole.replace("-A INPUT -j BULKHEAD\n", "")).unwrap(), "*mangle\n-I INPUT -j BULKHEAD\nCOMMIT\n");
    }

    #[test]
    fn all_chains_and_jumps_go_and_others_stay() {
        let saved = "*mangle\n:FORWARD ACCEPT [0:0]\n:BULKHEAD - [0:0]\n:BULKHEAD-Q0 - [0:0]\n:BULKHEADS - [0:0]\n-A FORWARD -j BULKHEAD\n-A FORWARD -j BULKHEADS\n-A BULKHEAD -i br0 -g BULKHEAD-Q0\nCOMMIT\n";
        let text = without_all(saved).unwrap();
        assert_eq!(text, "*mangle\n:BULKHEAD - [0:0]\n:BULKHEAD-Q0 - [0:0]\n-D FORWARD -j BULKHEAD\n-X BULKHEAD\n-X BULKHEAD-Q0\nCOMMIT\n");
        assert_eq!(without_all("*mangle\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"), None);
    }
}
