// Datagrams that packets travel in: many by one call, several in one datagram's place, with their traffic class, and what the network says of
// them. Control messages and macros that Swift can't see; no decisions live in this file.
#pragma once
#include "shim.h"
#include "traffic.h"
#include <linux/errqueue.h>

// linux/udp.h, which contradicts netinet/udp.h of other modules: SOL_UDP, UDP_SEGMENT, UDP_GRO, UDP_NO_CHECK6_RX. linux/in.h and in6.h: what <netinet/in.h> hides.
enum {
    mat_level_udp = 17, mat_udp_segment = 103, mat_udp_gro = 104, mat_udp_no_sum6 = 101, mat_udp_no_check6 = 102,
    mat_level_ip = 0, mat_ip_tos = 1, mat_ip_ttl = 2, mat_ip_mtu_discover = 10, mat_ip_recverr = 11, mat_ip_recvtos = 13,
    mat_level_ipv6 = 41, mat_ipv6_hops = 16, mat_ipv6_mtu_discover = 23, mat_ipv6_recverr = 25, mat_ipv6_recvtclass = 66, mat_ipv6_tclass = 67,
    // Who has to may cut datagrams up, the sender first; or nobody, whatever the network has said (for both families the same numbers); or whoever
    // has to, but not by what the network has said, and errors are told (of IPv4).
    mat_pmtu_dont = 0, mat_pmtu_probe = 3, mat_pmtu_omit = 5, mat_ipv6_mtu = 24,
};

// PKTINFO, both families' traffic class, and the length of segments.
#define MAT_CARRIER_CONTROL_BYTES 160

struct mat_carrier_slot {
    struct sockaddr_in6 name;
    struct iovec iov;
    char control[MAT_CARRIER_CONTROL_BYTES] __attribute__((aligned(8)));
};

struct mat_carrier {
    struct in6_addr far;
    unsigned short far_port;       // host order
    unsigned short segment_octets; // 0: one packet
    struct in6_addr local;
    unsigned char traffic_class;
};

static inline void mat_carrier_receives(struct mat_message *m, struct mat_carrier_slot *s, void *buffer, size_t capacity) {
    s->iov.iov_base = buffer; s->iov.iov_len = capacity;
    m->header.msg_name = &s->name; m->header.msg_namelen = sizeof s->name;
    m->header.msg_iov = &s->iov; m->header.msg_iovlen = 1;
    m->header.msg_control = s->control; m->header.msg_controllen = sizeof s->control;
    m->header.msg_flags = 0;
}

static inline void mat_carrier_received(const struct mat_message *m, const struct mat_carrier_slot *s, struct mat_carrier *d) {
    memset(d, 0, sizeof *d);
    d->far = s->name.sin6_addr; d->far_port = ntohs(s->name.sin6_port);
    struct msghdr *h = (struct msghdr *)&m->header;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        int value = 0;
        if (c->cmsg_level == mat_level_ipv6 && c->cmsg_type == IPV6_PKTINFO) {
            struct mat_in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            d->local = info.ipi6_addr;
        } else if (c->cmsg_level == mat_level_ip && c->cmsg_type == mat_ip_tos) {
            d->traffic_class = *CMSG_DATA(c);
        } else if (c->cmsg_level == mat_level_ipv6 && c->cmsg_type == mat_ipv6_tclass) {
            memcpy(&value, CMSG_DATA(c), sizeof value);
            d->traffic_class = (unsigned char)value;
        } else if (c->cmsg_level == mat_level_udp && c->cmsg_type == mat_udp_gro) {
            memcpy(&value, CMSG_DATA(c), sizeof value);
            d->segment_octets = (unsigned short)value;
        }
    }
}

