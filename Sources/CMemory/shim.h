// What a program occupies. A module of its own, because what it includes would hide parts of others'.
#pragma once
#include <malloc.h>
#include <stddef.h>
#include <unistd.h>
// dl_iterate_phdr(3) is hidden without _GNU_SOURCE, and its callback gets a structure of macros. Says of each loaded part of the
// program and its libraries that is only read or executed that its pages need not stay: they are in the files. Parts that are
// written, and with them what the loader relocated, are left alone.
#include <sys/mman.h>
#include <stdint.h>
#include <elf.h>
struct mat_phdr_info { Elf64_Addr address; const char *name; const Elf64_Phdr *headers; Elf64_Half count; };
struct dl_phdr_info;
extern int dl_iterate_phdr(int (*callback)(struct dl_phdr_info *, size_t, void *), void *data);
static inline int mat_forget_part(struct dl_phdr_info *opaque, size_t size, void *data) {
    const struct mat_phdr_info *info = (const struct mat_phdr_info *)(const void *)opaque;
    (void)size; (void)data;
    for (Elf64_Half i = 0; i < info->count; i++) {
        const Elf64_Phdr *part = &info->headers[i];
        if (part->p_type != PT_LOAD || (part->p_flags & PF_W)) continue;
        uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
        uintptr_t start = (info->address + part->p_vaddr + page - 1) & ~(page - 1);
        uintptr_t end = (info->address + part->p_vaddr + part->p_memsz) & ~(page - 1);
        if (start < end) madvise((void *)start, end - start, MADV_DONTNEED);
    }
    return 0;
}
static inline void mat_forget_code(void) { dl_iterate_phdr(mat_forget_part, NULL); }

// Gives the free ends of the heap back; <malloc.h> is not in Glibc's Swift module.
static inline void mat_trim_heap(void) { malloc_trim(0); }
