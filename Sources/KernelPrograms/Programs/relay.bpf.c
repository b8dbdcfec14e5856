// A relay's forwarding (protocol.md section 11.5), at the ingress of its links: what RelayCore decides about a packet, as far as that needs neither
// a queue nor another family. Everything else goes on to the relay's socket, where RelayCore decides.
//
//   UDP to the relay's port ─► one whole packet in it ─► home of its source: bound at where it comes from ─► home of its destination
//        ─► one is a resident ─► rate of the source (beyond it: dropped) ─► rates that many share (short: the agent's, for a second, where
//        they are shared by turns) ─► new addresses, ports, sums ─► to the neighbour
//
// A binding is in two maps, by slots that are RelayCore's: what the agent writes is replaced as a whole (`homes`, `networks`), what both
// write in place is in `slots`, which the agent has in its memory. Times are CLOCK_MONOTONIC_COARSE in ns (it costs nothing to read); addresses are IPv6, IPv4 in mapped form.
#include "kernel.h"

static s64 (*const sum_difference)(const void *from, u32 from_octets, const void *to, u32 to_octets, u32 seed) = (void *)BPF_FUNC_csum_diff;

struct address { u64 high, low; };

// Of one HoA or home prefix. 88 octets; KernelLayout.swift writes it.
struct home {
    struct address endpoint, local, previous;
    u32 slot;
    u32 interface;  // towards the endpoint; 0: the agent forwards
    u32 mtu;
    u16 endpoint_port, previous_port;  // as on the wire
    u32 flags;
    // Whom the interface's link hands it to: struct bpf_redir_neigh, as the kernel wants it. So no route is looked up for a packet.
    u32 next_family;
    u32 next[4];
};
enum { RESIDENT = 1, REFUSES_VISITORS = 2 };

// 128 octets; the second half is the agent's own.
struct slot {
    u64 source_full_at, destination_full_at;  // token buckets, by the time at which each would be full
    u64 octets_sent, octets_received, packets_sent;
    u64 until;           // of the grant
    u64 agent_until;     // before then the agent decides
    u64 previous_until;  // packets are taken from the endpoint of before
    u64 others[8];
};

// A rate: ns that an octet takes, times 2^20, and how far ahead of now a bucket may be.
struct rate { u64 cost, burst; };
// One for all. 128 octets.
struct relay {
    struct rate home, visitors, all;
    u64 visitors_full_at, full_at;
    u64 visitors_agent_until, agent_until;
    u64 dropped_source_rate;
    u16 port;  // as on the wire
    u16 has_networks;
    u32 unused;
    u64 others[4];
};

struct prefix { u32 length; u8 address[16]; };

extern struct map homes;     // struct address -> struct home: single HoAs
extern struct map networks;  // struct prefix -> struct home: longest prefix
extern struct map slots;     // number -> struct slot
extern struct map state;     // one struct relay

// How long packets are the agent's when a shared rate had no room, ns.
#define SHARING_TIME 1000000000ULL
#define MAPPED_IPV4 0xFFFF0000ULL

// Everything about a packet that matters, read once.
struct packet {
    struct address outer_source, outer_destination, source, destination;
    u16 outer_port;
    u32 octets;  // of what is inside
};

INLINE struct address mapped(u32 ipv4) { return (struct address){0, MAPPED_IPV4 | (u64)ipv4 << 32}; }
INLINE struct address whole(const u32 *words) {
    return (struct address){words[0] | (u64)words[1] << 32, words[2] | (u64)words[3] << 32};
}
INLINE int equal(const struct address *a, const struct address *b) { return a->high == b->high && a->low == b->low; }

// What is `alone`, a source's, meets the packets of one flow, which all come to one core. Else nobody else's step in between is lost, but under
// contention a packet may go uncounted.
INLINE int take(u64 *full_at, const struct rate *rate, u32 octets, u64 now, int alone) {
    u64 before = *full_at;
    u64 next = (before > now ? before : now) + ((octets * rate->cost) >> 20);
    if (next - now > rate->burst) return 0;
    if (alone) *full_at = next;
    else __sync_val_compare_and_swap(full_at, before, next);
    return 1;
}

INLINE struct home *find(const struct relay *self, const struct address *address) {
    struct home *home = map_look_up(&homes, address);
    if (home || !self->has_networks) return home;
    struct prefix key = {.length = 128};
    __builtin_memcpy(key.address, address, 16);
    return map_look_up(&networks, &key);
}

