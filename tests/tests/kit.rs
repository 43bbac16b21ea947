//! The kit itself: on a host without an agent, every kind of traffic arrives as it was sent, and nothing is left behind.
//! Without these, a path test that sees nothing would prove nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bulkhead_kit::docker::Dockerd;
use bulkhead_kit::host::HostState;
use bulkhead_kit::net::{self, Net, Node};
use bulkhead_kit::packet::{self, Ends, Ipv4, Ipv6};
use bulkhead_kit::root_or_not_run;
use bulkhead_kit::traffic::{PATIENCE, Receiver, SILENCE, Service, Writes, contains, known_bytes, send_frames, tcp_exchange, udp_send};
use bulkhead_sys::netns::Netns;

/// From one node to another on the same bridge.
fn ends(from: &Node, to: &Node, six: bool) -> Ends {
    let pick = |n: &Node| if six { IpAddr::from(n.v6) } else { n.v4.into() };
    Ends { src_mac: from.mac, dst_mac: to.mac, src: pick(from), dst: pick(to) }
}

#[test]
fn known_bytes_cross_every_kind_of_path_whole() {
    if !root_or_not_run("known_bytes_cross_every_kind_of_path_whole") {
        return;
    }
    let net = net::everything("kitall");
    let bytes = known_bytes(1, 300_000);
    for (from, to) in [
        ("client", "server"),
        ("client", "far"),
        ("far", "server"),
        ("macvlan", "server"),
        ("client", "macvlan"),
        ("client", "outside"),
        ("outside", "server"),
    ] {
        let target = net.node(to);
        let echo = Receiver::tcp(&target.netns, 0, Service::Echo);
        for ip in [IpAddr::from(target.v4), target.v6.into()] {
            let answer = tcp_exchange(&net.node(from).netns, SocketAddr::new(ip, echo.port), &bytes, &Writes::Whole, PATIENCE);
            assert!(answer.as_ref().is_ok_and(|a| *a == bytes), "{from} to {to} at {ip}: {:?}", answer.map(|a| a.len()));
        }
    }
    let server = net.node("server");
    let host = Receiver::tcp(net.host(), 0, Service::Echo);
    let to_host = tcp_exchange(&server.netns, SocketAddr::new(net::v4(0, 1).into(), host.port), b"up", &Writes::Whole, PATIENCE);
    assert_eq!(to_host.expect("container to host"), b"up");
    let sink = Receiver::tcp(&server.netns, 0, Service::Sink);
    tcp_exchange(net.host(), SocketAddr::new(server.v6.into(), sink.port), b"down", &Writes::EachByte, PATIENCE)
        .expect("host to container");
    assert_eq!(sink.wait_for(1), [b"down"]);
}

#[test]
fn frames_of_every_shape_reach_the_wire_of_the_other_side() {
    if !root_or_not_run("frames_of_every_shape_reach_the_wire_of_the_other_side") {
        return;
    }
    let net = net::one_bridge("kitraw");
    let (client, server) = (net.node("client"), net.node("server"));
    let wire = Receiver::frames(&server.netns, server.ifindex);
    let udp = Receiver::udp(&server.netns, 4000, Service::Sink);
    let answers = Receiver::frames(&client.netns, client.ifindex);
    for six in [false, true] {
        let e = ends(client, server, six);
        let big = known_bytes(2, 900);
        let datagram = e.udp(1, 4000, &big);
        let pieces = match (e.src, e.dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => Ipv4::new(s, d).fragments(&datagram, &[400, 400]),
            (IpAddr::V6(s), IpAddr::V6(d)) => Ipv6::new(s, d).fragments(7, &datagram, &[400, 400]),
            _ => unreachable!("both of one family"),
        };
        let ethertype = if six { packet::ETHERTYPE_IPV6 } else { packet::ETHERTYPE_IPV4 };
        let frames: Vec<_> = pieces.iter().map(|p| packet::ethernet(e.src_mac, e.dst_mac, &[], ethertype, p)).collect();
        send_frames(client, &frames);
        assert!(udp.saw(&big, PATIENCE), "fragments are put together again by the receiver");

        let tagged = e.tagged_frame(&[(packet::TPID_8021Q, 5)], packet::UDP, &e.udp(1, 4001, b"behind a tag"));
        let other = e.frame(packet::SCTP, &packet::sctp(1, 2, b"stream control"));
        let (kind, echo) = e.echo_request(3, 4, b"ping payload");
        send_frames(client, &[tagged, other, e.frame(kind, &echo)]);
        assert!(wire.saw(b"behind a tag", PATIENCE) && wire.saw(b"stream control", PATIENCE));
        assert!(answers.saw(b"ping payload", PATIENCE), "the kernel answers an echo request with right checksums");
    }
    let (four, six) = (ends(client, server, false), ends(client, server, true));
    let extended = Ipv6 { extensions: vec![(packet::DESTINATION_OPTIONS, packet::padding_header(1))], ..ipv6(&six) };
    send_frames(
        client,
        &[packet::ethernet(client.mac, server.mac, &[], packet::ETHERTYPE_IPV6, &extended.packet(&six.udp(1, 4000, b"extended")))],
    );
    assert!(udp.saw(b"extended", PATIENCE), "an extension header is passed over");
    let mut broken = four.frame(packet::UDP, &four.udp(1, 4000, b"broken sum"));
    let last = broken.len() - 1;
    broken[last] ^= 1;
    send_frames(client, &[broken]);
    assert!(wire.saw(b"broken su", PATIENCE) && !udp.saw(b"broken su", SILENCE), "on the wire, but not delivered");
}

