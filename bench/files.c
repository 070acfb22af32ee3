// files.c: places on disk, whole-file writes and hashes (contract: host.h).
//
// A file appears whole or not at all: it is written beside its final name, flushed to the disk and
// renamed.
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"

// --- places --------------------------------------------------------------------------------------

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

// Removes the last component: "/a/b" -> "/a", "/a" -> "/".
static void to_parent(char *path)
{
    char *slash = strrchr(path, '/');
    if (slash == path) slash++;
    if (slash) *slash = '\0';
}

// The build folder by the executable's own place: build/hyena-bench lies in it, build/tests/test_x
// below it.
static const char *exe_build_dir(void)
{
    static char dir[4096];
    if (dir[0]) return dir;
    char exe[3900], impls[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    snprintf(exe + (n > 0 ? n : 0), sizeof exe - (size_t)(n > 0 ? n : 0), "%s",
             n > 0 ? "" : "./hyena-bench");
    to_parent(exe);
    snprintf(impls, sizeof impls, "%s/impls", exe);
    // Only from tests/: the parent of build/ has a folder impls, too, that of the sources.
    const char *name = strrchr(exe, '/');
    if (!is_folder(impls) && name && strcmp(name, "/tests") == 0) to_parent(exe);
    snprintf(dir, sizeof dir, "%s", exe);
    return dir;
}

const char *hb_impls_dir(void)
{
    static char dir[4200];
    if (!dir[0]) snprintf(dir, sizeof dir, "%s/impls", exe_build_dir());
    return dir;
}

const char *hb_devices_dir(void)
{
    static char dir[4200];
    if (!dir[0]) snprintf(dir, sizeof dir, "%s/devices", exe_build_dir());
    return dir;
}

const char *hb_build_dir(void)
{
    static char dir[4096];
    if (dir[0]) return dir;
    const char *env = getenv("HYENA_BENCH_BUILD");
    snprintf(dir, sizeof dir, "%s", env && *env ? env : exe_build_dir());
    for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--) dir[n - 1] = '\0';
    return dir;
}

const char *hb_root_dir(void)
{
    static char dir[4096];
    if (dir[0]) return dir;
    snprintf(dir, sizeof dir, "%s", exe_build_dir());
    to_parent(dir);
    return dir;
}

const char *hb_machine_dir(void)
{
    static char dir[4400];
    if (!dir[0]) snprintf(dir, sizeof dir, "%s/machine/%s", hb_build_dir(), hb_machine_id());
    return dir;
}

int hb_out_dir(const char *out, const char *below, char dir[4096])
{
    int n = snprintf(dir, 4096, "%s%s", out ? out : hb_build_dir(), out ? "" : below);
    return n < 4096 ? 0 : hb_fail(HB_ERR_INPUT, "path too long: %.200s...", dir);
}

bool hb_ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

int hb_mkdirs(const char *path)
{
    char p[4400];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof p)
        return hb_fail(HB_ERR_RUN, "cannot make folder '%.200s': bad length", path);
    memcpy(p, path, n + 1);
    for (char *c = p + 1;; c++) {
        if (*c != '/' && *c != '\0') continue;
        char keep = *c;
        *c = '\0';
        if (mkdir(p, 0777) != 0 && errno != EEXIST) {
            int why = errno;                   // a read-only parent that exists is no failure
            if (!is_folder(p))
                return hb_fail(HB_ERR_RUN, "cannot make folder %s: %s", p, strerror(why));
        }
        *c = keep;
        if (keep == '\0') break;
    }
    if (!is_folder(path))
        return hb_fail(HB_ERR_RUN, "cannot make folder %s: there is a file of that name", path);
    return 0;
}

// --- whole files ---------------------------------------------------------------------------------

static int write_all(int fd, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        data += n;
        bytes -= (size_t)n;
    }
    return 0;
}

// A device or a pipe is written to: renaming a file over /dev/null would take it from everybody.
static int write_into(const char *path, const void *data, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int why = fd < 0 || write_all(fd, data, bytes) ? errno : 0;
    if (fd >= 0 && close(fd) != 0 && !why) why = errno;
    return why ? hb_fail(HB_ERR_RUN, "cannot write %s: %s", path, strerror(why)) : 0;
}

// target: the file itself where path is a link.
static int replace_file(const char *path, const char *target, const void *data, size_t bytes)
{
    static atomic_uint serial;
    char tmp[4400];
    int fd = -1, tries = 0;
    do {                         // a name that is taken: of a killed process that had our number
        int n = snprintf(tmp, sizeof tmp, "%s.%ld.%u.tmp", target, (long)getpid(),
                         atomic_fetch_add(&serial, 1));
        if (n < 0 || (size_t)n >= sizeof tmp)
            return hb_fail(HB_ERR_RUN, "cannot write %.200s...: name too long", path);
        fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (fd < 0 && errno == EEXIST && ++tries < 100);
    if (fd < 0) return hb_fail(HB_ERR_RUN, "cannot write %s: %s", path, strerror(errno));
    int why = write_all(fd, data, bytes) || fsync(fd) ? errno : 0;
    if (close(fd) != 0 && !why) why = errno;                     // a full disk may show only here
    if (!why && rename(tmp, target) != 0) why = errno;
    if (!why) return 0;
    unlink(tmp);
    return hb_fail(HB_ERR_RUN, "cannot write %s: %s", path, strerror(why));
}

int hb_write_file(const char *path, const void *data, size_t bytes)
{
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return write_into(path, data, bytes);
    char *target = realpath(path, NULL);       // NULL: it is not there yet
    int rc = replace_file(path, target ? target : path, data, bytes);
    free(target);
    return rc;
}

// --- hashes --------------------------------------------------------------------------------------

static void to_hex(const unsigned char *md, char hex[65])
{
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", md[i]);
}

void hb_sha256(const void *data, size_t bytes, char hex[65])
{
    unsigned char md[EVP_MAX_MD_SIZE] = { 0 };
    unsigned int n = 0;
    hex[0] = '\0';  // the library failed: no hash is better than one
    if (EVP_Digest(data, bytes, md, &n, EVP_sha256(), NULL) == 1 && n == 32) to_hex(md, hex);
}

int hb_sha256_file(const char *path, char hex[65])
{
    hex[0] = '\0';
    FILE *f = fopen(path, "rbe");
    if (!f) return hb_fail(HB_ERR_INPUT, "cannot read %s: %s", path, strerror(errno));
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
    char buf[1 << 16];
    for (size_t n; ok && (n = fread(buf, 1, sizeof buf, f)) > 0;)
        ok = EVP_DigestUpdate(ctx, buf, n) == 1;
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    ok = ok && !ferror(f) && EVP_DigestFinal_ex(ctx, md, &n) == 1 && n == 32;
    if (ok) to_hex(md, hex);
    EVP_MD_CTX_free(ctx);
    fclose(f);
    return ok ? 0 : hb_fail(HB_ERR_RUN, "cannot hash %s: read or library error", path);
}
