// child.c: run this program again in a process of its own, watch it, limit it, say how it ended.
//
// Method    fork and exec of /proc/self/exe (OpenMP, OpenBLAS and CUDA do not survive a bare fork);
//           between fork and exec only async-signal-safe calls. In the child: 0 the request (a
//           memfd: no pipe to fill, no SIGPIPE), 1 and 2 a pipe whose last lines become `detail`, 3
//           the reply pipe; everything else closed.
// Watching  resident pages in /proc/PID/statm every 50 ms: about 20 us of one core, while page
//           faults bring in at most some 200 MB. smaps_rollup would walk the page tables of the
//           child that is being timed.
// Killing   the child has its own process group, so a terminal's Ctrl-C reaches only us;
//           PR_SET_PDEATHSIG ends it when the thread that started it dies, so call this from a
//           thread that lives as long as we do.
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "outcome.h"

#define REPLY_FD 3
#define REPLY_ENV "HYENA_BENCH_REPLY_FD"
enum { EXEC_FD = 4, TICK_MS = 50, TAIL = 4096, REPLY_CAP = 256 << 20, GRACE_S = 3 };
// Resident memory that no allocator counts: program, libraries, OpenBLAS's buffers, the
// judge's float64 copies.
static const size_t RSS_SLACK = (size_t)512 << 20;

extern char **environ;

struct child {
    pid_t pid;
    int reply, err;              // our ends, non-blocking; -1 after end of file
    char *buf; size_t n, cap;    // reply so far, owned
    char tail[TAIL]; size_t n_tail;
    bool echo;
    const char *killed;          // status we killed it for, or NULL
};

static double seconds(void) { return (double)hb_now_ns() * 1e-9; }

// --- the new process -----------------------------------------------------------------------------

struct spawn {
    pid_t parent;
    int request, err, reply, exec_err;
    char **argv, **env;
    const char *exe;
    struct rlimit as;
};

// After fork, before exec: async-signal-safe calls only. Failures are told through exec_err,
// which exec closes.
__attribute__((noreturn)) static void become(const struct spawn *s)
{
    setpgid(0, 0);
    // The parent may have died already.
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != s->parent) _exit(127);
    int oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (oom >= 0) {
        if (write(oom, "1000", 4) != 4) { /* a kernel without it: the other limits remain */ }
        close(oom);
    }
    if (s->as.rlim_cur != RLIM_INFINITY) setrlimit(RLIMIT_AS, &s->as);
    if (dup2(s->request, 0) >= 0 && dup2(s->err, 1) >= 0 && dup2(s->err, 2) >= 0
        && dup2(s->reply, REPLY_FD) >= 0 && dup3(s->exec_err, EXEC_FD, O_CLOEXEC) >= 0) {
        close_range(EXEC_FD + 1, ~0u, 0);   // what a library left open; our own are O_CLOEXEC
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execve(s->exe, s->argv, s->env);
    }
    int e = errno;
    if (write(EXEC_FD, &e, sizeof e) < 0) _exit(126);
    _exit(127);
}

// A descriptor above every fixed one, so that dup2 in the child never meets itself. Takes over fd.
static int lift(int fd)
{
    if (fd < 0 || fd > 9) return fd;
    int up = fcntl(fd, F_DUPFD_CLOEXEC, 10), e = errno;
    close(fd);
    errno = e;
    return up;
}

static int make_pipe(int p[2])
{
    if (pipe2(p, O_CLOEXEC) < 0) { p[0] = p[1] = -1; return -1; }
    p[0] = lift(p[0]);
    p[1] = lift(p[1]);
    return p[0] < 0 || p[1] < 0 ? -1 : 0;
}

static int request_fd(const json_t *request)
{
    int fd = lift(memfd_create("request", MFD_CLOEXEC));
    if (fd < 0) return -1;
    if (request && json_dumpfd(request, fd, JSON_COMPACT | JSON_REAL_PRECISION(17)) < 0) {
        close(fd);
        return -1;
    }
    if (lseek(fd, 0, SEEK_SET) < 0) { close(fd); return -1; }
    return fd;
}

