// cluster_method.cuh: rows that fit into a cluster of blocks (cluster.cuh), host side.
//     choice    R1 blocks a cluster, R: N = R1 R 256 points, N >= L
// Method    y by cluster_rows; backward by cluster_gradients. They want two blocks an SM where the
//           cluster can be twice as large with R = 32 (their sums are what fills an SM). The
//           forward's spectra do for them but where it has R = 48: then they have their own, made
//           first, in the other's place unless the filter is fixed. Where no cluster of this size
//           can run (a GPU may refuse 16 blocks, or be divided), three phases do everything.
// Workspace     4 N bytes a channel: the spectrum (N of the larger cluster, and for a fixed filter
//           a second one, where gradients have their own); with backward 256 R 4 bytes a block that
//           runs at a time (at most 9 MB).
#ifndef HB_FUSED_CLUSTER_METHOD_CUH
#define HB_FUSED_CLUSTER_METHOD_CUH

#include "cluster_dh.cuh"
#include "cluster_rows.cuh"
#include "long_dh.cuh"

// A filter's spectra, as the kernels of a cluster of K and R want them.
struct cluster_spectra {
    int K, R;
    uint4 *matrix, *at;            // owned; matrix (K) words, spectra (D, K R 256) half2
    float2 *undo;                  // owned, (D)
};

struct cluster_plan {
    const struct hb_host *host;    // borrowed until free
    enum hb_dtype dtype;
    int64_t B, L, D;
    struct cluster_spectra rows, dh;         // dh: cluster_gradients'
    bool twice;                    // dh has clusters twice as large, R = 32, and so its own matrix
    bool own;                      // and spectra of another N: where fixed in memory of their own,
                                   // else they are written over those of rows
    bool fixed, gated;
    int taps;                      // gated
    int active;                    // clusters that run at a time; 0: three phases do it
    int gradients;                 // the same of cluster_gradients
    void *phases;                  // owned: long_plan, or NULL: not needed
    uint4 *kept;                   // owned, or NULL: (gradients, N) half2
};

static const char *cluster_refuses(const struct hb_problem *p)
{
    if (p->D > INT32_MAX / 1024 || p->B > INT32_MAX / 16) return "B or D beyond 2^21";
    if (p->D * p->B > INT32_MAX / 16) return "2^27 rows and more";
    if (p->backward && p->L > 262144) return "gradients beyond L = 262144";
    if (!p->gated) return long_refuses(p);
    if (p->backward) return "gradients of gates beyond L = 32768";
    if (p->taps > HB_TAPS) return "short filters of more than 3 taps";
    if (p->filter == HB_FILTER_FIXED) return "gates with a fixed filter";
    return p->L > 131072 ? "gates beyond L = 131072" : NULL;
}

static int64_t cluster_points(const struct cluster_spectra *of)
{
    return (int64_t)of->K * of->R * 256;
}

// --- launches -----------------------------------------------------------------------------------
// Calls f(K, R) with constants: the sizes of the table of choices.
template <class F> static void cluster_by(int K, int R, F f)
{
    if (K == 4 && R == 48) f(hb_constant<4>(), hb_constant<48>());
    else if (K == 4) f(hb_constant<4>(), hb_constant<64>());
    else if (K == 8 && R == 48) f(hb_constant<8>(), hb_constant<48>());
    else if (K == 8) f(hb_constant<8>(), hb_constant<64>());
    else if (R == 48) f(hb_constant<16>(), hb_constant<48>());
    else if (R == 64) f(hb_constant<16>(), hb_constant<64>());
    else f(hb_constant<16>(), hb_constant<128>());
}

// The cluster of the gradients, by that of the rows.
template <int K, int R> constexpr bool CLUSTER_TWICE = K <= 8;
template <int K, int R> using cluster_shape_back =
    cluster_shape_dh<CLUSTER_TWICE<K, R> ? 2 * K : K, CLUSTER_TWICE<K, R> ? 32 : R>;

// What to launch, with a job of type J.
template <class J> struct cluster_call { void (*kernel)(J); int K, threads, shared; };

template <class S, class J>
static struct cluster_call<J> cluster_call_of(void (*kernel)(J))
{
    return { kernel, S::K, S::THREADS, S::SHARED };
}

// Calls f(K, R, T) with what the plan says, as constants and a type.
template <class F> static void cluster_typed(const struct cluster_plan *s, F f)
{
    cluster_by(s->rows.K, s->rows.R, [&](auto k, auto r) {
        if (s->dtype == HB_F16) f(k, r, __half());
        else f(k, r, __nv_bfloat16());
    });
}

