//! Whether Linux throws a packet away for its IPv4 options or its IPv6 extension headers before a transport sees it. What is
//! heard here and not there would be an insertion: bytes that are judged and that no program reads.

use super::ip::{PROTO_DESTINATION, PROTO_HOP_BY_HOP, PROTO_ROUTING};

/// Bytes of padding in a row that `ip6_parse_tlv` (net/ipv6/exthdrs.c) takes.
const PADDING_MAX: usize = 7;
/// Options other than padding: the default of `max_hbh_opts_number` and `max_dst_opts_number`.
const OPTIONS_MAX: usize = 8;

/// The options behind the first 20 bytes, as `ip_options_compile` (net/ipv4/ip_options.c) takes them. Source routes are refused
/// where `accept_source_route` is as it is by default.
pub(super) fn ipv4_options(mut options: &[u8]) -> bool {
    let (mut recorded, mut stamped) = (false, false);
    loop {
        match options {
            [] | [0, ..] => return false,
            [1, rest @ ..] => options = rest,
            [_] => return true,
            [kind, len, ..] => {
                let len = usize::from(*len);
                let Some((option, rest)) = options.split_at_checked(len).filter(|_| len >= 2) else { return true };
                let at = option.get(2).map_or(0, |at| usize::from(*at));
                let wrong = match kind {
                    131 | 137 => true,
                    7 => std::mem::replace(&mut recorded, true) || len < 3 || at < 4 || (at <= len && at + 3 > len),
                    68 => std::mem::replace(&mut stamped, true) || stamp_is_wrong(option, at),
                    148 => len < 4,
                    _ => false,
                };
                if wrong {
                    return true;
                }
                options = rest;
            }
        }
    }
}

/// An IPv4 time stamp option: pointer `at`, then overflow and flag in one byte.
fn stamp_is_wrong(option: &[u8], at: usize) -> bool {
    let Some(flags) = option.get(3) else { return true };
    if at < 5 {
        return true;
    }
    if at > option.len() {
        return flags >> 4 == 15;
    }
    let needed = match flags & 15 {
        0 => 3,
        1 | 3 => 7,
        _ => return true,
    };
    at + needed > option.len()
}

/// One extension header, whole. `first` directly behind the fixed header.
pub(super) fn ipv6_header(kind: u8, header: &[u8], first: bool) -> bool {
    match kind {
        PROTO_HOP_BY_HOP => !first || ipv6_options(header.get(2..).unwrap_or_default(), true),
        PROTO_DESTINATION => ipv6_options(header.get(2..).unwrap_or_default(), false),
        // `ipv6_rthdr_rcv`: of the older types only one that has arrived; those of segment routing and of mobility have settings.
        PROTO_ROUTING => !matches!(header.get(2), Some(2..=4)) && header.get(3) != Some(&0),
        _ => false,
    }
}

fn ipv6_options(mut options: &[u8], hop_by_hop: bool) -> bool {
    let (mut padding, mut known) = (0, 0);
    loop {
        match options {
            [] => return false,
            [0, rest @ ..] => {
                padding += 1;
                options = rest;
            }
            [kind, len, rest @ ..] => {
                let Some((value, rest)) = rest.split_at_checked(usize::from(*len)) else { return true };
                if *kind == 1 {
                    padding += 2 + value.len();
                    if value.iter().any(|byte| *byte != 0) {
                        return true;
                    }
                } else {
                    (padding, known) = (0, known + 1);
                    let handled = hop_by_hop && matches!(kind, 0x05 | 0x07 | 0x31 | 0xc2);
                    // RFC 8200, section 4.2: what is not known is skipped only where its two highest bits are zero.
                    if known > OPTIONS_MAX || (!handled && kind >> 6 != 0) || (hop_by_hop && *kind == 0x05 && value.len() != 2) {
                        return true;
                    }
                }
                options = rest;
            }
            [_] => return true,
        }
        if padding > PADDING_MAX {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_refused_as_linux_refuses_them() {
        for (options, refused) in [
            (&[1, 1, 1, 1][..], false),
            (&[0, 9, 9, 9], false),
            (&[7, 7, 4, 0, 0, 0, 0, 0], false),
            (&[7, 7, 8, 0, 0, 0, 0, 0], false),
            (&[7, 7, 3, 0, 0, 0, 0, 0], true),
            (&[7, 7, 6, 0, 0, 0, 0, 0], true),
            (&[131, 7, 4, 192, 0, 2, 1, 0], true),
            (&[68, 8, 5, 0, 0, 0, 0, 0], false),
            (&[68, 8, 9, 0xf0, 0, 0, 0, 0], true),
            (&[68, 8, 5, 1, 0, 0, 0, 0], true),
            (&[148, 4, 0, 0], false),
            (&[30, 1], true),
            (&[30, 9, 0, 0], true),
            (&[30], true),
        ] {
            assert_eq!(ipv4_options(options), refused, "{options:?}");
        }
        for (kind, header, first, refused) in [
            (PROTO_HOP_BY_HOP, &[6, 0, 1, 4, 0, 0, 0, 0][..], true, false),
            (PROTO_HOP_BY_HOP, &[6, 0, 1, 4, 0, 0, 0, 0], false, true),
            (PROTO_HOP_BY_HOP, &[6, 0, 1, 4, 0, 0, 7, 0], true, true),
            (PROTO_HOP_BY_HOP, &[6, 0, 5, 2, 0, 0, 1, 0], true, false),
            (PROTO_HOP_BY_HOP, &[6, 0, 5, 3, 0, 0, 0, 0], true, true),
            (PROTO_DESTINATION, &[6, 0, 0x1e, 4, 0, 0, 0, 0], false, false),
            (PROTO_DESTINATION, &[6, 0, 0x5e, 4, 0, 0, 0, 0], false, true),
            (PROTO_DESTINATION, &[6, 0, 1, 5, 0, 0, 0, 0], false, true),
            (PROTO_DESTINATION, &[6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], false, true),
            (PROTO_ROUTING, &[6, 2, 0, 0, 0, 0, 0, 0], false, false),
            (PROTO_ROUTING, &[6, 2, 0, 1, 0, 0, 0, 0], false, true),
        ] {
            assert_eq!(ipv6_header(kind, header, first), refused, "{kind}: {header:?}");
        }
    }
}
