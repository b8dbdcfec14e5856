// What Glibc's Swift module hides: each piece says why it is here. No logic lives in this file.
#pragma once
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/types.h>
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