// `given` (NULL: our own environment) plus the reply descriptor's number. The strings are borrowed,
// the array is owned.
static char **child_env(const char *const *given)
{
    static char reply[] = REPLY_ENV "=3";
    char *const *from = given ? (char *const *)(uintptr_t)given : environ;    // execve wants char *
    size_t n = 0;
    while (from[n]) n++;
    char **env = malloc((n + 2) * sizeof *env);
    if (!env) return NULL;
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (strncmp(from[i], REPLY_ENV "=", sizeof REPLY_ENV) != 0) env[m++] = from[i];
    env[m++] = reply;
    env[m] = NULL;
    return env;
}

// A backstop only, far above the budget: OpenBLAS hangs when its buffers do not fit, thread stacks
// and malloc's arenas count as address space, ASan reserves terabytes.
static struct rlimit address_space(size_t mem_bytes)
{
    struct rlimit r = { RLIM_INFINITY, RLIM_INFINITY };
#ifndef __SANITIZE_ADDRESS__
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    if (mem_bytes) r.rlim_cur = r.rlim_max = mem_bytes + RSS_SLACK + ((size_t)2 << 30)
                                           + (size_t)(cpus > 0 ? cpus : 1) * ((size_t)128 << 20);
#else
    (void)mem_bytes;
#endif
    return r;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

// Waits for exec: end of file, or the errno of what failed before it. 0 or that errno.
static int exec_result(int fd)
{
    int e = 0;
    ssize_t n;
    do n = read(fd, &e, sizeof e); while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof e ? e : 0;
}

static int reap(pid_t pid, int *wstatus)
{
    pid_t r;
    do r = waitpid(pid, wstatus, 0); while (r < 0 && errno == EINTR);
    return r == pid ? 0 : -1;
}

static int start(struct child *c, char *const argv[], const json_t *request,
                 const struct hb_child_limits *lim)
{
    int err[2] = { -1, -1 }, reply[2] = { -1, -1 }, ex[2] = { -1, -1 }, e = 0;
    struct spawn s = { .parent = getpid(), .env = child_env(lim->env), .argv = NULL,
                       .exe = lim->exe ? lim->exe : "/proc/self/exe",
                       .as = address_space(lim->any_address_space ? 0 : lim->mem_bytes) };
    size_t argc = 0;
    while (argv[argc]) argc++;
    s.argv = malloc((argc + 1) * sizeof *s.argv);
    s.request = request_fd(request);
    if (!s.env || !s.argv || s.request < 0 || make_pipe(err) < 0 || make_pipe(reply) < 0
        || make_pipe(ex) < 0)
        e = errno ? errno : ENOMEM;
    else {
        memcpy(s.argv, argv, (argc + 1) * sizeof *s.argv);
        static char self[] = "hyena-bench";
        s.argv[0] = self;
        s.err = err[1]; s.reply = reply[1]; s.exec_err = ex[1];
        signal(SIGCHLD, SIG_DFL);        // if ignored, the kernel would reap the child
        c->pid = fork();
        if (c->pid == 0) become(&s);
        if (c->pid < 0) e = errno;
        close_fd(&ex[1]);
        if (!e && (e = exec_result(ex[0])) != 0) reap(c->pid, &(int){ 0 });
    }
    free(s.env); free(s.argv);
    close_fd(&s.request); close_fd(&err[1]); close_fd(&reply[1]);
    close_fd(&ex[0]); close_fd(&ex[1]);
    if (e) {
        close_fd(&err[0]); close_fd(&reply[0]);
        return hb_fail(HB_ERR_RUN, "cannot start a child process: %s", strerror(e));
    }
    c->err = err[0]; c->reply = reply[0];
    fcntl(c->err, F_SETFL, O_NONBLOCK);
    fcntl(c->reply, F_SETFL, O_NONBLOCK);
    return 0;
}

// --- watching it ---------------------------------------------------------------------------------

static void keep_tail(struct child *c, const char *p, size_t n)
{
    if (n > TAIL) { p += n - TAIL; n = TAIL; }
    size_t over = c->n_tail + n > TAIL ? c->n_tail + n - TAIL : 0;
    memmove(c->tail, c->tail + over, c->n_tail - over);
    memcpy(c->tail + c->n_tail - over, p, n);
    c->n_tail += n - over;
}

// Reads what is there from one of the two pipes; closes it at end of file. HB_ERR_RUN: memory.
// Not more than MOST_READS parts, or a child that never stops talking would escape its limits; what
// an ended child has left in a pipe is less.
static int drain(struct child *c, int *fd, bool is_reply)
{
    enum { MOST_READS = 128 };           // 2 MiB; a pipe holds 64 KiB, at most 1 MiB
    char part[16384];
    for (int reads = 0; *fd >= 0 && reads < MOST_READS; reads++) {
        ssize_t n = read(*fd, part, sizeof part);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return 0;
        if (n <= 0) { close_fd(fd); return 0; }
        if (!is_reply) {
            keep_tail(c, part, (size_t)n);
            if (c->echo) fwrite(part, 1, (size_t)n, stderr);
            continue;
        }
        if (c->n + (size_t)n > c->cap) {
            size_t cap = 2 * c->cap + sizeof part;
            char *p = cap <= REPLY_CAP ? realloc(c->buf, cap) : NULL;
            if (!p)
                return hb_fail(HB_ERR_RUN, "a child's reply does not fit into memory (%zu bytes)",
                               cap);
            c->buf = p; c->cap = cap;
        }
        memcpy(c->buf + c->n, part, (size_t)n);
        c->n += (size_t)n;
    }
    return 0;
}

static size_t resident_bytes(pid_t pid)
{
    char path[64], text[128];
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return 0;
    text[n] = 0;
    unsigned long long size, resident;
    return sscanf(text, "%llu %llu", &size, &resident) == 2
         ? (size_t)resident * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

static bool has_ended(pid_t pid)
{
    siginfo_t info = { 0 };
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
        return errno != EINTR;                   // somebody reaped it
    return info.si_pid == pid;
}

static void stop(struct child *c, const char *status)
{
    if (!c->killed) c->killed = status;
    kill(-c->pid, SIGKILL);
    kill(c->pid, SIGKILL);       // in case it has not reached setpgid
}

// Checks limits and interruption once. *asked: when we passed on the user's SIGINT (0: not yet).
static void enforce(struct child *c, const struct hb_child_limits *lim, double t0, double *asked,
                    struct hb_child_result *out)
{
    size_t rss = resident_bytes(c->pid);
    if (rss > out->rss_peak_bytes) out->rss_peak_bytes = rss;
    double now = seconds();
    if (lim->mem_bytes && rss > lim->mem_bytes + RSS_SLACK) {
        stop(c, "oom");
        snprintf(out->detail, sizeof out->detail, "resident memory %zu MiB, limit %zu MiB",
                 rss >> 20, lim->mem_bytes >> 20);
    } else if (lim->time_s > 0 && now - t0 > lim->time_s) {
        stop(c, "timeout");
        snprintf(out->detail, sizeof out->detail, "not done after %.3g s", lim->time_s);
    } else if (hb_interrupted() && *asked <= 0) {
        *asked = now;            // it may clean up; what it was about is measured again
        kill(c->pid, SIGINT);
    } else if (*asked > 0 && now - *asked > GRACE_S) {
        stop(c, "interrupted");
    }
}

static int watch(struct child *c, const struct hb_child_limits *lim, double t0,
                 struct hb_child_result *out, bool *asked_to_end)
{
    double asked = 0;
    int rc = 0;
    for (;;) {
        struct pollfd p[2] = { { .fd = c->reply, .events = POLLIN },
                               { .fd = c->err, .events = POLLIN } };
        // Both pipes closed: it is about to exit, look again soon.
        poll(p, 2, c->reply < 0 && c->err < 0 ? 1 : TICK_MS);
        bool ended = has_ended(c->pid);          // before the last drain: nothing is missed
        int e = drain(c, &c->reply, true), f = drain(c, &c->err, false);
        if (!rc && (e || f)) { rc = e ? e : f; stop(c, "crashed"); close_fd(&c->reply); }
        if (ended) break;
        if (!c->killed) enforce(c, lim, t0, &asked, out);
    }
    *asked_to_end = asked > 0;
    kill(-c->pid, SIGKILL);                      // with what it started itself; not reaped yet
    return rc;
}

// --- how it ended --------------------------------------------------------------------------------

// The last lines of what it said, as one line of printable ASCII (it goes into JSON).
static void last_lines(const struct child *c, char *dst, size_t cap)
{
    size_t end = c->n_tail, begin;
    while (end && (unsigned char)c->tail[end - 1] <= ' ') end--;
    begin = end;
    for (int lines = 0; begin && end - begin < cap - 1; begin--)
        if (c->tail[begin - 1] == '\n' && ++lines == 3) break;
    size_t n = 0;
    for (size_t i = begin; i < end && n + 3 < cap; i++) {
        char ch = c->tail[i];
        if (ch == '\n') { dst[n++] = ';'; dst[n++] = ' '; }
        else if (ch != '\r') dst[n++] = ch >= ' ' && ch <= '~' ? ch : '?';
    }
    dst[n] = 0;
}

static void by_signal(const struct child *c, int sig, struct hb_child_result *out)
{
    char said[256];
    last_lines(c, said, sizeof said);
    out->exit_signal = sig;
    out->status = sig == SIGKILL ? "oom" : "crashed";
    if (sig == SIGKILL)
        snprintf(out->detail, sizeof out->detail, "killed by the system: out of memory");
    else
        snprintf(out->detail, sizeof out->detail, "signal %d (%s)%s%s", sig, strsignal(sig),
                 *said ? ": " : "", said);
}

static void by_exit(const struct child *c, int code, struct hb_child_result *out)
{
    const char *status = hb_outcome(
        HB_ENDS_PROCESS, json_string_value(json_object_get(out->reply, "status")));
    const char *detail = json_string_value(json_object_get(out->reply, "detail"));
    if (code == 0 && out->reply) {
        out->status = status ? status : "ok";
        if (detail) snprintf(out->detail, sizeof out->detail, "%s", detail);
        return;
    }
    char said[256];
    last_lines(c, said, sizeof said);
    out->status = "crashed";
    snprintf(out->detail, sizeof out->detail, "exit code %d%s%s%s", code,
             out->reply ? "" : " without a reply", *said ? ": " : "", said);
}

int hb_child_run(char *const argv[], const json_t *request, const struct hb_child_limits *lim,
                 struct hb_child_result *out)
{
    struct child c = { .reply = -1, .err = -1, .echo = lim->echo_stderr };
    memset(out, 0, sizeof *out);
    out->status = "crashed";
    double t0 = seconds();
    int rc = start(&c, argv, request, lim);
    if (rc) return rc;
    bool asked = false;
    rc = watch(&c, lim, t0, out, &asked);
    int ws = 0;
    if (reap(c.pid, &ws) < 0 && !rc)
        rc = hb_fail(HB_ERR_RUN, "lost a child process: %s", strerror(errno));
    out->elapsed_s = seconds() - t0;
    if (c.n) out->reply = json_loadb(c.buf, c.n, JSON_REJECT_DUPLICATES, NULL);
    if (asked && !c.killed && !(out->reply && WIFEXITED(ws) && WEXITSTATUS(ws) == 0))
        c.killed = "interrupted";
    if (c.killed) {
        out->status = c.killed;
        out->exit_signal = WIFSIGNALED(ws) ? WTERMSIG(ws) : 0;
        if (!strcmp(c.killed, "interrupted"))
            snprintf(out->detail, sizeof out->detail, "interrupted");
    } else if (WIFSIGNALED(ws)) {
        by_signal(&c, WTERMSIG(ws), out);
    } else {
        by_exit(&c, WEXITSTATUS(ws), out);
    }
    free(c.buf);
    close_fd(&c.reply); close_fd(&c.err);
    if (rc) { json_decref(out->reply); out->reply = NULL; }
    return rc;
}

int hb_child_reply(const json_t *doc)
{
    const char *text = getenv(REPLY_ENV);
    int64_t fd;
    if (!text)
        return hb_fail(HB_ERR_INPUT, "%s is not set: this command is run by hyena-bench itself",
                       REPLY_ENV);
    int rc = hb_parse_int(REPLY_ENV, text, 0, 1 << 20, &fd);
    if (rc) return rc;
    if (json_dumpfd(doc, (int)fd, JSON_COMPACT | JSON_REAL_PRECISION(17)) < 0)
        return hb_fail(HB_ERR_RUN, "cannot write the reply to descriptor %d", (int)fd);
    return 0;
}
