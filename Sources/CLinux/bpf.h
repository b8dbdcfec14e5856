// bpf(2) has no wrapper in Glibc, and Swift imports none of the unnamed unions in `union bpf_attr`. No logic lives in this file.
#pragma once
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline int mat_bpf(int command, union bpf_attr *attributes) {
    return (int)syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

static inline int mat_bpf_map_create(unsigned int type, unsigned int key_octets, unsigned int value_octets, unsigned int entries_max) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.map_type = type; a.key_size = key_octets; a.value_size = value_octets; a.max_entries = entries_max;
    return mat_bpf(BPF_MAP_CREATE, &a);
}

// Likewise with a name, of 15 characters at most, and BPF_F_* flags.
static inline int mat_bpf_map_create_named(
    const char *name, unsigned int type, unsigned int key_octets, unsigned int value_octets, unsigned int entries_max, unsigned int flags) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.map_type = type; a.key_size = key_octets; a.value_size = value_octets; a.max_entries = entries_max; a.map_flags = flags;
    strncpy(a.map_name, name, sizeof a.map_name - 1);
    return mat_bpf(BPF_MAP_CREATE, &a);
}

static inline int mat_bpf_map_look_up(int map, const void *key, void *value) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.map_fd = (unsigned int)map; a.key = (unsigned long)key; a.value = (unsigned long)value;
    return mat_bpf(BPF_MAP_LOOKUP_ELEM, &a);
}

static inline int mat_bpf_map_delete(int map, const void *key) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.map_fd = (unsigned int)map; a.key = (unsigned long)key;
    return mat_bpf(BPF_MAP_DELETE_ELEM, &a);
}

// The first key if `key` is null, or not there any more.
static inline int mat_bpf_map_next(int map, const void *key, void *next) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.map_fd = (unsigned int)map; a.key = (unsigned long)key; a.next_key = (unsigned long)next;
    return mat_bpf(BPF_MAP_GET_NEXT_KEY, &a);
}

// Many elements by one call: BPF_MAP_LOOKUP_BATCH 24, BPF_MAP_UPDATE_BATCH 26, BPF_MAP_DELETE_BATCH 27 (kernel 5.6). `place`, of at least 4 octets and
// a key's, is where the last look-up ended, null at first; `count` says how many there is room for, and then how many there were.
static inline int mat_bpf_map_batch(int command, int map, const void *place, void *next, void *keys, void *values, unsigned int *count) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.batch.map_fd = (unsigned int)map; a.batch.in_batch = (unsigned long)place; a.batch.out_batch = (unsigned long)next;
    a.batch.keys = (unsigned long)keys; a.batch.values = (unsigned long)values; a.batch.count = *count;
    int r = mat_bpf(command, &a);
    *count = a.batch.count;
    return r;
}

static inline int mat_bpf_pin(int fd, const char *path) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.pathname = (unsigned long)path; a.bpf_fd = (unsigned int)fd;
    return mat_bpf(BPF_OBJ_PIN, &a);
}

static inline int mat_bpf_get(const char *path) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.pathname = (unsigned long)path;
    return mat_bpf(BPF_OBJ_GET, &a);
}

static inline int mat_bpf_link_update(int link, int program) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.link_update.link_fd = (unsigned int)link; a.link_update.new_prog_fd = (unsigned int)program;
    return mat_bpf(BPF_LINK_UPDATE, &a);
}

static inline int mat_bpf_link_detach(int link) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.link_detach.link_fd = (unsigned int)link;
    return mat_bpf(BPF_LINK_DETACH, &a);
}

// What a map, program or link is: the beginning of struct bpf_map_info, bpf_prog_info or bpf_link_info.
static inline int mat_bpf_information(int fd, void *information, unsigned int octets) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    memset(information, 0, octets);
    a.info.bpf_fd = (unsigned int)fd; a.info.info = (unsigned long)information; a.info.info_len = octets;
    return mat_bpf(BPF_OBJ_GET_INFO_BY_FD, &a);
}

// struct statfs is there twice, in two modules; of it only this matters: whether a directory is in a file system of BPF objects (BPF_FS_MAGIC).
#include <sys/vfs.h>
static inline int mat_is_bpf_file_system(const char *path) {
    struct statfs s;
    return statfs(path, &s) == 0 && (unsigned long)s.f_type == 0xCAFE4A11UL;
}

static inline int mat_bpf_map_update(int map, const void *key, const void *value) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.map_fd = (unsigned int)map; a.key = (unsigned long)key; a.value = (unsigned long)value;
    return mat_bpf(BPF_MAP_UPDATE_ELEM, &a);
}

// A log is asked for with a capacity above 0; `name` has 15 characters at most.
static inline int mat_bpf_load_classifier(
    const char *name, const void *instructions, unsigned int count, char *log, unsigned int log_capacity) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.prog_type = BPF_PROG_TYPE_SCHED_CLS;
    a.insns = (unsigned long)instructions; a.insn_cnt = count; a.license = (unsigned long)"GPL";
    strncpy(a.prog_name, name, sizeof a.prog_name - 1);
    if (log_capacity > 0) { a.log_level = 1; a.log_buf = (unsigned long)log; a.log_size = log_capacity; }
    return mat_bpf(BPF_PROG_LOAD, &a);
}

// attach_type: BPF_TCX_INGRESS 46, BPF_TCX_EGRESS 47 (kernel 6.6). The attachment ends with the returned descriptor.
static inline int mat_bpf_attach_tcx(int program, unsigned int interface_index, unsigned int attach_type) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.link_create.prog_fd = (unsigned int)program;
    a.link_create.target_fd = interface_index;  // shares its place with target_ifindex, which older headers lack
    a.link_create.attach_type = attach_type;
    return mat_bpf(BPF_LINK_CREATE, &a);
}

// Likewise for sockets when they are made (BPF_PROG_TYPE_CGROUP_SOCK, at BPF_CGROUP_INET_SOCK_CREATE).
static inline int mat_bpf_load_socket_program(
    const char *name, const void *instructions, unsigned int count, char *log, unsigned int log_capacity) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.prog_type = BPF_PROG_TYPE_CGROUP_SOCK; a.expected_attach_type = BPF_CGROUP_INET_SOCK_CREATE;
    a.insns = (unsigned long)instructions; a.insn_cnt = count; a.license = (unsigned long)"GPL";
    strncpy(a.prog_name, name, sizeof a.prog_name - 1);
    if (log_capacity > 0) { a.log_level = 1; a.log_buf = (unsigned long)log; a.log_size = log_capacity; }
    return mat_bpf(BPF_PROG_LOAD, &a);
}

// Ties a program to a control group, beside those that others have there. The tie ends with the group, and not with any process.
static inline int mat_bpf_attach_group(int program, int group) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.target_fd = (unsigned int)group; a.attach_bpf_fd = (unsigned int)program;
    a.attach_type = BPF_CGROUP_INET_SOCK_CREATE; a.attach_flags = BPF_F_ALLOW_MULTI;
    return mat_bpf(BPF_PROG_ATTACH, &a);
}

// How many programs are tied to a control group for sockets when they are made; below 0 if the kernel does not say.
static inline int mat_bpf_count_in_group(int group) {
    union bpf_attr a;
    memset(&a, 0, sizeof a);
    a.query.target_fd = (unsigned int)group; a.query.attach_type = BPF_CGROUP_INET_SOCK_CREATE;
    return mat_bpf(BPF_PROG_QUERY, &a) == 0 ? (int)a.query.prog_cnt : -1;
}
