use crate::pair::{LEFT, Pair, RIGHT, eventually, udp};
use crate::root_only;
use bulkhead_sys::iptables::{self, Family};
use bulkhead_sys::netlink::Netlink;
use bulkhead_sys::nfqueue::{Batch, Decision, Hook, KernelCounters, Packet, Queue, QueueConfig, Verdict, kernel_counters};
use bulkhead_sys::poll::{EventFd, wait_readable};
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

/// Queues what comes in to `right` by the match `what`; says so and returns `false` where the rule cannot be made.
fn rule(pair: &Pair, family: Family, what: &str, name: &str) -> bool {
    let text = format!("*mangle\n-A INPUT {what}\nCOMMIT\n");
    match iptables::restore(family, &text, Some(pair.right.as_fd())) {
        Ok(()) => true,
        Err(error) => {
            println!("NOT RUN: {name}: {error}");
            false
        }
    }
}

/// Waits until packets came and reads them.
fn receive(queue: &mut Queue, batch: &mut Batch) -> usize {
    for _ in 0..100 {
        match queue.receive(batch).unwrap() {
            0 => assert!(wait_readable(&*queue, Some(Duration::from_secs(5))).unwrap(), "no packet came"),
            some => return some,
        }
    }
    panic!("readable, but no packet");
}

fn silent(socket: &UdpSocket) -> bool {
    socket.set_nonblocking(true).unwrap();
    let silent = socket.recv(&mut [0; 16]).is_err();
    socket.set_nonblocking(false).unwrap();
    silent
}

#[test]
fn accepted_packets_arrive_and_dropped_ones_do_not() {
    const NAME: &str = "accepted_packets_arrive_and_dropped_ones_do_not";
    root_only!(NAME);
    let mut pair = Pair::new();
    for (family, near, far) in [(Family::V4, "192.0.2.1:0", "192.0.2.2:7"), (Family::V6, "[2001:db8::1]:0", "[2001:db8::2]:7")] {
        if !rule(&pair, family, "-p udp --dport 7 -j NFQUEUE --queue-num 5", NAME) {
            return;
        }
        let mut queue = Queue::open_in(&pair.right, 5, &QueueConfig::default()).unwrap();
        assert_eq!(queue.num(), 5);
        let mut batch = Batch::new();
        assert_eq!(queue.receive(&mut batch).unwrap(), 0);
        let (sender, receiver) = (udp(&pair.left, near), udp(&pair.right, far));
        for n in 0..10_u8 {
            sender.send_to(&[n; 4], far).unwrap();
        }
        let mut seen = 0;
        while seen < 10 {
            let some = receive(&mut queue, &mut batch);
            assert_eq!((some, batch.len(), batch.is_empty()), (batch.iter().len(), some, false));
            let decisions: Vec<Decision> = batch
                .iter()
                .map(|packet| {
                    expected_input(&packet, &mut pair.right_link, family);
                    let n = packet.payload[packet.payload.len() - 1];
                    assert_eq!(n, seen);
                    seen += 1;
                    Decision { id: packet.id, verdict: if n % 2 == 0 { Verdict::Accept } else { Verdict::Drop }, mark: None }
                })
                .collect();
            queue.verdicts(&decisions).unwrap();
        }
        for n in [0, 2, 4, 6, 8] {
            let mut buffer = [0; 16];
            assert_eq!(receiver.recv(&mut buffer).unwrap(), 4);
            assert_eq!(buffer[0], n);
        }
        assert!(silent(&receiver));
        assert_eq!((queue.counters().packets, queue.counters().malformed, queue.counters().overflows), (10, 0, 0));
        let kernel = pair.right.run(kernel_counters).unwrap().unwrap();
        assert!(matches!(kernel.as_slice(), [one] if one.num == 5 && one.waiting == 0 && one.queue_dropped == 0), "{kernel:?}");
    }
}

fn expected_input(packet: &Packet<'_>, link: &mut Netlink, family: Family) {
    assert_eq!(packet.hook, Hook::Input);
    assert_eq!(packet.ethertype, if family == Family::V4 { 0x0800 } else { 0x86dd });
    assert_eq!(packet.indev, Some(link.link_named("cable").unwrap().unwrap().ifindex));
    assert_eq!((packet.outdev, packet.physindev, packet.vlan, packet.cut_from, packet.gso), (None, None, None, None, false));
    assert_eq!(packet.payload[0] >> 4, if family == Family::V4 { 4 } else { 6 });
}

