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
// OUTLIER   normal, but one element of each row is 1000 (operators: 8): what scales a whole row by
//           its largest element loses the others
// In 16 bits the range is that of f16: factors are 2^10 and 2^-10, and filters become smaller with
// L where outputs would pass 65504.
// Layouts   for longconv some kinds use channel-first tensors, (D,B,L) as the hyena operator does,
//           on one side or on both; for attention some use what a projection writes: q, k, v in one
//           (B,L,3,H,P) tensor and y, dy as (B,L,H,P).
// Values are drawn in runs of RUN elements by all threads; they depend on (seed, stream, index)
// only.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "inputs.h"
#include "paraminit.h"
#include "../impls/core/halves.h"
#include "../impls/core/rng.h"

enum { GUARD = 256 };            // bytes on each side: more than any tile edge's stray vector store
enum { STREAM_PARAMS = 100 };    // streams below belong to the io's own tensors
enum { RUN = 1024 };
enum { MUCH = 256 << 20 };       // bytes from which inputs are not brought back from a device

enum how { NORMAL, IMPULSE, CONST, LEVELS, OUTLIER };  // LEVELS: a permutation of 0..L-1 along time
struct fill { enum how how; double by, by16; };        // by16: in f16 and bf16; 0: by
struct source { enum hb_op op; const char *what; struct fill kind[HB_IN_COUNT]; };

#define PLAIN { NORMAL, 1, 0 }
// One row a tensor, one column a kind: normal, impulse, constant, large, tiny, outlier. The row's
// place is its stream.
static const struct source sources[] = {
    { HB_LONGCONV, "u",
      { PLAIN, { IMPULSE, 1, 0 }, { CONST, 0.7, 0 }, { NORMAL, 0x1p40, 0x1p10 },
        { NORMAL, 0x1p-40, 0x1p-10 }, { OUTLIER, 1000, 0 } } },
    { HB_LONGCONV, "h", { PLAIN, PLAIN, { CONST, 0.3, 0 }, PLAIN, PLAIN, PLAIN } },
    { HB_LONGCONV, "d", { PLAIN, PLAIN, PLAIN, PLAIN, PLAIN, PLAIN } },
    { HB_LONGCONV, "dy", { PLAIN, PLAIN, { CONST, 0.6, 0 }, PLAIN, PLAIN, PLAIN } },
    { HB_ATTENTION, "q",
      { PLAIN, PLAIN, { CONST, 0.7, 0 }, { CONST, 40, 2 }, { NORMAL, 0x1p-20, 0x1p-5 }, PLAIN } },
    { HB_ATTENTION, "k",
      { PLAIN, PLAIN, PLAIN, { LEVELS, 1, 0 }, { NORMAL, 0x1p20, 0x1p5 }, PLAIN } },
    { HB_ATTENTION, "v",
      { PLAIN, { IMPULSE, 1, 0 }, PLAIN, { NORMAL, 0x1p40, 0x1p8 }, { NORMAL, 0x1p-40, 0x1p-6 },
        { OUTLIER, 1000, 0 } } },
    { HB_ATTENTION, "dy",        // in f16 smaller ones leave gradients below the normal numbers
      { PLAIN, { NORMAL, 1, 0x1p6 }, { CONST, 0.6, 0 }, PLAIN, { NORMAL, 1, 0x1p6 }, PLAIN } },
    { HB_HYENA, "u",             // its gates multiply: outputs grow with the third power
      { PLAIN, { IMPULSE, 1, 0 }, { CONST, 0.7, 0 }, { NORMAL, 0x1p4, 4 }, { NORMAL, 0x1p-4, 0 },
        { OUTLIER, 8, 0 } } },
    { HB_HYENA, "dy", { PLAIN, PLAIN, { CONST, 0.6, 0 }, PLAIN, PLAIN, PLAIN } },
    { HB_MHA, "u",
      { PLAIN, { IMPULSE, 1, 0 }, { CONST, 0.7, 0 }, { NORMAL, 4, 0 }, { NORMAL, 0x1p-4, 0 },
        { OUTLIER, 8, 0 } } },
    { HB_MHA, "dy", { PLAIN, PLAIN, { CONST, 0.6, 0 }, PLAIN, PLAIN, PLAIN } },
};
enum { N_SOURCES = sizeof sources / sizeof *sources };

