// inputs.c: the tensors of a point, drawn from its seed, each between guard zones (contract:
// check.h, inputs.h).
//
// NORMAL    standard normal; parameters of operators by their standalone initialisation
// IMPULSE   u (attention: v) is one 1 in each row, at a place of its own
// CONSTANT  signals are constants that no binary fraction hits: sums whose errors all point one
//           way. For attention q and dy: a constant k or v would make gradients vanish, and nothing
//           could be judged
// LARGE     u by 2^40. For attention v, and scores of many thousands whose largest stands alone:
//           exp of a score that is not shifted overflows, while the right answer does not depend on
//           the scores' rounding
// TINY      u, v by 2^-40 and q by 2^-20, k by 2^20: nothing may be flushed
// For longconv some kinds use channel-first tensors, (D,B,L) as the hyena operator does, on one
// side or on both.
#include <stdlib.h>
#include <string.h>

#include "inputs.h"
#include "paraminit.h"
#include "../impls/core/rng.h"

enum { GUARD = 256 };            // bytes on each side: more than any tile edge's stray vector store
enum { STREAM_PARAMS = 100 };    // streams below belong to the io's own tensors

enum how { NORMAL, IMPULSE, CONST, LEVELS };           // LEVELS: a permutation of 0..L-1 along time
struct fill { enum how how; double by; };
struct source { enum hb_op op; const char *what; struct fill kind[HB_IN_COUNT]; };

// One row a tensor, one column a kind: normal, impulse, constant, large, tiny. The row's place is
// its stream.
static const struct source sources[] = {
    { HB_LONGCONV, "u",
      { { NORMAL, 1 }, { IMPULSE, 1 }, { CONST, 0.7 }, { NORMAL, 0x1p40 }, { NORMAL, 0x1p-40 } } },
    { HB_LONGCONV, "h",
      { { NORMAL, 1 }, { NORMAL, 1 }, { CONST, 0.3 }, { NORMAL, 1 }, { NORMAL, 1 } } },
    { HB_LONGCONV, "d",
      { { NORMAL, 1 }, { NORMAL, 1 }, { NORMAL, 1 }, { NORMAL, 1 }, { NORMAL, 1 } } },
    { HB_LONGCONV, "dy",
      { { NORMAL, 1 }, { NORMAL, 1 }, { CONST, 0.6 }, { NORMAL, 1 }, { NORMAL, 1 } } },
    { HB_ATTENTION, "q",
      { { NORMAL, 1 }, { NORMAL, 1 }, { CONST, 0.7 }, { CONST, 40 }, { NORMAL, 0x1p-20 } } },
    { HB_ATTENTION, "k",
      { { NORMAL, 1 }, { NORMAL, 1 }, { NORMAL, 1 }, { LEVELS, 1 }, { NORMAL, 0x1p20 } } },
    { HB_ATTENTION, "v",
      { { NORMAL, 1 }, { IMPULSE, 1 }, { NORMAL, 1 }, { NORMAL, 0x1p40 }, { NORMAL, 0x1p-40 } } },
    { HB_ATTENTION, "dy",
      { { NORMAL, 1 }, { NORMAL, 1 }, { CONST, 0.6 }, { NORMAL, 1 }, { NORMAL, 1 } } },
    { HB_HYENA, "u",
      { { NORMAL, 1 }, { IMPULSE, 1 }, { CONST, 0.7 }, { NORMAL, 0x1p4 }, { NORMAL, 0x1p-4 } } },
    { HB_HYENA, "dy",
      { { NORMAL, 1 }, { NORMAL, 1 }, { CONST, 0.6 }, { NORMAL, 1 }, { NORMAL, 1 } } },
    { HB_MHA, "u",
      { { NORMAL, 1 }, { IMPULSE, 1 }, { CONST, 0.7 }, { NORMAL, 4 }, { NORMAL, 0x1p-4 } } },
    { HB_MHA, "dy",
      { { NORMAL, 1 }, { NORMAL, 1 }, { CONST, 0.6 }, { NORMAL, 1 }, { NORMAL, 1 } } },
};
enum { N_SOURCES = sizeof sources / sizeof *sources };

// --- buffers -------------------------------------------------------------------------------------

static size_t dtype_bytes(enum hb_dtype t) { return t == HB_F64 ? 8 : t == HB_F32 ? 4 : 2; }
static char guard_byte(size_t i) { return (char)(0x5a ^ (i & 0xff)); }

