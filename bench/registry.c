// registry.c: finds the implementations (contract: host.h, hb.h).
//
// Every *.so of <build>/impls and of the folders in $HYENA_BENCH_IMPLS becomes one row: usable, or
// with the reason why not. What comes from a file is checked before it is believed: the ELF headers
// against the file's size (dlopen of a cut file ends in SIGBUS), then the exported structure.
// Plug-ins stay loaded until exit; that also keeps their symbols in sanitizer reports.
#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "choose/choose.h"
#include "cli.h"
#include "point.h"

static struct { struct hb_plugin *rows; int n, cap; bool loaded; } reg;

// --- one file ------------------------------------------------------------------------------------

// NULL if the loader can map the file, else what is wrong with it.
static const char *elf_problem(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) return strerror(errno);
    if (!S_ISREG(st.st_mode))
        return "not a regular file";  // opening a pipe would wait for its writer
    FILE *f = fopen(path, "rbe");
    if (!f) return strerror(errno);
    const char *why = NULL;
    Elf64_Ehdr eh;
    if (fread(&eh, sizeof eh, 1, f) != 1 || memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0)
        why = "not an ELF file";
    else if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_type != ET_DYN)
        why = "not a 64-bit shared object";
    else if (eh.e_phentsize != sizeof(Elf64_Phdr) || eh.e_phnum == 0) why = "bad ELF header";
    for (int i = 0; !why && i < eh.e_phnum; i++) {
        Elf64_Phdr ph;
        uint64_t size = (uint64_t)st.st_size;
        if (fseek(f, (long)(eh.e_phoff + (uint64_t)i * sizeof ph), SEEK_SET) != 0 ||
            fread(&ph, sizeof ph, 1, f) != 1)
            why = "the file is cut off";
        else if (ph.p_offset > size || ph.p_filesz > size - ph.p_offset)
            why = "the file is cut off";
    }
    fclose(f);
    return why;
}

// The operator that a name belongs to by its prefix, or HB_OP_COUNT.
static enum hb_op op_of_name(const char *name)
{
    for (int op = 0; op < HB_OP_COUNT; op++) {
        size_t n = strlen(hb_op_str((enum hb_op)op));
        if (strncmp(name, hb_op_str((enum hb_op)op), n) == 0 && (name[n] == '\0' || name[n] == '_'))
            return (enum hb_op)op;
    }
    return HB_OP_COUNT;
}

static bool good_name(const char *name)
{
    size_t n = 0;
    for (; name[n]; n++)
        if (!(islower((unsigned char)name[n]) || isdigit((unsigned char)name[n]) || name[n] == '_'))
            return false;
    return n > 0 && n < HB_NAME_MAX / 2;       // two of them and a colon make an operator's name
}

static const char *structure_problem(const struct hb_impl *im, const char *stem, char *buf,
                                     size_t cap)
{
    if (im->abi != HB_ABI_VERSION) {
        snprintf(buf, cap, "built for ABI version %d, this program has %d", im->abi,
                 HB_ABI_VERSION);
        return buf;
    }
    if (!im->name || strcmp(im->name, stem) != 0) {
        snprintf(buf, cap, "its name is '%.100s', its file says '%.100s'", im->name ? im->name : "",
                 stem);
        return buf;
    }
    if (!good_name(stem)) return "a name has lower-case letters, digits and _, at most 63";
    bool oper = im->op == HB_HYENA || im->op == HB_MHA;
    if ((unsigned)im->op >= HB_OP_COUNT || op_of_name(stem) != im->op)
        return "its name must begin with its operator";
    if (!oper && strlen(stem) == strlen(hb_op_str(im->op)))
        return "its name must be <operator>_<method>";
    bool any = im->device && strcmp(im->device, "any") == 0;
    if (!im->device || (strcmp(im->device, "cpu") && strcmp(im->device, "cuda") && !any))
        return "device must be cpu, cuda or any";
    if (any && !oper) return "device any is for hyena and mha: what is inside decides";
    if (!im->dtypes || im->dtypes >> HB_DTYPE_COUNT) return "dtypes is empty or has unknown bits";
    if (!im->source || !*im->source) return "it does not say its source";
    if (!im->complexity || !*im->complexity) return "it does not say its complexity";
    if (!im->plan || !im->forward || !im->destroy) return "plan, forward and destroy must be there";
    if (oper && !im->tensors) return "an operator must have tensors";
    return NULL;
}

