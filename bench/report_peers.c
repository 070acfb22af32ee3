// report_peers.c: beside the peers: this suite's GPU implementations against what PyTorch and
// FlashFFTConv took for the same work on the same kind of GPU (results/peers), and the goals.
#include <math.h>
#include <string.h>

#include "peers.h"
#include "report.h"

// How often a goal was met; where it was missed, or could not be judged.
struct tally {
    int met, missed, open;
    struct hb_text where;        // owned: the misses
};

static const char *judge(struct tally *t, double value, bool ok, const char *where)
{
    if (!isfinite(value)) {
        t->open++;
        return "not measured";
    }
    if (ok) {
        t->met++;
        return "met";
    }
    hb_text_add(&t->where, "%s%s (%s)", t->missed++ ? ", " : "", where, hb_str_num(value).s);
    return "**missed**";
}

static void tally_line(struct hb_report *r, struct tally *t, const char *goal)
{
    hb_text_add(&r->t, "- %s: ", goal);
    if (!t->met && !t->missed) hb_text_add(&r->t, "not measured.\n");
    else if (!t->missed) hb_text_add(&r->t, "**met** at %d of %d", t->met, t->met);
    else
        hb_text_add(&r->t, "**missed** at %d of %d: %s", t->missed, t->met + t->missed,
                    t->where.s ? t->where.s : "");
    if (t->met || t->missed) {
        if (t->open) hb_text_add(&r->t, "; %d not measured", t->open);
        hb_text_add(&r->t, ".\n");
    }
    r->t.failed = r->t.failed || t->where.failed;
    hb_text_free(&t->where);
}

// --- our side ------------------------------------------------------------------------------------

struct want {
    const char *machine, *impl;
    enum hb_scope scope;
    enum hb_dtype dtype;
    int64_t B, D, L;
};

// On the GPU, cold caches; NULL if there is no time.
static const struct hb_cell *ours(const struct hb_report *r, const struct want *w,
                                  enum hb_pass pass)
{
    for (size_t i = 0; i < r->st->set.n; i++) {
        const struct hb_series *s = &r->st->set.s[i];
        if (!hb_on_gpu(s->set.device) || strcmp(s->set.machine, w->machine) ||
            strcmp(s->impl, w->impl) || s->set.scope != w->scope || s->set.pass != pass ||
            s->set.mode != HB_MODE_COLD || s->set.dtype != w->dtype || s->set.B != w->B ||
            s->set.D != w->D)
            continue;
        const struct hb_cell *c = hb_series_at(s, w->L);
        if (hb_cell_ok(c)) return c;
    }
    return NULL;
}

static double ms_of(const struct hb_cell *c) { return c ? c->median_ns * 1e-6 : NAN; }

// As the peers count: the device's peak less the inputs; y stays in. All signals are (B,D,L).
static double above_inputs(const struct hb_cell *c)
{
    const json_t *io = c ? json_object_get(c->entry, "hb_io_bytes") : NULL;
    if (!json_is_number(io)) return NAN;
    const double y = (double)c->pt.p.B * (double)c->pt.p.D * (double)c->pt.p.L *
                     (c->pt.p.dtype == HB_F32 ? 4 : 2);
    return hb_cell_value(c, HB_METRIC_MEMORY) - json_number_value(io) + y;
}

static void time_cell(struct hb_table *t, double ms)
{
    hb_table_cell(t, "%s", isfinite(ms) ? hb_str_time(ms * 1e6).s : "-");
}

// --- the long convolution ------------------------------------------------------------------------

#define CUFFT "longconv_cufft_cuda"
#define DIRECT "longconv_direct_cuda"
#define FUSED "longconv_fused_cuda"

// fused[back]: against FlashFFTConv.
struct conv_goals { struct tally fwd, bwd, mem, direct_ms, direct_first, fused[2]; };

static bool in_goal(const struct hb_peer *p) { return p->M >= 1024 && p->M <= 1 << 20; }

// How many times as fast as FlashFFTConv the fused kernel is to be.
static double fused_goal(const struct hb_peer *p, bool back)
{
    if (back) return p->M >= 16384 ? 5 : 3;
    return p->M >= 65536 ? 6 : 3;
}

