use crate::pair::{ip, udp};
use crate::root_only;
use bulkhead_sys::OsError;
use bulkhead_sys::netlink::{LinkChange, Netlink, NewRoute};
use bulkhead_sys::netns::Netns;
use bulkhead_sys::poll::{Epoll, EventFd, Interest, wait_readable};
use bulkhead_sys::tap::{Error, FRAME_BYTES_MAX, Gso, Tap, TapQueue, VnetHdr, Written};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// The far side of the cable, which user space plays.
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A namespace with a TAP of `queues` queues, up, with this address.
fn tap(address: &str, queues: usize) -> (Netns, Netlink, Tap) {
    let netns = Netns::create().unwrap();
    let tap = Tap::create_in(&netns, "tap%d", queues).unwrap();
    let mut link = Netlink::open_in(&netns).unwrap();
    link.change_link(tap.ifindex(), &LinkChange { up: Some(true), no_link_local: true, ..LinkChange::default() }).unwrap();
    link.add_address(tap.ifindex(), ip(address), 24, false).unwrap();
    (netns, link, tap)
}

/// The next IPv4 frame of a queue, with its header.
fn next_ipv4(queue: &TapQueue) -> (VnetHdr, Vec<u8>) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    for _ in 0..1000 {
        match queue.read(&mut buffer).unwrap() {
            Some(len) => {
                let (header, frame) = VnetHdr::parse(&buffer[..len]).unwrap();
                if frame.get(12..14) == Some(&[8, 0]) {
                    return (header, frame.to_vec());
                }
            }
            None => assert!(wait_readable(queue, Some(Duration::from_secs(5))).unwrap(), "no frame came"),
        }
    }
    panic!("1000 frames and no IPv4 among them");
}

/// The frame on its way back: addresses and ports of both layers swapped. Sums stay as they are, for they do not
/// depend on the order.
fn swapped(frame: &[u8]) -> Vec<u8> {
    let mut back = frame.to_vec();
    for (a, b, len) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
        back[a..a + len].copy_from_slice(&frame[b..b + len]);
        back[b..b + len].copy_from_slice(&frame[a..a + len]);
    }
    back
}

#[test]
fn a_datagram_goes_out_with_a_partial_checksum_and_its_echo_comes_back() {
    root_only!("a_datagram_goes_out_with_a_partial_checksum_and_its_echo_comes_back");
    let (netns, mut link, tap) = tap("192.0.2.1", 1);
    assert_eq!((tap.name(), link.link(tap.ifindex()).unwrap().unwrap().name.as_str()), ("tap0", "tap0"));
    assert!(tap.offloads().csum && tap.offloads().tso);
    link.add_neighbour(tap.ifindex(), ip("192.0.2.2"), FAR_MAC).unwrap();
    let socket = udp(&netns, "192.0.2.1:0");
    socket.connect("192.0.2.2:7").unwrap();
    socket.send(b"to user space and back").unwrap();
    let queue = &tap.queues()[0];
    let (header, frame) = next_ipv4(queue);
    assert!(header.needs_csum && header.gso == Gso::None);
    assert_eq!((header.csum_start, header.csum_offset), (34, 6));
    assert_eq!(&frame[..6], FAR_MAC);
    assert_eq!(&frame[42..], b"to user space and back");
    assert_eq!(queue.write_parts(&[&header.encode(), &swapped(&frame)]).unwrap(), Written::Sent);
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"to user space and back");
}

#[test]
fn datagrams_sent_in_one_piece_arrive_in_one_piece() {
    root_only!("datagrams_sent_in_one_piece_arrive_in_one_piece");
    let (netns, mut link, tap) = tap("192.0.2.1", 1);
    if !tap.offloads().uso {
        println!("NOT RUN: datagrams_sent_in_one_piece_arrive_in_one_piece: this kernel has no UDP offload for TAP");
        return;
    }
    link.add_neighbour(tap.ifindex(), ip("192.0.2.2"), FAR_MAC).unwrap();
    let socket = udp(&netns, "192.0.2.1:0");
    let size: i32 = 1000;
    // SAFETY: the pointer is to a live i32 and the length is its size.
    let ret = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const size).cast(), 4) };
    assert_eq!(ret, 0);
    socket.connect("192.0.2.2:7").unwrap();
    let payload: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
    socket.send(&payload).unwrap();
    let (header, frame) = next_ipv4(&tap.queues()[0]);
    assert_eq!((header.gso, header.gso_size, header.needs_csum), (Gso::UdpL4, 1000, true));
    assert_eq!(frame[42..], payload);
    assert_eq!(tap.queues()[0].write_parts(&[&header.encode(), &swapped(&frame)]).unwrap(), Written::Sent);
    // Cut at the receiver, where the socket did not ask for whole ones.
    let mut buffer = [0; 2000];
    for chunk in payload.chunks(1000) {
        let len = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], chunk);
    }
}