// Bytes behind the data up to the end of the block: the rest of the last line and GUARD more.
static size_t tail_bytes(const struct hb_buf *b)
{
    return GUARD + (HB_ALIGN - b->bytes % HB_ALIGN) % HB_ALIGN;
}

static struct hb_buf *add(struct hb_inputs *in, const char *what, enum hb_role role,
                          enum hb_dtype dtype, int64_t n)
{
    struct hb_bufs *all = in->priv;
    if (all->n == HB_MAX_BUFS) {
        hb_fail(HB_ERR_INPUT, "inputs: more than %d tensors", HB_MAX_BUFS);
        return NULL;
    }
    struct hb_buf *b = &all->b[all->n];
    *b = (struct hb_buf){
        .role = role, .dtype = dtype, .n = n, .bytes = (size_t)n * dtype_bytes(dtype)
    };
    snprintf(b->what, sizeof b->what, "%s", what);
    b->block = hb_host()->alloc(hb_host(), GUARD + b->bytes + tail_bytes(b));
    if (!b->block) return NULL;
    b->data = b->block + GUARD;
    all->n++;
    in->bytes += b->bytes;
    for (size_t i = 0; i < GUARD; i++) b->block[i] = guard_byte(i);
    for (size_t i = 0; i < tail_bytes(b); i++) b->block[GUARD + b->bytes + i] = guard_byte(i);
    return b;
}

static bool guards_ok(const struct hb_buf *b)
{
    for (size_t i = 0; i < GUARD; i++)
        if (b->block[i] != guard_byte(i)) return false;
    for (size_t i = 0; i < tail_bytes(b); i++)
        if (b->block[GUARD + b->bytes + i] != guard_byte(i)) return false;
    return true;
}

struct hb_bufs *hb_inputs_bufs(const struct hb_inputs *in) { return in->priv; }

struct hb_buf *hb_inputs_find(const struct hb_inputs *in, const char *what)
{
    struct hb_bufs *all = in->priv;
    for (int i = 0; i < all->n; i++)
        if (strcmp(all->b[i].what, what) == 0) return &all->b[i];
    return NULL;
}

bool hb_inputs_guards_ok(const struct hb_inputs *in)
{
    const struct hb_bufs *all = in->priv;
    for (int i = 0; i < all->n; i++)
        if (!guards_ok(&all->b[i])) return false;
    return true;
}

void hb_inputs_poison(struct hb_inputs *in)
{
    struct hb_bufs *all = in->priv;
    for (int i = 0; i < all->n; i++) {
        struct hb_buf *b = &all->b[i];
        if (b->role != HB_ROLE_IN)
            memset(b->data, b->role == HB_ROLE_OUT ? 0xff : 0, b->bytes);  // ff..ff is a NaN
    }
}

void hb_buf_load(const struct hb_buf *b, int64_t at, int64_t n, double *out)
{
    const float *f = b->data;
    const double *g = b->data;
    for (int64_t i = 0; i < n; i++) out[i] = b->dtype == HB_F64 ? g[at + i] : (double)f[at + i];
}

void hb_buf_store(struct hb_buf *b, int64_t at, int64_t n, const double *x)
{
    float *f = b->data;
    double *g = b->data;
    for (int64_t i = 0; i < n; i++) {
        if (b->dtype == HB_F64) g[at + i] = x[i];
        else f[at + i] = (float)x[i];
    }
}

int64_t hb_buf_not_finite(const struct hb_buf *b)
{
    const uint64_t exp64 = 0x7ff0000000000000u;
    const uint32_t exp32 = 0x7f800000u;
    const char *p = b->data;
    for (int64_t i = 0; i < b->n; i++) {
        uint64_t x64;
        uint32_t x32;
        if (b->dtype == HB_F64) {
            memcpy(&x64, p + 8 * i, sizeof x64);
            if ((x64 & exp64) == exp64) return i;
        } else {
            memcpy(&x32, p + 4 * i, sizeof x32);
            if ((x32 & exp32) == exp32) return i;
        }
    }
    return -1;
}

// --- values --------------------------------------------------------------------------------------

