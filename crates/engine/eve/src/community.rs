//! Community ID 1.0 (corelight/community-id-spec): the same text for a flow in every tool that knows it.

use std::net::IpAddr;

use bulkhead_ips::{Endpoint, FlowKey};
use sha1::{Digest, Sha1};

/// `1:…` of a flow.
pub fn id(key: &FlowKey, seed: u16) -> String {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let order = |end: &Endpoint| (bytes(end.addr), end.port);
    let (low, high) = if order(&key.src) <= order(&key.dst) { (key.src, key.dst) } else { (key.dst, key.src) };
    let mut hash = Sha1::new();
    hash.update(seed.to_be_bytes());
    hash.update(bytes(low.addr));
    hash.update(bytes(high.addr));
    hash.update([key.proto, 0]);
    if matches!(key.proto, 6 | 17 | 132) {
        hash.update(low.port.to_be_bytes());
        hash.update(high.port.to_be_bytes());
    }
    format!("1:{}", crate::base64::encode(&hash.finalize()))
}
