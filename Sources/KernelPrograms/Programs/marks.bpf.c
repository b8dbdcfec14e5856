// Marks sockets when they are made, by the control group of the process that makes them: what `mat run` puts programs into.
#include "kernel.h"

// The network namespace whose routing rules know the mark; sockets of others, which a program may enter, stay as they are.
struct marking { u64 network; u32 mark, room; };
extern struct map marking;  // one of struct marking

PROGRAM(mark)
int mark(struct bpf_sock *socket) {
    u32 key = 0;
    struct marking *our = map_look_up(&marking, &key);
    // A group within this one has marked it already: the innermost counts.
    if (our && socket->mark == 0 && network_of(socket) == our->network) socket->mark = our->mark;
    // Whatever it is, it may be made.
    return 1;
}
