/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Layouts shared by the kernel tier (bpf/net) and user space (crates/platform/bpf/src/layout.rs).
 * Tests compare the sizes of both sides; key and value sizes are compared again when the maps are loaded.
 */
#pragma once

#define PORTS_MAX 4096       /* armed interfaces; the port number has 12 bits of the TAP's tag */
#define QUEUES_MAX 64        /* TAP queues = datapath workers */
#define SLOTS_MAX (QUEUES_MAX + PORTS_MAX) /* fill levels: of each queue of the host's TAP, then of the TAP of each port that has its own */
#define QUEUE_FRAMES 4096    /* a TAP queue has room for so many */
#define QUEUE_MARGIN 64      /* left free: frames on their way to a queue are in no count for a moment */
#define PAIR_RULES_MAX 16    /* segment rules between one pair of classes */
#define PAIRS_MAX 16384      /* coverage rows */
#define ADDRS_MAX 65536      /* addresses of workloads and of the host */
#define GUARDED_MAX 1024     /* bridges watched by the guard */
#define RING_BYTES (256 * 1024)

/* Workload numbers with a meaning of their own. */
#define WORKLOAD_WORLD 0
#define WORKLOAD_HOST 1

/* The four mark bits, shifted by `mark_shift`. They live from one of our hooks to the next. */
#define MARK_NONE 0
#define MARK_INSPECTED 1 /* the owning interface has judged this packet */
#define MARK_FOREIGN 2   /* judged, but its source address is not the sender's: no reply is expected */
#define MARK_SEEN 3      /* passed an armed interface; the owner at the other end judges it */
#define MARK_RETURN 8    /* 8 + COMMAND_*: comes back from user space */

/* What user space says of a held packet: bits 13..15 of the tag it writes back. */
#define COMMAND_ACCEPT 0
#define COMMAND_BYPASS_DEPTH 1     /* the rest of this direction passes */
#define COMMAND_BYPASS_ENCRYPTED 2 /* the rest of the flow passes */
#define COMMAND_BYPASS_POLICY 3    /* the rest of the flow passes */
#define COMMAND_DROP 4
#define COMMAND_DROP_FLOW 5
#define COMMAND_REJECT 6           /* as DROP_FLOW; user space sends the resets itself */
#define COMMAND_INJECT 7           /* made by user space: passes, belongs to no held packet */

#define TAG_PROTOCOL 0x88a8
#define TAG_PORT_MASK 0x0fff
#define TAG_TO_CONTAINER 0x1000
#define TAG_GAP 0x2000 /* towards user space: packets of this direction before it passed unseen */
#define TAG_FOREIGN 0x4000 /* towards user space: somebody else sends in the remote end's name */
#define TAG_COMMAND_SHIFT 13

/* flow.role */
#define ROLE_OWN 1  /* this interface judges both directions */
#define ROLE_SKIP 2 /* the interface at the other end does */

/* dir.verdict, flow.verdict */
#define VERDICT_INSPECT 0
#define VERDICT_PASS 1
#define VERDICT_DROP 2

/* flow.seen */
#define SEEN_SYN 1
#define SEEN_SYN_ACK 2
#define SEEN_DATA 4
#define SEEN_FROM_CONTAINER 8 /* the container side opened it */
#define SEEN_GAP 16     /* << direction: packets passed unseen since the last one that was held */
#define SEEN_FAILED 128 /* packets of it met a queue whose worker did not answer, or that was full */

/* What became of the bytes of a packet: index into pair_value. */
enum byte_class {
	CLASS_INSPECTED,        /* judged by the engine, passed */
	CLASS_HEADER,           /* no payload, or payload the receiver already has: judged here */
	CLASS_BYPASS_DEPTH,
	CLASS_BYPASS_ENCRYPTED,
	CLASS_BYPASS_POLICY,
	CLASS_FAIL_OPEN,        /* user space did not answer, and the policy is fail-open */
	CLASS_ELSEWHERE,        /* judged at the owner's interface */
	CLASS_NON_IP,           /* ARP */
	CLASS_DROP_ENGINE,      /* this packet, by the engine */
	CLASS_DROP_FLOW,        /* the flow was condemned before */
	CLASS_DROP_SEGMENT,
	CLASS_DROP_FAIL_CLOSED,
	CLASS_DROP_UNKNOWN,     /* not armed, or state could not be kept */
	CLASS_HELD,             /* went to user space (and is counted again when it returns) */
	CLASS_INJECTED,
	CLASS_COUNT = 16,
};

/* cfg.flags */
#define CFG_HOLD_SYN 1      /* rules look at SYN segments: hold them too */
#define CFG_HOLD_ALL 2      /* rules look at bare ACKs: hold everything */
#define CFG_SEGMENT_DENY 4  /* segments: what no rule names is denied */
#define CFG_GUARD 8         /* the guard drops what comes from unarmed interfaces */
#define CFG_GUARD_CLOSED 16 /* ... also while the agent does not answer */

struct path_cfg {
	__u64 fail_after_ns; /* a heartbeat older than this means: nobody answers */
	__u32 flags;
	__u32 queues;        /* in use, 1 <= queues <= QUEUES_MAX */
	__u32 generation;    /* of the segment table; a flow of another generation is judged again */
	__u32 pad;
	__u64 heartbeat_ns[QUEUES_MAX]; /* CLOCK_MONOTONIC, written by the worker of that queue */
};