#[test]
fn one_verdict_accepts_a_batch_and_sets_the_mark() {
    const NAME: &str = "one_verdict_accepts_a_batch_and_sets_the_mark";
    root_only!(NAME);
    let pair = Pair::new();
    if !rule(&pair, Family::V4, "-p udp --dport 7 -m mark --mark 0 -j NFQUEUE --queue-num 0", NAME) {
        return;
    }
    // Packets that carry the mark are counted by a rule of their own, behind the queue.
    let text = "*filter\n-A INPUT -p udp -m mark --mark 0x40 -j ACCEPT\n-A INPUT -p udp -j DROP\nCOMMIT\n";
    iptables::restore(Family::V4, text, Some(pair.right.as_fd())).unwrap();
    let mut queue = Queue::open_in(&pair.right, 0, &QueueConfig::default()).unwrap();
    let (sender, receiver) = (udp(&pair.left, "192.0.2.1:0"), udp(&pair.right, "192.0.2.2:7"));
    let mut batch = Batch::new();
    for round in 0..3 {
        for n in 0..40_u8 {
            sender.send_to(&[n], "192.0.2.2:7").unwrap();
        }
        let mut seen = 0;
        while seen < 40 {
            seen += receive(&mut queue, &mut batch);
            let last = batch.iter().last().unwrap().id;
            queue.accept_up_to(last, Some(if round == 1 { 0x41 } else { 0x40 })).unwrap();
        }
        for n in 0..40_u8 {
            if round == 1 {
                assert!(silent(&receiver), "a wrong mark does not pass");
            } else {
                let mut buffer = [0; 4];
                receiver.recv(&mut buffer).unwrap();
                assert_eq!(buffer[0], n);
            }
        }
    }
    assert!(silent(&receiver));
}

#[test]
fn a_packet_can_be_repeated_or_sent_to_another_queue() {
    const NAME: &str = "a_packet_can_be_repeated_or_sent_to_another_queue";
    root_only!(NAME);
    let pair = Pair::new();
    if !rule(&pair, Family::V4, "-p udp --dport 7 -m mark --mark 0 -j NFQUEUE --queue-num 10", NAME) {
        return;
    }
    let mut queues = pair.right.run(|| Queue::open_range(10, 2, &QueueConfig::default())).unwrap().unwrap();
    let (sender, receiver) = (udp(&pair.left, "192.0.2.1:0"), udp(&pair.right, "192.0.2.2:7"));
    let mut batch = Batch::new();
    let mut answer = |queue: &mut Queue, verdict, mark| {
        assert_eq!(receive(queue, &mut batch), 1);
        let packet = batch.iter().next().unwrap();
        queue.verdict(Decision { id: packet.id, verdict, mark }).unwrap();
        packet.mark
    };
    sender.send_to(b"other", "192.0.2.2:7").unwrap();
    assert_eq!(answer(&mut queues[0], Verdict::Queue(11), Some(9)), 0);
    assert_eq!(answer(&mut queues[1], Verdict::Accept, None), 9);
    assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 5);
    sender.send_to(b"again", "192.0.2.2:7").unwrap();
    // Repeated without a mark it meets the same rule, with one it does not.
    assert_eq!(answer(&mut queues[0], Verdict::Repeat, None), 0);
    assert_eq!(answer(&mut queues[0], Verdict::Repeat, Some(9)), 0);
    assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 5);
}

#[test]
fn a_queue_has_one_owner_and_a_wrong_verdict_is_counted() {
    const NAME: &str = "a_queue_has_one_owner_and_a_wrong_verdict_is_counted";
    root_only!(NAME);
    let pair = Pair::new();
    let mut queue = Queue::open_in(&pair.right, 7, &QueueConfig::default()).unwrap();
    let second = Queue::open_in(&pair.right, 7, &QueueConfig::default()).unwrap_err();
    assert!(second.is(libc::EBUSY) || second.is(libc::EPERM), "{second}");
    assert!(second.to_string().contains("bind netfilter queue 7"), "{second}");
    // All or none: 6 is free, 7 is not; afterwards 6 is free still.
    assert!(pair.right.run(|| Queue::open_range(6, 2, &QueueConfig::default())).unwrap().is_err());
    assert!(Queue::open_in(&pair.right, 6, &QueueConfig::default()).is_ok());
    assert!(Queue::open_range(u16::MAX, 2, &QueueConfig::default()).is_err());
    queue.verdict(Decision { id: 4242, verdict: Verdict::Drop, mark: None }).unwrap();
    let mut batch = Batch::default();
    assert!(eventually(|| queue.receive(&mut batch).unwrap() == 0 && queue.counters().verdicts_refused == 1));
    drop(queue);
    assert!(Queue::open_in(&pair.right, 7, &QueueConfig::default()).is_ok());
}

