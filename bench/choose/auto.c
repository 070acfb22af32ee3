// auto.c: longconv_auto, attention_auto (and with _cuda): implementations that choose another one
// when they plan, by what was measured, and hand everything to it (contract: choose.h, hb.h).
//
// Method    plan asks hb_choose_here for the problem; if the chosen one does not fit into the
//           memory
//           there is or refuses, the next by expected time follows. What was chosen, and why,
//           stands
//           in the plan's text and so in the record.
// Cost      forward and backward: one call through a pointer. The choice: once per plan.
// Refuses   what every implementation of the device refuses.
#include <stdlib.h>
#include <string.h>

#include "choose.h"

struct state {
    const struct hb_host *host;
    const struct hb_impl *in;            // borrowed
    void *st;                            // owned, of `in`
    char why[400];
};

static struct hb_point point_of(const struct hb_problem *p, const char *device)
{
    struct hb_point pt = { .p = *p };
    snprintf(pt.device, sizeof pt.device, "%.8s0", device);
    bool cuda = strcmp(device, "cuda") == 0;
    pt.mode = cuda ? HB_MODE_COLD : HB_MODE_WARM;    // as the sweeps measure
    if (p->planning == HB_PLAN_WISDOM_ONLY) pt.p.planning = HB_PLAN_MEASURE;
    pt.pass = p->filter == HB_FILTER_FIXED ? HB_PASS_FWD_CACHED
            : p->backward ? HB_PASS_FWDBWD : HB_PASS_FWD;
    return pt;
}

static const char *refuses(const struct hb_problem *p, const char *device)
{
    struct hb_point pt = point_of(p, device);
    const char *why = "nothing is there to choose from";
    const char *const *names = hb_choose_known(p->op, device);
    for (; *names; names++) {
        const struct hb_impl *im = hb_registry_find(*names);
        if (!im) {
            hb_error_clear();
            continue;
        }
        why = hb_point_refuses(&pt, im);
        if (!why) return NULL;
    }
    return why;
}
static const char *refuses_cpu(const struct hb_problem *p) { return refuses(p, "cpu"); }
static const char *refuses_cuda(const struct hb_problem *p) { return refuses(p, "cuda"); }

static void destroy(void *state)
{
    struct state *s = state;
    if (!s) return;
    if (s->in && s->st) s->in->destroy(s->st);
    free(s);
}

// One candidate; HB_ERR_OOM and HB_ERR_REFUSED: try the next.
static int try_one(struct state *s, const struct hb_problem *p, const char *name)
{
    s->in = hb_registry_find(name);
    if (!s->in) return hb_error_code();
    int rc = s->in->plan(s->host, p, &s->st);
    if (rc && s->st) s->in->destroy(s->st);
    if (rc) s->st = NULL;
    return rc;
}

static void say(struct state *s, const struct choose_result *r, int i)
{
    const struct hb_choice *c = &r->answer;
    bool first = strcmp(r->c[i].impl, c->impl) == 0;
    snprintf(s->why, sizeof s->why, "auto chose %s (%s%s; %s)", r->c[i].impl,
             first ? hb_reason_str(c->reason) : "what it chose first did not fit",
             first && c->tie ? ", a tie" : "", c->note);
}

static int plan(const struct hb_host *host, const struct hb_problem *p, void **out)
{
    struct state *s = calloc(1, sizeof *s);
    struct choose_result *r = malloc(sizeof *r);
    *out = s;
    if (!s || !r) {
        free(r);
        return host->fail(host, HB_ERR_OOM, "out of memory: a choice");
    }
    s->host = host;
    struct hb_point pt = point_of(p, host->device->name);
    int rc = hb_choose_here(&pt, 0, NULL, NULL, r);
    for (int k = -1; !rc && k < r->n_in; k++) {      // the answer, then the others by their time
        int i = k;
        if (k < 0)
            for (i = 0; strcmp(r->c[i].impl, r->answer.impl);) i++;
        else if (!strcmp(r->c[k].impl, r->answer.impl)) continue;
        hb_error_clear();
        int one = try_one(s, p, r->c[i].impl);
        if (!one) {
            say(s, r, i);
            free(r);
            return 0;
        }
        if (one != HB_ERR_OOM && one != HB_ERR_REFUSED) rc = one;
    }
    free(r);
    return rc ? rc : hb_error_code();
}

