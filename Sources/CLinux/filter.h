// Classic BPF on a socket: the structure is hidden from Swift behind linux/filter.h, which Glibc's module does not have. No decisions live in
// this file.
#pragma once
#include "shim.h"
#include <linux/filter.h>
#include <string.h>

// The socket takes only datagrams for which the program says so; replaces an earlier program at once. Needs no privilege.
static inline int mat_attach_filter(int fd, const struct sock_filter *instructions, unsigned short count) {
    struct sock_fprog program = { count, (struct sock_filter *)instructions };
    return setsockopt(fd, SOL_SOCKET, 26 /* SO_ATTACH_FILTER */, &program, sizeof program);
}

// Datagrams that the kernel did not put into the socket's queue, by its filter or for want of room (SK_MEMINFO_DROPS); modulo 2^32.
static inline unsigned int mat_socket_drops(int fd) {
    unsigned int figures[9];
    socklen_t length = sizeof figures;
    memset(figures, 0, sizeof figures);
    return getsockopt(fd, SOL_SOCKET, 55 /* SO_MEMINFO */, figures, &length) == 0 && length == sizeof figures ? figures[8] : 0;
}