// A step near 0.618 n that has no divisor in common with n: s -> s step mod n is a permutation,
// well mixed.
static int64_t mixing_step(int64_t n)
{
    for (int64_t step = (int64_t)(0.618 * (double)n); step > 1; step--) {
        int64_t a = n, b = step;
        while (b) {
            int64_t r = a % b;
            a = b;
            b = r;
        }
        if (a == 1) return step;
    }
    return 1;
}

// `row` elements belong together, L steps in time: an impulse is one of them, a level is one
// step's.
static void fill(struct hb_buf *b, struct fill f, int64_t row, int64_t L, uint64_t seed,
                 uint64_t stream)
{
    int64_t step = mixing_step(L), width = row / L;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < b->n; i++) {
        double x = f.by;
        if (f.how == NORMAL) x = f.by * hb_rng_normal(seed, stream, (uint64_t)i);
        if (f.how == IMPULSE)
            x = hb_rng_u64(seed, stream, (uint64_t)(i / row)) % (uint64_t)row == (uint64_t)(i % row)
                    ? f.by
                    : 0;
        if (f.how == LEVELS) x = f.by * (double)(i % row / width * step % L);
        hb_buf_store(b, i, 1, &x);
    }
}

// Adds a tensor that is read and fills it by its row of `sources`. *slot: where the io wants the
// pointer.
static int add_in(struct hb_inputs *in, const struct hb_point *pt, enum hb_input kind,
                  const char *what, int64_t n, int64_t row, const void **slot)
{
    struct hb_buf *b = add(in, what, HB_ROLE_IN, pt->p.dtype, n);
    if (!b) return hb_error_code();
    for (int i = 0; i < N_SOURCES; i++)
        if (sources[i].op == pt->p.op && strcmp(sources[i].what, what) == 0)
            fill(b, sources[i].kind[kind], row, row < pt->p.L ? row : pt->p.L, pt->seed,
                 (uint64_t)i);
    *slot = b->data;
    return 0;
}

static int add_out(struct hb_inputs *in, const struct hb_point *pt, const char *what,
                   enum hb_role role, int64_t n, void **slot)
{
    struct hb_buf *b = add(in, what, role, pt->p.dtype, n);
    if (!b) return hb_error_code();
    *slot = b->data;
    return 0;
}

static int make_conv(const struct hb_point *pt, enum hb_input kind, struct hb_inputs *in)
{
    int64_t L = pt->p.L, D = pt->p.D, n = pt->p.B * D * L;
    struct hb_longconv_io *io = &in->io.conv;
    const struct hb_strides usual = { .b = D * L, .c = L },
                            channel_first = { .b = L, .c = pt->p.B * L };
    io->su = io->sdy = kind == HB_IN_IMPULSE || kind == HB_IN_TINY ? channel_first : usual;
    io->sy = io->sdu = kind == HB_IN_IMPULSE || kind == HB_IN_LARGE ? channel_first : usual;
    int rc = add_in(in, pt, kind, "u", n, L, &io->u);
    if (!rc) rc = add_in(in, pt, kind, "h", D * L, L, &io->h);
    if (!rc) rc = add_in(in, pt, kind, "d", D, D, &io->d);
    if (!rc) rc = add_out(in, pt, "y", HB_ROLE_OUT, n, &io->y);
    if (rc || !pt->p.backward) return rc;
    rc = add_in(in, pt, kind, "dy", n, L, &io->dy);
    if (!rc) rc = add_out(in, pt, "du", HB_ROLE_OUT, n, &io->du);
    if (!rc) rc = add_out(in, pt, "dh", HB_ROLE_ACC, D * L, &io->dh);
    if (!rc) rc = add_out(in, pt, "dd", HB_ROLE_ACC, D, &io->dd);
    return rc;
}

static int make_attention(const struct hb_point *pt, enum hb_input kind, struct hb_inputs *in)
{
    int64_t row = pt->p.L * (pt->p.D / pt->p.H), n = pt->p.B * pt->p.H * row;
    struct hb_attention_io *io = &in->io.attn;
    int rc = add_in(in, pt, kind, "q", n, row, &io->q);
    if (!rc) rc = add_in(in, pt, kind, "k", n, row, &io->k);
    if (!rc) rc = add_in(in, pt, kind, "v", n, row, &io->v);
    if (!rc) rc = add_out(in, pt, "y", HB_ROLE_OUT, n, &io->y);
    if (rc || !pt->p.backward) return rc;
    rc = add_in(in, pt, kind, "dy", n, row, &io->dy);
    if (!rc) rc = add_out(in, pt, "dq", HB_ROLE_OUT, n, &io->dq);
    if (!rc) rc = add_out(in, pt, "dk", HB_ROLE_OUT, n, &io->dk);
    if (!rc) rc = add_out(in, pt, "dv", HB_ROLE_OUT, n, &io->dv);
    return rc;
}