// One size, one pass. q: the peer's time over ours.
static void conv_row(struct hb_report *r, struct hb_table *t, const struct hb_peers *peers,
                     const struct hb_peer *fft, const char *machine, bool back,
                     struct conv_goals *g)
{
    struct want w = {machine, CUFFT, HB_SCOPE_CORE, fft->dtype, fft->B, fft->D, fft->L};
    const enum hb_pass pass = back ? HB_PASS_BWD : HB_PASS_FWD;
    const double cufft = ms_of(ours(r, &w, pass));
    w.impl = DIRECT;
    const double direct = ms_of(ours(r, &w, pass));
    w.impl = FUSED;
    const double fused = ms_of(ours(r, &w, pass));
    const struct hb_peer *ffc = hb_peer_find(peers, "ffc", fft->L, fft->dtype, fft->B);
    const double torch = back ? fft->bwd_ms : fft->fwd_ms;
    const double flash = !ffc ? NAN : back ? ffc->bwd_ms : ffc->fwd_ms;
    const bool flash_right = ffc && ffc->error < 0.1;
    char where[48];
    snprintf(where, sizeof where, "M = %lld", (long long)fft->M);
    hb_table_cell(t, "%lld", (long long)fft->M);
    hb_table_cell(t, "%lld", (long long)fft->L);
    hb_table_cell(t, "%lld, %lld", (long long)fft->B, (long long)fft->D);
    time_cell(t, cufft);
    time_cell(t, direct);
    time_cell(t, fused);
    time_cell(t, torch);
    if (ffc && !flash_right) hb_table_cell(t, "wrong result");
    else time_cell(t, flash);
    hb_table_cell(t, "%s", hb_str_num(torch / cufft).s);
    hb_table_cell(t, "%s", !in_goal(fft) ? "no goal"
                           : judge(back ? &g->bwd : &g->fwd, torch / cufft, torch >= 1.5 * cufft,
                                   where));
    const double goal = fused_goal(fft, back);
    hb_table_cell(t, "%s", flash_right ? hb_str_num(flash / fused).s : "-");
    if (!flash_right) hb_table_cell(t, "no goal");
    else
        hb_table_cell(t, "%g: %s", goal,
                      judge(&g->fused[back], flash / fused, flash >= goal * fused, where));
    if (!back && fft->L <= 4096) {
        snprintf(where, sizeof where, "L = %lld", (long long)fft->L);
        judge(&g->direct_first, cufft / direct, direct < cufft, where);
    }
    if (!back && fft->L == 1024) judge(&g->direct_ms, direct, direct <= 0.2, "L = 1024, ms");
}

static void memory_row(struct hb_report *r, struct hb_table *t, const struct hb_peers *peers,
                       const struct hb_peer *fft, const char *machine, struct conv_goals *g)
{
    struct want w = {machine, CUFFT, HB_SCOPE_CORE, fft->dtype, fft->B, fft->D, fft->L};
    const double cufft = above_inputs(ours(r, &w, HB_PASS_FWD));
    w.impl = DIRECT;
    const double direct = above_inputs(ours(r, &w, HB_PASS_FWD));
    const struct hb_peer *ffc = hb_peer_find(peers, "ffc", fft->L, fft->dtype, fft->B);
    char where[48];
    snprintf(where, sizeof where, "M = %lld", (long long)fft->M);
    hb_table_cell(t, "%lld", (long long)fft->M);
    hb_table_cell(t, "%lld, %lld", (long long)fft->B, (long long)fft->D);
    hb_table_cell(t, "%s", hb_str_bytes(cufft).s);
    hb_table_cell(t, "%s", hb_str_bytes(direct).s);
    hb_table_cell(t, "%s", hb_str_bytes(fft->mem_bytes).s);
    hb_table_cell(t, "%s", hb_str_bytes(ffc ? ffc->mem_bytes : NAN).s);
    hb_table_cell(t, "%s", hb_str_num(cufft / fft->mem_bytes).s);
    hb_table_cell(t, "%s", !in_goal(fft) ? "no goal"
                           : judge(&g->mem, cufft / fft->mem_bytes,
                                   cufft <= 0.5 * fft->mem_bytes, where));
}

