// child.c: run this program again in a process of its own, watch it, limit it, say how it ended.
//
// Method    fork and exec of /proc/self/exe (OpenMP, OpenBLAS and CUDA do not survive a bare fork);
//           between fork and exec only async-signal-safe calls. In the child: 0 the request (a
//           memfd: no pipe to fill, no SIGPIPE), 1 and 2 a pipe whose last lines become `detail`, 3
//           the reply pipe, 5 the socket of turns if there are turns; everything else closed.
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
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "outcome.h"

#define REPLY_FD 3
#define REPLY_ENV "HYENA_BENCH_REPLY_FD"
enum { EXEC_FD = 4, TURN_FD = 5, TICK_MS = 50, TAIL = 4096, REPLY_CAP = 256 << 20, GRACE_S = 3 };
// Resident memory that no allocator counts: program, libraries, OpenBLAS's buffers, the
// judge's float64 copies.
static const size_t RSS_SLACK = (size_t)512 << 20;

extern char **environ;

struct hb_child {
    pid_t pid;
    int reply, err;              // our ends, non-blocking; -1 after end of file
    int turn;                    // our end of its socket of turns, or -1
    struct hb_child_limits lim;
    double t0, asked;            // asked: when we passed on the user's SIGINT (0: not yet)
    size_t rss_peak_bytes;
    char *buf; size_t n, cap;    // reply so far, owned
    char tail[TAIL]; size_t n_tail;
    const char *killed;          // status we killed it for, or NULL
    char why[128];               // and why
};

static double seconds(void) { return (double)hb_now_ns() * 1e-9; }

// --- the new process -----------------------------------------------------------------------------