#[test]
fn a_tcp_stream_comes_in_large_packets_and_only_whole_when_asked_for() {
    const NAME: &str = "a_tcp_stream_comes_in_large_packets_and_only_whole_when_asked_for";
    root_only!(NAME);
    for gso in [true, false] {
        let pair = Pair::new();
        if !rule(&pair, Family::V4, "-p tcp --dport 80 -j NFQUEUE --queue-num 5", NAME) {
            return;
        }
        let mut queue = Queue::open_in(&pair.right, 5, &QueueConfig { gso, ..QueueConfig::default() }).unwrap();
        let stop = EventFd::new().unwrap();
        let listener = pair.right.run(|| TcpListener::bind((RIGHT, 80)).unwrap()).unwrap();
        let (bytes, longest, flagged) = std::thread::scope(|scope| {
            let worker = scope.spawn(|| accept_all(&mut queue, &stop));
            let server = scope.spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
            });
            let address = format!("{RIGHT}:80").parse().unwrap();
            let mut client = pair.left.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap()).unwrap();
            assert_eq!(client.local_addr().unwrap().ip().to_string(), LEFT);
            client.write_all(&vec![0x5a; 3_000_000]).unwrap();
            drop(client);
            let bytes = server.join().unwrap();
            stop.signal().unwrap();
            let (longest, flagged) = worker.join().unwrap();
            (bytes, longest, flagged)
        });
        assert_eq!(bytes, 3_000_000);
        assert_eq!(queue.counters().malformed, 0);
        if gso {
            assert!(longest > 20_000 && flagged > 0, "longest {longest}, {flagged} GSO packets");
        } else {
            assert!(longest <= 1500 && flagged == 0, "longest {longest}, {flagged} GSO packets");
        }
    }
}

/// Accepts all packets until told to stop; returns the longest and how many were GSO packets with partial checksums.
fn accept_all(queue: &mut Queue, stop: &EventFd) -> (usize, usize) {
    let (mut batch, mut longest, mut flagged) = (Batch::new(), 0, 0);
    for _ in 0..1_000_000 {
        if queue.receive(&mut batch).unwrap() == 0 {
            if stop.drain().unwrap() > 0 {
                return (longest, flagged);
            }
            wait_readable(&*queue, Some(Duration::from_millis(20))).unwrap();
            continue;
        }
        for packet in batch.iter() {
            longest = longest.max(packet.payload.len());
            flagged += usize::from(packet.gso && packet.csum_not_ready);
        }
        queue.accept_up_to(batch.iter().last().unwrap().id, None).unwrap();
    }
    panic!("a million reads");
}

#[test]
fn packets_that_come_in_the_moment_of_binding_are_answered_too() {
    const NAME: &str = "packets_that_come_in_the_moment_of_binding_are_answered_too";
    root_only!(NAME);
    let pair = Pair::new();
    if !rule(&pair, Family::V4, "-p udp --dport 7 -j NFQUEUE --queue-num 5", NAME) {
        return;
    }
    let sender = udp(&pair.left, "192.0.2.1:0");
    let _receiver = udp(&pair.right, "192.0.2.2:7");
    let stop = EventFd::new().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..5_000_000 {
                sender.send_to(b"all the time", "192.0.2.2:7").unwrap();
                if stop.drain().unwrap() > 0 {
                    break;
                }
            }
        });
        let mut batch = Batch::new();
        for _ in 0..50 {
            let mut queue = Queue::open_in(&pair.right, 5, &QueueConfig::default()).unwrap();
            let mut seen = 0;
            while seen < 200 {
                let some = receive(&mut queue, &mut batch);
                // Every id once and in order, from the first one on: none was lost between binding and reading.
                for packet in batch.iter() {
                    seen += 1;
                    assert_eq!(packet.id, seen);
                    assert!(packet.payload.is_empty() || packet.payload.ends_with(b"all the time"));
                }
                assert!(some > 0);
                queue.accept_up_to(seen, None).unwrap();
            }
            assert_eq!((queue.counters().malformed, queue.counters().verdicts_refused), (0, 0));
        }
        stop.signal().unwrap();
    });
}

