// What Glibc's Swift module hides: each piece says why it is here. No logic lives in this file.
#pragma once
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/epoll.h>      // not part of the Glibc module map
#include <sys/eventfd.h>    // likewise
#include <sys/signalfd.h>   // likewise
#include <sys/un.h>
#include <sys/xattr.h>      // likewise
#include <sys/ioctl.h>
#include <netinet/in.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// ioctl() is variadic, which Swift can't call.
static inline int mat_ioctl(int fd, unsigned long request, void *argument) { return ioctl(fd, request, argument); }

// open(2) with and without a mode is variadic too.
static inline int mat_open(const char *path, int flags, mode_t mode) { return open(path, flags, mode); }
static inline int mat_open_at(int directory, const char *name, int flags, mode_t mode) { return openat(directory, name, flags, mode); }
// O_PATH (asm-generic/fcntl.h) is hidden without _GNU_SOURCE: stands for what is at a path, behind links, and opens it not.
static inline int mat_open_path(const char *path) { return open(path, 010000000 | O_CLOEXEC); }
// O_TMPFILE (asm-generic/fcntl.h) likewise: a new file in a directory, without a name, so that it ends with who has it open.
static inline int mat_open_unnamed(int directory, mode_t mode) { return openat(directory, ".", 020000000 | O_DIRECTORY | O_WRONLY | O_CLOEXEC, mode); }
// Its name, by way of /proc: AT_EMPTY_PATH would take CAP_DAC_READ_SEARCH.
static inline int mat_name_unnamed(int descriptor, int directory, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    return linkat(AT_FDCWD, path, directory, name, AT_SYMLINK_FOLLOW);
}

// Not part of the Glibc module map. Reads the kernel's clock discipline and changes nothing (modes = 0), which needs no privilege.
#include <sys/timex.h>
static inline int mat_clock_is_synchronized(void) {
    struct timex t;
    memset(&t, 0, sizeof t);
    int state = adjtimex(&t);
    return state >= 0 && state != TIME_ERROR && !(t.status & STA_UNSYNC);
}

// CMSG_* are macros with statement bodies. A datagram's local address travels in one control message; the pair of
// functions below reads and writes it for both families on an AF_INET6 socket (IPV6_PKTINFO, IPv4 in mapped form).
#define MAT_CONTROL_BYTES 64

// struct in6_pktinfo and struct ucred are hidden without _GNU_SOURCE, and with it this module's fd_set would
// contradict Glibc's. They are kernel ABI (linux/ipv6.h, linux/socket.h), so their layout can be stated here.
struct mat_in6_pktinfo { struct in6_addr ipi6_addr; unsigned int ipi6_ifindex; };
struct mat_ucred { pid_t pid; uid_t uid; gid_t gid; };
#ifndef IPV6_PKTINFO
#define IPV6_PKTINFO 50
#endif

struct mat_datagram {
    struct in6_addr peer;      // where it came from or goes to
    unsigned short peer_port;  // host order
    struct in6_addr local;     // the address it was sent to or is sent from; all zero: the kernel chooses
    unsigned int interface_index;
    unsigned int peer_scope;
};

static inline ssize_t mat_receive(int fd, void *buffer, size_t capacity, struct mat_datagram *d) {
    struct sockaddr_in6 from;
    char control[MAT_CONTROL_BYTES] __attribute__((aligned(8)));
    struct iovec iov = { buffer, capacity };
    struct msghdr m;
    memset(&m, 0, sizeof m);
    m.msg_name = &from; m.msg_namelen = sizeof from;
    m.msg_iov = &iov; m.msg_iovlen = 1;
    m.msg_control = control; m.msg_controllen = sizeof control;
    ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0) return n;
    memset(d, 0, sizeof *d);
    d->peer = from.sin6_addr; d->peer_port = ntohs(from.sin6_port); d->peer_scope = from.sin6_scope_id;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct mat_in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            d->local = info.ipi6_addr; d->interface_index = info.ipi6_ifindex;
        }
    return n;
}

