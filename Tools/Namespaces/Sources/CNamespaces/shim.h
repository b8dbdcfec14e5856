// What Glibc's Swift module hides: each piece says why it is here. No logic lives in this file.
#pragma once
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

// setns() is declared only with _GNU_SOURCE, which Swift's Glibc module does not define. CLONE_NEWNET is as well.
extern int setns(int fd, int nstype);
static inline int namespaces_enter_network(int fd) { return setns(fd, 0x40000000); }

// syscall() is variadic, which Swift can't call. A descriptor that becomes readable when the process ends.
static inline int namespaces_open_process(pid_t process) { return (int)syscall(SYS_pidfd_open, process, 0); }

// Extensions of glibc, likewise hidden: closing all descriptors from one on, and a session of the child's own.
extern int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *, int);
static inline int namespaces_spawn_close_from(posix_spawn_file_actions_t *actions, int from) { return posix_spawn_file_actions_addclosefrom_np(actions, from); }
static const short namespaces_spawn_new_session = 0x80; // POSIX_SPAWN_SETSID

// ioctl() is variadic, which Swift can't call. Makes a descriptor of /dev/net/tun an interface of packets. Whole ones have a virtio_net_hdr of
// 10 octets before them, which says what a card would still have to do: segments to be cut, a checksum to be completed.
static inline int namespaces_make_tunnel(int fd, const char *name, int whole) {
    struct ifreq request;
    memset(&request, 0, sizeof request);
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    request.ifr_flags = IFF_TUN | IFF_NO_PI | (whole ? IFF_VNET_HDR : 0);
    if (ioctl(fd, TUNSETIFF, &request) < 0) return -1;
    if (!whole) return 0;
    unsigned long offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    // Bits 5 and 6, datagrams to be cut: from Linux 6.2 on.
    if (ioctl(fd, TUNSETOFFLOAD, offloads | 0x60) == 0) return 0;
    return ioctl(fd, TUNSETOFFLOAD, offloads);
}

// A GNU extension: poll() with nanoseconds.
extern int ppoll(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
static inline int namespaces_wait(struct pollfd *fds, int count, const struct timespec *time) { return ppoll(fds, (nfds_t)count, time, 0); }