#[test]
fn a_tcp_stream_between_two_taps_keeps_its_large_segments() {
    root_only!("a_tcp_stream_between_two_taps_keeps_its_large_segments");
    let (left, mut left_link, left_tap) = tap("192.0.2.1", 1);
    let (right, mut right_link, right_tap) = tap("192.0.2.2", 1);
    let mac = |link: &mut Netlink, tap: &Tap| link.link(tap.ifindex()).unwrap().unwrap().mac.unwrap();
    let (left_mac, right_mac) = (mac(&mut left_link, &left_tap), mac(&mut right_link, &right_tap));
    left_link.add_neighbour(left_tap.ifindex(), ip("192.0.2.2"), right_mac).unwrap();
    right_link.add_neighbour(right_tap.ifindex(), ip("192.0.2.1"), left_mac).unwrap();
    let stop = EventFd::new().unwrap();
    let stopped = stop.try_clone().unwrap();
    let queues: Vec<TapQueue> = left_tap.into_queues().into_iter().chain(right_tap.into_queues()).collect();
    let patch = std::thread::spawn(move || forward(&queues[0], &queues[1], &stopped).unwrap());

    let listener = right.run(|| TcpListener::bind("192.0.2.2:80").unwrap()).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut sum = 0_u64;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return sum,
                len => sum += buffer[..len].iter().map(|&b| u64::from(b)).sum::<u64>(),
            }
        }
    });
    let mut client = left.run(|| TcpStream::connect_timeout(&"192.0.2.2:80".parse().unwrap(), Duration::from_secs(5)).unwrap()).unwrap();
    let data: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    client.write_all(&data).unwrap();
    drop(client);
    assert_eq!(server.join().unwrap(), data.iter().map(|&b| u64::from(b)).sum::<u64>());
    stop.signal().unwrap();
    let (frames, longest) = patch.join().unwrap();
    assert!(longest > 20_000, "longest of {frames} frames: {longest} bytes");
    assert!(frames < 2000, "4 MB in frames of the MTU would be 2740, {frames} came");
}

/// Carries frames between two queues until told to stop; returns how many there were and the longest.
fn forward(left: &TapQueue, right: &TapQueue, stop: &EventFd) -> Result<(usize, usize), OsError> {
    let epoll = Epoll::new()?;
    epoll.add(left, 0, Interest::Read)?;
    epoll.add(right, 1, Interest::Read)?;
    epoll.add(stop, 2, Interest::Read)?;
    let (mut events, mut buffer, mut frames, mut longest) = (Vec::new(), vec![0; FRAME_BYTES_MAX], 0, 0);
    loop {
        epoll.wait(&mut events, Some(Duration::from_secs(10)))?;
        if events.is_empty() || events.iter().any(|event| event.token == 2) {
            return Ok((frames, longest));
        }
        for event in &events {
            let (from, to) = if event.token == 0 { (left, right) } else { (right, left) };
            while let Some(len) = from.read(&mut buffer)? {
                to.write(&buffer[..len])?;
                frames += 1;
                longest = longest.max(len);
            }
        }
    }
}