static int forward(void *state, const struct hb_io *io)
{
    struct state *s = state;
    return s->in->forward(s->st, io);
}

static int backward(void *state, const struct hb_io *io)
{
    struct state *s = state;
    if (s->in->backward) return s->in->backward(s->st, io);
    return s->host->fail(s->host, HB_ERR_REFUSED, "%s has no backward pass", s->in->name);
}

static int set_filter(void *state, const void *h)
{
    struct state *s = state;
    if (s->in->set_filter) return s->in->set_filter(s->st, h);
    return s->host->fail(s->host, HB_ERR_REFUSED, "%s has no fixed filter", s->in->name);
}

static int describe(const void *state, char *buf, size_t cap)
{
    const struct state *s = state;
    int n = snprintf(buf, cap, "%s", s->why);
    if (n < 0 || (size_t)n + 2 >= cap || !s->in->describe) return n;
    memcpy(buf + n, "; ", 3);
    return n + 2 + s->in->describe(s->st, buf + n + 2, cap - (size_t)n - 2);
}

#define CHOOSES "hyena-bench choose: by what was measured on this machine"
#define AUTO(the_name, the_op, the_device, the_types, filter)                                    \
    { .abi = HB_ABI_VERSION, .name = the_name, .op = the_op, .device = #the_device,              \
      .dtypes = the_types, .source = CHOOSES, .complexity = "that of what it chooses",           \
      .refuses = refuses_##the_device, .plan = plan, .forward = forward, .backward = backward,   \
      .destroy = destroy, .set_filter = filter, .describe = describe }
#define CUDA_TYPES (1u << HB_F32 | 1u << HB_F16 | 1u << HB_BF16)

static const struct hb_impl autos[] = {
    AUTO("longconv_auto", HB_LONGCONV, cpu, 1u << HB_F32, set_filter),
    AUTO("longconv_auto_cuda", HB_LONGCONV, cuda, CUDA_TYPES, set_filter),
    AUTO("attention_auto", HB_ATTENTION, cpu, 1u << HB_F32, NULL),
    AUTO("attention_auto_cuda", HB_ATTENTION, cuda, CUDA_TYPES, NULL),
};
enum { N_AUTO = sizeof autos / sizeof *autos };

const struct hb_impl *hb_auto_impl(int i) { return i >= 0 && i < N_AUTO ? &autos[i] : NULL; }

// --- names ---------------------------------------------------------------------------------------

bool hb_is_auto(const char *name)
{
    const char *colon = strchr(name, ':'), *word = colon ? colon + 1 : name;
    for (int i = 0; i < N_AUTO; i++)
        if (!strcmp(word, autos[i].name)) return true;
    return colon && !strcmp(word, "auto");
}

bool hb_auto_name(const char *name, const char *device, char out[HB_NAME_MAX])
{
    bool cuda = device && !strncmp(device, "cuda", 4);
    const char *end = cuda ? "_cuda" : "";
    if (!strcmp(name, "hyena:auto"))
        snprintf(out, HB_NAME_MAX, "hyena:longconv_auto%s", end);
    else if (!strcmp(name, "mha:auto"))
        snprintf(out, HB_NAME_MAX, "mha:attention_auto%s", end);
    else if (cuda && hb_is_auto(name) && !strstr(name, "_cuda"))
        snprintf(out, HB_NAME_MAX, "%.100s_cuda", name);
    else return false;
    return true;
}