static inline ssize_t mat_send(int fd, const void *buffer, size_t length, const struct mat_datagram *d) {
    struct sockaddr_in6 to;
    char control[MAT_CONTROL_BYTES] __attribute__((aligned(8)));
    struct iovec iov = { (void *)buffer, length };
    struct msghdr m;
    memset(&to, 0, sizeof to); memset(&m, 0, sizeof m); memset(control, 0, sizeof control);
    to.sin6_family = AF_INET6; to.sin6_addr = d->peer; to.sin6_port = htons(d->peer_port); to.sin6_scope_id = d->peer_scope;
    m.msg_name = &to; m.msg_namelen = sizeof to;
    m.msg_iov = &iov; m.msg_iovlen = 1;
    static const struct in6_addr any;
    if (memcmp(&d->local, &any, sizeof any) != 0) {
        struct mat_in6_pktinfo info;
        memset(&info, 0, sizeof info);
        info.ipi6_addr = d->local; info.ipi6_ifindex = d->interface_index;
        m.msg_control = control; m.msg_controllen = CMSG_SPACE(sizeof info);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = IPPROTO_IPV6; c->cmsg_type = IPV6_PKTINFO; c->cmsg_len = CMSG_LEN(sizeof info);
        memcpy(CMSG_DATA(c), &info, sizeof info);
    }
    return sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// How much of a socket's send buffer is taken by what has not left yet. SIOCOUTQ is a macro of linux/sockios.h.
#include <linux/sockios.h>
static inline int mat_octets_waiting(int fd) { int octets = 0; return ioctl(fd, SIOCOUTQ, &octets) == 0 ? octets : 0; }

// Who is at the other end of a Unix socket (SO_PEERCRED).
static inline int mat_peer_uid(int fd, uid_t *uid) {
    struct mat_ucred credentials; socklen_t length = sizeof credentials;
    int r = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length);
    if (r == 0) *uid = credentials.uid;
    return r;
}

// Likewise the process that connected, 0 if it is in a PID namespace that this one does not see.
static inline pid_t mat_peer_process(int fd) {
    struct mat_ucred credentials; socklen_t length = sizeof credentials;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0 ? credentials.pid : 0;
}

// A descriptor that stands for that process (SO_PEERPIDFD, Linux 6.5), whatever becomes of its number; below 0 where the kernel has none.
static inline int mat_peer_process_descriptor(int fd) {
    int descriptor = -1; socklen_t length = sizeof descriptor;
    return getsockopt(fd, SOL_SOCKET, 77, &descriptor, &length) == 0 ? descriptor : -1;
}

// pidfd_open(2), which Glibc's module leaves out.
#include <sys/syscall.h>
static inline int mat_open_process(pid_t process) { return (int)syscall(SYS_pidfd_open, process, 0); }

// A file system of control groups of version 2 that is mounted nowhere, and goes with the descriptor: fsopen(2), fsconfig(2) with FSCONFIG_CMD_CREATE,
// fsmount(2). None of them has a wrapper in Debian 12's Glibc that Swift sees. Needs CAP_SYS_ADMIN.
static inline int mat_open_control_groups(void) {
    int context = (int)syscall(SYS_fsopen, "cgroup2", 1);
    if (context < 0) return -1;
    int mount = -1;
    if (syscall(SYS_fsconfig, context, 6, NULL, NULL, 0) == 0) mount = (int)syscall(SYS_fsmount, context, 1, 0);
    close(context);
    return mount;
}

// The number that the kernel knows a socket's network namespace by, for life (SO_NETNS_COOKIE, Linux 5.14); 0 if it does not say.
static inline unsigned long long mat_network_cookie(int fd) {
    unsigned long long cookie = 0; socklen_t length = sizeof cookie;
    return getsockopt(fd, SOL_SOCKET, 71, &cookie, &length) == 0 ? cookie : 0;
}

// What malloc has given out and not got back, for tests of how much something costs. Glibc's Swift module leaves <malloc.h> out.
#include <malloc.h>
static inline size_t mat_allocated_octets(void) { struct mallinfo2 m = mallinfo2(); return m.uordblks + m.hblkhd; }

// Lets short sleeps of the calling thread end when they should rather than 50 us later.
#include <sys/prctl.h>
static inline void mat_sleep_exactly(void) { prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL); }

// The processors that this process may run on (sched_getaffinity(2)), which glibc declares only with _GNU_SOURCE; 1 if that can't be told.
#include <sys/syscall.h>
static inline int mat_cores(void) {
    unsigned long mask[64];
    memset(mask, 0, sizeof mask);
    if (syscall(SYS_sched_getaffinity, 0, sizeof mask, mask) < 0) return 1;
    int count = 0;
    for (size_t i = 0; i < sizeof mask / sizeof *mask; i++) count += __builtin_popcountl(mask[i]);
    return count > 0 ? count : 1;
}

// MADV_HUGEPAGE is hidden without _GNU_SOURCE; kernel ABI (asm-generic/mman-common.h).
enum { mat_advice_huge_pages = 14 };

// Swift has no word for "this will be read soon".
static inline void mat_prefetch(const void *place) { __builtin_prefetch(place, 0, 3); }