#[test]
fn a_cut_payload_tells_its_true_length() {
    const NAME: &str = "a_cut_payload_tells_its_true_length";
    root_only!(NAME);
    let pair = Pair::new();
    if !rule(&pair, Family::V4, "-p udp --dport 7 -j NFQUEUE --queue-num 5", NAME) {
        return;
    }
    let mut queue = Queue::open_in(&pair.right, 5, &QueueConfig { copy_bytes: 64, ..QueueConfig::default() }).unwrap();
    let (sender, receiver) = (udp(&pair.left, "192.0.2.1:0"), udp(&pair.right, "192.0.2.2:7"));
    sender.send_to(&[1; 500], "192.0.2.2:7").unwrap();
    let mut batch = Batch::new();
    receive(&mut queue, &mut batch);
    let packet = batch.iter().next().unwrap();
    assert_eq!((packet.payload.len(), packet.cut_from), (64, Some(528)));
    queue.accept_up_to(packet.id, None).unwrap();
    assert_eq!(receiver.recv(&mut [0; 1000]).unwrap(), 500, "what goes on is the whole packet");
    assert_eq!(queue.counters().cut, 1);
}

#[test]
fn packets_beyond_the_cap_are_dropped_or_accepted_as_chosen() {
    const NAME: &str = "packets_beyond_the_cap_are_dropped_or_accepted_as_chosen";
    root_only!(NAME);
    for fail_open in [false, true] {
        let pair = Pair::new();
        if !rule(&pair, Family::V4, "-p udp --dport 7 -j NFQUEUE --queue-num 5", NAME) {
            return;
        }
        let config = QueueConfig { packets_max: 4, fail_open, ..QueueConfig::default() };
        let mut queue = Queue::open_in(&pair.right, 5, &config).unwrap();
        let (sender, receiver) = (udp(&pair.left, "192.0.2.1:0"), udp(&pair.right, "192.0.2.2:7"));
        for n in 0..10_u8 {
            sender.send_to(&[n], "192.0.2.2:7").unwrap();
        }
        // Four wait; the six behind them went one way or the other.
        let first_byte = || {
            let mut buffer = [0; 4];
            receiver.recv(&mut buffer).unwrap();
            buffer[0]
        };
        let counted = |done: &dyn Fn(KernelCounters) -> bool| {
            eventually(|| pair.right.run(kernel_counters).unwrap().unwrap().first().is_some_and(|one| done(*one)))
        };
        assert!(counted(&|one| one.waiting == 4 && (fail_open || one.queue_dropped == 6)));
        if fail_open {
            assert_eq!((0..6).map(|_| first_byte()).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9]);
        }
        assert!(silent(&receiver));
        let mut batch = Batch::new();
        assert_eq!(receive(&mut queue, &mut batch), 4);
        queue.accept_up_to(batch.iter().last().unwrap().id, None).unwrap();
        assert_eq!((0..4).map(|_| first_byte()).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(silent(&receiver));
        let kernel = pair.right.run(kernel_counters).unwrap().unwrap();
        assert_eq!(kernel[0].queue_dropped, if fail_open { 0 } else { 6 });
    }
}

#[test]
fn an_overflow_of_the_socket_is_counted_and_the_queue_goes_on() {
    const NAME: &str = "an_overflow_of_the_socket_is_counted_and_the_queue_goes_on";
    root_only!(NAME);
    let pair = Pair::new();
    if !rule(&pair, Family::V4, "-p udp --dport 7 -j NFQUEUE --queue-num 5", NAME) {
        return;
    }
    let config = QueueConfig { receive_bytes: 16 * 1024, ..QueueConfig::default() };
    let mut queue = Queue::open_in(&pair.right, 5, &config).unwrap();
    let (sender, receiver) = (udp(&pair.left, "192.0.2.1:0"), udp(&pair.right, "192.0.2.2:7"));
    for _ in 0..200 {
        sender.send_to(&[0; 1000], "192.0.2.2:7").unwrap();
    }
    // The ids of all 200 are given out, also of those that were lost.
    assert!(eventually(|| pair.right.run(kernel_counters).unwrap().unwrap()[0].last_id == 200));
    let mut batch = Batch::new();
    let mut seen = 0;
    while queue.receive(&mut batch).unwrap() > 0 {
        seen += batch.len();
        queue.accept_up_to(batch.iter().last().unwrap().id, None).unwrap();
    }
    assert!(seen > 0 && seen < 200, "{seen} of 200 packets");
    assert!(queue.counters().overflows >= 1);
    let kernel = pair.right.run(kernel_counters).unwrap().unwrap();
    assert_eq!(kernel[0].user_dropped as usize, 200 - seen);
    for _ in 0..seen {
        receiver.recv(&mut [0; 1000]).unwrap();
    }
    sender.send_to(b"after", "192.0.2.2:7").unwrap();
    receive(&mut queue, &mut batch);
    queue.accept_up_to(batch.iter().last().unwrap().id, None).unwrap();
    assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 5);
}