// Where a message goes, and how. `is_ipv4`: the addresses are mapped ones.
static inline void mat_carrier_sends(struct mat_message *m, struct mat_carrier_slot *s, const struct mat_carrier *d, int is_ipv4) {
    memset(&s->name, 0, sizeof s->name);
    s->name.sin6_family = AF_INET6; s->name.sin6_addr = d->far; s->name.sin6_port = htons(d->far_port);
    memset(m, 0, sizeof *m);
    m->header.msg_name = &s->name; m->header.msg_namelen = sizeof s->name;
    m->header.msg_iov = &s->iov; m->header.msg_iovlen = 1;
    m->header.msg_control = s->control; m->header.msg_controllen = sizeof s->control;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m->header);
    struct mat_in6_pktinfo info;
    memset(&info, 0, sizeof info);
    info.ipi6_addr = d->local;
    c->cmsg_level = mat_level_ipv6; c->cmsg_type = IPV6_PKTINFO; c->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(c), &info, sizeof info);
    size_t used = CMSG_SPACE(sizeof info);
    c = (struct cmsghdr *)(s->control + used);
    int class = d->traffic_class;
    c->cmsg_level = is_ipv4 ? mat_level_ip : mat_level_ipv6; c->cmsg_type = is_ipv4 ? mat_ip_tos : mat_ipv6_tclass; c->cmsg_len = CMSG_LEN(sizeof class);
    memcpy(CMSG_DATA(c), &class, sizeof class);
    used += CMSG_SPACE(sizeof class);
    if (d->segment_octets > 0) {
        c = (struct cmsghdr *)(s->control + used);
        c->cmsg_level = mat_level_udp; c->cmsg_type = mat_udp_segment; c->cmsg_len = CMSG_LEN(sizeof d->segment_octets);
        memcpy(CMSG_DATA(c), &d->segment_octets, sizeof d->segment_octets);
        used += CMSG_SPACE(sizeof d->segment_octets);
    }
    m->header.msg_controllen = used;
}

// What the network or this host said of a datagram that was sent (IP_RECVERR, IPV6_RECVERR).
struct mat_datagram_error {
    struct in6_addr far;       // where it was to go
    unsigned short far_port;
    unsigned char origin;      // 1 this host, 2 ICMP, 3 ICMPv6
    unsigned int error;        // as errno
    unsigned int information;  // of EMSGSIZE: what would pass
};

// The next of what was said, with as much of the datagram's payload as was quoted; -1 for none.
static inline ssize_t mat_receive_error(int fd, void *buffer, size_t capacity, struct mat_datagram_error *e) {
    struct sockaddr_in6 to;
    char control[512] __attribute__((aligned(8)));
    struct iovec iov = { buffer, capacity };
    struct msghdr m;
    memset(&m, 0, sizeof m); memset(&to, 0, sizeof to); memset(e, 0, sizeof *e);
    m.msg_name = &to; m.msg_namelen = sizeof to;
    m.msg_iov = &iov; m.msg_iovlen = 1;
    m.msg_control = control; m.msg_controllen = sizeof control;
    ssize_t n = recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT);
    if (n < 0) return n;
    e->far = to.sin6_addr; e->far_port = ntohs(to.sin6_port);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if ((c->cmsg_level == mat_level_ip && c->cmsg_type == mat_ip_recverr) || (c->cmsg_level == mat_level_ipv6 && c->cmsg_type == mat_ipv6_recverr)) {
            struct sock_extended_err said;
            memcpy(&said, CMSG_DATA(c), sizeof said);
            e->origin = said.ee_origin; e->error = said.ee_errno; e->information = said.ee_info;
        }
    return n;
}

// readv() and writev() take a pointer to constant vectors, which costs Swift a copy of the array.
#include <sys/uio.h>
static inline ssize_t mat_read_two(int fd, void *first, size_t first_octets, void *second, size_t second_octets) {
    struct iovec iov[2] = { { first, first_octets }, { second, second_octets } };
    return readv(fd, iov, 2);
}
static inline ssize_t mat_write_many(int fd, struct iovec *vectors, int count) { return writev(fd, vectors, count); }

// So that a burst of segments is not refused while the ones before it are leaving (SO_SNDBUFFORCE needs CAP_NET_ADMIN).
static inline void mat_send_buffer(int fd, int octets) {
    if (setsockopt(fd, SOL_SOCKET, 32 /* SO_SNDBUFFORCE */, &octets, sizeof octets) != 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &octets, sizeof octets);
}