static void stem_of(const char *path, char *stem, size_t cap)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path,
               *dot = strrchr(name, '.');
    snprintf(stem, cap, "%.*s", (int)(dot ? dot - name : (ptrdiff_t)strlen(name)), name);
}

static void load_file(struct hb_plugin *pl)
{
    char stem[256], buf[400];
    stem_of(pl->path, stem, sizeof stem);
    const char *why = elf_problem(pl->path);
    if (!why && hb_sha256_file(pl->path, pl->sha256)) {
        hb_error_clear();
        why = "cannot be read";
    }
    void *lib = why ? NULL : dlopen(pl->path, RTLD_NOW | RTLD_LOCAL);
    if (!why && !lib) {
        snprintf(buf, sizeof buf, "%s", dlerror());
        why = buf;
    }
    const struct hb_impl *im = lib ? dlsym(lib, "hb_impl") : NULL;
    if (!why && !im) why = "exports no hb_impl";
    if (!why) why = structure_problem(im, stem, buf, sizeof buf);
    for (int i = 0; !why && i < reg.n; i++) {
        if (!reg.rows[i].impl || strcmp(reg.rows[i].impl->name, im->name)) continue;
        snprintf(buf, sizeof buf, "%.300s has this name already", reg.rows[i].path);
        why = buf;
    }
    if (why) snprintf(pl->why_not, sizeof pl->why_not, "%s", why);
    else pl->impl = im;
}

// --- folders -------------------------------------------------------------------------------------

static int is_plugin(const struct dirent *e)
{
    return e->d_name[0] != '.' && hb_ends_with(e->d_name, ".so");
}

static int load_folder(const char *dir)
{
    struct dirent **names;
    int n = scandir(dir, &names, is_plugin, alphasort);
    if (n < 0) return hb_fail(HB_ERR_INPUT, "cannot read the folder %s: %s", dir, strerror(errno));
    int rc = 0;
    for (int i = 0; i < n; i++) {
        if (rc == 0 && reg.n == reg.cap) {
            int cap = reg.cap ? 2 * reg.cap : 16;
            struct hb_plugin *rows = realloc(reg.rows, (size_t)cap * sizeof *rows);
            if (!rows) {
                rc = hb_fail(HB_ERR_OOM, "out of memory: list of implementations");
            } else {
                reg.rows = rows;
                reg.cap = cap;
            }
        }
        if (rc == 0) {
            struct hb_plugin *pl = &reg.rows[reg.n];
            memset(pl, 0, sizeof *pl);
            int len = snprintf(pl->path, sizeof pl->path, "%s/%s", dir, names[i]->d_name);
            if (len < 0 || (size_t)len >= sizeof pl->path)
                snprintf(pl->why_not, sizeof pl->why_not, "path too long");
            else load_file(pl);
            reg.n++;
        }
        free(names[i]);
    }
    free(names);
    return rc;
}

static int by_op_then_name(const void *a, const void *b)
{
    char sa[256], sb[256];
    stem_of(((const struct hb_plugin *)a)->path, sa, sizeof sa);
    stem_of(((const struct hb_plugin *)b)->path, sb, sizeof sb);
    int oa = (int)op_of_name(sa), ob = (int)op_of_name(sb);
    return oa != ob ? oa - ob : strcmp(sa, sb);
}

