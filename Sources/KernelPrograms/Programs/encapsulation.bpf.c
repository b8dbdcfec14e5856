// Packets in UDP datagrams (protocol.md section 11.2), between a node's device and its links, by the kernel alone.
//
//     mat0, egress     own HoA -> peer, and the peer has a way    IP and UDP header in front, and out of the way's link to its next hop
//     a link, ingress  UDP to an own port, of a packet that is    header off, and in by mat0, where the agent's packets come in as well
//                      taken from that endpoint
//
// All else goes on, to the agent by mat0 or by its socket, as if there were no program: signalling, packets to port 6289 between HoAs (in-path
// signalling), whoever is not known or comes from elsewhere, what came in pieces or has options, datagrams that are several (UDP_SEGMENT: the kernel
// can't cut them up inside others), mobile networks, and on older kernels a packet that arrives in a datagram of the other family. So there is nothing
// that only these programs can do, and they decide nothing: the agent says whose packets go where.
#include "kernel.h"

// IMTPlan's ForwardingEntry lays out the same.
enum { ACCEPTED_MAX = 16, IN_PATH_PORT = 6289 };

struct settings {
    u32 device;  // our TUN device's number
    u32 mark;    // of the agent's own datagrams
    u32 unwrapped;  // mark of packets on their way to our tables, which know them by it
    u32 zero;
    u64 ports[1024];  // a bit for each own port
};

struct endpoint { u32 address[4]; u16 port, zero; };

struct peer {
    u32 slot;  // of its counters
    u32 link;  // that packets leave by; 0: no way
    u8 outer;  // family of the datagrams that packets leave in: 4 or 6
    u8 accepted_count;
    u8 asks;  // the next packet goes to the agent, which has just begun and learns from it that there is this peer
    u8 zero;
    u16 largest;  // packet that may leave
    u16 own_port, far_port;  // network order
    u16 sum;  // IPv4: of the outer header's words that are the same in all datagrams
    u32 own[4], far[4];
    struct bpf_redir_neigh next;  // hop of the link; family 0: the kernel looks for a route
    struct endpoint accepted[ACCEPTED_MAX];
};

struct counters {
    u64 packets_out, octets_out, packets_in, octets_in;
    u64 heard[ACCEPTED_MAX];  // packets from each accepted endpoint
};

struct drops { u64 congested; };

struct pair4 { u32 own, peer; };
struct pair6 { u32 own[4], peer[4]; };

extern struct map settings;  // one
extern struct map peers4;    // pair4 -> peer
extern struct map peers6;    // pair6 -> peer
extern struct map counters;  // by slot
extern struct map drops;     // one

INLINE int is_own(const struct settings *all, u16 port) { return all->ports[NET16(port) >> 6] >> (NET16(port) & 63) & 1; }

#include "rewriting.h"

// MARK: Out

