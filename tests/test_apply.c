// test_apply.c: `apply` end to end on the specification's vectors: a checkpoint with the official
// names goes in as a file, the output and every listed gradient come back as files.
#include <stdlib.h>
#include <unistd.h>
#include "../bench/npy.h"
#include "../bench/safetensors.h"
#include "../impls/core/oper.h"
#include "../impls/reference/vectors.h"
#include "tests.h"

#define MLP "filter_fn.implicit_filter."
enum { L = HB_VECTOR_L, D = HB_VECTOR_D, ALL = HB_HY_COUNT + 4 };     // 4: buffers

// The published operator's names.
static const char *const official[HB_HY_COUNT] = {
    [HB_HY_WIN] = "in_proj.weight", [HB_HY_BIN] = "in_proj.bias",
    [HB_HY_WOUT] = "out_proj.weight", [HB_HY_BOUT] = "out_proj.bias",
    [HB_HY_WS] = "short_filter.weight", [HB_HY_BS] = "short_filter.bias",
    [HB_HY_D] = "filter_fn.bias", [HB_HY_Z] = "filter_fn.pos_emb.z",
    [HB_HY_W1] = MLP "0.weight", [HB_HY_B1] = MLP "0.bias", [HB_HY_FREQ] = MLP "1.freq",
    [HB_HY_W2] = MLP "2.weight", [HB_HY_B2] = MLP "2.bias",
    [HB_HY_W3] = MLP "4.weight", [HB_HY_B3] = MLP "4.bias", [HB_HY_W4] = MLP "6.weight"};

// Shape of a parameter as the published operator stores it.
static struct hb_st_tensor shaped(const struct hb_vector *v, int i, const float *data)
{
    const struct hb_oper_opts o = hb_oper_resolve(&v->p);
    const int64_t Q = (o.order + 1) * D, C = (o.order - 1) * D, W = o.filter_width;
    struct hb_st_tensor t = {.name = official[i], .n = hb_vector_size(v, i), .data = data};
    const int64_t matrix[HB_HY_COUNT][2] = {
        [HB_HY_WIN] = {Q, D}, [HB_HY_WOUT] = {D, D}, [HB_HY_W1] = {W, o.emb_dim},
        [HB_HY_FREQ] = {1, W}, [HB_HY_W2] = {W, W}, [HB_HY_W3] = {W, W}, [HB_HY_W4] = {C, W}};
    if (i == HB_HY_WS || i == HB_HY_Z) {
        t.rank = 3;
        t.shape[0] = i == HB_HY_WS ? Q : 1;
        t.shape[1] = i == HB_HY_WS ? 1 : o.lmax;
        t.shape[2] = i == HB_HY_WS ? o.short_taps : o.emb_dim;
    } else if (matrix[i][0]) {
        t.rank = 2;
        t.shape[0] = matrix[i][0], t.shape[1] = matrix[i][1];
    } else {
        t.rank = 1;
        t.shape[0] = t.n;
    }
    return t;
}

static float *floats(const double *x, int64_t n)
{
    float *f = malloc((size_t)n * sizeof *f);
    cr_assert(f);
    for (int64_t i = 0; i < n; i++)
        f[i] = (float)x[i];
    return f;
}

// Parameters and the buffers that a checkpoint repeats: time, decay rates, the shared frequencies.
static void write_checkpoint(const struct hb_vector *v, const char *path)
{
    const struct hb_oper_opts o = hb_oper_resolve(&v->p);
    const int64_t C = (o.order - 1) * D;
    struct hb_st_tensor t[ALL];
    float *data[ALL];
    double x[256];
    for (int i = 0; i < HB_HY_COUNT; i++) {
        cr_assert(hb_vector_size(v, i) <= 256);
        hb_vector_param(v, i, x);
        data[i] = floats(x, hb_vector_size(v, i));
        t[i] = shaped(v, i, data[i]);
    }
    for (int64_t j = 0; j < o.lmax; j++)
        x[j] = hb_time(j, o.lmax);
    data[HB_HY_COUNT] = floats(x, o.lmax);
    t[HB_HY_COUNT] = (struct hb_st_tensor){"filter_fn.pos_emb.t", 3, {1, o.lmax, 1}, o.lmax, false,
                                           data[HB_HY_COUNT]};
    for (int64_t c = 0; c < C; c++)
        x[c] = -hb_decay(c, C);
    data[HB_HY_COUNT + 1] = floats(x, C);
    t[HB_HY_COUNT + 1] = (struct hb_st_tensor){"filter_fn.modulation.deltas", 3, {1, 1, C}, C,
                                               false, data[HB_HY_COUNT + 1]};
    for (int k = 0; k < 2; k++) {
        t[HB_HY_COUNT + 2 + k] = t[HB_HY_FREQ];
        t[HB_HY_COUNT + 2 + k].name = k ? MLP "5.freq" : MLP "3.freq";
    }
    cr_assert_eq(hb_st_write(path, t, ALL), HB_OK, "%s", hb_error());
    for (int i = 0; i < HB_HY_COUNT + 2; i++)
        free(data[i]);
}

static void write_array(const char *path, void (*fill)(const struct hb_vector *, double *),
                        const struct hb_vector *v)
{
    const int64_t shape[3] = {1, L, D};
    double x[L * D];
    fill(v, x);
    float *f = floats(x, L * D);
    cr_assert_eq(hb_npy_write(path, 3, shape, f), HB_OK, "%s", hb_error());
    free(f);
}

static void close_to(const struct hb_vector *v, const char *longconv, const char *what, int i,
                     double got, double want, double scale)
{
    cr_expect(fabs(got - want) <= 1e-5 * scale, "case %s, %s, %s[%d]: got %.9g, expected %.9g",
              v->name, longconv, what, i, got, want);
}