// Reads the packet inside. `octets` is its length by the outer headers.
INLINE int read_inner(struct packet *p, void *inner, void *end, u32 octets) {
    struct ipv4 *v4 = inner;
    if ((void *)(v4 + 1) > end) return 0;
    p->octets = octets;
    if (v4->version_length >> 4 == 4) {
        u32 header = (v4->version_length & 0xF) * 4;
        if (header < 20 || header > octets || NET16(v4->length) != octets) return 0;
        p->source = mapped(v4->source);
        p->destination = mapped(v4->destination);
        return 1;
    }
    struct ipv6 *v6 = inner;
    if (v4->version_length >> 4 != 6 || (void *)(v6 + 1) > end || NET16(v6->length) + 40 != octets) return 0;
    p->source = whole(v6->source);
    p->destination = whole(v6->destination);
    return 1;
}

// Whether the program decides, and then what: the home that the packet goes to. Else null, with `verdict` set.
INLINE struct home *decide(struct relay *self, const struct packet *p, u32 frame_octets, int is_segmented, int *verdict) {
    *verdict = GO_ON;
    struct home *from = find(self, &p->source);
    if (!from || !equal(&from->local, &p->outer_destination)) return 0;
    struct slot *source = map_look_up(&slots, &from->slot);
    if (!source) return 0;
    u64 now = time_coarse();
    if (now >= source->until || now < source->agent_until) return 0;
    if (from->endpoint_port != p->outer_port || !equal(&from->endpoint, &p->outer_source))
        if (from->previous_port != p->outer_port || !equal(&from->previous, &p->outer_source) || now >= source->previous_until) return 0;
    struct home *to = find(self, &p->destination);
    if (!to || to == from || !to->interface) return 0;
    // Datagrams of the other family the agent makes.
    int is_ipv4 = from->local.high == 0 && (u32)from->local.low == (u32)MAPPED_IPV4;
    if (is_ipv4 != (to->local.high == 0 && (u32)to->local.low == (u32)MAPPED_IPV4)) return 0;
    // What is in segments has passed a link of this size already, and is as large on the next.
    if (is_segmented ? to->mtu < 1500 : frame_octets > to->mtu + sizeof(struct ethernet)) return 0;
    u32 flags = from->flags | to->flags;
    int has_visitor = !(from->flags & to->flags & RESIDENT);
    if (!(flags & RESIDENT) || (has_visitor && (flags & REFUSES_VISITORS))) return 0;
    struct slot *destination = map_look_up(&slots, &to->slot);
    if (!destination || now >= destination->until || now < destination->agent_until) return 0;
    if (now < self->agent_until || (has_visitor && now < self->visitors_agent_until)) return 0;

    if (!take(&source->source_full_at, &self->home, p->octets, now, 1)) {
        __sync_fetch_and_add(&self->dropped_source_rate, 1);
        *verdict = DROP;
        return 0;
    }
    if (!take(&destination->destination_full_at, &self->home, p->octets, now, 0)) {
        destination->agent_until = now + SHARING_TIME;
        return 0;
    }
    if (has_visitor && !take(&self->visitors_full_at, &self->visitors, p->octets, now, 0)) {
        self->visitors_agent_until = now + SHARING_TIME;
        return 0;
    }
    if (!take(&self->full_at, &self->all, p->octets, now, 0)) {
        self->agent_until = now + SHARING_TIME;
        return 0;
    }
    source->octets_sent += p->octets;
    source->packets_sent += 1;
    __sync_fetch_and_add(&destination->octets_received, p->octets);
    return to;
}

struct ports { u16 source, destination; };

INLINE int relay_ipv4(struct __sk_buff *skb, struct relay *self) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct ethernet *frame = data;
    struct ipv4 *ip = (void *)(frame + 1);
    struct udp *udp = (void *)(ip + 1);
    if ((void *)(udp + 1) > end) return GO_ON;
    u32 octets = NET16(ip->length);
    if (ip->version_length != 0x45 || ip->protocol != UDP || (ip->fragment & NET16(0x3FFF)) || udp->destination != self->port) return GO_ON;
    if (octets + sizeof(struct ethernet) != skb->len || octets < 28 + 20 || NET16(udp->length) != octets - 20) return GO_ON;
    struct packet p = {.outer_source = mapped(ip->source), .outer_destination = mapped(ip->destination), .outer_port = udp->source};
    if (!read_inner(&p, udp + 1, end, octets - 28)) return GO_ON;
    int verdict;
    struct home *to = decide(self, &p, skb->len, skb->gso_size != 0, &verdict);
    if (!to) return verdict;

    struct { u32 source, destination; } before = {ip->source, ip->destination}, after = {to->local.low >> 32, to->endpoint.low >> 32};
    struct ports ports_before = {udp->source, udp->destination}, ports_after = {self->port, to->endpoint_port};
    u32 interface = to->interface;
    struct bpf_redir_neigh next;
    __builtin_memcpy(&next, &to->next_family, sizeof next);
    ip->source = after.source;
    ip->destination = after.destination;
    ip->lifetime = 64;
    ip->sum = 0;
    u32 sum = 0;
