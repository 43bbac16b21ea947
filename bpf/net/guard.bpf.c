// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// The guard: what comes from a bridge with container ports and carries no mark of ours has passed no
// armed interface, so it came from one that is not armed yet. It is dropped, not judged: a new
// container's first packet is inspected or it does not leave.
//
// Hooked at forward and local-in, IPv4 and IPv6, before every other rule. Frames bridged from port to
// port come here through br_netfilter; where that is off, the armed interface at the other end still
// judges them, and only a frame between two interfaces of the same few milliseconds does not.
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "kernel.h"
#include "path.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define NF_DROP 0
#define NF_ACCEPT 1

const volatile __u32 mark_shift = 24;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct path_cfg);
} bh_cfg SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GUARDED_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} bh_guarded SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNT_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} bh_counters SEC(".maps");

SEC("netfilter")
int bh_guard(struct bpf_nf_ctx *ctx)
{
	__u32 zero = 0;
	const struct net_device *in = ctx->state->in;
	if (!in || (ctx->skb->mark >> mark_shift) & 15)
		return NF_ACCEPT;
	__u32 ifindex = in->ifindex;
	if (!bpf_map_lookup_elem(&bh_guarded, &ifindex))
		return NF_ACCEPT;
	struct path_cfg *cfg = bpf_map_lookup_elem(&bh_cfg, &zero);
	if (!cfg || !(cfg->flags & CFG_GUARD))
		return NF_ACCEPT;
	__u64 now = bpf_ktime_get_ns();
	__u32 which = COUNT_GUARD_DROPPED;
	if (!(cfg->flags & CFG_GUARD_CLOSED) && now > cfg->heartbeat_ns[0] && now - cfg->heartbeat_ns[0] > cfg->fail_after_ns)
		which = COUNT_GUARD_PASSED;
	__u64 *counter = bpf_map_lookup_elem(&bh_counters, &which);
	if (counter)
		*counter += 1;
	return which == COUNT_GUARD_PASSED ? NF_ACCEPT : NF_DROP;
}
