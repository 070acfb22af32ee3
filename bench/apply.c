// apply.c: `hyena-bench apply IMPL`: any implementation on the user's own arrays.
//
// Everything is read and checked first, then computed, then written: the gradients, then the
// output, each file whole or not at all; if the second cannot be written the first is taken back.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apply.h"
#include "child.h"
#include "cli.h"
#include "commands.h"

static int parse(int argc, char **argv, struct hb_apply *a)
{
    const struct hb_opt opts[] = {
        { "u", HB_OPT_STR, &a->u_path, "U.npy",
          "input: longconv (B,D,L) or (D,L); hyena, mha (B,L,D)", 0, 0 },
        { "h", HB_OPT_STR, &a->h_path, "H.npy", "longconv: filter (D,L)", 0, 0 },
        { "d", HB_OPT_STR, &a->d_path, "D.npy", "longconv: skip term (D)", 0, 0 },
        { "q", HB_OPT_STR, &a->q_path, "Q.npy", "attention: queries (B,H,L,P); --k and --v alike",
          0, 0 },
        { "k", HB_OPT_STR, &a->k_path, "K.npy", "attention: keys", 0, 0 },
        { "v", HB_OPT_STR, &a->v_path, "V.npy", "attention: values", 0, 0 },
        { "params", HB_OPT_STR, &a->params_path, "W.safetensors",
          "hyena, mha: parameters by official names", 0, 0 },
        { "out", HB_OPT_STR, &a->out_path, "Y.npy", "where the output goes", 0, 0 },
        { "dy", HB_OPT_STR, &a->dy_path, "DY.npy",
          "gradient of the output: compute the backward pass too", 0, 0 },
        { "grads", HB_OPT_STR, &a->grads_path, "G.safetensors",
          "where all gradients go, by name; du is 'u'", 0, 0 },
        { "heads", HB_OPT_INT, &a->heads, "N", "mha: heads; default one per 64 channels", 1,
          1 << 24 },
        { "rope", HB_OPT_FLAG, &a->rope, "", "mha: rotary positions on q and k", 0, 0 },
        { "shift", HB_OPT_DOUBLE, &a->shift, "X", "hyena: added to the decay window (0)", -1e6,
          1e6 },
        { "no-window", HB_OPT_FLAG, &a->no_window, "", "hyena: no decay window", 0, 0 },
        { "package-layout", HB_OPT_FLAG, &a->package_layout, "",
          "hyena: filter channel c*(order-1)+o", 0, 0 },
        { "threads", HB_OPT_INT, &a->threads, "N", "worker threads; default all there are", 1,
          1024 },
    };
    const struct hb_cli cli = {
        .command = "apply",
        .args = "IMPL --u U.npy --h H.npy --out Y.npy",
        .about = "Runs any implementation on your own NumPy arrays (float32 or float64, C order).",
        .example =
            "hyena-bench apply longconv_fftw --u u.npy --h h.npy --d d.npy --out y.npy\n"
            "  hyena-bench apply hyena:longconv_fftw --params w.safetensors --u u.npy --dy dy.npy "
            "--grads g.safetensors --out y.npy",
        .opts = opts,
        .n_opts = sizeof opts / sizeof *opts,
        .min_pos = 1,
        .max_pos = 1,
    };
    const char *pos[1] = { NULL };
    int n_pos = 0, rc = hb_cli_parse(&cli, argc, argv, pos, &n_pos);
    a->impl_name = pos[0];
    return rc;
}

// --- which options belong to which operator ------------------------------------------------------

// bit sets of 1 << hb_op
struct named { const char *option; const void *value; unsigned ops, needed; };
enum { CONV = 1 << HB_LONGCONV, ATTN = 1 << HB_ATTENTION, HY = 1 << HB_HYENA, MHA = 1 << HB_MHA,
       ALL = CONV | ATTN | HY | MHA };