// Each folder of the colon-separated list; empty parts are skipped.
static int load_listed(const char *list)
{
    char *copy = strdup(list), *save = NULL;
    if (!copy) return hb_fail(HB_ERR_OOM, "out of memory: HYENA_BENCH_IMPLS");
    int rc = 0;
    for (char *dir = strtok_r(copy, ":", &save); dir && rc == 0; dir = strtok_r(NULL, ":", &save)) {
        struct stat st;
        if (stat(dir, &st) != 0 || !S_ISDIR(st.st_mode))
            rc = hb_fail(HB_ERR_INPUT, "HYENA_BENCH_IMPLS: '%s' is not a folder", dir);
        else
            rc = load_folder(dir);
    }
    free(copy);
    return rc;
}

// The implementations that choose another one: built in, where there is something to choose from.
static int add_autos(void)
{
    int n = reg.n;
    for (int k = 0; hb_auto_impl(k); k++) {
        const struct hb_impl *im = hb_auto_impl(k);
        bool some = false;
        for (int i = 0; i < n && !some; i++) {
            const struct hb_impl *other = reg.rows[i].impl;
            some = other && other->op == im->op && !strcmp(other->device, im->device);
        }
        if (!some) continue;
        struct hb_plugin *rows = realloc(reg.rows, ((size_t)reg.n + 1) * sizeof *rows);
        if (!rows) return hb_fail(HB_ERR_OOM, "out of memory: list of implementations");
        reg.rows = rows;
        reg.cap = reg.n + 1 > reg.cap ? reg.n + 1 : reg.cap;
        struct hb_plugin *pl = &rows[reg.n++];
        memset(pl, 0, sizeof *pl);
        snprintf(pl->path, sizeof pl->path, "(built in)/%s", im->name);
        pl->impl = im;
    }
    return 0;
}

int hb_registry_load(void)
{
    if (reg.loaded) return 0;
    struct stat st;
    const char *env = getenv("HYENA_BENCH_IMPLS");
    int rc = stat(hb_impls_dir(), &st) == 0 ? load_folder(hb_impls_dir())
                                            : 0;  // built elsewhere: none of ours
    if (rc == 0 && env) rc = load_listed(env);
    if (rc == 0) rc = add_autos();
    if (rc) {
        reg.n = 0;
        return rc;
    }
    if (reg.n) qsort(reg.rows, (size_t)reg.n, sizeof *reg.rows, by_op_then_name);
    reg.loaded = true;
    return 0;
}

int hb_registry_count(void) { return reg.n; }
const struct hb_plugin *hb_registry_at(int i) { return i >= 0 && i < reg.n ? &reg.rows[i] : NULL; }

// --- by name -------------------------------------------------------------------------------------

static const struct hb_plugin *find_plain(const char *name, size_t len)
{
    const struct hb_plugin *broken = NULL;
    for (int i = 0; i < reg.n; i++) {
        char stem[256];
        stem_of(reg.rows[i].path, stem, sizeof stem);
        if (strlen(stem) != len || strncmp(stem, name, len)) continue;
        if (reg.rows[i].impl) return &reg.rows[i];
        broken = &reg.rows[i];
    }
    return broken;
}