static void convolution(struct hb_report *r, const struct hb_peers *p, const char *machine,
                        struct conv_goals *g, struct hb_text *out)
{
    for (int back = 0; back < 2; back++) {
        struct hb_table t = {0};
        hb_table_head(&t, ">M|>L|B, D|>`cufft`|>`direct`|>`fused`|>torch.fft|>FlashFFTConv|>"
                          "torch.fft / `cufft`|goal: 1.5|>FlashFFTConv / `fused`|goal");
        for (size_t i = 0; i < p->n; i++)
            if (!strcmp(p->p[i].what, "torchfft") && p->p[i].causal)
                conv_row(r, &t, p, &p->p[i], machine, back, g);
        hb_text_add(out, "**Long convolution, %s**, causal, f16, filter transformed inside the "
                         "timer. `cufft` is `" CUFFT "`, `direct` is `" DIRECT "`, `fused` is `"
                         FUSED "`; above 1 ours is faster:\n\n", back ? "backward" : "forward");
        hb_table_print(&t, out);
        hb_text_add(out, "\n");
    }
    struct hb_table t = {0};
    hb_table_head(&t, ">M|B, D|>`cufft`|>`direct`|>torch.fft|>FlashFFTConv|>`cufft` / torch.fft|"
                      "goal: 0.5");
    for (size_t i = 0; i < p->n; i++)
        if (!strcmp(p->p[i].what, "torchfft") && p->p[i].causal)
            memory_row(r, &t, p, &p->p[i], machine, g);
    hb_text_add(out, "**Memory of the same convolution, forward**: the device's peak above the "
                     "inputs, so output, spectra and workspace, for ours as for the peers:\n\n");
    hb_table_print(&t, out);
    hb_text_add(out, "\n");
}

// --- attention -----------------------------------------------------------------------------------

struct att_goals { struct tally fwd, bwd; };

static void attention(struct hb_report *r, const struct hb_peers *p, const char *machine,
                      struct att_goals *g, struct hb_text *out)
{
    struct hb_table t = {0};
    hb_table_head(&t, "B|>L|>ours, forward|>PyTorch|>ours / PyTorch|goal: 1.05|>ours, "
                      "backward|>PyTorch|>ours / PyTorch|goal: 1.05 from L = 2048");
    for (int one = 1; one >= 0; one--)  // B 1 first, then B L = 65536
        for (size_t i = 0; i < p->n; i++) {
            const struct hb_peer *q = &p->p[i];
            if (strcmp(q->what, "sdpa_cudnn") || (q->B == 1) != (one == 1)) continue;
            const struct want w = {machine, "attention_cudnn_cuda", HB_SCOPE_CORE, q->dtype,
                                   q->B, q->D, q->L};
            const double f = ms_of(ours(r, &w, HB_PASS_FWD)) / q->fwd_ms,
                         b = ms_of(ours(r, &w, HB_PASS_BWD)) / q->bwd_ms;
            char where[64];
            snprintf(where, sizeof where, "B %lld, L = %lld", (long long)q->B, (long long)q->L);
            hb_table_cell(&t, "%lld", (long long)q->B);
            hb_table_cell(&t, "%lld", (long long)q->L);
            time_cell(&t, f * q->fwd_ms);
            time_cell(&t, q->fwd_ms);
            hb_table_cell(&t, "%s", hb_str_num(f).s);
            hb_table_cell(&t, "%s", judge(&g->fwd, f, f <= 1.05, where));
            time_cell(&t, b * q->bwd_ms);
            time_cell(&t, q->bwd_ms);
            hb_table_cell(&t, "%s", hb_str_num(b).s);
            hb_table_cell(&t, "%s", q->L < 2048 ? "no goal"
                                                : judge(&g->bwd, b, b <= 1.05, where));
        }
    hb_text_add(out, "**Attention**, `attention_cudnn_cuda` against PyTorch's fused attention with "
                     "its cuDNN backend, causal, bf16, 12 heads of 64. Both call the same library; "
                     "below 1 ours is faster. PyTorch's backward below L = 2048 at B 1 is time of "
                     "its host code:\n\n");
    hb_table_print(&t, out);
    hb_text_add(out, "\n");
}

// --- the whole operator --------------------------------------------------------------------------

