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