const char *hb_input_str(enum hb_input k)
{
    static const char *const names[HB_IN_COUNT] = { "normal", "impulse", "constant",
                                                    "large",  "tiny",    "outlier" };
    return (unsigned)k < HB_IN_COUNT ? names[k] : "?";
}

// --- buffers -------------------------------------------------------------------------------------

static char guard_byte(size_t i) { return (char)(0x5a ^ (i & 0xff)); }

// Bytes behind the data up to the end of the block: the rest of the last line and GUARD more.
static size_t tail_bytes(const struct hb_buf *b)
{
    return GUARD + (HB_ALIGN - b->bytes % HB_ALIGN) % HB_ALIGN;
}

// The second copy, with the guard zones of the first.
static int add_on_device(const struct hb_device *d, struct hb_buf *b)
{
    b->dev_block = d->alloc(d, GUARD + b->bytes + tail_bytes(b));
    if (!b->dev_block)
        return hb_error_code() ? hb_error_code() : hb_fail(HB_ERR_OOM, "%s: no device memory",
                                                           b->what);
    b->dev = b->dev_block + GUARD;
    int rc = d->upload(d, b->dev_block, b->block, GUARD, d->stream);
    if (!rc) rc = d->upload(d, b->dev_block + GUARD + b->bytes, b->block + GUARD + b->bytes,
                            tail_bytes(b), d->stream);
    return rc;
}

static struct hb_buf *new_buf(struct hb_inputs *in, const char *what, enum hb_role role,
                              enum hb_dtype dtype, int64_t n)
{
    struct hb_bufs *all = in->priv;
    if (all->n == HB_MAX_BUFS) {
        hb_fail(HB_ERR_INPUT, "inputs: more than %d tensors", HB_MAX_BUFS);
        return NULL;
    }
    struct hb_buf *b = &all->b[all->n];
    *b = (struct hb_buf){ .role = role, .dtype = dtype, .n = n };
    snprintf(b->what, sizeof b->what, "%s", what);
    return b;
}

static struct hb_buf *add(struct hb_inputs *in, const char *what, enum hb_role role,
                          enum hb_dtype dtype, int64_t n)
{
    struct hb_bufs *all = in->priv;
    struct hb_buf *b = new_buf(in, what, role, dtype, n);
    if (!b) return NULL;
    b->bytes = (size_t)n * hb_dtype_size(dtype);
    b->block = hb_host()->alloc(hb_host(), GUARD + b->bytes + tail_bytes(b));
    if (!b->block) return NULL;
    b->data = b->block + GUARD;
    all->n++;                                    // from here on hb_inputs_free knows it
    in->bytes += b->bytes;
    for (size_t i = 0; i < GUARD; i++) b->block[i] = guard_byte(i);
    for (size_t i = 0; i < tail_bytes(b); i++) b->block[GUARD + b->bytes + i] = guard_byte(i);
    return all->dev && add_on_device(all->dev, b) ? NULL : b;
}

// A part of another tensor's memory: n logical elements from element `at` on.
static struct hb_buf *add_part(struct hb_inputs *in, const char *what, const struct hb_buf *whole,
                               int64_t at, int64_t n)
{
    struct hb_buf *b = new_buf(in, what, whole->role, whole->dtype, n);
    if (!b) return NULL;
    b->data = (char *)whole->data + (size_t)at * hb_dtype_size(b->dtype);
    b->dev = whole->dev ? (char *)whole->dev + (size_t)at * hb_dtype_size(b->dtype) : NULL;
    ((struct hb_bufs *)in->priv)->n++;
    return b;
}

// Where the implementation finds it.
static void *where(const struct hb_buf *b) { return b->dev ? b->dev : b->data; }

static bool guards_ok(const struct hb_buf *b, const char *head, const char *tail)
{
    for (size_t i = 0; i < GUARD; i++)
        if (head[i] != guard_byte(i)) return false;
    for (size_t i = 0; i < tail_bytes(b); i++)
        if (tail[i] != guard_byte(i)) return false;
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
    const struct hb_device *d = all->dev;
    char head[GUARD], tail[GUARD + HB_ALIGN];
    for (int i = 0; i < all->n; i++) {
        const struct hb_buf *b = &all->b[i];
        if (b->block && !guards_ok(b, b->block, b->block + GUARD + b->bytes)) return false;
        if (!b->dev_block) continue;
        if (d->download(d, head, b->dev_block, GUARD, d->stream)
            || d->download(d, tail, b->dev_block + GUARD + b->bytes, tail_bytes(b), d->stream)
            || !guards_ok(b, head, tail))
            return false;
    }
    return true;
}