static int check_options(const struct hb_apply *a)
{
    const struct named list[] = {
        { "u", a->u_path, CONV | HY | MHA, CONV | HY | MHA },
        { "h", a->h_path, CONV, CONV },
        { "d", a->d_path, CONV, 0 },
        { "q", a->q_path, ATTN, ATTN },
        { "k", a->k_path, ATTN, ATTN },
        { "v", a->v_path, ATTN, ATTN },
        { "params", a->params_path, HY | MHA, HY | MHA },
        { "out", a->out_path, ALL, ALL },
        { "dy", a->dy_path, ALL, a->grads_path ? ALL : 0 },
        { "grads", a->grads_path, ALL, a->dy_path ? ALL : 0 },
        { "heads", a->heads ? a : NULL, MHA, 0 },
        { "rope", a->rope ? a : NULL, MHA, 0 },
        { "shift", a->shift != 0 ? a : NULL, HY, 0 },
        { "no-window", a->no_window ? a : NULL, HY, 0 },
        { "package-layout", a->package_layout ? a : NULL, HY, 0 },
    };
    unsigned op = 1u << a->p.op;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        if ((list[i].needed & op) && !list[i].value)
            return hb_fail(HB_ERR_INPUT, "--%s is missing: %s needs it here", list[i].option,
                           a->impl_name);
        if (list[i].value && !(list[i].ops & op))
            return hb_fail(HB_ERR_INPUT, "--%s is not for %s", list[i].option, a->impl_name);
    }
    if (a->dy_path && !a->impl->backward)
        return hb_fail(HB_ERR_REFUSED, "%s has no backward pass", a->impl_name);
    if (a->grads_path && !strcmp(a->grads_path, a->out_path))
        return hb_fail(HB_ERR_INPUT, "--grads and --out are both %s", a->out_path);
    return 0;
}

static int find_impl(struct hb_apply *a)
{
    const char *colon = strchr(a->impl_name, ':');
    a->impl = hb_registry_find(a->impl_name);
    if (!a->impl) return hb_error_code();
    a->p.op = a->impl->op;
    if (!colon && (a->p.op == HB_HYENA || a->p.op == HB_MHA))
        return hb_fail(HB_ERR_INPUT,
                       "%s: what should be inside? Expected %s:NAME; 'hyena-bench list' shows all",
                       a->impl_name, a->impl_name);
    snprintf(a->p.inner, sizeof a->p.inner, "%s", colon ? colon + 1 : "");
    const char *device = hb_impl_device(a->impl_name);
    int rc = device && !strcmp(device, "cuda") ? hb_use_device("cuda0") : 0;
    if (rc) return rc;
    if (!(a->impl->dtypes & 1u << HB_F32))
        return hb_fail(HB_ERR_REFUSED, "%s does not do float32", a->impl_name);
    return check_options(a);
}

// --- inputs --------------------------------------------------------------------------------------

// Reads path if it is named; its shape must be want.
static int read_like(const char *path, struct hb_npy *x, int rank, const int64_t *want)
{
    char is[256], expected[256];
    int rc = path ? hb_npy_read(path, x) : 0;
    if (rc || !path || (x->rank == rank && !memcmp(x->shape, want, (size_t)rank * sizeof *want)))
        return rc;
    return hb_fail(HB_ERR_INPUT, "%s: its shape is %s, expected %s", path,
                   hb_shape_str(x->rank, x->shape, is, sizeof is),
                   hb_shape_str(rank, want, expected, sizeof expected));
}

// Reads path, which has `rank` dimensions (or one less if `less`); what names them.
static int read_rank(const char *path, struct hb_npy *x, int rank, bool less, const char *what)
{
    char is[256];
    int rc = hb_npy_read(path, x);
    if (rc || x->rank == rank || (less && x->rank == rank - 1)) return rc;
    return hb_fail(HB_ERR_INPUT, "%s: its shape is %s, expected %s", path,
                   hb_shape_str(x->rank, x->shape, is, sizeof is), what);
}

// The tensor that sets the shape of the output and its gradient.
static struct hb_npy *leading(struct hb_apply *a)
{
    return a->p.op == HB_ATTENTION ? &a->q : &a->u;
}

static int read_inputs(struct hb_apply *a)
{
    struct hb_problem *p = &a->p;
    int rc = 0;
    if (p->op == HB_ATTENTION) {
        if ((rc = read_rank(a->q_path, &a->q, 4, false, "(B,H,L,P)"))) return rc;
        p->B = a->q.shape[0], p->H = a->q.shape[1], p->L = a->q.shape[2],
        p->D = p->H * a->q.shape[3];
        rc = read_like(a->k_path, &a->k, 4, a->q.shape);
        if (!rc) rc = read_like(a->v_path, &a->v, 4, a->q.shape);
    } else if (p->op == HB_LONGCONV) {
        if ((rc = read_rank(a->u_path, &a->u, 3, true, "(B,D,L) or (D,L)"))) return rc;
        const int64_t *last = a->u.shape + a->u.rank - 2;
        p->B = a->u.rank == 3 ? a->u.shape[0] : 1, p->D = last[0], p->L = last[1];
        rc = read_like(a->h_path, &a->h, 2, last);
        if (!rc) rc = read_like(a->d_path, &a->d, 1, last);
    } else {
        if ((rc = read_rank(a->u_path, &a->u, 3, false, "(B,L,D)"))) return rc;
        p->B = a->u.shape[0], p->L = a->u.shape[1];
        rc = hb_apply_params(a);
    }
    return rc ? rc : read_like(a->dy_path, &a->dy, leading(a)->rank, leading(a)->shape);
}