static struct cluster_call<cluster_job> cluster_rows_call(const struct cluster_plan *s)
{
    struct cluster_call<cluster_job> call = {};
    cluster_typed(s, [&](auto k, auto r, auto type) {
        using T = decltype(type);
        using S = cluster_shape_of<decltype(k)::value, decltype(r)::value>;
        call = cluster_call_of<S>(cluster_rows<T, S, false>);
        if constexpr (S::K <= 8)
            if (s->gated) call = cluster_call_of<S>(cluster_rows<T, S, true>);
    });
    return call;
}

// dh: as the gradients want them.
static struct cluster_call<cluster_job> cluster_spectrum_call(const struct cluster_plan *s, bool dh)
{
    struct cluster_call<cluster_job> call = {};
    cluster_by(s->rows.K, s->rows.R, [&](auto k, auto r) {
        constexpr int K = decltype(k)::value, R = decltype(r)::value;
        using S = cluster_shape_of<K, R>;
        call = cluster_call_of<S>(cluster_spectrum<S>);
        if constexpr (CLUSTER_TWICE<K, R>) {
            using Z = cluster_shape_of<2 * K, 32>;
            if (dh) call = cluster_call_of<Z>(cluster_spectrum<Z>);
        }
    });
    return call;
}

static struct cluster_call<cluster_dh_job> cluster_gradients_call(const struct cluster_plan *s)
{
    struct cluster_call<cluster_dh_job> call = {};
    cluster_typed(s, [&](auto k, auto r, auto type) {
        using S = cluster_shape_back<decltype(k)::value, decltype(r)::value>;
        if constexpr (S::R <= 64) call = cluster_call_of<S>(cluster_gradients<decltype(type), S>);
    });
    return call;
}

// Of `clusters` clusters; `size` must live as long as what is returned.
template <class J>
static cudaLaunchConfig_t cluster_config(const struct cluster_call<J> &call, int64_t clusters,
                                         cudaLaunchAttribute *size, cudaStream_t stream)
{
    *size = {};
    size->id = cudaLaunchAttributeClusterDimension;
    size->val.clusterDim.x = (unsigned)call.K;
    size->val.clusterDim.y = size->val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(clusters * call.K));
    config.blockDim = dim3((unsigned)call.threads);
    config.dynamicSmemBytes = (size_t)call.shared;
    config.stream = stream;
    config.attrs = size;
    config.numAttrs = 1;
    return config;
}

// early: the kernel calls launch_wait and may begin while the one before it, which does, too, ends.
// Whether it succeeded the caller of forward and backward asks (cudaGetLastError).
template <class J>
static void cluster_launch(const struct cluster_call<J> &call, const J &job, int64_t clusters,
                           cudaStream_t stream, bool early = false)
{
    cudaLaunchAttribute attributes[2] = {};
    cudaLaunchConfig_t config = cluster_config(call, clusters, attributes, stream);
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    if (LAUNCH_EARLY && early) config.numAttrs = 2;
    (void)cudaLaunchKernelEx(&config, call.kernel, job);
}

static struct cluster_job cluster_job_of(const struct cluster_plan *s,
                                         const struct cluster_spectra *of, struct cluster_job job)
{
    job.spectrum = of->at;
    job.undo = of->undo;
    job.matrix = of->matrix;
    job.B = (int)s->B;
    job.D = (int)s->D;
    job.L = (int)s->L;
    job.ahead = s->active;
    return job;
}

// The spectra of `of`. d: added to h[0], or NULL.
static void cluster_filter_all(const struct cluster_plan *s, const struct cluster_spectra *of,
                               const float *h, const float *d, cudaStream_t stream)
{
    cluster_launch(cluster_spectrum_call(s, of == &s->dh),
                   cluster_job_of(s, of, { .h = h, .d = d }), s->D, stream);
}

static void cluster_set_filter(const void *st, const float *h, cudaStream_t stream)
{
    const struct cluster_plan *s = (const struct cluster_plan *)st;
    if (!s->active) {
        long_set_filter(s->phases, h, stream);
        return;
    }
    cluster_filter_all(s, &s->rows, h, NULL, stream);
    if (s->own) cluster_filter_all(s, &s->dh, h, NULL, stream);
}

