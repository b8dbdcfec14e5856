// What the programs here need of the kernel: its helpers by number (enum bpf_func_id in linux/bpf.h), octet order, and the headers of packets.
// Nothing but linux-libc-dev is needed to compile them.
//
// A program is a function in a section of its own, called "program.NAME"; a map is a declaration alone, `extern struct map NAME`, since its measures
// are the loader's (KernelMap.Shape). `deploy/bytecode` makes Bytecode/FILE.swift of FILE.bpf.c.
#pragma once
#include <linux/bpf.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s64 s64;

#define PROGRAM(name) __attribute__((section("program." #name), used))
#define INLINE static inline __attribute__((always_inline))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

struct map;

static void *(*const map_look_up)(const struct map *, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const map_update)(const struct map *, const void *key, const void *value, u64 flags) = (void *)BPF_FUNC_map_update_elem;
static u64 (*const time_now)(void) = (void *)BPF_FUNC_ktime_get_ns;
static u64 (*const time_coarse)(void) = (void *)BPF_FUNC_ktime_get_coarse_ns;
static u64 (*const network_of)(void *context) = (void *)BPF_FUNC_get_netns_cookie;
static u32 (*const random_number)(void) = (void *)BPF_FUNC_get_prandom_u32;
static long (*const redirect)(u32 interface, u64 flags) = (void *)BPF_FUNC_redirect;
static long (*const redirect_neighbour)(u32 interface, struct bpf_redir_neigh *, int octets, u64 flags) = (void *)BPF_FUNC_redirect_neigh;
static long (*const tunnel_key)(struct __sk_buff *, const struct bpf_tunnel_key *, u32 octets, u64 flags) = (void *)BPF_FUNC_skb_set_tunnel_key;
static long (*const make_room)(struct __sk_buff *, int octets, u32 mode, u64 flags) = (void *)BPF_FUNC_skb_adjust_room;
static long (*const add_head)(struct __sk_buff *, u32 octets, u64 flags) = (void *)BPF_FUNC_skb_change_head;
static long (*const pull)(struct __sk_buff *, u32 octets) = (void *)BPF_FUNC_skb_pull_data;
static long (*const store)(struct __sk_buff *, u32 offset, const void *, u32 octets, u64 flags) = (void *)BPF_FUNC_skb_store_bytes;
static long (*const load)(const struct __sk_buff *, u32 offset, void *, u32 octets) = (void *)BPF_FUNC_skb_load_bytes;
static long (*const replace_l3_sum)(struct __sk_buff *, u32 offset, u64 old, u64 new, u64 octets) = (void *)BPF_FUNC_l3_csum_replace;
static long (*const replace_l4_sum)(struct __sk_buff *, u32 offset, u64 old, u64 new, u64 flags) = (void *)BPF_FUNC_l4_csum_replace;

// linux/pkt_cls.h. `GO_ON`: to the next program, or the stack.
enum { GO_ON = -1, DROP = 2 };

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "compile for little-endian machines"
#endif
#define NET16(x) ((u16)__builtin_bswap16((u16)(x)))
#define NET32(x) ((u32)__builtin_bswap32((u32)(x)))

enum { IPV4 = 0x0800, IPV6 = 0x86DD, TCP = 6, UDP = 17, FRAGMENT6 = 44, ICMP6 = 58 };

// Fields are in network order. Not `packed`: each begins at a multiple of two octets behind an Ethernet header, which clang then need not put
// together octet by octet; the kernel's machines load words from anywhere.
struct ethernet { u8 destination[6]; u8 source[6]; u16 type; };
struct ipv4 {
    u8 version_length, traffic_class; u16 length, number, fragment; u8 lifetime, protocol; u16 sum; u32 source, destination;
};
struct ipv6 { u32 version_class_flow; u16 length; u8 next, lifetime; u32 source[4], destination[4]; };
struct udp { u16 source, destination, length, sum; };

INLINE u16 folded(u32 sum) {
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    return (u16)sum;
}

INLINE void copy(u32 *to, const u32 *from) {
    to[0] = from[0]; to[1] = from[1]; to[2] = from[2]; to[3] = from[3];
}

// Packets that the hardware, or the last link, would have made of it.
INLINE u64 packets_of(struct __sk_buff *skb, u32 octets) {
    if (!skb->gso_size) return 1;
    return skb->gso_segs ? skb->gso_segs : (octets + skb->gso_size - 1) / skb->gso_size;
}