// --- outputs -------------------------------------------------------------------------------------

static float *new_floats(int64_t n)
{
    float *x = hb_host()->alloc(hb_host(), (size_t)n * sizeof *x);
    if (x) memset(x, 0, (size_t)n * sizeof *x);
    return x;
}

// One more gradient, zeroed, as large as an input; NULL with the message set.
static float *add_grad(struct hb_apply *a, const char *name, int rank, const int64_t *shape)
{
    struct hb_st_tensor *t = &a->grads[a->n_grads];
    *t = (struct hb_st_tensor){ .name = name, .rank = rank, .n = 1 };
    for (int i = 0; i < rank; i++) t->n *= t->shape[i] = shape[i];
    t->data = a->grad[a->n_grads] = new_floats(t->n);
    return t->data ? a->grad[a->n_grads++] : NULL;
}

static float *grad_like(struct hb_apply *a, const char *name, const struct hb_npy *x)
{
    return a->dy.data && x->data ? add_grad(a, name, x->rank, x->shape) : NULL;
}

// --- on the device -------------------------------------------------------------------------------

// `n` floats of the host as the device sees them: a copy, on the cpu they themselves. `out`: what
// the device makes of them is wanted back. NULL stays NULL; NULL with the message set where there
// is no memory.
static void *there(struct hb_apply *a, const void *host, int64_t n, bool out)
{
    const struct hb_device *d = hb_host()->device;
    if (!host || !strcmp(d->name, "cpu")) return (void *)host;
    struct hb_apply_copy *c = &a->copies[a->n_copies];
    *c = (struct hb_apply_copy){ (void *)host, NULL, (size_t)n * sizeof(float), out };
    c->dev = d->alloc(d, c->bytes);
    if (!c->dev) return NULL;
    a->n_copies++;
    if (d->upload(d, c->dev, host, c->bytes, d->stream))
        hb_fail(HB_ERR_RUN, "%s: cannot copy to the device", a->impl_name);
    return c->dev;
}

static void *array_there(struct hb_apply *a, const struct hb_npy *x)
{
    return there(a, x->data, x->n, false);
}

// The gradient that belongs to the input x.
static void *grad_there(struct hb_apply *a, const char *name, const struct hb_npy *x)
{
    return there(a, grad_like(a, name, x), x->n, true);
}

static int bring_back(struct hb_apply *a)
{
    const struct hb_device *d = hb_host()->device;
    int rc = d->sync(d, d->stream);
    for (int i = 0; i < a->n_copies && !rc; i++) {
        const struct hb_apply_copy *c = &a->copies[i];
        if (c->out) rc = d->download(d, c->host, c->dev, c->bytes, d->stream);
    }
    return rc ? rc : d->sync(d, d->stream);
}

// --- running -------------------------------------------------------------------------------------

static void conv_io(struct hb_apply *a, struct hb_longconv_io *io)
{
    struct hb_strides s = { a->p.D * a->p.L, a->p.L };
    *io = (struct hb_longconv_io){ .u = array_there(a, &a->u), .su = s,
                                   .h = array_there(a, &a->h), .d = array_there(a, &a->d),
                                   .y = there(a, a->y, a->u.n, true), .sy = s,
                                   .dy = array_there(a, &a->dy), .sdy = s,
                                   .du = grad_there(a, "u", &a->u), .sdu = s,
                                   .dh = grad_there(a, "h", &a->h),
                                   .dd = grad_there(a, "d", &a->d) };
}

static void attention_io(struct hb_apply *a, struct hb_attention_io *io)
{
    int64_t L = a->p.L, P = a->p.D / a->p.H;
    struct hb_heads s = { a->p.H * L * P, L * P, P };
    *io = (struct hb_attention_io){ .q = array_there(a, &a->q), .k = array_there(a, &a->k),
                                    .v = array_there(a, &a->v), .sq = s,
                                    .y = there(a, a->y, a->q.n, true), .sy = s,
                                    .dy = array_there(a, &a->dy),
                                    .dq = grad_there(a, "q", &a->q),
                                    .dk = grad_there(a, "k", &a->k),
                                    .dv = grad_there(a, "v", &a->v) };
}

