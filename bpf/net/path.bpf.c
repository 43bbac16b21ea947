// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// The kernel tier of the inspection path: tcx programs on both sides of every container interface.
//
// A packet's life here:
//   1. parse: at most two VLAN tags, IPv4/IPv6, ports, TCP flags. What is odd (options beyond the
//      fixed part, extension headers, fragments, tunnels) is not judged here but held.
//   2. returning packet (mark RETURN + command): account, apply the command to the flow, go on.
//   3. already judged elsewhere (mark INSPECTED at egress): remember that replies are not ours (SKIP).
//   4. flow lookup. The first armed interface that sees a flow owns it and judges both directions at
//      its own ingress and egress, whatever NAT does in between: tuples are always those of that one
//      interface. A new flow meets the segment policy first.
//   5. condemned: drop. Judged: pass. Nothing to judge (no payload): pass.
//   6. hold: tag the frame with (port, direction), redirect it to a TAP queue. User space reads it,
//      inspects, and writes it back with a command in the tag. GSO superpackets stay whole.
//
// Ordering: a direction that has packets in flight to user space stays on that queue until all have
// returned (held == returned), also when a bypass was granted meanwhile. So a verdict never reorders.
// Failing: a queue whose worker has not beaten its heart for cfg.fail_after_ns, or that is full, is not used; the
// interface's fail policy decides at once. What passes so leaves a gap, and the next held packet says it. All state is pinned and outlives the agent.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "path.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Set at load. */
const volatile __u32 mark_shift = 24;
const volatile __u32 inside_port = 0; /* != 0: this copy serves one interface inside a container */

#define INFLIGHT_LEAK_NS 250000000ull   /* a held packet that has not returned by then was lost in a full queue */
#define CONDEMNED_SYN_NS 30000000000ull /* a condemned tuple may be used anew after this */
#define SKIP_TCP_NS 3600000000000ull    /* a reply is expected for so long after the owner's last packet */
#define SKIP_OTHER_NS 180000000000ull

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct path_cfg);
} bh_cfg SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS_MAX);
	__type(key, __u32);
	__type(value, struct port);
} bh_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PORTS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} bh_if2port SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct addr_key);
	__type(value, struct addr_value);
} bh_addrs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct flow);
} bh_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, PAIRS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct pair_key);
	__type(value, struct pair_value);
} bh_pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct segment_key);
	__type(value, struct segment_value);
} bh_segments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} bh_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNT_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} bh_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GUARDED_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* ifindex of a bridge with container ports */
	__type(value, __u32);
} bh_guarded SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct queue_fill);
} bh_queues SEC(".maps");

static const struct pair_value empty_pair = {};

struct packet {
	__u32 payload;     /* bytes after the transport header, TCP and UDP only */
	__u32 seq;
	__u32 ack;
	__u8 tcp_flags;
	__u8 odd;          /* could not be judged by header: hold */
	__u8 fragment;
	__u8 arp;
	__u8 neighbour;    /* neighbour discovery or group membership */
};

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define TCP_URG 0x20

static __always_inline void count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&bh_counters, &which);
	if (value)
		*value += 1;
}

/* Another CPU may have written `then` after this one read the clock. */
static __always_inline __u64 elapsed(__u64 now, __u64 then)
{
	return now > then ? now - then : 0;
}

static __always_inline __u32 mark_of(struct __sk_buff *skb)
{
	return (skb->mark >> mark_shift) & 15;
}

static __always_inline void set_mark(struct __sk_buff *skb, __u32 mark)
{
	skb->mark = (skb->mark & ~(15u << mark_shift)) | (mark << mark_shift);
}

