//! Which addresses the lab and the tests may use: documentation ranges and loopback, nothing that could be somebody's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 5737: TEST-NET-1, -2 and -3.
const TEST_NETS: [(Ipv4Addr, u8); 3] =
    [(Ipv4Addr::new(192, 0, 2, 0), 24), (Ipv4Addr::new(198, 51, 100, 0), 24), (Ipv4Addr::new(203, 0, 113, 0), 24)];
/// RFC 3849.
const DOCUMENTATION: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32);

/// May packets be sent there from a namespace that was made for it?
pub fn is_test_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || TEST_NETS.iter().any(|&(net, bits)| in_v4(v4, net, bits)),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_test_address(v4.into()),
            None => v6.is_loopback() || in_v6(v6, DOCUMENTATION.0, DOCUMENTATION.1) || v6.is_unicast_link_local(),
        },
    }
}

/// May an interface of the host's own namespace have it? One range only: a machine may live in the others.
pub fn is_host_test_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => in_v4(v4, TEST_NETS[1].0, TEST_NETS[1].1),
        IpAddr::V6(v6) => in_v6(v6, DOCUMENTATION.0, DOCUMENTATION.1),
    }
}

fn in_v4(address: Ipv4Addr, net: Ipv4Addr, bits: u8) -> bool {
    (u32::from(address) ^ u32::from(net)).checked_shr(32 - u32::from(bits)).unwrap_or(0) == 0
}

fn in_v6(address: Ipv6Addr, net: Ipv6Addr, bits: u8) -> bool {
    (u128::from(address) ^ u128::from(net)).checked_shr(128 - u32::from(bits)).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_documentation_and_loopback_addresses_are_targets() {
        for good in [
            "127.0.0.1",
            "::1",
            "192.0.2.7",
            "198.51.100.255",
            "203.0.113.1",
            "2001:db8::1",
            "2001:db8:ffff::",
            "::ffff:198.51.100.3",
            "fe80::1",
        ] {
            assert!(is_test_address(ip(good)), "{good}");
        }
        for bad in [
            "10.0.0.1",
            "172.17.0.2",
            "192.168.1.1",
            "169.254.169.254",
            "8.8.8.8",
            "198.51.101.0",
            "2001:db9::",
            "::ffff:10.0.0.1",
            "0.0.0.0",
            "fd00::1",
        ] {
            assert!(!is_test_address(ip(bad)), "{bad}");
        }
    }

    #[test]
    fn the_hosts_own_namespace_has_one_range() {
        assert!(is_host_test_address(ip("198.51.100.129")) && is_host_test_address(ip("2001:db8:b:1::1")));
        assert!(
            !is_host_test_address(ip("192.0.2.1")) && !is_host_test_address(ip("203.0.113.1")) && !is_host_test_address(ip("127.0.0.1"))
        );
    }
}