// params, grads: room for HB_APPLY_TENSORS, live as long as io.
static void oper_io(struct hb_apply *a, struct hb_oper_io *io, void **params, void **grads)
{
    *io = (struct hb_oper_io){ .u = array_there(a, &a->u), .y = there(a, a->y, a->u.n, true),
                               .dy = array_there(a, &a->dy), .params = params,
                               .du = grad_there(a, "u", &a->u), .grads = grads };
    for (int i = 0; i < a->n_params; i++) {
        const struct hb_tensor *t = &a->tensors[i];
        int64_t n = 1;
        for (int k = 0; k < t->rank; k++) n *= t->shape[k];
        params[i] = there(a, a->params[i], n, false);
        if (a->dy.data)
            grads[i] = there(a, add_grad(a, t->name, t->rank, t->shape), n, true);
    }
}

static int compute(struct hb_apply *a)
{
    void *st = NULL, *params[HB_APPLY_TENSORS] = { 0 }, *grads[HB_APPLY_TENSORS] = { 0 };
    struct hb_io io = { .stream = hb_host()->device->stream };
    const char *why = a->impl->refuses ? a->impl->refuses(&a->p) : NULL;
    if (why) return hb_fail(HB_ERR_REFUSED, "%s: %s", a->impl_name, why);
    a->y = new_floats(leading(a)->n);
    if (!a->y) return HB_ERR_OOM;
    if (a->p.op == HB_LONGCONV) conv_io(a, &io.conv);
    else if (a->p.op == HB_ATTENTION) attention_io(a, &io.attn);
    else oper_io(a, &io.oper, params, grads);
    if (hb_error_code()) return hb_error_code();             // no memory for a tensor
    int rc = a->impl->plan(hb_host(), &a->p, &st);
    if (!rc) rc = a->impl->forward(st, &io);
    if (!rc && a->dy.data) rc = a->impl->backward(st, &io);
    if (!rc) rc = bring_back(a);
    a->impl->destroy(st);
    return rc;
}

static int write_outputs(struct hb_apply *a)
{
    const struct hb_npy *like = leading(a);
    int rc = a->grads_path ? hb_st_write(a->grads_path, a->grads, a->n_grads) : 0;
    if (rc) return rc;
    rc = hb_npy_write(a->out_path, like->rank, like->shape, a->y);
    struct stat st;              // never one without the other; but no device is removed
    if (rc && a->grads_path && stat(a->grads_path, &st) == 0 && S_ISREG(st.st_mode))
        unlink(a->grads_path);
    return rc;
}

static void clean(struct hb_apply *a)
{
    struct hb_npy *const arrays[] = { &a->u, &a->h, &a->d, &a->q, &a->k, &a->v, &a->dy };
    const struct hb_device *d = hb_host()->device;
    for (int i = 0; i < a->n_copies; i++) d->free(d, a->copies[i].dev);
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) hb_npy_free(arrays[i]);
    for (int i = 0; i < HB_APPLY_TENSORS; i++) {
        hb_host()->free(hb_host(), a->params[i]);
        hb_host()->free(hb_host(), a->grad[i]);
    }
    hb_host()->free(hb_host(), a->y);
    hb_st_free(&a->file);
}

static int apply(struct hb_apply *a)
{
    int rc = hb_registry_load();
    if (!rc) rc = find_impl(a);
    if (!rc) rc = read_inputs(a);
    a->p.backward = a->dy.data != NULL;
    a->p.threads = hb_host()->threads;
    a->p.planning = HB_PLAN_ESTIMATE;  // one call: measuring plans would cost more than it saves
    if (!rc) rc = compute(a);
    return rc ? rc : write_outputs(a);
}

int hb_cmd_apply(int argc, char **argv)
{
    struct hb_apply *a = calloc(1, sizeof *a);
    if (!a) return hb_exit_code("apply", hb_fail(HB_ERR_OOM, "out of memory"));
    int rc = parse(argc, argv, a);
    if (!rc) rc = hb_host_init((int)a->threads, hb_default_mem_limit());
    if (!rc) {
        rc = apply(a);
        clean(a);
    }
    free(a);
    return hb_exit_code("apply", rc);
}
