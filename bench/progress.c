// progress.c: how far the work is, and whether somebody asked to stop (contract: cli.h).
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "host.h"

// --- signals -------------------------------------------------------------------------------------

static volatile sig_atomic_t arrived;

static void on_signal(int sig) { arrived = sig; }

bool hb_interrupted(void) { return arrived != 0; }
int hb_signal_number(void) { return (int)arrived; }

void hb_signals_install(void)
{
    // No SA_RESTART: a wait must end so that its caller can look. SA_RESETHAND: the second one
    // kills.
    struct sigaction stop = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    sigemptyset(&stop.sa_mask);
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

// --- progress ------------------------------------------------------------------------------------

enum { PLAIN_EVERY_NS = 1000000000, TTY_EVERY_NS = 100000000 };
static struct { bool open; int64_t last_ns; } line;

static void time_left(char *buf, size_t cap, double s)
{
    if (s < 0) buf[0] = '\0';
    else if (s < 60) snprintf(buf, cap, ", %.0f s left", s);
    else if (s < 3600) snprintf(buf, cap, ", %d:%02d min left", (int)s / 60, (int)s % 60);
    else snprintf(buf, cap, ", %d:%02d h left", (int)(s / 3600), (int)(s / 60) % 60);
}

void hb_progress(const char *what, size_t done, size_t total, double left_s)
{
    bool tty = isatty(STDERR_FILENO) == 1;
    int64_t now = hb_now_ns();
    bool last = total > 0 && done >= total;
    if (!last && line.last_ns && now - line.last_ns < (tty ? TTY_EVERY_NS : PLAIN_EVERY_NS)) return;
    line.last_ns = now;
    char left[40];
    time_left(left, sizeof left, last ? -1 : left_s);
    if (tty) {
        // Back to column 0, then clear the line.
        fprintf(stderr, "\r\033[K[%zu/%zu%s] %.100s", done, total, left, what);
        line.open = true;
    } else {
        fprintf(stderr, "[%zu/%zu%s] %s\n", done, total, left, what);
    }
    fflush(stderr);
}

void hb_progress_end(void)
{
    if (line.open) fputs("\n", stderr);
    line.open = false;
    line.last_ns = 0;
}
