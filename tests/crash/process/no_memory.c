/* Allocations that fail: Python's own in all their kinds, and those of LMDB.

   Loaded into a running process. Allocations are counted from `no_memory_from` on; those with the numbers `first` to
   `last` fail. LMDB calls malloc by way of its module's table of addresses, where ours are put instead. */

#define _GNU_SOURCE
#include <Python.h>
#include <elf.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static PyMemAllocatorEx real[3];
static long counted, first_bad, last_bad;

static int refused(void) {
    long number = __atomic_add_fetch(&counted, 1, __ATOMIC_RELAXED);
    return number >= first_bad && number <= last_bad;
}

static void *hook_malloc(void *kind, size_t size) {
    PyMemAllocatorEx *python = kind;
    return refused() ? NULL : python->malloc(python->ctx, size);
}

static void *hook_calloc(void *kind, size_t count, size_t size) {
    PyMemAllocatorEx *python = kind;
    return refused() ? NULL : python->calloc(python->ctx, count, size);
}

static void *hook_realloc(void *kind, void *old, size_t size) {
    PyMemAllocatorEx *python = kind;
    return refused() ? NULL : python->realloc(python->ctx, old, size);
}

static void hook_free(void *kind, void *old) {
    PyMemAllocatorEx *python = kind;
    python->free(python->ctx, old);
}

/* From here on allocations count, and those with these numbers fail. */
void no_memory_from(long first, long last) {
    counted = 0;
    first_bad = first;
    last_bad = last;
    for (int kind = 0; kind < 3; kind++) {
        PyMemAllocatorEx ours = {&real[kind], hook_malloc, hook_calloc, hook_realloc, hook_free};
        PyMem_GetAllocator(kind, &real[kind]);
        PyMem_SetAllocator(kind, &ours);
    }
}

/* All is as before; gives back how many there were. */
long no_memory_end(void) {
    for (int kind = 0; kind < 3; kind++)
        PyMem_SetAllocator(kind, &real[kind]);
    first_bad = last_bad = 0;
    return counted;
}

/* ---- LMDB */

static void *lmdb_malloc(size_t size) { return refused() ? NULL : malloc(size); }
static void *lmdb_calloc(size_t count, size_t size) { return refused() ? NULL : calloc(count, size); }
static void *lmdb_realloc(void *old, size_t size) { return refused() ? NULL : realloc(old, size); }

static const struct { const char *name; void *ours; } replaced[] = {
    {"malloc", lmdb_malloc}, {"calloc", lmdb_calloc}, {"realloc", lmdb_realloc},
};

static int put_ours(const ElfW(Rela) *entry, size_t size, const ElfW(Sym) *symbols, const char *names, ElfW(Addr) base) {
    int put = 0;
    long page = sysconf(_SC_PAGESIZE);
    for (; size >= sizeof *entry; entry++, size -= sizeof *entry) {
        const char *name = names + symbols[ELF64_R_SYM(entry->r_info)].st_name;
        for (size_t i = 0; i < sizeof replaced / sizeof *replaced; i++) {
            ElfW(Addr) at = base + entry->r_offset;
            if (strcmp(name, replaced[i].name))
                continue;
            if (mprotect((void *)(at & -page), page, PROT_READ | PROT_WRITE))
                return -1;
            *(void **)at = replaced[i].ours;
            put++;
        }
    }
    return put;
}

static int replace(struct dl_phdr_info *module, size_t size, void *wanted) {
    const ElfW(Rela) *calls = NULL, *data = NULL;
    const ElfW(Sym) *symbols = NULL;
    const char *names = NULL;
    size_t of_calls = 0, of_data = 0;
    (void)size;
    if (!strstr(module->dlpi_name, wanted))
        return 0;
    for (int i = 0; i < module->dlpi_phnum; i++) {
        if (module->dlpi_phdr[i].p_type != PT_DYNAMIC)
            continue;
        const ElfW(Dyn) *entry = (const void *)(module->dlpi_addr + module->dlpi_phdr[i].p_vaddr);
        for (; entry->d_tag != DT_NULL; entry++) {
            const void *at = (const void *)entry->d_un.d_ptr;
            switch (entry->d_tag) {
            case DT_JMPREL: calls = at; break;
            case DT_PLTRELSZ: of_calls = entry->d_un.d_val; break;
            case DT_RELA: data = at; break;
            case DT_RELASZ: of_data = entry->d_un.d_val; break;
            case DT_SYMTAB: symbols = at; break;
            case DT_STRTAB: names = at; break;
            }
        }
    }
    return put_ours(calls, of_calls, symbols, names, module->dlpi_addr)
        + put_ours(data, of_data, symbols, names, module->dlpi_addr);
}

/* Allocations of the module whose file has this in its name count and fail, too. Gives back how many places call them. */
int no_memory_for(const char *wanted) {
    return dl_iterate_phdr(replace, (void *)wanted);
}