static void set_bytes(char *p, int c, size_t bytes)
{
    const size_t part = 1 << 20;
#pragma omp parallel for schedule(static) if (bytes > part)
    for (size_t at = 0; at < bytes; at += part)
        memset(p + at, c, bytes - at < part ? bytes - at : part);
}

void hb_inputs_poison(struct hb_inputs *in)
{
    struct hb_bufs *all = in->priv;
    for (int i = 0; i < all->n; i++) {
        struct hb_buf *b = &all->b[i];
        if (b->role != HB_ROLE_IN)
            set_bytes(b->data, b->role == HB_ROLE_OUT ? 0xff : 0, b->bytes);  // ff..ff is a NaN
    }
}

int hb_inputs_upload(struct hb_inputs *in)
{
    struct hb_bufs *all = in->priv;
    const struct hb_device *d = all->dev;
    int rc = 0;
    for (int i = 0; i < all->n && !rc; i++)
        if (all->b[i].dev_block && all->b[i].bytes)
            rc = d->upload(d, all->b[i].dev, all->b[i].data, all->b[i].bytes, d->stream);
    return rc || !d ? rc : d->sync(d, d->stream);
}

int hb_inputs_download(struct hb_inputs *in)
{
    struct hb_bufs *all = in->priv;
    const struct hb_device *d = all->dev;
    int rc = 0;
    for (int i = 0; i < all->n && !rc; i++) {
        bool wanted = all->b[i].role != HB_ROLE_IN || in->bytes <= MUCH;
        if (all->b[i].dev_block && all->b[i].bytes && wanted)
            rc = d->download(d, all->b[i].data, all->b[i].dev, all->b[i].bytes, d->stream);
    }
    return rc || !d ? rc : d->sync(d, d->stream);
}

int hb_inputs_ready(struct hb_inputs *in)
{
    struct hb_bufs *all = in->priv;
    const struct hb_device *d = all->dev;
    int rc = 0;
    if (!d) hb_inputs_poison(in);
    for (int i = 0; d && i < all->n && !rc; i++) {
        struct hb_buf *b = &all->b[i];
        if (!b->dev_block || !b->bytes) continue;
        if (b->role == HB_ROLE_IN) rc = d->upload(d, b->dev, b->data, b->bytes, d->stream);
        else d->zero(b->dev, b->bytes, d->stream);
    }
    return rc || !d ? rc : d->sync(d, d->stream);
}

// --- elements ------------------------------------------------------------------------------------

// Where logical element i stands in memory; *run: how many from there on are neighbours.
static int64_t place(const struct hb_buf *b, int64_t i, int64_t *run)
{
    if (!b->P) {
        *run = b->n - i;
        return i;
    }
    int64_t p = i % b->P, row = i / b->P, t = row % b->L, bh = row / b->L;
    *run = b->P - p;
    return bh / b->H * b->s.b + bh % b->H * b->s.h + t * b->s.t + p;
}

static void load_run(const struct hb_buf *b, int64_t at, int64_t n, double *out)
{
    const float *f = b->data;
    const double *g = b->data;
    const uint16_t *h = b->data;
    switch (b->dtype) {
    case HB_F64: for (int64_t i = 0; i < n; i++) out[i] = g[at + i]; break;
    case HB_F16: for (int64_t i = 0; i < n; i++) out[i] = (double)hb_f16_to_f32(h[at + i]); break;
    case HB_BF16: for (int64_t i = 0; i < n; i++) out[i] = (double)hb_bf16_to_f32(h[at + i]); break;
    default: for (int64_t i = 0; i < n; i++) out[i] = (double)f[at + i];
    }
}