#[test]
fn a_steering_program_chooses_the_queue() {
    root_only!("a_steering_program_chooses_the_queue");
    let (netns, mut link, tap) = tap("192.0.2.1", 3);
    assert_eq!(tap.queues().len(), 3);
    link.add_neighbour(tap.ifindex(), ip("192.0.2.2"), FAR_MAC).unwrap();
    for wanted in [1, 2, 0] {
        let program = match constant_program(wanted) {
            Ok(program) => program,
            Err(error) => {
                println!("NOT RUN: a_steering_program_chooses_the_queue: {error}");
                return;
            }
        };
        tap.set_steering(Some(program.as_fd())).unwrap();
        for _ in 0..16 {
            // A new socket is a new flow, which the kernel's own hash would spread.
            let socket = netns.run(|| UdpSocket::bind("192.0.2.1:0").unwrap()).unwrap();
            socket.send_to(b"x", "192.0.2.2:7").unwrap();
            next_ipv4(&tap.queues()[wanted as usize]);
        }
        for (n, queue) in tap.queues().iter().enumerate().filter(|(n, _)| *n != wanted as usize) {
            let mut buffer = vec![0; FRAME_BYTES_MAX];
            while let Some(len) = queue.read(&mut buffer).unwrap() {
                let frame = VnetHdr::parse(&buffer[..len]).unwrap().1;
                assert_ne!(frame.get(12..14), Some([8, 0].as_slice()), "a frame for queue {wanted} in queue {n}");
            }
        }
    }
    tap.set_steering(None).unwrap();
    assert!(tap.set_steering(Some(std::fs::File::open("/dev/null").unwrap().as_fd())).is_err());
}

/// A loaded BPF socket filter program that returns `value`.
fn constant_program(value: i32) -> Result<OwnedFd, OsError> {
    #[repr(C)]
    struct Load {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        rest: [u64; 16],
    }
    // r0 = value; exit
    let insns: [u64; 2] = [0xb7 | (u64::from(value as u32) << 32), 0x95];
    let load =
        Load { prog_type: 1, insn_cnt: 2, insns: insns.as_ptr().addr() as u64, license: c"GPL".as_ptr().addr() as u64, rest: [0; 16] };
    const BPF_PROG_LOAD: i32 = 5;
    // SAFETY: the pointer is to a live attribute block of the stated length, whose pointers are to live memory.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, 48) };
    if fd < 0 {
        return Err(OsError::last("load a BPF program"));
    }
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[test]
fn what_cannot_be_sent_is_told_apart() {
    root_only!("what_cannot_be_sent_is_told_apart");
    let (_netns, mut link, tap) = tap("192.0.2.1", 2);
    let queue = &tap.queues()[0];
    let frame = [&VnetHdr::default().encode()[..], &[0xff; 6], &[2, 0, 0, 0, 0, 5], &[0x88, 0xb5], &[0; 46]].concat();
    assert_eq!(queue.write(&frame).unwrap(), Written::Sent);
    assert_eq!(queue.write(&[]).unwrap(), Written::Refused);
    assert_eq!(queue.write(&frame[..5]).unwrap(), Written::Refused);
    assert_eq!(queue.write(&frame[..15]).unwrap(), Written::Refused);
    assert_eq!(queue.write_parts(&[frame.as_slice(); 9]).unwrap(), Written::Refused);
    // A checksum beyond the frame's end.
    let header = VnetHdr { needs_csum: true, csum_start: 5000, csum_offset: 6, ..VnetHdr::default() };
    assert_eq!(queue.write_parts(&[&header.encode(), &frame[10..]]).unwrap(), Written::Refused);
    queue.set_enabled(false).unwrap();
    queue.set_enabled(true).unwrap();
    link.set_up(tap.ifindex(), false).unwrap();
    assert_eq!(queue.write(&frame).unwrap(), Written::Down);
}

#[test]
fn an_interface_goes_with_its_last_queue_and_a_name_is_taken_once() {
    root_only!("an_interface_goes_with_its_last_queue_and_a_name_is_taken_once");
    let (netns, mut link, tap) = tap("192.0.2.1", 4);
    let taken = Tap::create_in(&netns, "tap0", 1).unwrap_err();
    assert!(matches!(&taken, Error::Os(error) if error.is(libc::EBUSY) || error.is(libc::EEXIST)), "{taken}");
    link.add_route(&NewRoute::default_via(ip("192.0.2.2"))).unwrap();
    let index = tap.ifindex();
    let mut queues = tap.into_queues();
    assert_eq!(queues.len(), 4);
    queues.truncate(1);
    assert_eq!(link.link(index).unwrap().unwrap().kind.as_deref(), Some("tun"));
    queues[0].set_persistent(true).unwrap();
    queues[0].set_persistent(false).unwrap();
    drop(queues);
    assert_eq!(link.link(index).unwrap(), None);
}