/* port.flags */
#define PORT_ARMED 1
#define PORT_PROTECT 2
#define PORT_FAIL_CLOSED 4
#define PORT_BYPASS 8   /* policy: pass without inspection (segments still hold) */
#define PORT_INSIDE 16  /* attached inside the container's namespace: ingress is towards the container */

struct port {
	__u32 ifindex;
	__u32 tap_ifindex; /* in the same namespace as ifindex */
	__u32 workload;
	__u32 flags;
	__u32 class_id;
	__u32 queue;       /* first queue of that TAP; heartbeat index */
	__u32 queues;      /* queues of that TAP */
	__u32 slot;        /* fill level of its first queue */
};

/* How full a TAP queue is: held - taken. Each side writes one word, on a cache line of its own. */
struct queue_fill {
	__u64 held;  /* frames sent to it */
	__u64 pad1[7];
	__u64 taken; /* frames read from it; lost ones are made up for whenever it is found empty */
	__u64 pad2[7];
};

struct addr_key {
	__u32 a[4]; /* network order; IPv4 in a[0], the rest 0 and a[3] = 0xffffffff */
};

/* addr_value.flags */
#define ADDR_PROTECT 1

struct addr_value {
	__u32 workload;
	__u32 class_id;
	__u32 flags;
	__u32 pad;
};

struct flow_key {
	__u32 port;         /* number of the armed interface */
	__u32 container[4]; /* as addr_key */
	__u32 remote[4];
	__u16 container_port; /* network order */
	__u16 remote_port;
	__u16 vlan;   /* inner id << 4 ^ outer id, 0 without a tag */
	__u8 protocol;
	__u8 version; /* 4, 6, or 0 for what is not IP */
};

struct flow_dir {
	__u32 next_seq;  /* highest end of payload passed or held so far */
	__u32 ack;       /* highest acknowledgement this direction has sent */
	__u32 isn;       /* valid when seen says so */
	__u32 held;      /* packets sent to user space ... */
	__u32 returned;  /* ... and come back, with whatever verdict */
	__u8 verdict;
	__u8 class_id;   /* byte_class for a passed or dropped direction */
	__u16 queue;
	__u64 held_ns;   /* when the last one was held */
	__u64 packets;
	__u64 bytes;
};

struct flow {
	__u8 role;
	__u8 seen;
	__u8 verdict;   /* VERDICT_DROP here condemns both directions */
	__u8 class_id;
	__u32 generation;
	__u32 remote;   /* workload number */
	__u32 rule;     /* of the segment table, when it was denied */
	__u64 created_ns;
	__u64 last_ns;
	struct flow_dir dir[2]; /* 0 from the container, 1 towards it */
};

struct pair_key {
	__u32 port;
	__u32 remote;   /* workload number */
	__u8 direction; /* 0 from the container, 1 towards it */
	__u8 version;   /* 4, 6, 0 */
	__u8 flags;     /* PAIR_* */
	__u8 pad;
};
#define PAIR_VLAN 1
#define PAIR_FRAGMENT 2

struct pair_value {
	__u64 bytes[CLASS_COUNT];
	__u64 packets[CLASS_COUNT];
};

#define ACTION_ALLOW 0
#define ACTION_DENY 1

struct segment_rule {
	__u16 port_low; /* host order, 0..65535 */
	__u16 port_high;
	__u8 protocol;  /* 0: any */
	__u8 action;
	__u16 rule;     /* index into the policy's list */
};
struct segment_key {
	__u32 from;
	__u32 to;
};
struct segment_value {
	__u32 count;
	__u32 pad;
	struct segment_rule rules[PAIR_RULES_MAX];
};

enum path_event_kind {
	EVENT_SEGMENT_DENIED = 1, /* enforced, or would have been */
	EVENT_FAIL_OPEN = 2,      /* first packet of a flow that passed because nobody answered; rule 1: because the queue was full */
	EVENT_FAIL_CLOSED = 3,
	EVENT_FOREIGN_SOURCE = 4, /* a container sends with an address that is not its own */
	EVENT_UNKNOWN_INTERFACE = 5, /* the guard dropped a packet */
};

struct path_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 kind;
	__u32 port;
	__u32 remote;
	__u32 rule;
	__u32 length;
	__u8 enforced;
	__u8 direction;
	__u8 tcp_flags;
	__u8 pad;
	struct flow_key key;
	__u32 tail; /* fills the last eight bytes */
};

enum path_counter {
	COUNT_FLOWS_NEW,
	COUNT_FLOWS_FULL,      /* no room, verdict by fail policy */
	COUNT_PAIRS_FULL,      /* coverage row not kept; the alarm compares interface counters */
	COUNT_EVENTS_LOST,     /* ring full */
	COUNT_ODD_HEADERS,     /* options, extension headers, tunnels: left to user space */
	COUNT_FRAGMENTS,
	COUNT_FOREIGN_SOURCE,
	COUNT_SYN_REUSE,
	COUNT_RETURN_UNKNOWN,  /* came back with a port that does not exist */
	COUNT_NO_PORT,         /* hook runs on an interface that is not registered */
	COUNT_INFLIGHT_LEAKED, /* held packets that never returned, given up on */
	COUNT_GUARD_DROPPED,
	COUNT_GUARD_PASSED,
	COUNT_QUEUE_FULL,      /* packets that met a full TAP queue, verdict by fail policy */
	COUNT_COUNT = 16,
};