// Values are made as float64 and rounded to float32 first, then to 16 bits: what an f32 point sees,
// rounded.
static void store_run(struct hb_buf *b, int64_t at, int64_t n, const double *x)
{
    float *f = b->data;
    double *g = b->data;
    uint16_t *h = b->data;
    switch (b->dtype) {
    case HB_F64: for (int64_t i = 0; i < n; i++) g[at + i] = x[i]; break;
    case HB_F16: for (int64_t i = 0; i < n; i++) h[at + i] = hb_f32_to_f16((float)x[i]); break;
    case HB_BF16: for (int64_t i = 0; i < n; i++) h[at + i] = hb_f32_to_bf16((float)x[i]); break;
    default: for (int64_t i = 0; i < n; i++) f[at + i] = (float)x[i];
    }
}

void hb_buf_load(const struct hb_buf *b, int64_t at, int64_t n, double *out)
{
    for (int64_t i = 0, run; i < n; i += run) {
        int64_t from = place(b, at + i, &run);
        if (run > n - i) run = n - i;
        load_run(b, from, run, out + i);
    }
}

void hb_buf_store(struct hb_buf *b, int64_t at, int64_t n, const double *x)
{
    for (int64_t i = 0, run; i < n; i += run) {
        int64_t to = place(b, at + i, &run);
        if (run > n - i) run = n - i;
        store_run(b, to, run, x + i);
    }
}

void hb_buf_zero(struct hb_buf *b, int64_t at, int64_t n)
{
    size_t size = hb_dtype_size(b->dtype);       // zero is all bits zero in every type
    for (int64_t i = 0, run; i < n; i += run) {
        int64_t to = place(b, at + i, &run);
        if (run > n - i) run = n - i;
        memset((char *)b->data + (size_t)to * size, 0, (size_t)run * size);
    }
}

// The exponent of element i of the memory is all ones.
static bool not_finite(const struct hb_buf *b, int64_t i)
{
    const uint64_t *x64 = b->data;
    const uint32_t *x32 = b->data;
    const uint16_t *x16 = b->data;
    switch (b->dtype) {
    case HB_F64: return (x64[i] & 0x7ff0000000000000u) == 0x7ff0000000000000u;
    case HB_F16: return (x16[i] & 0x7c00u) == 0x7c00u;
    case HB_BF16: return (x16[i] & 0x7f80u) == 0x7f80u;
    default: return (x32[i] & 0x7f800000u) == 0x7f800000u;
    }
}

int64_t hb_buf_not_finite(const struct hb_buf *b)
{
    int64_t first = b->n;
#pragma omp parallel for schedule(static) reduction(min : first) if (b->n > 1 << 16)
    for (int64_t i = 0; i < b->n; i++) {
        int64_t run;
        if (not_finite(b, place(b, i, &run)) && i < first) first = i;
    }
    return first < b->n ? first : -1;
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

// One run of values: elements [at, at + n) of the tensor.
struct pattern { struct fill f; int64_t row, L, step; uint64_t seed, stream; };

static void draw(const struct pattern *p, int64_t at, int64_t n, double *x)
{
    const struct fill f = p->f;
    const int64_t row = p->row, width = row / p->L;
    for (int64_t k = 0; k < n; k++) {
        const uint64_t i = (uint64_t)(at + k), r = (uint64_t)row;
        switch (f.how) {
        case NORMAL: x[k] = f.by * hb_rng_normal(p->seed, p->stream, i); break;
        case CONST: x[k] = f.by; break;
        case LEVELS: x[k] = f.by * (double)((at + k) % row / width * p->step % p->L); break;
        case IMPULSE:
            x[k] = hb_rng_u64(p->seed, p->stream, i / r) % r == i % r ? f.by : 0;
            break;
        case OUTLIER:
            x[k] = hb_rng_u64(p->seed, p->stream + 50, i / r) % r == i % r
                       ? f.by : hb_rng_normal(p->seed, p->stream, i);
            break;
        }
    }
}

// `row` elements belong together, L steps in time: an impulse is one of them, a level is one
// step's.
static void fill(struct hb_buf *b, struct fill f, int64_t row, int64_t L, uint64_t seed,
                 uint64_t stream)
{
    const struct pattern p = { f, row, L, mixing_step(L), seed, stream };
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < b->n; at += RUN) {
        double x[RUN];
        int64_t n = b->n - at < RUN ? b->n - at : RUN;
        draw(&p, at, n, x);
        hb_buf_store(b, at, n, x);
    }
}

static int64_t up_to_power_of_two(int64_t n)
{
    int64_t p = 1;
    while (p < n) p *= 2;
    return p;
}