/* Fills key and packet. Addresses are put by side (container, remote), not by source and destination. */
static __always_inline void parse(struct __sk_buff *skb, __u32 port, int to_container, struct flow_key *key, struct packet *p)
{
	__builtin_memset(key, 0, sizeof(*key));
	__builtin_memset(p, 0, sizeof(*p));
	key->port = port;

	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (data + ETH_HLEN + 40 + 20 > end && skb->len > (__u32)(end - data)) {
		/* Headers may lie outside the linear part. */
		bpf_skb_pull_data(skb, skb->len < 128 ? skb->len : 128);
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
	}
	struct ethhdr *eth = data;
	if ((void *)(eth + 1) > end) {
		p->odd = 1;
		return;
	}
	__u32 off = ETH_HLEN;
	__u16 type = eth->h_proto;
	if (skb->vlan_present)
		key->vlan = (skb->vlan_tci & 0xfff) | 0x8000;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		__u16 *tag = data + off;
		if ((void *)(tag + 2) > end) {
			p->odd = 1;
			return;
		}
		key->vlan = (key->vlan << 4) ^ (bpf_ntohs(tag[0]) & 0xfff) ^ 0x8000;
		type = tag[1];
		off += 4;
	}

	__u32 *source = to_container ? key->remote : key->container;
	__u32 *destination = to_container ? key->container : key->remote;
	__u8 protocol;
	__u32 ip_bytes;
	if (type == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + off;
		key->version = 4;
		if ((void *)(ip + 1) > end || ip->ihl < 5 || ip->version != 4) {
			p->odd = 1;
			return;
		}
		source[0] = ip->saddr;
		source[3] = 0xffffffff;
		destination[0] = ip->daddr;
		destination[3] = 0xffffffff;
		protocol = ip->protocol;
		key->protocol = protocol;
		if (ip->frag_off & bpf_htons(0x3fff)) {
			p->fragment = 1;
			p->odd = 1;
			return;
		}
		ip_bytes = bpf_ntohs(ip->tot_len);
		if (ip_bytes == 0 || skb->gso_segs > 1)
			ip_bytes = skb->len - off; /* superpacket: the frame's length counts */
		if (ip_bytes > skb->len - off || ip_bytes < ip->ihl * 4) {
			p->odd = 1;
			return;
		}
		ip_bytes -= ip->ihl * 4;
		off += ip->ihl * 4;
	} else if (type == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + off;
		key->version = 6;
		if ((void *)(ip + 1) > end || ip->version != 6) {
			p->odd = 1;
			return;
		}
		__builtin_memcpy(source, &ip->saddr, 16);
		__builtin_memcpy(destination, &ip->daddr, 16);
		protocol = ip->nexthdr;
		key->protocol = protocol;
		off += sizeof(*ip);
		ip_bytes = bpf_ntohs(ip->payload_len);
		if (ip_bytes == 0 || skb->gso_segs > 1)
			ip_bytes = skb->len - off;
		if (ip_bytes > skb->len - off) {
			p->odd = 1;
			return;
		}
		if (protocol == IPPROTO_FRAGMENT)
			p->fragment = 1;
	} else {
		p->arp = type == bpf_htons(ETH_P_ARP);
		p->odd = !p->arp;
		key->protocol = 255;
		return;
	}

	__u16 source_port = 0, destination_port = 0;
	if (protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = data + off;
		if (off > 160 || (void *)(tcp + 1) > end || tcp->doff < 5 || ip_bytes < tcp->doff * 4) {
			p->odd = 1;
			return;
		}
		source_port = tcp->source;
		destination_port = tcp->dest;
		p->tcp_flags = ((__u8 *)tcp)[13];
		p->seq = bpf_ntohl(tcp->seq);
		p->ack = bpf_ntohl(tcp->ack_seq);
		p->payload = ip_bytes - tcp->doff * 4;
	} else if (protocol == IPPROTO_UDP) {
		struct udphdr *udp = data + off;
		if (off > 160 || (void *)(udp + 1) > end) {
			p->odd = 1;
			return;
		}
		source_port = udp->source;
		destination_port = udp->dest;
		p->payload = ip_bytes - sizeof(*udp);
	} else {
		p->odd = 1;
		__u8 *icmp = data + off;
		if (protocol == IPPROTO_ICMPV6 && off <= 160 && (void *)(icmp + 1) <= end)
			p->neighbour = (*icmp >= 130 && *icmp <= 137) || *icmp == 143;
	}
	key->container_port = to_container ? destination_port : source_port;
	key->remote_port = to_container ? source_port : destination_port;
}

