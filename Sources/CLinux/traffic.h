// What the benchmark's traffic generator needs and Glibc's Swift module hides. No logic lives in this file.
#pragma once
#include <sys/socket.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

// struct mmsghdr and its two calls need _GNU_SOURCE, which this module can't define (see shim.h). The layout is kernel ABI.
struct mat_message { struct msghdr header; unsigned int length; };

static inline int mat_sendmmsg(int fd, struct mat_message *messages, unsigned int count, int flags) {
    return (int)syscall(SYS_sendmmsg, fd, messages, count, flags);
}
static inline int mat_recvmmsg(int fd, struct mat_message *messages, unsigned int count, int flags) {
    return (int)syscall(SYS_recvmmsg, fd, messages, count, flags, (void *)0);
}

// syscall() is variadic, which Swift can't call; setns() and sched_setaffinity() are hidden without _GNU_SOURCE.
static inline int mat_enter_network_namespace(int fd) { return (int)syscall(SYS_setns, fd, 0x40000000 /* CLONE_NEWNET */); }
static inline int mat_pin_thread(unsigned long cores) {
    return (int)syscall(SYS_sched_setaffinity, 0, sizeof cores, &cores) < 0 ? -1 : 0;
}

static inline int mat_thread_id(void) { return (int)syscall(SYS_gettid); }

// fcntl() is variadic as well.
static inline int mat_set_nonblocking(int fd) { return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

// malloc.h is not part of the Glibc module map. What is in use: of the heap, and of single mappings.
static inline size_t mat_heap_octets(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}