// The row of `sources` for this tensor and kind, in the range of the point's type.
static struct fill fill_of(const struct hb_point *pt, enum hb_input kind, int i)
{
    struct fill f = sources[i].kind[kind];
    if (pt->p.dtype != HB_F16 && pt->p.dtype != HB_BF16) return f;
    int64_t L2 = up_to_power_of_two(pt->p.L);
    if (f.by16 != 0) f.by = f.by16;
    if (f.how == LEVELS && L2 > 2048) f.by *= 2048.0 / (double)L2;
    if (pt->p.op != HB_LONGCONV || strcmp(sources[i].what, "h")) return f;
    if (kind == HB_IN_CONSTANT) f.by /= (double)L2;                    // y: at most 0.21
    if (kind == HB_IN_LARGE || kind == HB_IN_OUTLIER)
        f.by *= exp2(-ceil(log2((double)L2) / 2));                     // y: about as large as u
    return f;
}

// Fills a tensor that is read by its row of `sources`.
static void fill_in(const struct hb_point *pt, enum hb_input kind, struct hb_buf *b, int64_t row)
{
    for (int i = 0; i < N_SOURCES; i++)
        if (sources[i].op == pt->p.op && strcmp(sources[i].what, b->what) == 0)
            fill(b, fill_of(pt, kind, i), row, row < pt->p.L ? row : pt->p.L, pt->seed,
                 (uint64_t)i);
}

void hb_inputs_redraw_dy(const struct hb_point *pt, enum hb_input kind, struct hb_inputs *in)
{
    const struct hb_problem *p = &pt->p;
    struct hb_buf *dy = hb_inputs_find(in, "dy");
    int64_t row = p->op == HB_LONGCONV    ? p->L
                  : p->op == HB_ATTENTION ? p->L * (p->D / p->H)
                                          : p->L * p->D;
    if (dy) fill_in(pt, kind, dy, row);
}

// Adds a tensor that is read and fills it. *slot: where the io wants the pointer.
static int add_in(struct hb_inputs *in, const struct hb_point *pt, enum hb_input kind,
                  const char *what, enum hb_dtype dtype, int64_t n, int64_t row, const void **slot)
{
    struct hb_buf *b = add(in, what, HB_ROLE_IN, dtype, n);
    if (!b) return hb_error_code();
    fill_in(pt, kind, b, row);
    *slot = where(b);
    return 0;
}

static int add_out(struct hb_inputs *in, const char *what, enum hb_role role, enum hb_dtype dtype,
                   int64_t n, void **slot)
{
    struct hb_buf *b = add(in, what, role, dtype, n);
    if (!b) return hb_error_code();
    *slot = where(b);
    return 0;
}

// Of filters, of parameters that are not cast, and of all gradients of either.
static enum hb_dtype wide(enum hb_dtype t) { return t == HB_F64 ? HB_F64 : HB_F32; }

static int make_conv(const struct hb_point *pt, enum hb_input kind, struct hb_inputs *in)
{
    int64_t L = pt->p.L, D = pt->p.D, n = pt->p.B * D * L;
    enum hb_dtype t = pt->p.dtype, w = wide(t);
    struct hb_longconv_io *io = &in->io.conv;
    const struct hb_strides usual = { .b = D * L, .c = L },
                            channel_first = { .b = L, .c = pt->p.B * L };
    io->su = io->sdy = kind == HB_IN_IMPULSE || kind == HB_IN_TINY ? channel_first : usual;
    io->sy = io->sdu = kind == HB_IN_IMPULSE || kind == HB_IN_LARGE ? channel_first : usual;
    int rc = add_in(in, pt, kind, "u", t, n, L, &io->u);
    if (!rc) rc = add_in(in, pt, kind, "h", w, D * L, L, &io->h);
    if (!rc) rc = add_in(in, pt, kind, "d", w, D, D, &io->d);
    if (!rc) rc = add_out(in, "y", HB_ROLE_OUT, t, n, &io->y);
    if (rc || !pt->p.backward) return rc;
    rc = add_in(in, pt, kind, "dy", t, n, L, &io->dy);
    if (!rc) rc = add_out(in, "du", HB_ROLE_OUT, t, n, &io->du);
    if (!rc) rc = add_out(in, "dh", HB_ROLE_ACC, w, D * L, &io->dh);
    if (!rc) rc = add_out(in, "dd", HB_ROLE_ACC, w, D, &io->dd);
    return rc;
}

