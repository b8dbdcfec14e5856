// Direct peers' packets at a node's links (protocol.md section 6): HoAs become MoAs where they leave, and MoAs HoAs where they arrive.
//
//     a link, egress    TCP and UDP from a guarded HoA    its entry's MoAs; without an entry out by our device, to the agent
//     a link, ingress   TCP and UDP from a peer's MoA     HoAs, unless the peer has a plain flow too
//
// nftables has the same entries, and does the rest: ICMP, other protocols, signalling, peers with plain flows, links without these programs. Its rules
// pass what is from a guarded HoA (one away from home) to a mapped peer and leaves by a link with the program (IMTPlan's Ruleset/Rewriting.swift): here it
// must not pass as it is, so what has no entry any more goes to the agent. A large datagram passes those rules whole and comes here in pieces: of each the addresses are rewritten, of the first
// the sum as well.
#pragma once
#include "kernel.h"

// IMTPlan's RewritingEntries lay out the same. Addresses as in packets; an IPv4 one is the first word.
enum { HOMES_MAX = 8, OWN_MAX = 8 };

struct own4 { u32 moa, home; };
struct own6 { u32 moa[4], home[4]; };

// Half of a change may be seen here; an address that is none finds no entry.
struct rewriting {
    u32 device;    // our TUN device's number
    u32 released;  // mark of packets that were held and are on their way again
    u32 homes4_count, homes6_count, own4_count, own6_count;
    u32 homes4[HOMES_MAX];
    u32 homes6[HOMES_MAX][4];  // HoAs whose packets nftables leaves to these programs
    struct own4 own4[OWN_MAX];
    struct own6 own6[OWN_MAX];  // own MoAs of such
};

// An own MoA that packets to many peers leave from. The one that is not in use is written first, so that nobody sees half of an address.
struct path { u32 current; u32 moa[2][4]; };

struct departure { u32 slot, path, moa[4]; };  // own HoA, peer's HoA -> the peer's MoA
struct arrival { u32 slot, hoa[4]; };          // peer's MoA, own HoA -> the peer's HoA

struct use {
    u64 packets_out, octets_out, packets_in, octets_in;
    u64 plain_until;  // there is a plain flow with one of the peer's MoAs
};

extern struct map rewriting;    // one
extern struct map paths;        // by number
extern struct map uses;         // by slot
extern struct map departures4;  // struct pair4
extern struct map departures6;
extern struct map arrivals4;
extern struct map arrivals6;

static s64 (*const update_sum)(struct __sk_buff *, u32 difference) = (void *)BPF_FUNC_csum_update;

// As long as nftables' set of peers with plain flows (`TranslationRuleset.plainPeerMilliseconds`).
static const u64 plain_lifetime = 7440ull * 1000000000;

INLINE int is_same(const u32 *a, const u32 *b) { return a[3] == b[3] && a[2] == b[2] && a[1] == b[1] && a[0] == b[0]; }

INLINE u32 folded32(u64 sum) {
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    return (u32)((sum & 0xFFFFFFFF) + (sum >> 32));
}

// What a packet says beside its addresses. `offset`: of its TCP or UDP header, in the first piece or the whole. `protocol`: 0 if it is none of ours.
struct upper { u32 offset; u8 protocol, is_later; };

INLINE struct upper upper4(const struct ipv4 *ip, u32 link) {
    struct upper upper = {link + (ip->version_length & 15) * 4, 0, (ip->fragment & NET16(0x1FFF)) != 0};
    if (ip->version_length >> 4 == 4 && (ip->protocol == TCP || ip->protocol == UDP)) upper.protocol = ip->protocol;
    return upper;
}

INLINE struct upper upper6(struct __sk_buff *skb, u8 next, u32 link) {
    struct upper upper = {link + sizeof(struct ipv6), 0, 0};
    if (UNLIKELY(next == FRAGMENT6)) {
        u32 words[2];
        if (load(skb, upper.offset, words, sizeof words)) return upper;
        next = (u8)words[0];
        upper.is_later = (words[0] & NET32(0xFFF8)) != 0;
        upper.offset += sizeof words;
    }
    if (next == TCP || next == UDP) upper.protocol = next;
    return upper;
}