static const struct hb_impl *find_usable(const char *name, size_t len)
{
    const struct hb_plugin *pl = find_plain(name, len);
    if (pl && pl->impl) return pl->impl;
    if (pl) {
        hb_fail(HB_ERR_MISSING, "%.*s cannot be used: %s: %s", (int)len, name, pl->path,
                pl->why_not);
        return NULL;
    }
    char word[HB_NAME_MAX];
    snprintf(word, sizeof word, "%.*s", (int)len, name);
    if (len > 5 && strcmp(name + len - 5, "_cuda") == 0) {
        hb_fail(HB_ERR_MISSING, "%s is not there: no CUDA implementations are built", word);
        return NULL;
    }
    const char **known = reg.n ? malloc((size_t)reg.n * sizeof *known) : NULL;
    size_t n = 0;
    for (int i = 0; known && i < reg.n; i++)
        if (reg.rows[i].impl) known[n++] = reg.rows[i].impl->name;
    const char *near = hb_closest(word, known, n);
    hb_fail(HB_ERR_INPUT, "no implementation '%s'%s%s%s; 'hyena-bench list' shows all", word,
            near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
    free(known);
    return NULL;
}

const struct hb_impl *hb_registry_find(const char *name)
{
    size_t len = strcspn(name, ":");
    const struct hb_impl *outer = find_usable(name, len);
    if (!outer) return NULL;
    bool oper = outer->op == HB_HYENA || outer->op == HB_MHA;
    const char *inner = name[len] ? name + len + 1 : NULL;
    if (!inner) return outer;
    if (!oper) {
        hb_fail(HB_ERR_INPUT, "'%s': %s has nothing inside that could be chosen", name,
                outer->name);
        return NULL;
    }
    char chooser[HB_NAME_MAX];           // "hyena:auto": the cpu's until a device is known
    if (hb_auto_name(name, NULL, chooser)) inner = strchr(chooser, ':') + 1;
    const struct hb_impl *in = find_usable(inner, strlen(inner));
    enum hb_op want = outer->op == HB_HYENA ? HB_LONGCONV : HB_ATTENTION;
    if (in && in->op != want) {
        hb_fail(HB_ERR_INPUT, "'%s': inside of %s belongs a %s, not %s", name, outer->name,
                hb_op_str(want), inner);
        return NULL;
    }
    if (in && strcmp(outer->device, "any") && strcmp(in->device, outer->device)) {
        hb_fail(HB_ERR_INPUT, "'%s': %s is for %s, %s for %s", name, outer->name, outer->device,
                inner, in->device);
        return NULL;
    }
    return in ? outer : NULL;
}

bool hb_registry_has(const char *device)
{
    for (int i = 0; i < reg.n; i++)
        if (reg.rows[i].impl && strcmp(reg.rows[i].impl->device, device) == 0) return true;
    return false;
}

const char *hb_impl_device(const char *name)
{
    const struct hb_impl *outer = hb_registry_find(name);
    if (!outer) return NULL;
    const char *colon = strchr(name, ':');
    if (!colon || strcmp(outer->device, "any")) return outer->device;
    if (!strcmp(colon, ":auto")) return "any";
    return find_usable(colon + 1, strlen(colon + 1))->device;      // find has seen that it is there
}

const struct hb_plugin *hb_registry_plugin(const char *name)
{
    return find_plain(name, strcspn(name, ":"));
}

// --- what would run ------------------------------------------------------------------------------

// hex becomes the hash of itself, a name and the hash of what has that name.
static void chain(char hex[65], const char *name, const char *sha256)
{
    char line[65 + 256 + 65 + 2];
    int n = snprintf(line, sizeof line, "%s %.255s %s", hex, name, sha256);
    hb_sha256(line, (size_t)n, hex);
}

// A file that cannot be read counts as one without contents: it does not run either.
static void chain_file(char hex[65], const char *name, const char *path)
{
    char sha256[65];
    if (hb_sha256_file(path, sha256)) hb_error_clear();
    chain(hex, name, sha256);
}

int hb_code_sha256(char hex[65])
{
    char path[4300], stem[256];
    int rc = hb_registry_load();
    hex[0] = '\0';
    if (rc) return rc;
    chain_file(hex, "program", "/proc/self/exe");
    snprintf(path, sizeof path, "%s/cuda.so", hb_devices_dir());
    chain_file(hex, "device", path);
    for (int i = 0; i < reg.n; i++) {
        stem_of(reg.rows[i].path, stem, sizeof stem);
        chain(hex, stem, reg.rows[i].sha256);
    }
    return 0;
}