INLINE int leave(struct __sk_buff *skb, struct peer *peer, u8 class, u8 protocol, int is_fragment) {
    u32 octets = skb->len, none = 0;
    if (!peer->link) return GO_ON;
    if (UNLIKELY(peer->asks)) {
        peer->asks = 0;
        return GO_ON;
    }
    if (skb->gso_size) {
        if (protocol != TCP || is_fragment) return GO_ON;
    } else if (octets > peer->largest) {
        return GO_ON;
    }
    if (octets + 48 > 65535) return GO_ON;
    struct settings *all = map_look_up(&settings, &none);
    u32 slot = peer->slot;
    struct counters *counts = map_look_up(&counters, &slot);
    if (!all || !counts) return GO_ON;
    u64 packets = packets_of(skb, octets);

    int is_ipv4 = peer->outer == 4;
    u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
    if (is_ipv4) {
        if (make_room(skb, sizeof(struct ipv4) + sizeof(struct udp), BPF_ADJ_ROOM_MAC, flags | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4)) return GO_ON;
    } else {
        if (make_room(skb, sizeof(struct ipv6) + sizeof(struct udp), BPF_ADJ_ROOM_MAC, flags | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6)) return GO_ON;
    }
    // From here on it is no packet that the agent could take. The device has no link header, and the neighbour's is made by the kernel, which wants
    // to take one away before.
    if (add_head(skb, sizeof(struct ethernet), 0)) return DROP;
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct ethernet *link = data;
    struct udp *udp;
    if (is_ipv4) {
        struct ipv4 *ip = data + sizeof *link;
        udp = (void *)(ip + 1);
        if ((void *)(udp + 1) > end) return DROP;
        u16 length = NET16(octets + sizeof *ip + sizeof *udp);
        link->type = NET16(IPV4);
        *(u16 *)ip = NET16(0x4500 | class);
        ip->length = length;
        ip->number = 0;
        ip->fragment = NET16(0x4000);  // DF
        *(u16 *)&ip->lifetime = NET16(64 << 8 | UDP);
        ip->sum = ~folded((u32)peer->sum + NET16(class) + length);
        ip->source = peer->own[3];
        ip->destination = peer->far[3];
    } else {
        struct ipv6 *ip = data + sizeof *link;
        udp = (void *)(ip + 1);
        if ((void *)(udp + 1) > end) return DROP;
        link->type = NET16(IPV6);
        ip->version_class_flow = NET32(6U << 28 | (u32)class << 20);
        ip->length = NET16(octets + sizeof *udp);
        ip->next = UDP;
        ip->lifetime = 64;
        copy(ip->source, peer->own);
        copy(ip->destination, peer->far);
    }
    udp->source = peer->own_port;
    udp->destination = peer->far_port;
    udp->length = NET16(octets + sizeof *udp);
    udp->sum = 0;
    skb->mark = all->mark;
    __sync_fetch_and_add(&counts->packets_out, packets);
    __sync_fetch_and_add(&counts->octets_out, octets);
    if (!peer->next.nh_family) return redirect_neighbour(peer->link, 0, 0, 0);
    // Told of the next hop the kernel looks for no route, and leaves the packet the one into our device; by that it would be sent once the
    // neighbour's address is found that had to be asked for, as a frame without a link header. Without a route it is sent by the neighbour. A tunnel's
    // key, which no link looks at, takes the route's place, and is the cheapest thing that does.
    struct bpf_tunnel_key no_tunnel = {};
    if (tunnel_key(skb, &no_tunnel, __builtin_offsetof(struct bpf_tunnel_key, remote_ipv6[1]), 0)) return DROP;
    return redirect_neighbour(peer->link, &peer->next, sizeof peer->next, 0);
}

PROGRAM(depart)
int depart(struct __sk_buff *skb) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    if (skb->protocol == NET16(IPV4)) {
        struct ipv4 *ip = data;
        if ((void *)(ip + 1) > end || ip->version_length != 0x45) return GO_ON;
        struct pair4 pair = {ip->source, ip->destination};
        struct peer *peer = map_look_up(&peers4, &pair);
        if (!peer) return GO_ON;
        return leave(skb, peer, ip->traffic_class, ip->protocol, ip->fragment & NET16(0x3FFF));
    }
    if (skb->protocol == NET16(IPV6)) {
        struct ipv6 *ip = data;
        if ((void *)(ip + 1) > end) return GO_ON;
        struct pair6 pair;
        copy(pair.own, ip->source);
        copy(pair.peer, ip->destination);
        struct peer *peer = map_look_up(&peers6, &pair);
        if (!peer) return GO_ON;
        return leave(skb, peer, NET32(ip->version_class_flow) >> 20 & 0xFF, ip->next, 0);
    }
    return GO_ON;
}

// MARK: In