// Ports, source and destination as in the packet; 0 where there are none.
INLINE u32 ports_of(struct __sk_buff *skb, struct upper upper) {
    if (upper.is_later) return 0;
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    u32 *ports = data + (upper.offset & 127), copied = 0;
    if (LIKELY((void *)(ports + 1) <= end)) return *ports;
    return load(skb, upper.offset, &copied, sizeof copied) ? 0 : copied;
}

// Both in {6288, 6289}.
INLINE int is_signalling(u32 ports) { return (ports & NET32(0xFFFEFFFE)) == NET32(6288u << 16 | 6288); }

// Mends the sum of TCP or UDP for addresses that are about to change by so much.
INLINE long mend(struct __sk_buff *skb, struct upper upper, u32 difference) {
    if (upper.is_later) return 0;
    if (upper.protocol == UDP) return replace_l4_sum(skb, upper.offset + 6, 0, difference, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0);
    return replace_l4_sum(skb, upper.offset + 16, 0, difference, BPF_F_PSEUDO_HDR);
}

// Writes the new addresses; the sum behind the header has been mended.
INLINE int replace4(struct __sk_buff *skb, u32 link, u32 source, u32 destination, u32 difference) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct ipv4 *ip = data + link;
    if ((void *)(ip + 1) > end) return DROP;
    ip->source = source;
    ip->destination = destination;
    // RFC 1624: a wrong sum stays wrong.
    ip->sum = ~folded((u32)(u16)~ip->sum + folded(difference));
    return GO_ON;
}

INLINE int replace6(struct __sk_buff *skb, u32 link, const u32 *source, const u32 *destination) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct ipv6 *ip = data + link;
    if ((void *)(ip + 1) > end) return DROP;
    copy(ip->source, source);
    copy(ip->destination, destination);
    return GO_ON;
}

INLINE u32 difference4(u32 source, u32 destination, u32 new_source, u32 new_destination) {
    return folded32((u64)(u32)~source + (u32)~destination + new_source + new_destination);
}

INLINE u32 difference6(const u32 *source, const u32 *destination, const u32 *new_source, const u32 *new_destination) {
    u64 sum = 0;
    for (int word = 0; word < 4; word++) sum += (u64)(u32)~source[word] + (u32)~destination[word] + new_source[word] + new_destination[word];
    return folded32(sum);
}

// MARK: Out

// From a guarded HoA, and to nobody that is known here: the entry has just gone. The agent finds out; what comes from there would come again.
INLINE int divert(struct __sk_buff *skb, const struct rewriting *all) {
    if (skb->mark == all->released) return DROP;
    return redirect(all->device, 0);
}

// From an own MoA: if it is to a peer's, its answers are no mapped packets (nftables has noted its flow).
INLINE void note_plain(struct __sk_buff *skb, const struct rewriting *all, const struct arrival *arrival, struct upper upper) {
    if (!arrival || !upper.protocol || skb->mark == all->released) return;
    u32 slot = arrival->slot, none = 0;
    struct use *use = map_look_up(&uses, &slot);
    struct settings *settings_ = map_look_up(&settings, &none);
    if (!use || !settings_) return;
    if (upper.protocol == UDP) {
        u32 ports = ports_of(skb, upper);
        if (is_signalling(ports) || is_own(settings_, (u16)ports)) return;
    }
    use->plain_until = time_coarse() + plain_lifetime;
}

