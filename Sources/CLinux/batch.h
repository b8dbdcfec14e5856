// Many datagrams by one call. Layouts and macros that Swift can't see; no decisions live in this file.
#pragma once
#include "shim.h"
#include "traffic.h"

// What one message of a batch needs beside its header.
struct mat_slot {
    struct sockaddr_in6 name;
    struct iovec iov;
    char control[MAT_CONTROL_BYTES] __attribute__((aligned(8)));
};

// Makes a message ready to receive into the buffer. The kernel changes the lengths, so this goes before each call.
static inline void mat_batch_receives(struct mat_message *m, struct mat_slot *s, void *buffer, size_t capacity) {
    s->iov.iov_base = buffer; s->iov.iov_len = capacity;
    m->header.msg_name = &s->name; m->header.msg_namelen = sizeof s->name;
    m->header.msg_iov = &s->iov; m->header.msg_iovlen = 1;
    m->header.msg_control = s->control; m->header.msg_controllen = sizeof s->control;
    m->header.msg_flags = 0;
}

// Where the message came from, and the address it was sent to. Forgets over which interface it came: routing decides about answers.
static inline void mat_batch_received(struct mat_message *m, struct mat_slot *s, struct mat_datagram *d) {
    memset(d, 0, sizeof *d);
    d->peer = s->name.sin6_addr; d->peer_port = ntohs(s->name.sin6_port); d->peer_scope = s->name.sin6_scope_id;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m->header); c; c = CMSG_NXTHDR(&m->header, c))
        if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct mat_in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            d->local = info.ipi6_addr;
            info.ipi6_ifindex = 0;
            memcpy(CMSG_DATA(c), &info, sizeof info);
        }
}

// Makes an answer to a received message: to where it came from, from the address it was sent to (the same control message again).
static inline void mat_batch_answers(
    struct mat_message *m, struct iovec *iov, void *buffer, size_t length, const struct mat_message *received) {
    iov->iov_base = buffer; iov->iov_len = length;
    m->header = received->header;
    m->header.msg_iov = iov;
    m->header.msg_flags = 0;
}

// The traffic class (DSCP and ECN) that a message came with; 0 if the kernel was not asked to tell.
static inline int mat_batch_traffic_class(struct mat_message *m) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m->header); c; c = CMSG_NXTHDR(&m->header, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) return *(unsigned char *)CMSG_DATA(c);
        if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) {
            int class;
            memcpy(&class, CMSG_DATA(c), sizeof class);
            return class & 0xFF;
        }
    }
    return 0;
}

// What a message that passes octets on needs beside its header: room for address, traffic class and segment size.
#define MAT_SENT_CONTROL_BYTES 96
struct mat_sent_slot {
    struct sockaddr_in6 name;
    char control[MAT_SENT_CONTROL_BYTES] __attribute__((aligned(8)));
};

// Puts one more control message behind those that are there. Whoever calls knows that there is room.
static inline void mat_batch_add_control(struct mat_message *m, int level, int type, const void *value, size_t length) {
    struct cmsghdr *c = (struct cmsghdr *)((char *)m->header.msg_control + m->header.msg_controllen);
    c->cmsg_level = level; c->cmsg_type = type; c->cmsg_len = CMSG_LEN(length);
    memcpy(CMSG_DATA(c), value, length);
    m->header.msg_controllen += CMSG_SPACE(length);
}

// Makes a message that sends the octets of one vector, from where they lie, from one address to another.
static inline void mat_batch_forwards(
    struct mat_message *m, struct mat_sent_slot *s, struct iovec *octets, const struct mat_datagram *d, int traffic_class) {
    struct mat_in6_pktinfo info;
    memset(&s->name, 0, sizeof s->name);
    s->name.sin6_family = AF_INET6; s->name.sin6_addr = d->peer; s->name.sin6_port = htons(d->peer_port);
    m->header.msg_name = &s->name; m->header.msg_namelen = sizeof s->name;
    m->header.msg_iov = octets; m->header.msg_iovlen = 1;
    m->header.msg_control = s->control; m->header.msg_controllen = 0;
    m->header.msg_flags = 0;
    memset(&info, 0, sizeof info);
    info.ipi6_addr = d->local;
    mat_batch_add_control(m, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    if (traffic_class == 0) return;
    int is_ipv4 = IN6_IS_ADDR_V4MAPPED(&d->peer);
    mat_batch_add_control(m, is_ipv4 ? IPPROTO_IP : IPPROTO_IPV6, is_ipv4 ? IP_TOS : IPV6_TCLASS, &traffic_class, sizeof traffic_class);
}

// The message has several vectors, and each goes as a datagram of its own: all of this size, the last may be shorter.
static inline void mat_batch_segments(struct mat_message *m, unsigned short size) {
    mat_batch_add_control(m, 17 /* SOL_UDP */, 103 /* UDP_SEGMENT */, &size, sizeof size);
}

// Of a message with segments: only the datagram in this vector.
static inline struct mat_message mat_batch_segment(const struct mat_message *m, size_t number) {
    struct mat_message one = *m;
    one.header.msg_iov = m->header.msg_iov + number; one.header.msg_iovlen = 1;
    one.header.msg_controllen -= CMSG_SPACE(sizeof(unsigned short));
    return one;
}
_Static_assert(
    CMSG_SPACE(sizeof(struct mat_in6_pktinfo)) + CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(unsigned short)) <= MAT_SENT_CONTROL_BYTES,
    "room for address, traffic class and segment size");

// The kernel's limit net.core.rmem_max, unless the daemon may go beyond it (SO_RCVBUFFORCE, which needs CAP_NET_ADMIN).
static inline void mat_receive_buffer(int fd, int octets) {
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &octets, sizeof octets) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &octets, sizeof octets);
}