#pragma unroll
    for (int i = 0; i < 10; i++) sum += ((u16 *)ip)[i];
    ip->sum = ~folded(sum);
    udp->source = ports_after.source;
    udp->destination = ports_after.destination;
    // Zero is no sum, and stays; one that the sender leaves to its card is of the addresses alone.
    if (udp->sum) {
        u32 place = sizeof(struct ethernet) + sizeof(struct ipv4) + __builtin_offsetof(struct udp, sum);
        s64 difference = sum_difference(&before, 8, &after, 8, 0);
        s64 ports = sum_difference(&ports_before, 4, &ports_after, 4, 0);
        replace_l4_sum(skb, place, 0, difference, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0);
        replace_l4_sum(skb, place, 0, ports, BPF_F_MARK_MANGLED_0);
    }
    return redirect_neighbour(interface, &next, sizeof next, 0);
}

INLINE int relay_ipv6(struct __sk_buff *skb, struct relay *self) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct ethernet *frame = data;
    struct ipv6 *ip = (void *)(frame + 1);
    struct udp *udp = (void *)(ip + 1);
    if ((void *)(udp + 1) > end) return GO_ON;
    u32 octets = NET16(ip->length);
    if (ip->next != UDP || udp->destination != self->port) return GO_ON;
    if (octets + sizeof(struct ethernet) + sizeof(struct ipv6) != skb->len || octets < 8 + 20 || NET16(udp->length) != octets) return GO_ON;
    struct packet p = {.outer_source = whole(ip->source), .outer_destination = whole(ip->destination), .outer_port = udp->source};
    if (!read_inner(&p, udp + 1, end, octets - 8)) return GO_ON;
    int verdict;
    struct home *to = decide(self, &p, skb->len, skb->gso_size != 0, &verdict);
    if (!to) return verdict;

    struct { struct address source, destination; } before = {p.outer_source, p.outer_destination}, after = {to->local, to->endpoint};
    struct ports ports_before = {udp->source, udp->destination}, ports_after = {self->port, to->endpoint_port};
    u32 interface = to->interface;
    struct bpf_redir_neigh next;
    __builtin_memcpy(&next, &to->next_family, sizeof next);
    __builtin_memcpy(ip->source, &after, 32);
    ip->lifetime = 64;
    udp->source = ports_after.source;
    udp->destination = ports_after.destination;
    if (udp->sum) {
        u32 place = sizeof(struct ethernet) + sizeof(struct ipv6) + __builtin_offsetof(struct udp, sum);
        s64 difference = sum_difference(&before, 32, &after, 32, 0);
        s64 ports = sum_difference(&ports_before, 4, &ports_after, 4, 0);
        replace_l4_sum(skb, place, 0, difference, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0);
        replace_l4_sum(skb, place, 0, ports, BPF_F_MARK_MANGLED_0);
    }
    return redirect_neighbour(interface, &next, sizeof next, 0);
}

PROGRAM(relay)
int relay_packets(struct __sk_buff *skb) {
    u32 zero = 0;
    struct relay *self = map_look_up(&state, &zero);
    if (!self) return GO_ON;
    int is_ipv4 = skb->protocol == NET16(IPV4);
    if (!is_ipv4 && skb->protocol != NET16(IPV6)) return GO_ON;
    u32 ip_octets = is_ipv4 ? sizeof(struct ipv4) : sizeof(struct ipv6);
    u32 needed = sizeof(struct ethernet) + ip_octets + sizeof(struct udp) + sizeof(struct ipv6);
    if (needed > skb->len) needed = skb->len;
    // Headers that a card left in pieces, put together if they are of a packet for us.
    if (UNLIKELY(skb->data_end - skb->data < needed)) {
        u8 protocol = 0;
        u16 port = 0;
        if (load(skb, sizeof(struct ethernet) + (is_ipv4 ? 9 : 6), &protocol, 1) || protocol != UDP) return GO_ON;
        if (load(skb, sizeof(struct ethernet) + ip_octets + 2, &port, 2) || port != self->port || pull(skb, needed)) return GO_ON;
    }
    return is_ipv4 ? relay_ipv4(skb, self) : relay_ipv6(skb, self);
}