static void set_heads(struct hb_buf *b, const struct hb_problem *p, struct hb_heads s)
{
    b->H = p->H;
    b->L = p->L;
    b->P = p->D / p->H;
    b->s = s;
}

// q, k, v (or their gradients) in one (B,L,3,H,P) tensor.
static int add_packed(const struct hb_point *pt, struct hb_inputs *in, const char *whole,
                      enum hb_role role, const char *const part[3], struct hb_heads s,
                      const void **slot[3])
{
    int64_t D = pt->p.D, n = pt->p.B * pt->p.L * D;
    struct hb_buf *all = add(in, whole, role, pt->p.dtype, 3 * n);
    if (!all) return hb_error_code();
    for (int i = 0; i < 3; i++) {
        struct hb_buf *b = add_part(in, part[i], all, i * D, n);
        if (!b) return hb_error_code();
        set_heads(b, &pt->p, s);
        *slot[i] = where(b);
    }
    return 0;
}

static int make_packed(const struct hb_point *pt, enum hb_input kind, struct hb_inputs *in)
{
    int64_t L = pt->p.L, D = pt->p.D, P = D / pt->p.H, n = pt->p.B * L * D;
    struct hb_attention_io *io = &in->io.attn;
    io->sq = (struct hb_heads){ .b = L * 3 * D, .h = P, .t = 3 * D };
    io->sy = (struct hb_heads){ .b = L * D, .h = P, .t = D };
    const char *const names[3] = { "q", "k", "v" }, *const grads[3] = { "dq", "dk", "dv" };
    int rc = add_packed(pt, in, "qkv", HB_ROLE_IN, names, io->sq,
                        (const void **[3]){ &io->q, &io->k, &io->v });
    for (int i = 0; i < 3 && !rc; i++) fill_in(pt, kind, hb_inputs_find(in, names[i]), L * P);
    if (!rc) rc = add_out(in, "y", HB_ROLE_OUT, pt->p.dtype, n, &io->y);
    if (!rc) set_heads(hb_inputs_find(in, "y"), &pt->p, io->sy);
    if (rc || !pt->p.backward) return rc;
    struct hb_buf *dy = add(in, "dy", HB_ROLE_IN, pt->p.dtype, n);
    if (!dy) return hb_error_code();
    set_heads(dy, &pt->p, io->sy);
    fill_in(pt, kind, dy, L * P);
    io->dy = where(dy);
    const void *d[3];
    rc = add_packed(pt, in, "dqkv", HB_ROLE_OUT, grads, io->sq,
                    (const void **[3]){ &d[0], &d[1], &d[2] });
    if (rc) return rc;
    for (int i = 0; i < 3; i++)
        *(void **[3]){ &io->dq, &io->dk, &io->dv }[i] = where(hb_inputs_find(in, grads[i]));
    return 0;
}

static int make_attention(const struct hb_point *pt, enum hb_input kind, struct hb_inputs *in)
{
    if (pt->p.packed) return make_packed(pt, kind, in);
    int64_t P = pt->p.D / pt->p.H, row = pt->p.L * P, n = pt->p.B * pt->p.H * row;
    enum hb_dtype t = pt->p.dtype;
    struct hb_attention_io *io = &in->io.attn;
    io->sq = io->sy = (struct hb_heads){ .b = pt->p.H * row, .h = row, .t = P };
    int rc = add_in(in, pt, kind, "q", t, n, row, &io->q);
    if (!rc) rc = add_in(in, pt, kind, "k", t, n, row, &io->k);
    if (!rc) rc = add_in(in, pt, kind, "v", t, n, row, &io->v);
    if (!rc) rc = add_out(in, "y", HB_ROLE_OUT, t, n, &io->y);
    if (rc || !pt->p.backward) return rc;
    rc = add_in(in, pt, kind, "dy", t, n, row, &io->dy);
    if (!rc) rc = add_out(in, "dq", HB_ROLE_OUT, t, n, &io->dq);
    if (!rc) rc = add_out(in, "dk", HB_ROLE_OUT, t, n, &io->dk);
    if (!rc) rc = add_out(in, "dv", HB_ROLE_OUT, t, n, &io->dv);
    return rc;
}

