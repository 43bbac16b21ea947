/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The few kernel structures that our programs read, with the few fields they need. CO-RE relocates the
 * offsets at load, so this need not be any kernel's exact layout.
 */
#pragma once

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct net_device {
	int ifindex;
};
struct sk_buff {
	__u32 mark;
	unsigned int len;
};
struct nf_hook_state {
	struct net_device *in;
	struct net_device *out;
};
struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
};
#pragma clang attribute pop