static void cluster_forward(const void *st, const struct hb_longconv_io *v, cudaStream_t stream)
{
    const struct cluster_plan *s = (const struct cluster_plan *)st;
    if (!s->active) {
        long_forward(s->phases, v, stream);
        return;
    }
    const float *const d = (const float *)v->d;
    if (!s->fixed)
        cluster_filter_all(s, &s->rows, (const float *)v->h, s->gated ? d : NULL, stream);
    const struct cluster_job job = { .in = v->u, .si = v->su, .out = v->y, .so = v->sy,
                                     .d = s->gated ? NULL : d,
                                     .gates = v->gates ? *v->gates : (struct hb_conv_gates){},
                                     .taps = s->taps };
    cluster_launch(cluster_rows_call(s), cluster_job_of(s, &s->rows, job), s->D * s->B, stream,
                   !s->fixed);
}

// Where gradients have no spectra of their own the forward before has left them.
static void cluster_backward(const void *st, const struct hb_longconv_io *v, cudaStream_t stream)
{
    const struct cluster_plan *s = (const struct cluster_plan *)st;
    if (!s->active) {
        long_backward(s->phases, v, stream);
        return;
    }
    const struct cluster_job du = { .in = v->dy, .si = v->sdy, .out = v->du, .so = v->sdu,
                                    .d = (const float *)v->d };
    if (s->own && !s->fixed) cluster_filter_all(s, &s->dh, (const float *)v->h, NULL, stream);
    const struct cluster_dh_job job = { .du = cluster_job_of(s, &s->dh, du), .u = v->u,
                                        .su = v->su, .dh = (float *)v->dh, .dd = (float *)v->dd,
                                        .kept = s->kept, .between = s->twice && !s->own ? 16 : 0 };
    cluster_launch(cluster_gradients_call(s), job, s->gradients, stream);
}

// --- plan ---------------------------------------------------------------------------------------
static void cluster_free(void *st)
{
    struct cluster_plan *s = (struct cluster_plan *)st;
    if (!s) return;
    hb_fused_free(s->host, { s->rows.matrix, s->rows.at, s->rows.undo, s->kept });
    if (s->twice) hb_fused_free(s->host, { s->dh.matrix });
    if (s->own && s->fixed) hb_fused_free(s->host, { s->dh.at, s->dh.undo });
    long_free(s->phases);
    s->host->free(s->host, s);
}

// Attributes of a kernel, and how many of its clusters run at a time: *active. None is no error.
template <class J>
static int cluster_allow(const struct cluster_plan *s, const struct cluster_call<J> &call,
                         int *active)
{
    *active = 0;
    const void *const kernel = (const void *)call.kernel;
    const int rc = hb_fused_allow(s->host, kernel, call.shared);
    if (rc) return rc;
    cudaLaunchAttribute size;
    const cudaLaunchConfig_t config = cluster_config(call, 1, &size, NULL);
    if ((call.K > 8 && cudaFuncSetAttribute(
             kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1) != cudaSuccess)
        || cudaOccupancyMaxActiveClusters(active, kernel, &config) != cudaSuccess) {
        (void)cudaGetLastError();
        *active = 0;
    }
    return HB_OK;
}

static int cluster_allow_all(struct cluster_plan *s, bool backward)
{
    int rc = cluster_allow(s, cluster_spectrum_call(s, false), &s->active);
    if (!rc && s->active) rc = cluster_allow(s, cluster_rows_call(s), &s->active);
    if (rc || !s->active || !backward) return rc;
    rc = cluster_allow(s, cluster_spectrum_call(s, true), &s->gradients);
    if (!rc && s->gradients) rc = cluster_allow(s, cluster_gradients_call(s), &s->gradients);
    if (!s->gradients) s->active = 0;
    if (s->gradients > s->D) s->gradients = (int)s->D;
    return rc;
}

// The matrices of each block, with its shift, and F after each of them.
static int cluster_constants(const struct cluster_plan *s, struct cluster_spectra *of)
{
    const int64_t each = of->R / 16 * 512 + 256;           // CLUSTER_MATRIX, F
    const size_t bytes = (size_t)(of->K * each) * sizeof(uint32_t);
    return hb_fused_table(s->host, &of->matrix, bytes, [=](uint32_t *words) {
        for (int j = 0; j < of->K; j++) {
            cluster_fill(words + j * each, of->R, (j - 0.25) / of->K);
            hb_fused_matrix(words + (j + 1) * each - 256, 16, 0, HB_F_SIZE);
        }
    });
}