// One parameter, initialised as in a standalone operator; a `cast` one rounded to the signals'
// type.
static int make_param(const struct hb_point *pt, const struct hb_tensor *t, uint64_t stream,
                      struct hb_buf *b)
{
    float *x = b->dtype == HB_F32 ? b->data : malloc((size_t)b->n * sizeof *x);
    if (!x) return hb_fail(HB_ERR_OOM, "out of memory: parameter %s", t->name);
    int rc = hb_param_init(t, false, 1, pt->seed, stream, &pt->p, x);
    if (b->dtype != HB_F32) {
        if (!rc) hb_from_f32(b->dtype, b->data, x, b->n);
        free(x);
    }
    return rc;
}

// The parameters and their gradients (none for constant tensors).
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
        struct hb_buf *b = add(in, what, HB_ROLE_IN, t->cast ? pt->p.dtype : HB_F32,
                               hb_tensor_size(t));
        if (!b) return hb_error_code();
        in->params[i] = where(b);
        int rc = make_param(pt, t, (uint64_t)(STREAM_PARAMS + i), b);
        if (rc) return rc;
        if (!pt->p.backward || !t->trainable) continue;
        snprintf(what, sizeof what, "d:%.61s", t->name);
        if (!(b = add(in, what, HB_ROLE_ACC, HB_F32, hb_tensor_size(t)))) return hb_error_code();
        in->grads[i] = where(b);
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
    if (!rc) rc = add_in(in, pt, kind, "u", pt->p.dtype, n, row, &io->u);
    if (!rc) rc = add_out(in, "y", HB_ROLE_OUT, pt->p.dtype, n, &io->y);
    if (rc || !pt->p.backward) return rc;
    rc = add_in(in, pt, kind, "dy", pt->p.dtype, n, row, &io->dy);
    if (!rc) rc = add_out(in, "du", HB_ROLE_OUT, pt->p.dtype, n, &io->du);
    return rc;
}

// The device that the tensors belong on: that of the point, which must be the one in use. *d NULL:
// the host's memory.
static int find_device(const struct hb_point *pt, const struct hb_device **d)
{
    const struct hb_device *in_use = hb_host()->device;
    size_t n = strlen(in_use->name);
    *d = NULL;
    if (strncmp(pt->device, "cpu", 3) == 0) return 0;
    if (strncmp(pt->device, in_use->name, n))
        return hb_fail(HB_ERR_INPUT, "inputs for %s: this process uses the device %s", pt->device,
                       in_use->name);
    *d = in_use;
    return 0;
}

int hb_inputs_make(const struct hb_point *pt, const struct hb_impl *impl, enum hb_input kind,
                   struct hb_inputs *in)
{
    memset(in, 0, sizeof *in);
    bool oper = pt->p.op == HB_HYENA || pt->p.op == HB_MHA;
    const struct hb_device *d;
    if ((unsigned)kind >= HB_IN_COUNT)
        return hb_fail(HB_ERR_INPUT, "inputs: unknown kind %d", (int)kind);
    if (pt->p.dtype == HB_F64 && oper)
        return hb_fail(HB_ERR_REFUSED, "no inputs of dtype %s for %s", hb_dtype_str(pt->p.dtype),
                       pt->impl);
    int rc = find_device(pt, &d);
    if (rc) return rc;
    struct hb_bufs *all = in->priv = calloc(1, sizeof *all);
    if (!all) return hb_fail(HB_ERR_OOM, "out of memory: table of tensors");
    all->dev = d;
    in->io.stream = d ? d->stream : NULL;
    rc = pt->p.op == HB_LONGCONV    ? make_conv(pt, kind, in)
         : pt->p.op == HB_ATTENTION ? make_attention(pt, kind, in)
                                    : make_oper(pt, impl, kind, in);
    if (rc) hb_inputs_free(in);
    return rc;
}

void hb_inputs_free(struct hb_inputs *in)
{
    struct hb_bufs *all = in->priv;
    for (int i = 0; all && i < all->n; i++) {
        if (all->b[i].dev_block) all->dev->free(all->dev, all->b[i].dev_block);
        hb_host()->free(hb_host(), all->b[i].block);
    }
    free(all);
    free(in->tensors);
    free(in->params);
    free(in->grads);
    memset(in, 0, sizeof *in);
}