INLINE int leaving4(struct __sk_buff *skb, const u32 link, const struct rewriting *all) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct ipv4 *ip = data + link;
    if ((void *)(ip + 1) > end) return GO_ON;
    struct pair4 pair = {ip->source, ip->destination};
    struct upper upper = upper4(ip, link);
    int is_guarded = 0;
    for (int index = 0; index < HOMES_MAX && index < all->homes4_count; index++) {
        if (all->homes4[index] != pair.own) continue;
        is_guarded = 1;
        break;
    }
    if (!is_guarded) {
        for (int index = 0; index < OWN_MAX && index < all->own4_count; index++) {
            if (all->own4[index].moa != pair.own) continue;
            struct pair4 back = {pair.peer, all->own4[index].home};
            note_plain(skb, all, map_look_up(&arrivals4, &back), upper);
            break;
        }
        return GO_ON;
    }
    if (!upper.protocol || (upper.protocol == UDP && is_signalling(ports_of(skb, upper)))) return GO_ON;
    struct departure *departure = map_look_up(&departures4, &pair);
    if (!departure) return divert(skb, all);
    u32 number = departure->path, slot = departure->slot;
    struct path *path = map_look_up(&paths, &number);
    struct use *use = map_look_up(&uses, &slot);
    if (!path || !use) return divert(skb, all);
    u32 source = path->moa[path->current & 1][0], destination = departure->moa[0];
    u32 difference = difference4(pair.own, pair.peer, source, destination);
    if (mend(skb, upper, difference) || replace4(skb, link, source, destination, difference) != GO_ON) return DROP;
    u32 octets = skb->len - link;
    __sync_fetch_and_add(&use->packets_out, packets_of(skb, octets));
    __sync_fetch_and_add(&use->octets_out, octets);
    return GO_ON;
}

INLINE int leaving6(struct __sk_buff *skb, const u32 link, const struct rewriting *all) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct ipv6 *ip = data + link;
    if ((void *)(ip + 1) > end) return GO_ON;
    struct pair6 pair;
    copy(pair.own, ip->source);
    copy(pair.peer, ip->destination);
    u8 next = ip->next;
    int is_guarded = 0;
    for (int index = 0; index < HOMES_MAX && index < all->homes6_count; index++) {
        if (!is_same(all->homes6[index], pair.own)) continue;
        is_guarded = 1;
        break;
    }
    if (!is_guarded) {
        for (int index = 0; index < OWN_MAX && index < all->own6_count; index++) {
            if (!is_same(all->own6[index].moa, pair.own)) continue;
            struct pair6 back;
            copy(back.own, pair.peer);
            copy(back.peer, all->own6[index].home);
            note_plain(skb, all, map_look_up(&arrivals6, &back), upper6(skb, next, link));
            break;
        }
        return GO_ON;
    }
    struct upper upper = upper6(skb, next, link);
    if (!upper.protocol || (upper.protocol == UDP && is_signalling(ports_of(skb, upper)))) return GO_ON;
    struct departure *departure = map_look_up(&departures6, &pair);
    if (!departure) return divert(skb, all);
    u32 number = departure->path, slot = departure->slot;
    struct path *path = map_look_up(&paths, &number);
    struct use *use = map_look_up(&uses, &slot);
    if (!path || !use) return divert(skb, all);
    u32 source[4];
    copy(source, path->moa[path->current & 1]);
    u32 difference = difference6(pair.own, pair.peer, source, departure->moa);
    if (mend(skb, upper, difference) || replace6(skb, link, source, departure->moa) != GO_ON) return DROP;
    u32 octets = skb->len - link;
    __sync_fetch_and_add(&use->packets_out, packets_of(skb, octets));
    __sync_fetch_and_add(&use->octets_out, octets);
    return GO_ON;
}

INLINE int leaving(struct __sk_buff *skb, const u32 link) {
    u32 none = 0;
    const int is_ipv4 = skb->protocol == NET16(IPV4);
    if (!is_ipv4 && skb->protocol != NET16(IPV6)) return GO_ON;
    struct rewriting *all = map_look_up(&rewriting, &none);
    if (!all) return GO_ON;
    const u32 least = link + (is_ipv4 ? sizeof(struct ipv4) : sizeof(struct ipv6));
    // The headers may lie in pages.
    if (UNLIKELY((void *)(long)skb->data + least > (void *)(long)skb->data_end)) pull(skb, least);
    return is_ipv4 ? leaving4(skb, link, all) : leaving6(skb, link, all);
}

// MARK: In

// Whether a datagram is the agent's, whoever it is from.
INLINE int is_agents(u32 ports) {
    u32 none = 0;
    if (is_signalling(ports)) return 1;
    struct settings *settings_ = map_look_up(&settings, &none);
    u16 port = (u16)(ports >> 16);
    return settings_ && port != NET16(6289) && is_own(settings_, port);
}

INLINE int has_plain(const struct use *use) { return UNLIKELY(use->plain_until != 0) && use->plain_until > time_coarse(); }