// Memory for spectra of so many points in all.
static int cluster_spectra_take(const struct cluster_plan *s, struct cluster_spectra *of,
                                int64_t points)
{
    const struct hb_device *dev = s->host->device;
    of->at = (uint4 *)dev->alloc(dev, (size_t)(points * 4));
    of->undo = (float2 *)dev->alloc(dev, (size_t)s->D * sizeof(float2));
    return of->at && of->undo ? HB_OK : HB_ERR_OOM;
}

// The spectra of rows, and of gradients: where those differ, in the same place or, filter fixed, in
// another one.
static int cluster_take(struct cluster_plan *s)
{
    const int64_t N = cluster_points(&s->rows), N_dh = cluster_points(&s->dh);
    const int64_t of_rows = s->D * N;
    const int64_t of_dh = s->gradients && s->own && !s->fixed ? s->D * N_dh : 0;
    int rc = cluster_spectra_take(s, &s->rows, of_rows > of_dh ? of_rows : of_dh);
    if (!rc) rc = cluster_constants(s, &s->rows);
    if (rc || !s->gradients) return rc;
    if (s->own && s->fixed) {
        rc = cluster_spectra_take(s, &s->dh, s->D * N_dh);
    } else {
        s->dh.at = s->rows.at;
        s->dh.undo = s->rows.undo;
    }
    if (!s->twice) s->dh.matrix = s->rows.matrix;
    else if (!rc) rc = cluster_constants(s, &s->dh);
    const struct hb_device *dev = s->host->device;
    if (!rc) s->kept = (uint4 *)dev->alloc(dev, (size_t)(s->gradients * N_dh * 4));
    return rc ? rc : s->kept ? HB_OK : HB_ERR_OOM;
}

// The three phases' plan, with the smallest N = R1 R 256 >= L that they do well.
static int cluster_phases(struct cluster_plan *s, const struct hb_problem *p)
{
    static const struct fused_choice sizes[] = {
        { 0, 65536, NULL, 16, 16 }, { 0, 131072, NULL, 32, 16 }, { 0, 196608, NULL, 16, 48 },
        { 0, 262144, NULL, 64, 16 }, { 0, 524288, NULL, 64, 32 },
    };
    const struct fused_choice *c = sizes;
    while (c->L < p->L) c++;
    return long_plan_for(s->host, p, c->R1, c->R, &s->phases);
}

static int cluster_make(const struct hb_host *host, const struct hb_problem *p,
                        const struct fused_choice *choice, void **st)
{
    struct cluster_plan *s = (struct cluster_plan *)host->alloc(host, sizeof *s);
    *st = s;
    if (!s) return HB_ERR_OOM;
    *s = { .host = host, .dtype = p->dtype, .B = p->B, .L = p->L, .D = p->D,
           .rows = { .K = choice->R1, .R = choice->R }, .fixed = p->filter == HB_FILTER_FIXED,
           .gated = p->gated, .taps = p->taps };
    cluster_by(s->rows.K, s->rows.R, [&](auto k, auto r) {
        using S = cluster_shape_back<decltype(k)::value, decltype(r)::value>;
        s->dh = { .K = S::K, .R = S::R };
        s->twice = p->backward && S::K != s->rows.K;
        s->own = s->twice && cluster_points(&s->dh) != cluster_points(&s->rows);
    });
    int rc = cluster_allow_all(s, p->backward);
    if (!rc && !s->active && s->gated)
        return host->fail(host, HB_ERR_REFUSED, "longconv_fused_cuda: gates beyond L = 32768 need"
                          " clusters of %d blocks, which cannot run here", s->rows.K);
    if (rc) return rc;
    return s->active ? cluster_take(s) : cluster_phases(s, p);
}

static int cluster_describe(const void *st, char *buf, size_t cap)
{
    const struct cluster_plan *s = (const struct cluster_plan *)st;
    if (!s->active) return long_describe(s->phases, buf, cap);
    return snprintf(buf, cap, "N = %d x %d x 256, clusters of %d, %d at a time (gradients: %d"
                    " of %d)", s->rows.K, s->rows.R, s->rows.K, s->active, s->gradients, s->dh.K);
}

static const struct fused_method fused_cluster = {
    .name = "rows in a cluster of blocks", .refuses = cluster_refuses, .plan = cluster_make,
    .forward = cluster_forward, .backward = cluster_backward, .set_filter = cluster_set_filter,
    .describe = cluster_describe, .free = cluster_free,
};
#endif
