//! Twenty signatures of common shape, none of which the benchmark's own traffic matches: what a small site has. Content
//! on one side or both, case folded or not, on ports or any; enough that the multi-pattern search runs over every byte.

/// The text of the rule file.
pub fn small() -> String {
    let mut text = String::new();
    for (index, (direction, protocol, contents)) in SIGNATURES.iter().enumerate() {
        let flow = match *protocol {
            "tcp" => format!("flow:{direction},established; "),
            _ => String::new(),
        };
        let contents: String = contents.iter().map(|content| format!("content:\"{content}\"; nocase; ")).collect();
        text += &format!(
            "drop {protocol} any any -> any any (msg:\"BENCH {index}\"; {flow}{contents}classtype:bad-unknown; sid:{}; rev:1;)\n",
            9_100_000 + index
        );
    }
    text
}

const SIGNATURES: [(&str, &str, &[&str]); 20] = [
    ("to_server", "tcp", &["/ping?host=", "|3b|id"]),
    ("to_server", "tcp", &["${jndi|3a|"]),
    ("to_client", "tcp", &["uid=0(root)"]),
    ("to_server", "tcp", &["/etc/passwd"]),
    ("to_server", "tcp", &["union select", "from"]),
    ("to_server", "tcp", &["<script>alert("]),
    ("to_server", "tcp", &["cmd.exe /c"]),
    ("to_server", "tcp", &["powershell -enc"]),
    ("to_server", "tcp", &["() {|20|:|3b|}|3b|"]),
    ("to_server", "tcp", &["class.module.classLoader"]),
    ("to_server", "tcp", &["/cgi-bin/", "/bin/sh"]),
    ("to_server", "tcp", &["|90 90 90 90 90 90 90 90 90 90|"]),
    ("to_client", "tcp", &["X5O!P%@AP"]),
    ("to_client", "tcp", &["-----BEGIN RSA PRIVATE KEY-----"]),
    ("to_server", "tcp", &["xp_cmdshell"]),
    ("to_server", "tcp", &["SLAVEOF", "CONFIG SET dir"]),
    ("to_server", "tcp", &["stratum+tcp://"]),
    ("to_server", "tcp", &["/_search?source=", "java.lang.Runtime"]),
    ("", "udp", &["|00 00 29 10 00|version|04|bind"]),
    ("", "udp", &["M-SEARCH * HTTP/1.1", "ssdp:uuid:"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_twenty_rules_with_ids_of_their_own() {
        let text = small();
        assert_eq!(text.lines().count(), 20);
        let ids: std::collections::BTreeSet<_> = text.lines().filter_map(|line| line.split("sid:").nth(1)).collect();
        assert_eq!(ids.len(), 20);
        assert!(text.lines().all(|line| line.starts_with("drop ") && line.ends_with(')')));
    }
}
