use crate::pair::Pair;
use crate::root_only;
use bulkhead_sys::rawpkt::PacketSocket;
use std::time::Duration;

#[test]
fn a_hand_made_frame_crosses_the_cable_as_it_is() {
    root_only!("a_hand_made_frame_crosses_the_cable_as_it_is");
    let pair = Pair::new();
    let sender = PacketSocket::open_in(&pair.left, pair.left_index).unwrap();
    let receiver = PacketSocket::open_in(&pair.right, pair.right_index).unwrap();
    // Broadcast, from 02:00:00:00:00:05, EtherType for experiments.
    let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 5, 0x88, 0xb5];
    frame.extend_from_slice(&[0x5a; 100]);
    sender.send(&frame).unwrap();
    let got = receiver.receive_where(Duration::from_secs(5), |bytes| bytes.get(12..14) == Some(&[0x88, 0xb5])).unwrap();
    assert_eq!(got, Some(frame.clone()));
    // What one sends oneself is not taken for something that came in.
    assert_eq!(sender.receive_where(Duration::from_millis(1), |bytes| bytes == frame).unwrap(), None);
    assert!(sender.send(&vec![0; 70_000]).unwrap_err().is(libc::EMSGSIZE));
    assert!(PacketSocket::open_in(&pair.left, 4242).unwrap_err().is(libc::ENODEV));
}