static void whole(struct hb_report *r, const struct hb_peers *p, const char *machine,
                  struct hb_text *out)
{
    struct hb_table t = {0};
    bool any = false;
    hb_table_head(&t, ">L|>ours, forward|>PyTorch|>PyTorch / ours|>ours, "
                      "backward|>PyTorch|>PyTorch / ours|>memory, ours|>PyTorch");
    for (size_t i = 0; i < p->n; i++) {
        const struct hb_peer *q = &p->p[i];
        if (strcmp(q->what, "hyena_torch_fp32")) continue;
        const struct want w = {machine, "hyena:" CUFFT, HB_SCOPE_OPERATOR, q->dtype, q->B, q->D,
                               q->L};
        const struct hb_cell *f = ours(r, &w, HB_PASS_FWD), *b = ours(r, &w, HB_PASS_BWD);
        any = any || f || b;
        hb_table_cell(&t, "%lld", (long long)q->L);
        time_cell(&t, ms_of(f));
        time_cell(&t, q->fwd_ms);
        hb_table_cell(&t, "%s", hb_str_num(q->fwd_ms / ms_of(f)).s);
        time_cell(&t, ms_of(b));
        time_cell(&t, q->bwd_ms);
        hb_table_cell(&t, "%s", hb_str_num(q->bwd_ms / ms_of(b)).s);
        hb_table_cell(&t, "%s", hb_str_bytes(above_inputs(f)).s);
        hb_table_cell(&t, "%s", hb_str_bytes(q->mem_bytes).s);
    }
    hb_text_add(out, "**Hyena, the whole operator**, float32, B 1, D 768, order 2, filter "
                     "generation inside; `hyena:" CUFFT "` against the paper's stand-alone "
                     "operator in PyTorch. Memory: forward, peak above inputs and parameters. Above 1 ours "
                     "is faster:\n\n");
    if (any) hb_table_print(&t, out);
    else {
        hb_text_add(out, "Not measured: `hyena-bench sweep h100-anchors` does.\n");
        hb_table_free(&t);
    }
    hb_text_add(out, "\n");
}

// --- training ------------------------------------------------------------------------------------

struct train_goals { struct tally gpt, hyena; };

static int64_t layers_of(const struct hb_lm_run *run)
{
    return json_integer_value(json_object_get(run->cell->entry, "hb_layers"));
}

// The run of the peers' shape: 12 layers of 768, 32768 tokens a step, 16 bits; one of purpose
// "speed" if there is one.
static const struct hb_lm_run *our_run(const struct hb_lm_set *s, const char *machine,
                                       const char *model, int64_t L)
{
    const struct hb_lm_run *best = NULL;
    for (size_t i = 0; i < s->n; i++) {
        const struct hb_lm_run *o = &s->run[i];
        if (!o->ok || strcmp(o->machine, machine) || !hb_on_gpu(o->device) ||
            strcmp(o->model, model) || o->L != L || o->D != 768 || layers_of(o) != 12 ||
            o->B * o->L != 32768 || !strcmp(o->dtype, "f32") || strcmp(o->tokenizer, "gpt2"))
            continue;
        if (!best || (strcmp(best->purpose, "speed") && !strcmp(o->purpose, "speed"))) best = o;
    }
    return best;
}

static void training_row(struct hb_report *r, struct hb_table *t, const char *machine,
                         const struct hb_peer_training *q, struct train_goals *g)
{
    const bool gpt = !strcmp(q->what, "gpt");
    const struct hb_lm_run *o = our_run(&r->st->lm, machine, gpt ? "A" : "H", q->L);
    const double speed = o ? o->tokens_per_s : NAN, goal = gpt ? 470000 : 230000;
    char where[64];
    snprintf(where, sizeof where, "L = %lld", (long long)q->L);
    hb_table_cell(t, "%s", gpt ? "GPT, A" : "Hyena, H");
    hb_table_cell(t, "%lld", (long long)q->L);
    hb_table_cell(t, "%s", o ? o->impl : "-");
    hb_table_cell(t, "%s", o ? hb_str_len((double)o->params).s : "-");
    if (isfinite(speed)) hb_table_cell(t, "%.0f", speed);
    else hb_table_cell(t, "-");
    hb_table_cell(t, "%s", gpt                             ? "compiled"
                           : !strcmp(q->what, "hyena_ffc") ? "FlashFFTConv"
                                                           : "torch.fft");
    hb_table_cell(t, "%.0f", q->tokens_per_s);
    hb_table_cell(t, "%s", hb_str_num(speed / q->tokens_per_s).s);
    hb_table_cell(t, "%s", hb_str_bytes(o ? o->peak_bytes : NAN).s);
    hb_table_cell(t, "%s", hb_str_bytes(q->mem_bytes).s);
    if (!strcmp(q->what, "hyena_ffc") || (gpt && q->L != 1024)) hb_table_cell(t, "-");
    else
        hb_table_cell(t, "%.0f: %s", goal,
                      judge(gpt ? &g->gpt : &g->hyena, speed, speed >= goal, where));
}