static void compare(const struct hb_vector *v, const char *longconv, const char *y_path,
                    const char *g_path)
{
    struct hb_npy y = {0};
    struct hb_st g = {0};
    double scale = 0, scale_g = 1;
    float x[256];
    cr_assert_eq(hb_npy_read(y_path, &y), HB_OK, "%s", hb_error());
    cr_assert(y.rank == 3 && y.shape[0] == 1 && y.shape[1] == L && y.shape[2] == D);
    for (int i = 0; i < L * D; i++)
        scale = fmax(scale, fabs(v->y[i]));
    for (int i = 0; i < L * D; i++)
        close_to(v, longconv, "y", i, (double)y.data[i], v->y[i], scale);
    cr_assert_eq(hb_st_read(g_path, &g), HB_OK, "%s", hb_error());
    for (int i = 0; i < HB_VECTOR_GRADS; i++)
        scale_g = fmax(scale_g, fabs(v->grad[i].value));
    for (int i = 0; i < HB_VECTOR_GRADS; i++) {
        const struct hb_vector_grad *want = &v->grad[i];
        const char *name = want->tensor < 0 ? "u" : official[want->tensor];
        const struct hb_st_tensor *t = hb_st_find(&g, name);
        cr_assert(t && t->n <= 256 && want->index < t->n, "no gradient of %s", name);
        cr_assert_eq(hb_st_load(&g, t, x), HB_OK, "%s", hb_error());
        close_to(v, longconv, name, i, (double)x[want->index], want->value, scale_g);
    }
    hb_npy_free(&y);
    hb_st_free(&g);
}

Test(apply, official_names, .timeout = 120)
{
    start();
    char dir[] = "/tmp/hb-apply-XXXXXX", cmd[8192], path[5][64];
    static const char *const file[] = {"w.safetensors", "u.npy", "dy.npy", "y.npy",
                                       "g.safetensors"};
    int seen = 0;
    cr_assert(mkdtemp(dir));
    for (int i = 0; i < 5; i++)
        snprintf(path[i], sizeof path[i], "%s/%s", dir, file[i]);
    for (int i = 0; i < hb_registry_count(); i++) {
        const struct hb_impl *impl = cpu_impl(i);
        if (!impl || impl->op != HB_LONGCONV)
            continue;
        for (int k = 0; k < HB_VECTORS; k++, seen++) {
            const struct hb_vector *v = &hb_vectors[k];
            write_checkpoint(v, path[0]);
            write_array(path[1], hb_vector_u, v);
            write_array(path[2], hb_vector_dy, v);
            unlink(path[3]), unlink(path[4]);
            snprintf(cmd, sizeof cmd,
                     "'%.4000s/hyena-bench' apply hyena:%.60s --params %s --u %s --dy %s --out %s "
                     "--grads %s --threads 2%s",
                     hb_build_dir(), impl->name, path[0], path[1], path[2], path[3], path[4],
                     v->p.oper.package_layout ? " --package-layout" : "");
            cr_assert_eq(system(cmd), 0, "%s", cmd);
            compare(v, impl->name, path[3], path[4]);
        }
    }
    cr_expect(seen >= 9, "only %d calls", seen);
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    cr_expect_eq(system(cmd), 0);
}

// q, k, v (B,H,L,P) from files; the two implementations agree, and row 0 of y is row 0 of v.
Test(apply, attention)
{
    start();
    enum { T = 37, P = 5, N = 2 * 3 * T * P };       // B = 2, H = 3, L = T
    static const int64_t shape[4] = {2, 3, T, P};
    static const char *const file[] = {"q", "k", "v", "dy"}, *const impl[] = {"naive", "flash"};
    static float x[4][N];
    char dir[] = "/tmp/hb-apply-XXXXXX", path[128], cmd[8192];
    struct hb_npy y[2] = {{.n = 0}};
    cr_assert(mkdtemp(dir));
    for (int f = 0; f < 4; f++) {
        for (int i = 0; i < N; i++)
            x[f][i] = sinf((float)(i * 7 + f * 1000) * 0.37f);
        snprintf(path, sizeof path, "%s/%s.npy", dir, file[f]);
        cr_assert_eq(hb_npy_write(path, 4, shape, x[f]), 0, "%s", hb_error());
    }
    for (int k = 0; k < 2; k++) {
        snprintf(cmd, sizeof cmd,
                 "'%.4000s/hyena-bench' apply attention_%s --q %s/q.npy --k %s/k.npy --v %s/v.npy "
                 "--dy %s/dy.npy --out %s/y.npy --grads %s/g.st --threads 2",
                 hb_build_dir(), impl[k], dir, dir, dir, dir, dir, dir);
        cr_assert_eq(system(cmd), 0, "%s", cmd);
        snprintf(path, sizeof path, "%s/y.npy", dir);
        cr_assert_eq(hb_npy_read(path, &y[k]), 0, "%s", hb_error());
        cr_assert_eq(y[k].n, N);
    }
    double worst = 0, first = 0;
    for (int i = 0; i < N; i++) {
        double diff = fabs((double)y[0].data[i] - (double)y[1].data[i]);
        worst = fmax(worst, diff);
        if (i % (T * P) < P) first = fmax(first, fabs((double)y[0].data[i] - (double)x[2][i]));
    }
    cr_expect(worst < 1e-6 && first < 1e-6, "%g between them, %g in the first rows", worst, first);
    hb_npy_free(&y[0]), hb_npy_free(&y[1]);
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    cr_expect_eq(system(cmd), 0);
}