// The place of an endpoint among those that the peer's packets are taken from; below 0 if it is none of them.
INLINE int place_of(const struct peer *peer, const u32 *address, u16 port) {
    for (int index = 0; index < ACCEPTED_MAX; index++) {
        if (index >= peer->accepted_count) return -1;
        const struct endpoint *known = &peer->accepted[index];
        if (known->port == port && known->address[3] == address[3] && known->address[2] == address[2] && known->address[1] == address[1] &&
            known->address[0] == address[0])
            return index;
    }
    return -1;
}

// What the inner header's traffic class becomes (RFC 6040, normal mode); below 0: drop.
INLINE int inner_class(u8 inner, u8 outer) {
    if ((outer & 3) == 3) return (inner & 3) == 0 ? -1 : inner | 3;
    if ((outer & 3) == 1 && (inner & 3) == 2) return (inner & ~3) | 1;
    return inner;
}

// `link`: octets of the link's header. `outer`: octets of the IP and UDP header, which are there to be read.
INLINE int enter(struct __sk_buff *skb, const u32 link, const u32 outer, const u32 *source, u16 port, u8 class, u32 length) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    u32 none = 0;
    const int is_outer_ipv4 = outer == sizeof(struct ipv4) + sizeof(struct udp);
    u8 *inner = data + link + outer;
    if ((void *)(inner + 20) > end) return GO_ON;
    struct peer *peer;
    int old_class, new_class;
    u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;
    const int is_ipv4 = *inner >> 4 == 4;
    struct udp *udp = 0;
    if (is_ipv4) {
        struct ipv4 *ip = (void *)inner;
        if (ip->version_length != 0x45 || NET16(ip->length) != length) return GO_ON;
        struct pair4 pair = {ip->destination, ip->source};
        peer = map_look_up(&peers4, &pair);
        if (ip->protocol == UDP && !(ip->fragment & NET16(0x1FFF))) udp = (void *)(ip + 1);
        old_class = ip->traffic_class;
        if (!is_outer_ipv4) flags |= 1 << 7;  // BPF_F_ADJ_ROOM_DECAP_L3_IPV4, which headers of 6.1 lack as its kernel does
    } else if (*inner >> 4 == 6) {
        struct ipv6 *ip = (void *)inner;
        if ((void *)(ip + 1) > end || NET16(ip->length) + sizeof *ip != length) return GO_ON;
        struct pair6 pair;
        copy(pair.own, ip->destination);
        copy(pair.peer, ip->source);
        peer = map_look_up(&peers6, &pair);
        if (ip->next == UDP) udp = (void *)(ip + 1);
        old_class = NET32(ip->version_class_flow) >> 20 & 0xFF;
        if (is_outer_ipv4) flags |= 1 << 8;  // BPF_F_ADJ_ROOM_DECAP_L3_IPV6
    } else {
        return GO_ON;
    }
    if (!peer) return GO_ON;
    // Signalling between HoAs is the agent's.
    if (udp && ((void *)(udp + 1) > end || udp->destination == NET16(IN_PATH_PORT))) return GO_ON;
    int place = place_of(peer, source, port);
    if (place < 0) return GO_ON;
    struct settings *all = map_look_up(&settings, &none);
    u32 slot = peer->slot;
    struct counters *counts = map_look_up(&counters, &slot);
    if (!all || !counts) return GO_ON;
    new_class = inner_class(old_class, class);
    if (new_class < 0) {
        struct drops *dropped = map_look_up(&drops, &none);
        if (dropped) __sync_fetch_and_add(&dropped->congested, 1);
        return DROP;
    }
    u64 packets = packets_of(skb, length);
    if (make_room(skb, -(int)outer, BPF_ADJ_ROOM_MAC, flags)) return GO_ON;
    if (UNLIKELY(new_class != old_class)) {
        data = (void *)(long)skb->data;
        end = (void *)(long)skb->data_end;
        if (is_ipv4) {
            struct ipv4 *ip = data + link;
            if ((void *)(ip + 1) > end) return DROP;
            u16 old = *(u16 *)ip, new = NET16(0x4500 | new_class);
            *(u16 *)ip = new;
            // RFC 1624: a wrong sum stays wrong.
            ip->sum = ~folded((u32)(u16)~ip->sum + (u16)~old + new);
        } else {
            struct ipv6 *ip = data + link;
            if ((void *)(ip + 1) > end) return DROP;
            ip->version_class_flow = (ip->version_class_flow & NET32(0xF00FFFFF)) | NET32((u32)new_class << 20);
        }
    }
    __sync_fetch_and_add(&counts->packets_in, packets);
    __sync_fetch_and_add(&counts->octets_in, length);
    __sync_fetch_and_add(&counts->heard[place & (ACCEPTED_MAX - 1)], packets);
    skb->mark = all->unwrapped;
    return redirect(all->device, BPF_F_INGRESS);
}