static void training(struct hb_report *r, const struct hb_peers *p, const char *machine,
                     struct train_goals *g, struct hb_text *out)
{
    struct hb_table t = {0};
    hb_table_head(&t, "model|>L|mixer, ours|>parameters|>tokens/s, ours|PyTorch "
                      "with|>tokens/s, PyTorch|>ours / PyTorch|>memory, ours|>PyTorch|goal, "
                      "tokens/s");
    for (int gpt = 1; gpt >= 0; gpt--)
        for (size_t i = 0; i < p->nt; i++)
            if (!strcmp(p->t[i].what, "gpt") == (gpt == 1))
                training_row(r, &t, machine, &p->t[i], g);
    hb_text_add(out, "**Training**, whole steps (forward, backward, update), 12 layers, D 768, "
                     "32768 tokens a step, 16 bits with float32 master weights. Tokens/s from the median "
                     "step; memory is the device's peak. Above 1 ours is faster:\n\n");
    hb_table_print(&t, out);
    hb_text_add(out, "\n");
}

// --- the section ---------------------------------------------------------------------------------

static void machine_part(struct hb_report *r, const struct hb_peers *p, const char *machine)
{
    struct conv_goals c = {0};
    struct att_goals a = {0};
    struct train_goals l = {0};
    struct hb_text tables = {0};
    hb_report_subhead(r, machine);
    convolution(r, p, machine, &c, &tables);
    attention(r, p, machine, &a, &tables);
    whole(r, p, machine, &tables);
    training(r, p, machine, &l, &tables);
    hb_text_add(&r->t, "The goals, each judged from the tables below:\n\n");
    tally_line(r, &c.fwd, "`" CUFFT "`, forward, at least 1.5 times as fast as torch.fft, M = 1024 "
                          "to 1048576");
    tally_line(r, &c.bwd, "the same, backward");
    tally_line(r, &c.mem, "at most half of torch.fft's memory (here: the share it takes)");
    tally_line(r, &c.direct_ms, "`" DIRECT "` at most 0.2 ms at L = 1024, B 64, D 768, f16, "
                                "forward");
    tally_line(r, &c.direct_first, "`" DIRECT "` faster than `" CUFFT "` up to L = 4096, forward "
                                   "(here: `cufft` over `direct`)");
    tally_line(r, &c.fused[0], "`" FUSED "` at least 3 times as fast as FlashFFTConv, forward, "
                               "f16; 6 times from M = 65536");
    tally_line(r, &c.fused[1], "the same, backward; 5 times from M = 16384");
    tally_line(r, &a.fwd, "`attention_cudnn_cuda` at most 1.05 times PyTorch's time, forward");
    tally_line(r, &a.bwd, "the same, backward, from L = 2048");
    tally_line(r, &l.gpt, "training, GPT of 124 million parameters, L = 1024: at least 470000 "
                          "tokens/s");
    tally_line(r, &l.hyena, "training, Hyena of 125 million parameters, L = 1024 to 32768: at "
                            "least 230000 tokens/s");
    hb_text_add(&r->t, "\n");
    hb_report_figure(r, "peers_conv", machine);
    hb_report_figure(r, "peers_fused", machine);
    hb_text_add(&r->t, "%s", tables.s ? tables.s : "");
    r->t.failed = r->t.failed || tables.failed;
    hb_text_free(&tables);
}

void hb_report_peers(struct hb_report *r)
{
    struct hb_peers p;
    bool any = false;
    for (size_t m = 0; m < r->st->n_machines; m++)
        any = any || hb_report_has_gpu(r, r->st->machine[m]);
    if (!any) return;
    hb_text_add(&r->t,
                "## Beside the peers\n\n"
                "What PyTorch and FlashFFTConv take for the same work, at the same B and D, on the "
                "same kind of GPU (one NVIDIA H100 80GB HBM3, PyTorch 2.11 with CUDA 13.0, cuDNN "
                "9.19; `results/peers`, where the files' heads say how). Their numbers were taken "
                "in other runs than ours, with another clock: medians of repeated launches, cache "
                "flushed between them, as in ours; their launch overhead is inside, ours is not, "
                "which matters below about 0.1 ms. No intervals were kept for them.\n\n");
    if (hb_peers_load(&p)) {
        hb_text_add(&r->t, "The tables are not at hand: %s.\n\n", hb_error());
        hb_error_clear();
        return;
    }
    for (size_t m = 0; m < r->st->n_machines; m++)
        if (hb_report_has_gpu(r, r->st->machine[m])) machine_part(r, &p, r->st->machine[m]);
    hb_peers_free(&p);
}