static __always_inline void account(const struct flow_key *key, __u32 remote, int to_container, const struct packet *p,
				    __u32 class_id, __u32 bytes)
{
	struct pair_key pair = {
		.port = key->port,
		.remote = remote,
		.direction = to_container,
		.version = key->version,
		.flags = (key->vlan ? PAIR_VLAN : 0) | (p->fragment ? PAIR_FRAGMENT : 0),
	};
	struct pair_value *value = bpf_map_lookup_elem(&bh_pairs, &pair);
	if (!value) {
		bpf_map_update_elem(&bh_pairs, &pair, &empty_pair, BPF_NOEXIST);
		value = bpf_map_lookup_elem(&bh_pairs, &pair);
		if (!value) {
			count(COUNT_PAIRS_FULL);
			return;
		}
	}
	class_id &= CLASS_COUNT - 1;
	value->bytes[class_id] += bytes;
	value->packets[class_id] += 1;
}

#define EVENT(kind, enforced, to_container, tcp_flags) ((kind) << 16 | (tcp_flags) << 8 | (to_container) << 1 | !!(enforced))

__noinline int emit(struct flow_key *key, __u32 what, __u32 remote, __u32 rule, __u32 length)
{
	if (!key)
		return 0;
	struct path_event *event = bpf_ringbuf_reserve(&bh_events, sizeof(*event), 0);
	if (!event) {
		count(COUNT_EVENTS_LOST);
		return 0;
	}
	event->time_ns = bpf_ktime_get_ns();
	event->kind = what >> 16;
	event->port = key->port;
	event->remote = remote;
	event->rule = rule;
	event->length = length;
	event->enforced = what & 1;
	event->direction = (what >> 1) & 1;
	event->tcp_flags = what >> 8;
	event->pad = 0;
	event->tail = 0;
	event->key = *key;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

#define PORT_UNKNOWN 0x10000
#define PROTOCOL_UNKNOWN 0x100

static __always_inline int is_extension_header(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_FRAGMENT || protocol == IPPROTO_DSTOPTS ||
	       protocol == IPPROTO_AH;
}

/* ACTION_*; *rule gets the policy's index, 0xffff for the default. First rule that fits wins. */
__noinline int segment_action(__u32 from, __u32 to, __u32 protocol, __u32 port, __u32 *rule)
{
	__u32 zero = 0;
	struct path_cfg *cfg = bpf_map_lookup_elem(&bh_cfg, &zero);
	if (!cfg || !rule)
		return ACTION_ALLOW;
	struct segment_key key = { .from = from, .to = to };
	struct segment_value *segment = bpf_map_lookup_elem(&bh_segments, &key);
	*rule = 0xffff;
	if (segment) {
		for (int i = 0; i < PAIR_RULES_MAX; i++) {
			if (i >= segment->count)
				break;
			struct segment_rule *r = &segment->rules[i];
			/* What is not known (fragments, extension headers) fits no rule that allows and every rule that denies. */
			int doubt = r->action == ACTION_DENY;
			if (r->protocol && (protocol == PROTOCOL_UNKNOWN ? !doubt : r->protocol != protocol))
				continue;
			if (port == PORT_UNKNOWN ? !doubt && (r->port_low || r->port_high != 0xffff) : port < r->port_low || port > r->port_high)
				continue;
			*rule = r->rule;
			return r->action;
		}
	}
	return cfg->flags & CFG_SEGMENT_DENY ? ACTION_DENY : ACTION_ALLOW;
}

/* Judges the flow by the segment policy; returns 1 when it is to be dropped. */
#define WHAT_ODD 0x10000
#define WHAT_NEIGHBOUR 0x20000
#define WHAT(to_container, p) ((to_container) | (p).tcp_flags << 8 | ((p).odd ? WHAT_ODD : 0) | ((p).neighbour ? WHAT_NEIGHBOUR : 0))

__noinline int judge_segment(struct flow_key *key, struct port *port, struct flow *flow, __u32 what, __u32 length)
{
	__u32 zero = 0;
	int to_container = what & 1;
	__u8 tcp_flags = what >> 8;
	struct path_cfg *cfg = bpf_map_lookup_elem(&bh_cfg, &zero);
	if (!cfg || !key || !port || !flow)
		return 0;
	struct addr_key address;
	__builtin_memcpy(address.a, key->remote, 16);
	struct addr_value *remote = bpf_map_lookup_elem(&bh_addrs, &address);
	__u32 remote_class = remote ? remote->class_id : WORKLOAD_WORLD;
	flow->remote = remote ? remote->workload : WORKLOAD_WORLD;
	flow->generation = cfg->generation;

	/* Who opened it: the sender of this packet, unless it cannot be an opening packet. */
	int opened_by_container = !to_container;
	if (flow->seen & (SEEN_SYN | SEEN_SYN_ACK)) {
		opened_by_container = !!(flow->seen & SEEN_FROM_CONTAINER);
	} else if (key->protocol == IPPROTO_TCP) {
		if ((tcp_flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK))
			opened_by_container = to_container;
		else if (!(tcp_flags & TCP_SYN))
			opened_by_container = bpf_ntohs(key->container_port) >= bpf_ntohs(key->remote_port);
	}
	__u32 from = opened_by_container ? port->class_id : remote_class;
	__u32 to = opened_by_container ? remote_class : port->class_id;
	__u16 service = bpf_ntohs(opened_by_container ? key->remote_port : key->container_port);
	__u32 rule = 0xffff, protocol = key->protocol, port_number = service;
	if (what & WHAT_ODD) {
		/* Its ports, and behind an extension header its protocol, could not be read here. */
		if (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP)
			port_number = PORT_UNKNOWN;
		if (key->version == 6 && is_extension_header(protocol)) {
			protocol = PROTOCOL_UNKNOWN;
			port_number = PORT_UNKNOWN;
		}
	}
	/* Without neighbour discovery there is no IPv6 link (RFC 4861); it never leaves the link. */
	if (what & WHAT_NEIGHBOUR)
		return 0;
	if (segment_action(from, to, protocol, port_number, &rule) == ACTION_ALLOW)
		return 0;
	int enforced = (port->flags & PORT_PROTECT) || (remote && (remote->flags & ADDR_PROTECT));
	flow->rule = rule;
	emit(key, EVENT(EVENT_SEGMENT_DENIED, enforced, to_container, tcp_flags), flow->remote, rule, length);
	return enforced;
}

static __always_inline int pass(struct __sk_buff *skb, int to_container, __u32 mark)
{
	set_mark(skb, to_container ? MARK_NONE : mark);
	return TCX_NEXT;
}

/* The remote end's workload, where the flow that knew it was evicted while its packet was in user space. */
static __always_inline __u32 workload_of(const struct flow_key *key)
{
	struct addr_key address;
	__builtin_memcpy(address.a, key->remote, 16);
	struct addr_value *remote = bpf_map_lookup_elem(&bh_addrs, &address);
	return remote ? remote->workload : WORKLOAD_WORLD;
}

/* Is the source address one that the inventory knows for this interface's workload? */
static __always_inline int source_is_own(const struct flow_key *key, const struct port *port)
{
	struct addr_key address;
	__builtin_memcpy(address.a, key->container, 16);
	struct addr_value *own = bpf_map_lookup_elem(&bh_addrs, &address);
	return own && own->workload == port->workload;
}

static __always_inline int hook(struct __sk_buff *skb, int egress)
{
	__u32 zero = 0, number;
	struct path_cfg *cfg = bpf_map_lookup_elem(&bh_cfg, &zero);
	if (!cfg)
		return TCX_DROP;
	if (inside_port) {
		number = inside_port;
	} else {
		__u32 ifindex = skb->ifindex;
		__u32 *found = bpf_map_lookup_elem(&bh_if2port, &ifindex);
		if (!found) {
			count(COUNT_NO_PORT);
			return TCX_NEXT;
		}
		number = *found;
	}
	struct port *port = bpf_map_lookup_elem(&bh_ports, &number);
	if (!port || !(port->flags & PORT_ARMED)) {
		count(COUNT_NO_PORT);
		return TCX_NEXT;
	}
	int to_container = inside_port ? !egress : egress;
	__u32 bytes = skb->len;
	__u32 mark = mark_of(skb);

	struct flow_key key;
	struct packet p;
	parse(skb, number, to_container, &key, &p);
	if (p.arp) {
		account(&key, WORKLOAD_WORLD, to_container, &p, CLASS_NON_IP, bytes);
		return pass(skb, to_container, MARK_INSPECTED);
	}
	struct flow *flow = bpf_map_lookup_elem(&bh_flows, &key);
	__u64 now = bpf_ktime_get_ns();
	int d = to_container & 1;

	/* 2. Back from user space. Inside a container no namespace is crossed that would scrub a mark which the container set
	 * itself; but only what came through the TAP has its index. */
	if (mark >= MARK_RETURN && !(inside_port && !to_container && skb->ingress_ifindex != port->tap_ifindex)) {
		__u32 command = mark - MARK_RETURN;
		__u32 remote = flow ? flow->remote : workload_of(&key);
		if (command == COMMAND_INJECT) {
			account(&key, remote, to_container, &p, CLASS_INJECTED, bytes);
			return pass(skb, to_container, MARK_INSPECTED);
		}
		if (flow) {
			struct flow_dir *dir = &flow->dir[d];
			/* What is dropped alone counts as if it had never been held: `returned` tells whether anything went on. */
			__sync_fetch_and_add(command == COMMAND_DROP ? &dir->held : &dir->returned, command == COMMAND_DROP ? -1 : 1);
			/* Fragments, extension headers and protocols without ports share an entry with other conversations of their
			 * ends: what is said of one of them counts for its packet only. */
			if (p.odd) {
				command = command >= COMMAND_DROP ? COMMAND_DROP : COMMAND_ACCEPT;
			} else if (command == COMMAND_BYPASS_DEPTH) {
				dir->class_id = CLASS_BYPASS_DEPTH;
				dir->verdict = VERDICT_PASS;
			} else if (command == COMMAND_BYPASS_ENCRYPTED || command == COMMAND_BYPASS_POLICY) {
				__u8 class_id = command == COMMAND_BYPASS_ENCRYPTED ? CLASS_BYPASS_ENCRYPTED : CLASS_BYPASS_POLICY;
				flow->dir[0].class_id = class_id;
				flow->dir[1].class_id = class_id;
				flow->dir[0].verdict = VERDICT_PASS;
				flow->dir[1].verdict = VERDICT_PASS;
			} else if (command == COMMAND_DROP_FLOW || command == COMMAND_REJECT) {
				flow->class_id = CLASS_DROP_FLOW;
				flow->verdict = VERDICT_DROP;
				flow->last_ns = now;
			}
		}
		if (command >= COMMAND_DROP) {
			account(&key, remote, to_container, &p, CLASS_DROP_ENGINE, bytes);
			return TCX_DROP;
		}
		account(&key, remote, to_container, &p, CLASS_INSPECTED, bytes);
		return pass(skb, to_container, source_is_own(&key, port) ? MARK_INSPECTED : MARK_FOREIGN);
	}

	/* 3. Judged by its owner at another interface. Where both ends own the flow (it is older than the hooks, or its sender's
	 * address was not known yet), both judge it: half a conversation cannot be followed. */
	if (to_container && (mark == MARK_INSPECTED || mark == MARK_FOREIGN) && !(flow && flow->role == ROLE_OWN)) {
		__u32 remote = WORKLOAD_WORLD;
		if (flow) {
			remote = flow->remote;
			if (flow->generation != cfg->generation)
				flow->verdict = judge_segment(&key, port, flow, WHAT(to_container, p), bytes) ? VERDICT_DROP : 0;
			if (flow->verdict == VERDICT_DROP) {
				account(&key, remote, to_container, &p, CLASS_DROP_SEGMENT, bytes);
				return TCX_DROP;
			}
			flow->last_ns = now;
		} else if (mark == MARK_INSPECTED && !p.odd) {
			struct flow fresh = { .role = ROLE_SKIP, .created_ns = now, .last_ns = now };
			if (judge_segment(&key, port, &fresh, WHAT(to_container, p), bytes))
				fresh.verdict = VERDICT_DROP;
			remote = fresh.remote;
			bpf_map_update_elem(&bh_flows, &key, &fresh, BPF_NOEXIST);
			if (fresh.verdict == VERDICT_DROP) {
				account(&key, remote, to_container, &p, CLASS_DROP_SEGMENT, bytes);
				return TCX_DROP;
			}
		} else {
			struct flow fresh = {};
			int denied = judge_segment(&key, port, &fresh, WHAT(to_container, p), bytes);
			remote = fresh.remote;
			if (denied) {
				account(&key, remote, to_container, &p, CLASS_DROP_SEGMENT, bytes);
				return TCX_DROP;
			}
		}
		account(&key, remote, to_container, &p, CLASS_ELSEWHERE, bytes);
		return pass(skb, to_container, MARK_NONE);
	}

	/* 4. Whose is it? */
	int syn = key.protocol == IPPROTO_TCP && (p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	if (flow && flow->role == ROLE_SKIP && !to_container && !syn) {
		__u64 patience = key.protocol == IPPROTO_TCP ? SKIP_TCP_NS : SKIP_OTHER_NS;
		if (elapsed(now, flow->last_ns) < patience) {
			__u32 class_id = flow->verdict == VERDICT_DROP ? CLASS_DROP_SEGMENT : CLASS_ELSEWHERE;
			account(&key, flow->remote, to_container, &p, class_id, bytes);
			if (flow->verdict == VERDICT_DROP)
				return TCX_DROP;
			return pass(skb, to_container, MARK_SEEN);
		}
	}
	int hold_syn = cfg->flags & (CFG_HOLD_SYN | CFG_HOLD_ALL);
	int anew = !flow || flow->role != ROLE_OWN;
	if (!anew && syn && (flow->seen & (SEEN_DATA | SEEN_SYN_ACK) || !(flow->seen & SEEN_SYN)) && p.seq != flow->dir[d].isn) {
		/* The tuple is used again. */
		if (flow->verdict == VERDICT_DROP && elapsed(now, flow->last_ns) < CONDEMNED_SYN_NS) {
			account(&key, flow->remote, to_container, &p, CLASS_DROP_FLOW, bytes);
			return TCX_DROP;
		}
		count(COUNT_SYN_REUSE);
		anew = 1;
		hold_syn = 1; /* so that user space forgets the old one */
	}
	if (anew) {
		struct flow fresh = { .role = ROLE_OWN, .created_ns = now, .last_ns = now };
		if (key.protocol == IPPROTO_TCP && (p.tcp_flags & TCP_SYN))
			fresh.seen = (syn ? !to_container : to_container) ? SEEN_FROM_CONTAINER : 0;
		if (judge_segment(&key, port, &fresh, WHAT(to_container, p), bytes)) {
			fresh.verdict = VERDICT_DROP;
			fresh.class_id = CLASS_DROP_SEGMENT;
		}
		if (port->flags & PORT_BYPASS) {
			fresh.dir[0].verdict = fresh.dir[1].verdict = VERDICT_PASS;
			fresh.dir[0].class_id = fresh.dir[1].class_id = CLASS_BYPASS_POLICY;
		}
		bpf_map_update_elem(&bh_flows, &key, &fresh, BPF_ANY);
		flow = bpf_map_lookup_elem(&bh_flows, &key);
		count(COUNT_FLOWS_NEW);
		if (!flow) {
			count(COUNT_FLOWS_FULL);
			if (port->flags & PORT_FAIL_CLOSED) {
				account(&key, fresh.remote, to_container, &p, CLASS_DROP_UNKNOWN, bytes);
				return TCX_DROP;
			}
			account(&key, fresh.remote, to_container, &p, CLASS_FAIL_OPEN, bytes);
			return pass(skb, to_container, MARK_FOREIGN);
		}
	} else if (flow->generation != cfg->generation) {
		if (judge_segment(&key, port, flow, WHAT(to_container, p), bytes)) {
			flow->verdict = VERDICT_DROP;
			flow->class_id = CLASS_DROP_SEGMENT;
		} else if (flow->class_id == CLASS_DROP_SEGMENT) {
			flow->verdict = VERDICT_INSPECT;
			flow->class_id = 0;
		}
	}

	/* 5. What needs no user space. */
	struct flow_dir *dir = &flow->dir[d];
	dir->packets += 1;
	dir->bytes += bytes;
	if (flow->verdict == VERDICT_DROP) {
		flow->last_ns = now;
		account(&key, flow->remote, to_container, &p, flow->class_id, bytes);
		return TCX_DROP;
	}
	flow->last_ns = now;
	int own_source = to_container || source_is_own(&key, port);
	__u32 out_mark = own_source ? MARK_INSPECTED : MARK_FOREIGN;
	if (!own_source && anew) {
		count(COUNT_FOREIGN_SOURCE);
		emit(&key, EVENT(EVENT_FOREIGN_SOURCE, 0, to_container, p.tcp_flags), flow->remote, 0, bytes);
	}

	__u32 acked = flow->dir[!d].ack;
	int control = 0; /* nothing in it that an application will read */
	/* What comes in the remote end's name from elsewhere is judged, and tells nothing of the remote end. */
	int speaks = !(to_container && mark == MARK_FOREIGN);
	if (key.protocol == IPPROTO_TCP && !p.odd) {
		__u32 end = p.seq + p.payload;
		if (p.tcp_flags & TCP_SYN) {
			/* Numbers begin with the first SYN of who opened, and with the answer, which also says which SYN it is to. */
			int opener = !(flow->seen & SEEN_FROM_CONTAINER) == !!to_container;
			if (speaks && !(flow->seen & SEEN_DATA) && opener == syn && !(syn && flow->seen & SEEN_SYN_ACK)) {
				dir->isn = p.seq;
				dir->next_seq = p.seq + 1;
				flow->seen |= syn ? SEEN_SYN : SEEN_SYN_ACK;
				if (!syn) {
					flow->dir[!d].isn = p.ack - 1;
					flow->dir[!d].next_seq = p.ack;
				}
			}
			control = !hold_syn && !p.payload;
		} else if (!p.payload) {
			control = !(p.tcp_flags & (TCP_FIN | TCP_RST | TCP_URG));
		} else if ((flow->seen & (SEEN_SYN | SEEN_SYN_ACK)) == (SEEN_SYN | SEEN_SYN_ACK) && (__s32)(end - acked) <= 0 &&
			   !(p.tcp_flags & (TCP_FIN | TCP_RST | TCP_URG))) {
			control = 1; /* the receiver has acknowledged all of it and will throw it away */
		} else {
			flow->seen |= SEEN_DATA;
			if (speaks && ((__s32)(end - dir->next_seq) > 0 || !dir->next_seq))
				dir->next_seq = end;
		}
		/* An acknowledgement of what was never sent says nothing; a FIN counts one. */
		__u32 sent = flow->dir[!d].next_seq;
		if (speaks && (p.tcp_flags & TCP_ACK) && (!sent || (__s32)(p.ack - sent) <= 1) &&
		    ((__s32)(p.ack - dir->ack) > 0 || !dir->ack))
			dir->ack = p.ack;
		if (cfg->flags & CFG_HOLD_ALL)
			control = 0;
	}
	if (control) {
		account(&key, flow->remote, to_container, &p, CLASS_HEADER, bytes);
		return pass(skb, to_container, out_mark);
	}
	int in_flight = dir->held != dir->returned;
	if (in_flight && elapsed(now, dir->held_ns) > INFLIGHT_LEAK_NS) {
		dir->returned = dir->held;
		in_flight = 0;
		count(COUNT_INFLIGHT_LEAKED);
	}
	if (dir->verdict == VERDICT_PASS && !in_flight && (!p.odd || (port->flags & PORT_BYPASS && !p.fragment))) {
		account(&key, flow->remote, to_container, &p, dir->class_id, bytes);
		return pass(skb, to_container, out_mark);
	}
	if (p.odd)
		count(p.fragment ? COUNT_FRAGMENTS : COUNT_ODD_HEADERS);

	/* 6. Hold. A direction may move to this CPU's queue only when nothing of it is under way. */
	__u32 queue = dir->queue;
	if (!in_flight) {
		__u32 queues = port->queues ? port->queues : 1;
		queue = port->queue + bpf_get_smp_processor_id() % queues;
		dir->queue = queue;
	}
	queue &= QUEUES_MAX - 1;
	__u32 slot = port->slot + queue - port->queue;
	struct queue_fill *fill = bpf_map_lookup_elem(&bh_queues, &slot);
	int full = !fill || (__s64)(fill->held - fill->taken) >= QUEUE_FRAMES - QUEUE_MARGIN;
	if (full || elapsed(now, cfg->heartbeat_ns[queue]) > cfg->fail_after_ns) {
		if (full)
			count(COUNT_QUEUE_FULL);
		int closed = port->flags & PORT_FAIL_CLOSED;
		if (!(flow->seen & SEEN_FAILED)) {
			flow->seen |= SEEN_FAILED;
			emit(&key, EVENT(closed ? EVENT_FAIL_CLOSED : EVENT_FAIL_OPEN, closed, d, p.tcp_flags), flow->remote, full, bytes);
		}
		if (!closed)
			flow->seen |= SEEN_GAP << d;
		account(&key, flow->remote, to_container, &p, closed ? CLASS_DROP_FAIL_CLOSED : CLASS_FAIL_OPEN, bytes);
		return closed ? TCX_DROP : pass(skb, to_container, out_mark);
	}
	__u16 tag = (number & TAG_PORT_MASK) | (to_container ? TAG_TO_CONTAINER : 0);
	if (flow->seen & (SEEN_GAP << d)) {
		flow->seen &= ~(SEEN_GAP << d);
		tag |= TAG_GAP;
	}
	if (!speaks)
		tag |= TAG_FOREIGN;
	__sync_fetch_and_add(&dir->held, 1);
	__sync_fetch_and_add(&fill->held, 1);
	dir->held_ns = now;
	account(&key, flow->remote, to_container, &p, CLASS_HELD, bytes);
	skb->queue_mapping = queue - port->queue + 1;
	__u32 tap = port->tap_ifindex;
	bpf_skb_vlan_push(skb, bpf_htons(TAG_PROTOCOL), tag);
	return bpf_redirect(tap, 0);
}

SEC("tcx/ingress")
int bh_ingress(struct __sk_buff *skb)
{
	return hook(skb, 0);
}

SEC("tcx/egress")
int bh_egress(struct __sk_buff *skb)
{
	return hook(skb, 1);
}

/* What user space writes back: off with the tag, on with the mark, to the interface it came from. */
SEC("tcx/ingress")
int bh_return(struct __sk_buff *skb)
{
	if (!skb->vlan_present) {
		count(COUNT_RETURN_UNKNOWN);
		return TCX_DROP;
	}
	__u32 tag = skb->vlan_tci;
	__u32 number = tag & TAG_PORT_MASK;
	struct port *port = bpf_map_lookup_elem(&bh_ports, &number);
	if (!port || !(port->flags & PORT_ARMED)) {
		count(COUNT_RETURN_UNKNOWN);
		return TCX_DROP;
	}
	__u32 ifindex = port->ifindex;
	/* Inside a container the interface's egress is where its packets leave. */
	int out = !!(tag & TAG_TO_CONTAINER) != !!(port->flags & PORT_INSIDE);
	bpf_skb_vlan_pop(skb);
	set_mark(skb, MARK_RETURN + ((tag >> TAG_COMMAND_SHIFT) & 7));
	return bpf_redirect(ifindex, out ? 0 : BPF_F_INGRESS);
}

/* Steering of the TAP: the queue that the hook chose. */
SEC("socket")
int bh_steer(struct __sk_buff *skb)
{
	__u32 mapping = skb->queue_mapping;
	return mapping ? mapping - 1 : 0;
}
