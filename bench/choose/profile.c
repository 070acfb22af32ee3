// profile.c: a sampling profiler for one process (contract: profile.h).
//
// Clock     ITIMER_PROF: SIGPROF goes to a thread that is running; the handler stores its program
//           counter and nothing else. Names come afterwards: the object by dladdr, the function
//           from
//           its ELF symbol table (static functions, too), which stripped libraries lack.
#include "profile.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "../host.h"

enum { MOST = 1 << 16, INTERVAL_US = 1000 };

static uintptr_t seen[MOST];
static atomic_uint n_seen;

static void on_sample(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)info;
    const ucontext_t *u = context;
    unsigned i = atomic_fetch_add(&n_seen, 1);
#if defined(__x86_64__)
    if (i < MOST) seen[i] = (uintptr_t)u->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    if (i < MOST) seen[i] = (uintptr_t)u->uc_mcontext.pc;
#endif
}

// --- names ---------------------------------------------------------------------------------------

// One object file in memory and its symbols.
struct object { char path[512]; const uint8_t *map; size_t bytes; const Elf64_Sym *sym; size_t n;
                const char *str; };

static void find_symbols(struct object *o)
{
    const Elf64_Ehdr *eh = (const void *)o->map;
    if (o->bytes < sizeof *eh || memcmp(eh->e_ident, ELFMAG, SELFMAG)
        || eh->e_shoff + (size_t)eh->e_shnum * sizeof(Elf64_Shdr) > o->bytes)
        return;
    const Elf64_Shdr *sh = (const void *)(o->map + eh->e_shoff);
    for (int pass = 0; pass < 2 && !o->sym; pass++)              // all symbols, else the exported
        for (int i = 0; i < eh->e_shnum; i++) {
            if (sh[i].sh_type != (pass ? SHT_DYNSYM : SHT_SYMTAB) || sh[i].sh_link >= eh->e_shnum
                || sh[i].sh_offset + sh[i].sh_size > o->bytes
                || sh[sh[i].sh_link].sh_offset > o->bytes)
                continue;
            o->sym = (const void *)(o->map + sh[i].sh_offset);
            o->n = sh[i].sh_size / sizeof *o->sym;
            o->str = (const char *)o->map + sh[sh[i].sh_link].sh_offset;
        }
}

// The object of that path; mapped at its first use.
static const struct object *object_at(const char *path)
{
    static struct object all[64];
    static int n;
    for (int i = 0; i < n; i++)
        if (!strcmp(all[i].path, path)) return &all[i];
    if (n == 64) return NULL;
    struct object *o = &all[n++];
    snprintf(o->path, sizeof o->path, "%.511s", path);
    int fd = open(strchr(path, '/') && access(path, R_OK) == 0 ? path : "/proc/self/exe",
                  O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0) return o;
    if (!fstat(fd, &st) && st.st_size > 0) {
        void *m = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (m != MAP_FAILED) {
            o->map = m;
            o->bytes = (size_t)st.st_size;
            find_symbols(o);
        }
    }
    close(fd);
    return o;
}

static void name_of(uintptr_t pc, struct profile_row *row)
{
    Dl_info info;
    *row = (struct profile_row){ .object = "?", .function = "?" };
    if (!dladdr((void *)pc, &info) || !info.dli_fname) return;
    const char *slash = strrchr(info.dli_fname, '/');
    snprintf(row->object, sizeof row->object, "%.63s", slash ? slash + 1 : info.dli_fname);
    const struct object *o = object_at(info.dli_fname);
    uintptr_t at = pc - (uintptr_t)info.dli_fbase;
    for (size_t i = 0; o && i < o->n; i++) {
        const Elf64_Sym *s = &o->sym[i];
        if (ELF64_ST_TYPE(s->st_info) != STT_FUNC || at < s->st_value
            || at >= s->st_value + s->st_size)
            continue;
        snprintf(row->function, sizeof row->function, "%.95s", o->str + s->st_name);
        row->function[strcspn(row->function, ".@")] = '\0';     // parts that the compiler made
        return;
    }
}

static int by_samples(const void *a, const void *b)
{
    const struct profile_row *x = a, *y = b;
    return (x->samples < y->samples) - (x->samples > y->samples);
}

static int collect(struct profile *out)
{
    size_t n = atomic_load(&n_seen);
    n = n < MOST ? n : MOST;
    out->rows = calloc(n + 1, sizeof *out->rows);
    if (!out->rows) return hb_fail(HB_ERR_OOM, "no memory for the profile");
    for (size_t i = 0; i < n; i++) {
        struct profile_row row;
        size_t k = 0;
        name_of(seen[i], &row);
        while (k < out->n && (strcmp(out->rows[k].object, row.object)
                              || strcmp(out->rows[k].function, row.function)))
            k++;
        if (k == out->n) out->rows[out->n++] = row;
        out->rows[k].samples++;
    }
    out->samples = n;
    qsort(out->rows, out->n, sizeof *out->rows, by_samples);
    return 0;
}

// --- the run -------------------------------------------------------------------------------------

int hb_profile(int (*body)(void *), void *ctx, double seconds, struct profile *out)
{
    *out = (struct profile){ 0 };
    atomic_store(&n_seen, 0);
    struct sigaction sa = { .sa_flags = SA_RESTART | SA_SIGINFO }, before;
    sa.sa_sigaction = on_sample;
    sigemptyset(&sa.sa_mask);
    struct itimerval on = { { 0, INTERVAL_US }, { 0, INTERVAL_US } }, off = { { 0, 0 }, { 0, 0 } };
    int rc = body(ctx);                              // warm
    if (rc) return rc;
    if (sigaction(SIGPROF, &sa, &before) || setitimer(ITIMER_PROF, &on, NULL))
        return hb_fail(HB_ERR_RUN, "the sampling clock cannot be started");
    int64_t end = hb_now_ns() + (int64_t)(1e9 * seconds);
    while (!rc && hb_now_ns() < end) rc = body(ctx);
    setitimer(ITIMER_PROF, &off, NULL);
    sa.sa_flags = 0;
    sa.sa_handler = SIG_IGN;                         // one may still be on its way
    sigaction(SIGPROF, &sa, NULL);
    return rc ? rc : collect(out);
}

void hb_profile_free(struct profile *p)
{
    free(p->rows);
    *p = (struct profile){ 0 };
}