struct spawn {
    pid_t parent;
    int request, err, reply, exec_err, turn;          // turn: -1 if there are none
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
        && dup2(s->reply, REPLY_FD) >= 0 && dup3(s->exec_err, EXEC_FD, O_CLOEXEC) >= 0
        && (s->turn < 0 || dup2(s->turn, TURN_FD) >= 0)) {
        // What a library left open; our own are O_CLOEXEC.
        close_range(s->turn < 0 ? TURN_FD : TURN_FD + 1, ~0u, 0);
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

// A message each way is whole or not there.
static int make_socket(int p[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p) < 0) {
        p[0] = p[1] = -1;
        return -1;
    }
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

static int start(struct hb_child *c, char *const argv[], const json_t *request, bool turns)
{
    const struct hb_child_limits *lim = &c->lim;
    int err[2] = { -1, -1 }, reply[2] = { -1, -1 }, ex[2] = { -1, -1 }, turn[2] = { -1, -1 };
    int e = 0;
    struct spawn s = { .parent = getpid(), .env = child_env(lim->env), .argv = NULL,
                       .exe = lim->exe ? lim->exe : "/proc/self/exe",
                       .as = address_space(lim->any_address_space ? 0 : lim->mem_bytes) };
    size_t argc = 0;
    while (argv[argc]) argc++;
    s.argv = malloc((argc + 1) * sizeof *s.argv);
    s.request = request_fd(request);
    if (!s.env || !s.argv || s.request < 0 || make_pipe(err) < 0 || make_pipe(reply) < 0
        || make_pipe(ex) < 0 || (turns && make_socket(turn) < 0))
        e = errno ? errno : ENOMEM;
    else {
        memcpy(s.argv, argv, (argc + 1) * sizeof *s.argv);
        static char self[] = "hyena-bench";
        s.argv[0] = self;
        s.err = err[1]; s.reply = reply[1]; s.exec_err = ex[1]; s.turn = turn[1];
        signal(SIGCHLD, SIG_DFL);        // if ignored, the kernel would reap the child
        c->pid = fork();
        if (c->pid == 0) become(&s);
        if (c->pid < 0) e = errno;
        close_fd(&ex[1]);
        if (!e && (e = exec_result(ex[0])) != 0) reap(c->pid, &(int){ 0 });
    }
    free(s.env); free(s.argv);
    close_fd(&s.request); close_fd(&err[1]); close_fd(&reply[1]);
    close_fd(&ex[0]); close_fd(&ex[1]); close_fd(&turn[1]);
    if (e) {
        close_fd(&err[0]); close_fd(&reply[0]); close_fd(&turn[0]);
        return hb_fail(HB_ERR_RUN, "cannot start a child process: %s", strerror(e));
    }
    c->err = err[0]; c->reply = reply[0]; c->turn = turn[0];
    fcntl(c->err, F_SETFL, O_NONBLOCK);
    fcntl(c->reply, F_SETFL, O_NONBLOCK);
    return 0;
}

// --- watching it ---------------------------------------------------------------------------------

static void keep_tail(struct hb_child *c, const char *p, size_t n)
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
static int drain(struct hb_child *c, int *fd, bool is_reply)
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
            if (c->lim.echo_stderr) fwrite(part, 1, (size_t)n, stderr);
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

static void stop(struct hb_child *c, const char *status)
{
    if (!c->killed) c->killed = status;
    kill(-c->pid, SIGKILL);
    kill(c->pid, SIGKILL);       // in case it has not reached setpgid
}

// Checks limits and interruption once.
static void enforce(struct hb_child *c)
{
    const struct hb_child_limits *lim = &c->lim;
    size_t rss = resident_bytes(c->pid);
    if (rss > c->rss_peak_bytes) c->rss_peak_bytes = rss;
    double now = seconds();
    if (lim->mem_bytes && rss > lim->mem_bytes + RSS_SLACK) {
        stop(c, "oom");
        snprintf(c->why, sizeof c->why, "resident memory %zu MiB, limit %zu MiB", rss >> 20,
                 lim->mem_bytes >> 20);
    } else if (lim->time_s > 0 && now - c->t0 > lim->time_s) {
        stop(c, "timeout");
        snprintf(c->why, sizeof c->why, "not done after %.3g s", lim->time_s);
    } else if (hb_interrupted() && c->asked <= 0) {
        c->asked = now;          // it may clean up; what it was about is measured again
        kill(c->pid, SIGINT);
    } else if (c->asked > 0 && now - c->asked > GRACE_S) {
        stop(c, "interrupted");
    }
}

// Waits a tick for something to happen, reads what there is, checks the limits. *ended: it is
// over. HB_ERR_RUN: no memory for its reply.
static int look(struct hb_child *c, bool *ended)
{
    struct pollfd p[3] = { { .fd = c->reply, .events = POLLIN },
                           { .fd = c->err, .events = POLLIN },
                           { .fd = c->turn, .events = POLLIN } };
    // Both pipes closed: it is about to exit, look again soon.
    poll(p, 3, c->reply < 0 && c->err < 0 ? 1 : TICK_MS);
    *ended = has_ended(c->pid);                  // before the last drain: nothing is missed
    if (!*ended && p[2].revents & POLLIN) return 0;          // a turn's end is waited for
    int e = drain(c, &c->reply, true), f = drain(c, &c->err, false);
    if (e || f) { stop(c, "crashed"); close_fd(&c->reply); }
    if (!*ended && !c->killed) enforce(c);
    return e ? e : f;
}

static int watch(struct hb_child *c)
{
    int rc = 0;
    close_fd(&c->turn);                          // it has no more turns
    for (bool ended = false; !ended; ) {
        int e = look(c, &ended);
        if (!rc) rc = e;
    }
    kill(-c->pid, SIGKILL);                      // with what it started itself; not reaped yet
    return rc;
}

// --- how it ended --------------------------------------------------------------------------------

// The last lines of what it said, as one line of printable ASCII (it goes into JSON).
static void last_lines(const struct hb_child *c, char *dst, size_t cap)
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

static void by_signal(const struct hb_child *c, int sig, struct hb_child_result *out)
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

static void by_exit(const struct hb_child *c, int code, struct hb_child_result *out)
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

int hb_child_open(char *const argv[], const json_t *request, const struct hb_child_limits *lim,
                  bool turns, struct hb_child **out)
{
    struct hb_child *c = malloc(sizeof *c);
    *out = NULL;
    if (!c) return hb_fail(HB_ERR_OOM, "no memory for a child process");
    *c = (struct hb_child){ .reply = -1, .err = -1, .turn = -1, .lim = *lim, .t0 = seconds() };
    int rc = start(c, argv, request, turns);
    if (rc) free(c);
    else *out = c;
    return rc;
}

static void result_of(struct hb_child *c, int ws, struct hb_child_result *out)
{
    if (c->n) out->reply = json_loadb(c->buf, c->n, JSON_REJECT_DUPLICATES, NULL);
    if (c->asked > 0 && !c->killed && !(out->reply && WIFEXITED(ws) && WEXITSTATUS(ws) == 0))
        c->killed = "interrupted";
    if (c->killed) {
        out->status = c->killed;
        out->exit_signal = WIFSIGNALED(ws) ? WTERMSIG(ws) : 0;
        snprintf(out->detail, sizeof out->detail, "%s",
                 strcmp(c->killed, "interrupted") ? c->why : "interrupted");
    } else if (WIFSIGNALED(ws)) {
        by_signal(c, WTERMSIG(ws), out);
    } else {
        by_exit(c, WEXITSTATUS(ws), out);
    }
}

int hb_child_close(struct hb_child *c, struct hb_child_result *out)
{
    memset(out, 0, sizeof *out);
    out->status = "crashed";
    int rc = watch(c), ws = 0;
    if (reap(c->pid, &ws) < 0 && !rc)
        rc = hb_fail(HB_ERR_RUN, "lost a child process: %s", strerror(errno));
    out->elapsed_s = seconds() - c->t0;
    out->rss_peak_bytes = c->rss_peak_bytes;
    if (!rc) result_of(c, ws, out);
    free(c->buf);
    close_fd(&c->reply); close_fd(&c->err);
    free(c);
    return rc;
}

int hb_child_run(char *const argv[], const json_t *request, const struct hb_child_limits *lim,
                 struct hb_child_result *out)
{
    struct hb_child *c;
    memset(out, 0, sizeof *out);
    int rc = hb_child_open(argv, request, lim, false, &c);
    return rc ? rc : hb_child_close(c, out);
}

// --- turns ---------------------------------------------------------------------------------------

bool hb_child_turn(struct hb_child *c, double *answer)
{
    bool ended = false;
    if (c->turn < 0 || send(c->turn, "g", 1, MSG_NOSIGNAL) != 1) return false;
    while (!ended && !c->killed) {
        ssize_t n = recv(c->turn, answer, sizeof *answer, MSG_DONTWAIT);
        if (n == (ssize_t)sizeof *answer) return true;
        if (n >= 0) return false;                // it closed its end
        if (errno != EAGAIN && errno != EINTR) return false;
        if (look(c, &ended)) return false;
    }
    return false;
}

int hb_my_turn(void)
{
    char go = 0;
    ssize_t n;
    do n = recv(TURN_FD, &go, 1, 0); while (n < 0 && errno == EINTR);
    return n == 1 && go == 'g' ? 0 : 1;
}

void hb_turn_done(double answer)
{
    // A parent that is gone has ended us, or will: nothing to be told here.
    if (send(TURN_FD, &answer, sizeof answer, MSG_NOSIGNAL) < 0) return;
}

static bool write_all(int fd, const char *s)
{
    for (size_t left = strlen(s); left; ) {
        ssize_t n = write(fd, s, left);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        s += n;
        left -= (size_t)n;
    }
    return true;
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
    char *text_of = json_dumps(doc, JSON_COMPACT | JSON_REAL_PRECISION(17));
    bool sent = text_of && write_all((int)fd, text_of);      // json_dumpfd: a call for each word
    free(text_of);
    if (!sent)
        return hb_fail(HB_ERR_RUN, "cannot write the reply to descriptor %d", (int)fd);
    return 0;
}