fn ipv6(ends: &Ends) -> Ipv6 {
    match (ends.src, ends.dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => Ipv6::new(src, dst),
        _ => unreachable!("asked with IPv6 ends"),
    }
}

#[test]
fn a_node_that_comes_later_is_reachable_and_goes_again() {
    if !root_or_not_run("a_node_that_comes_later_is_reachable_and_goes_again") {
        return;
    }
    let mut net = net::one_bridge("kitlate");
    net.add(net::on_bridge("kitlate", "late", 0, 9));
    let udp = Receiver::udp(&net.node("late").netns, 0, Service::Sink);
    udp_send(&net.node("client").netns, SocketAddr::new(net.node("late").v4.into(), udp.port), &[b"hello"]).expect("sending");
    assert_eq!(udp.wait_for(1), [b"hello"]);
    drop(udp);
    net.fabric.remove_node("kitlate-late").expect("removing");
    assert!(Netns::open_named("kitlate-late").is_err());
}

#[test]
fn a_host_is_the_same_after_a_network_as_before() {
    if !root_or_not_run("a_host_is_the_same_after_a_network_as_before") {
        return;
    }
    // A host of its own again: other tests change the machine's list of namespaces meanwhile.
    let outer = net::one_bridge("kithost");
    let before = HostState::take(outer.host());
    let inner = outer.host().run(|| {
        let bridge = net::Bridge {
            name: "kitin0".into(),
            v4: [198, 51, 100, 193].into(),
            v4_bits: 27,
            v6: "2001:db8:9::1".parse().expect("ip"),
            v6_bits: 64,
        };
        let node = net::NodePlan {
            name: "kitin-x".into(),
            v4: [198, 51, 100, 194].into(),
            v6: "2001:db8:9::2".parse().expect("ip"),
            attach: net::Attach::Bridge(0),
        };
        net::Fabric::build(net::Plan {
            prefix: "kitin".into(),
            bridges: vec![bridge],
            nodes: vec![node],
            forwarding: false,
            ..net::Plan::default()
        })
    });
    let inner = inner.expect("entering").expect("building");
    let during = HostState::take(outer.host());
    assert!(HostState::difference(&before, &during).contains("kitin0"), "a new bridge is seen");
    outer.host().run(|| drop(inner)).expect("entering");
    let after = HostState::take(outer.host());
    let left: String = HostState::difference(&before, &after).lines().filter(|l| l.contains("kitin") || l.contains("settings")).collect();
    assert_eq!(left, "");
}

#[test]
fn containers_of_a_docker_without_a_registry_talk_to_each_other() {
    const NAME: &str = "containers_of_a_docker_without_a_registry_talk_to_each_other";
    let Some(docker) = Dockerd::shared(NAME) else { return };
    let web = docker.run("kit-web", &[], &["sh", "-c", "mkdir /w; echo served >/w/index.html; httpd -f -p 80 -h /w"]);
    let client = docker.run("kit-client", &[], &["sleep", "600"]);
    let target = SocketAddr::new(web.address(), 80);
    let mut answer = String::new();
    bulkhead_kit::wait_until("the web server answers", Duration::from_secs(10), || {
        answer = bulkhead_kit::traffic::http_get(&client.netns(), target, "/").unwrap_or_default();
        contains(answer.as_bytes(), b"served")
    });
    assert!(answer.starts_with("HTTP/1."), "{answer}");
}

#[test]
fn a_network_can_be_built_where_a_killed_test_left_one() {
    if !root_or_not_run("a_network_can_be_built_where_a_killed_test_left_one") {
        return;
    }
    std::mem::forget(net::one_bridge("kitleft"));
    let net: Net = net::one_bridge("kitleft");
    let udp = Receiver::udp(&net.node("server").netns, 0, Service::Echo);
    udp_send(&net.node("client").netns, SocketAddr::new(net.node("server").v4.into(), udp.port), &[b"again"]).expect("sending");
    assert_eq!(udp.wait_for(1), [b"again"]);
}
