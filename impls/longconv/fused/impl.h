// impl.h: what the suite sees of fused methods: a plug-in's state and functions. The file that
// includes it has before
//     #define FUSED_NAME "longconv_.._cuda"
//     static const struct fused_choice *choose(const struct hb_problem *p, const char **why);
//                                                   // who does it, or NULL and *why
//     static int check_gpu(const struct hb_host *host);          // HB_OK, or refuses this GPU
// and behind it `hb_impl` with the functions that are here.
#ifndef HB_FUSED_IMPL_H
#define HB_FUSED_IMPL_H

#include "method.h"

struct state {
    const struct hb_host *host;          // borrowed until destroy
    const struct fused_method *method;
    void *plan;                          // owned, the method's
    bool backward;
    size_t bytes;                        // of device memory, all in all
};

static const char *refuses(const struct hb_problem *p)
{
    const char *why;
    return choose(p, &why) ? NULL : why;
}

static int forward(void *st, const struct hb_io *io)
{
    const struct state *s = (const struct state *)st;
    s->method->forward(s->plan, &io->conv, (cudaStream_t)io->stream);
    return hb_cuda_launched(s->host, FUSED_NAME " forward");
}

static int backward(void *st, const struct hb_io *io)
{
    const struct state *s = (const struct state *)st;
    if (!s->backward)
        return s->host->fail(s->host, HB_ERR_INPUT, FUSED_NAME ": not planned for backward");
    s->method->backward(s->plan, &io->conv, (cudaStream_t)io->stream);
    return hb_cuda_launched(s->host, FUSED_NAME " backward");
}

static int set_filter(void *st, const void *h)
{
    const struct state *s = (const struct state *)st;
    s->method->set_filter(s->plan, (const float *)h, (cudaStream_t)s->host->device->stream);
    return hb_cuda_launched(s->host, FUSED_NAME " set_filter");
}

static void destroy(void *st)
{
    struct state *s = (struct state *)st;
    if (!s) return;
    s->method->free(s->plan);
    s->host->free(s->host, s);
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **st)
{
    const char *why;
    const struct fused_choice *const c = choose(p, &why);
    if (!c) return host->fail(host, HB_ERR_REFUSED, FUSED_NAME ": %s", why);
    struct state *s = (struct state *)host->alloc(host, sizeof *s);
    if (!s) return HB_ERR_OOM;
    *s = { .host = host, .method = c->method, .backward = p->backward };
    const struct hb_device *dev = host->device;
    const size_t before = dev->now_bytes(dev);
    int rc = check_gpu(host);
    if (!rc) rc = c->method->plan(host, p, c, &s->plan);
    if (rc) {
        destroy(s);
        return rc;
    }
    s->bytes = dev->now_bytes(dev) - before;
    *st = s;
    return HB_OK;
}

static int describe(const void *st, char *buf, size_t cap)
{
    const struct state *s = (const struct state *)st;
    const int n = snprintf(buf, cap, "%s, %.1f MB: ", s->method->name, 1e-6 * (double)s->bytes);
    if (n < 0 || (size_t)n >= cap) return n;
    return n + s->method->describe(s->plan, buf + n, cap - (size_t)n);
}

#endif
