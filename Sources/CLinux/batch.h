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

// The kernel's limit net.core.rmem_max, unless the daemon may go beyond it (SO_RCVBUFFORCE, which needs CAP_NET_ADMIN).
static inline void mat_receive_buffer(int fd, int octets) {
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &octets, sizeof octets) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &octets, sizeof octets);
}