// The parameters, initialised as in a standalone operator, and their gradients (none for constant
// tensors).
static int make_params(const struct hb_point *pt, const struct hb_impl *impl, struct hb_inputs *in)
{
    enum { CAP = 64 };
    in->tensors = calloc(CAP, sizeof *in->tensors);
    in->params = calloc(CAP, sizeof *in->params);
    in->grads = calloc(CAP, sizeof *in->grads);
    if (!in->tensors || !in->params || !in->grads)
        return hb_fail(HB_ERR_OOM, "out of memory: table of parameters");
    int n = impl->tensors(&pt->p, in->tensors, CAP);
    if (n < 0 || n > CAP)
        return hb_fail(HB_ERR_RUN, "%s: says that it has %d parameter tensors", impl->name, n);
    in->n_params = n;
    for (int i = 0; i < n; i++) {
        const struct hb_tensor *t = &in->tensors[i];
        char what[64];
        snprintf(what, sizeof what, "p:%.61s", t->name);
        struct hb_buf *b = add(in, what, HB_ROLE_IN, HB_F32, hb_tensor_size(t));
        if (!b) return hb_error_code();
        in->params[i] = b->data;
        int rc =
            hb_param_init(t, false, 1, pt->seed, (uint64_t)(STREAM_PARAMS + i), &pt->p, b->data);
        if (rc) return rc;
        if (!pt->p.backward || !t->trainable) continue;
        snprintf(what, sizeof what, "d:%.61s", t->name);
        if (!(b = add(in, what, HB_ROLE_ACC, HB_F32, hb_tensor_size(t)))) return hb_error_code();
        in->grads[i] = b->data;
    }
    return 0;
}

static int make_oper(const struct hb_point *pt, const struct hb_impl *impl, enum hb_input kind,
                     struct hb_inputs *in)
{
    int64_t row = pt->p.L * pt->p.D, n = pt->p.B * row;
    struct hb_oper_io *io = &in->io.oper;
    int rc = make_params(pt, impl, in);
    io->params = in->params;
    io->grads = in->grads;
    if (!rc) rc = add_in(in, pt, kind, "u", n, row, &io->u);
    if (!rc) rc = add_out(in, pt, "y", HB_ROLE_OUT, n, &io->y);
    if (rc || !pt->p.backward) return rc;
    rc = add_in(in, pt, kind, "dy", n, row, &io->dy);
    if (!rc) rc = add_out(in, pt, "du", HB_ROLE_OUT, n, &io->du);
    return rc;
}

int hb_inputs_make(const struct hb_point *pt, const struct hb_impl *impl, enum hb_input kind,
                   struct hb_inputs *in)
{
    memset(in, 0, sizeof *in);
    bool oper = pt->p.op == HB_HYENA || pt->p.op == HB_MHA;
    if ((unsigned)kind >= HB_IN_COUNT)
        return hb_fail(HB_ERR_INPUT, "inputs: unknown kind %d", (int)kind);
    if (pt->p.dtype != HB_F32 && (pt->p.dtype != HB_F64 || oper))
        return hb_fail(HB_ERR_REFUSED, "no inputs of dtype %s for %s", hb_dtype_str(pt->p.dtype),
                       pt->impl);
    in->priv = calloc(1, sizeof(struct hb_bufs));
    if (!in->priv) return hb_fail(HB_ERR_OOM, "out of memory: table of tensors");
    int rc = pt->p.op == HB_LONGCONV    ? make_conv(pt, kind, in)
             : pt->p.op == HB_ATTENTION ? make_attention(pt, kind, in)
                                        : make_oper(pt, impl, kind, in);
    if (rc) hb_inputs_free(in);
    return rc;
}

void hb_inputs_free(struct hb_inputs *in)
{
    struct hb_bufs *all = in->priv;
    for (int i = 0; all && i < all->n; i++) hb_host()->free(hb_host(), all->b[i].block);
    free(all);
    free(in->tensors);
    free(in->params);
    free(in->grads);
    memset(in, 0, sizeof *in);
}