INLINE int arriving(struct __sk_buff *skb, const u32 link) {
    u32 none = 0;
    const u32 least = link + sizeof(struct ipv4) + sizeof(struct udp) + sizeof(struct ipv4);
    const int is_ipv4 = skb->protocol == NET16(IPV4);
    // Neither what the link only overhears nor what belongs to a VLAN on it.
    if ((!is_ipv4 && skb->protocol != NET16(IPV6)) || skb->pkt_type || skb->vlan_present) return GO_ON;
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    // The headers may lie in pages.
    if (UNLIKELY(data + least > end)) {
        if (skb->len < least || pull(skb, skb->len < link + 96 ? skb->len : link + 96)) return GO_ON;
        data = (void *)(long)skb->data;
        end = (void *)(long)skb->data_end;
        if (data + least > end) return GO_ON;
    }
    if (is_ipv4) {
        struct ipv4 *ip = data + link;
        struct udp *udp = (void *)(ip + 1);
        if (ip->protocol != UDP || ip->version_length != 0x45 || ip->fragment & NET16(0x3FFF)) return GO_ON;
        struct settings *all = map_look_up(&settings, &none);
        if (!all || !is_own(all, udp->destination)) return GO_ON;
        u32 length = NET16(udp->length);
        if (length + sizeof *ip != NET16(ip->length)) return GO_ON;
        u32 source[4] = {0, 0, NET32(0xFFFF), ip->source};
        return enter(skb, link, sizeof *ip + sizeof *udp, source, udp->source, ip->traffic_class, length - sizeof *udp);
    }
    struct ipv6 *ip = data + link;
    struct udp *udp = (void *)(ip + 1);
    if ((void *)(udp + 1) > end || ip->next != UDP) return GO_ON;
    struct settings *all = map_look_up(&settings, &none);
    if (!all || !is_own(all, udp->destination)) return GO_ON;
    if (udp->length != ip->length) return GO_ON;
    u32 source[4];
    copy(source, ip->source);
    return enter(
        skb, link, sizeof *ip + sizeof *udp, source, udp->source, NET32(ip->version_class_flow) >> 20 & 0xFF, NET16(udp->length) - sizeof *udp);
}

// By links with an Ethernet header, and by those with none.
PROGRAM(arrive)
int arrive(struct __sk_buff *skb) { return arriving(skb, sizeof(struct ethernet)); }

PROGRAM(arriveBare)
int arriveBare(struct __sk_buff *skb) { return arriving(skb, 0); }

// MARK: With direct peers' packets

PROGRAM(deliver)
int deliver(struct __sk_buff *skb) {
    int outcome = arriving(skb, sizeof(struct ethernet));
    return outcome == GO_ON ? delivering(skb, sizeof(struct ethernet)) : outcome;
}

PROGRAM(deliverBare)
int deliverBare(struct __sk_buff *skb) {
    int outcome = arriving(skb, 0);
    return outcome == GO_ON ? delivering(skb, 0) : outcome;
}

PROGRAM(translate)
int translate(struct __sk_buff *skb) { return leaving(skb, sizeof(struct ethernet)); }

PROGRAM(translateBare)
int translateBare(struct __sk_buff *skb) { return leaving(skb, 0); }