INLINE int delivering4(struct __sk_buff *skb, const u32 link, const struct rewriting *all) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct ipv4 *ip = data + link;
    if ((void *)(ip + 1) > end) return GO_ON;
    struct upper upper = upper4(ip, link);
    // Pieces do not say whether they are the agent's, as those of datagrams that packets travel in are on a narrow path. nftables sees them put together.
    if (!upper.protocol || ip->fragment & NET16(0x3FFF)) return GO_ON;
    u32 destination = ip->destination;
    struct pair4 pair = {ip->source, 0};
    for (int index = 0; index < OWN_MAX && index < all->own4_count; index++) {
        if (all->own4[index].moa != destination) continue;
        pair.peer = all->own4[index].home;
        break;
    }
    if (!pair.peer) return GO_ON;
    struct arrival *arrival = map_look_up(&arrivals4, &pair);
    if (!arrival) return GO_ON;
    u32 slot = arrival->slot, hoa = arrival->hoa[0];
    struct use *use = map_look_up(&uses, &slot);
    if (!use || has_plain(use)) return GO_ON;
    if (upper.protocol == UDP && is_agents(ports_of(skb, upper))) return GO_ON;
    u32 difference = difference4(pair.own, destination, hoa, pair.peer);
    if (mend(skb, upper, difference)) return GO_ON;
    if (replace4(skb, link, hoa, pair.peer, difference) != GO_ON) return DROP;
    u32 octets = skb->len - link;
    __sync_fetch_and_add(&use->packets_in, packets_of(skb, octets));
    __sync_fetch_and_add(&use->octets_in, octets);
    return GO_ON;
}

INLINE int delivering6(struct __sk_buff *skb, const u32 link, const struct rewriting *all) {
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct ipv6 *ip = data + link;
    if ((void *)(ip + 1) > end) return GO_ON;
    u32 destination[4];
    struct pair6 pair;
    copy(pair.own, ip->source);
    copy(destination, ip->destination);
    u8 next = ip->next;
    int is_ours = 0;
    for (int index = 0; index < OWN_MAX && index < all->own6_count; index++) {
        if (!is_same(all->own6[index].moa, destination)) continue;
        copy(pair.peer, all->own6[index].home);
        is_ours = 1;
        break;
    }
    if (!is_ours) return GO_ON;
    struct upper upper = upper6(skb, next, link);
    if (!upper.protocol || next == FRAGMENT6) return GO_ON;
    struct arrival *arrival = map_look_up(&arrivals6, &pair);
    if (!arrival) return GO_ON;
    u32 slot = arrival->slot;
    struct use *use = map_look_up(&uses, &slot);
    if (!use || has_plain(use)) return GO_ON;
    if (upper.protocol == UDP && is_agents(ports_of(skb, upper))) return GO_ON;
    u32 difference = difference6(pair.own, destination, arrival->hoa, pair.peer);
    if (mend(skb, upper, difference)) return GO_ON;
    if (replace6(skb, link, arrival->hoa, pair.peer) != GO_ON) return DROP;
    // A card or tunnel may have summed up the whole packet, of which IPv6's header is a part without a sum of its own. Elsewhere it is an error, and
    // changes nothing.
    update_sum(skb, difference);
    u32 octets = skb->len - link;
    __sync_fetch_and_add(&use->packets_in, packets_of(skb, octets));
    __sync_fetch_and_add(&use->octets_in, octets);
    return GO_ON;
}

INLINE int delivering(struct __sk_buff *skb, const u32 link) {
    u32 none = 0;
    const int is_ipv4 = skb->protocol == NET16(IPV4);
    // Neither what the link only overhears nor what belongs to a VLAN on it.
    if ((!is_ipv4 && skb->protocol != NET16(IPV6)) || skb->pkt_type || skb->vlan_present) return GO_ON;
    struct rewriting *all = map_look_up(&rewriting, &none);
    if (!all) return GO_ON;
    const u32 least = link + (is_ipv4 ? sizeof(struct ipv4) : sizeof(struct ipv6));
    if (UNLIKELY((void *)(long)skb->data + least > (void *)(long)skb->data_end)) pull(skb, least);
    return is_ipv4 ? delivering4(skb, link, all) : delivering6(skb, link, all);
}
