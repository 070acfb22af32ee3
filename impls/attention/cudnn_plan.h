// cudnn_plan.h: cuDNN's C backend API, as much of it as attention needs: the library opened by
// name (nothing is linked), operation graphs built without a check on every line, execution plans.
//
// A graph keeps its first error as text in `why`; from then on every call on it does nothing. The
// text names the step, the attribute, the status and what cuDNN itself says. To see cuDNN's whole
// reasoning, run the program with CUDNN_LOGLEVEL_DBG=3 CUDNN_LOGDEST_DBG=stderr in the environment
// (cuDNN reads these, not we); which library was opened: LD_DEBUG=libs.
#ifndef HB_CUDNN_PLAN_H
#define HB_CUDNN_PLAN_H

#include <cudnn.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CUDNN_FUNCTIONS(X)                                                                        \
    X(GetVersion) X(GetErrorString) X(GetLastErrorString) X(Create) X(Destroy) X(SetStream)       \
    X(BackendCreateDescriptor) X(BackendDestroyDescriptor) X(BackendSetAttribute)                 \
    X(BackendGetAttribute) X(BackendFinalize) X(BackendExecute)

struct cudnn_lib {
    void *so;
#define X(f) decltype(&cudnn##f) f;
    CUDNN_FUNCTIONS(X)
#undef X
};

// Opens libcudnn.so.9 where the loader finds it (LD_LIBRARY_PATH, run path, system). NULL or what
// is wrong, in `buf`. It is never closed: libraries that hold device state do not survive that.
// The run-time compiler is opened first, because cuDNN does not look along our run path: "no
// engine" or PREREQUISITE_MISSING mean that it was not found (libnvrtc and its builtins).
static inline const char *cudnn_open(struct cudnn_lib *c, char *buf, size_t cap)
{
    if (!dlopen("libnvrtc.so.13", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE))
        (void)dlopen("libnvrtc.so.12", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    c->so = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!c->so) {
        snprintf(buf, cap, "cuDNN 9 not found (%s); put its folder into LD_LIBRARY_PATH",
                 dlerror());
        return buf;
    }
    const char *missing = NULL;
#define X(f)                                                                                      \
    c->f = (decltype(c->f))dlsym(c->so, "cudnn" #f);                                              \
    if (!c->f) missing = "cudnn" #f;
    CUDNN_FUNCTIONS(X)
#undef X
    if (!missing)
        return NULL;
    snprintf(buf, cap, "libcudnn.so.9 has no %s", missing);
    return buf;
}

enum {
    CG_OWN = 320,      // descriptors of a graph; a backward pass of attention has about 130
    CG_OPS = 48,       // operations of a graph; that one has 29
    CG_REAL = 32,      // tensors that memory is given for; their uid is 0 .. CG_REAL-1
    CG_CONFIGS = 32,   // engine configurations looked at, of each kind of heuristics
};

struct cudnn_graph {
    const struct cudnn_lib *lib;                       // borrowed
    const char *name;                                  // for messages
    cudnnBackendDescriptor_t own[CG_OWN]; int n_own;   // owned
    cudnnBackendDescriptor_t op[CG_OPS]; int n_op;     // of own
    int64_t real[CG_REAL]; int n_real;                 // uids in use
    int64_t next;                                      // uid of the next virtual tensor
    cudnnBackendDescriptor_t plan;                     // of own; NULL: there is none
    int64_t workspace;                                 // bytes
    char tag[160];                                     // engine and knobs
    char why[640];                                     // the first error, "" if all is well
};

static inline void cg_init(struct cudnn_graph *g, const struct cudnn_lib *lib, const char *name)
{
    memset(g, 0, sizeof *g);
    g->lib = lib;
    g->name = name;
    g->next = CG_REAL;
}

static inline void cg_destroy(struct cudnn_graph *g)
{
    for (int i = g->n_own; i-- > 0;)
        g->lib->BackendDestroyDescriptor(g->own[i]);
    g->n_own = g->n_op = g->n_real = 0;
    g->plan = NULL;
}

static inline void cg_fail(struct cudnn_graph *g, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static inline void cg_fail(struct cudnn_graph *g, const char *fmt, ...)
{
    if (g->why[0])
        return;
    const int n = snprintf(g->why, sizeof g->why, "%s, ", g->name);
    va_list args;
    va_start(args, fmt);
    vsnprintf(g->why + n, sizeof g->why - (size_t)n, fmt, args);
    va_end(args);
}

// "STATUS: cuDNN's own words" into buf.
static inline const char *cg_status(const struct cudnn_lib *c, cudnnStatus_t s, char *buf,
                                    size_t cap)
{
    const int n = snprintf(buf, cap, "%s: ", c->GetErrorString(s));
    if (n > 0 && (size_t)n + 1 < cap)
        c->GetLastErrorString(buf + n, cap - (size_t)n);
    return buf;
}

// True if s is success; else the error is kept.
static inline bool cg_ok(struct cudnn_graph *g, cudnnStatus_t s, const char *step, const char *what)
{
    if (s == CUDNN_STATUS_SUCCESS)
        return true;
    char buf[480];
    cg_fail(g, "%s, %s: %s", step, what, cg_status(g->lib, s, buf, sizeof buf));
    return false;
}

static inline cudnnBackendDescriptor_t cg_new(struct cudnn_graph *g,
                                              cudnnBackendDescriptorType_t type, const char *step)
{
    cudnnBackendDescriptor_t d = NULL;
    if (g->why[0])
        return NULL;
    if (g->n_own == CG_OWN) {
        cg_fail(g, "%s: more than %d descriptors", step, CG_OWN);
        return NULL;
    }
    if (cg_ok(g, g->lib->BackendCreateDescriptor(type, &d), step, "create"))
        g->own[g->n_own++] = d;
    return d;
}

static inline void cg_set_named(struct cudnn_graph *g, cudnnBackendDescriptor_t d,
                                cudnnBackendAttributeName_t a, cudnnBackendAttributeType_t t,
                                int64_t n, const void *x, const char *step, const char *what)
{
    if (!g->why[0])
        cg_ok(g, g->lib->BackendSetAttribute(d, a, t, n, x), step, what);
}
#define cg_set(g, d, attr, type, n, x, step) cg_set_named(g, d, attr, type, n, x, step, #attr)

static inline void cg_finalize(struct cudnn_graph *g, cudnnBackendDescriptor_t d, const char *step)
{
    if (!g->why[0])
        cg_ok(g, g->lib->BackendFinalize(d), step, "finalize");
}

// --- tensors -------------------------------------------------------------------------------------
// Four dimensions, outermost first. Kinds: real (memory given by uid), a value (a scalar read from
// host memory when the plan is executed, by uid), virtual (lives inside the fused kernel).
enum cg_kind { CG_REAL_TENSOR, CG_VALUE, CG_VIRTUAL };
struct cg_tensor {
    cudnnBackendDescriptor_t d;
    int64_t dim[4], stride[4];
};

static inline struct cg_tensor cg_tensor(struct cudnn_graph *g, const char *step, enum cg_kind kind,
                                         int uid, cudnnDataType_t type, const int64_t dim[4],
                                         const int64_t stride[4])
{
    struct cg_tensor t;
    memcpy(t.dim, dim, sizeof t.dim);
    memcpy(t.stride, stride, sizeof t.stride);
    t.d = cg_new(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR, step);
    const int64_t id = kind == CG_VIRTUAL ? g->next++ : uid, align = 16;
    const bool yes = true;
    cg_set(g, t.d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, step);
    cg_set(g, t.d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim, step);
    cg_set(g, t.d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride, step);
    cg_set(g, t.d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id, step);
    cg_set(g, t.d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align, step);
    if (kind == CG_VIRTUAL)
        cg_set(g, t.d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &yes, step);
    if (kind == CG_VALUE)
        cg_set(g, t.d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &yes, step);
    cg_finalize(g, t.d, step);
    if (kind != CG_VIRTUAL && g->n_real < CG_REAL)
        g->real[g->n_real++] = id;
    return t;
}

static inline struct cg_tensor cg_value(struct cudnn_graph *g, const char *step, int uid)
{
    const int64_t one[4] = { 1, 1, 1, 1 };
    return cg_tensor(g, step, CG_VALUE, uid, CUDNN_DATA_FLOAT, one, one);
}

// A virtual tensor of the shape of x.
static inline struct cg_tensor cg_like(struct cudnn_graph *g, const char *step,
                                       cudnnDataType_t type, const struct cg_tensor *x)
{
    return cg_tensor(g, step, CG_VIRTUAL, 0, type, x->dim, x->stride);
}

// --- operations ----------------------------------------------------------------------------------
static inline void cg_port(struct cudnn_graph *g, cudnnBackendDescriptor_t op,
                           cudnnBackendAttributeName_t a, const struct cg_tensor *x,
                           const char *step, const char *what)
{
    if (x)
        cg_set_named(g, op, a, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x->d, step, what);
}

static inline void cg_add_op(struct cudnn_graph *g, cudnnBackendDescriptor_t op, const char *step)
{
    cg_finalize(g, op, step);
    if (g->n_op == CG_OPS)
        cg_fail(g, "%s: more than %d operations", step, CG_OPS);
    else if (!g->why[0])
        g->op[g->n_op++] = op;
}

// y = mode(x), mode(x, b), or t ? x : b. `axis`: of GEN_INDEX, else -1. `prec`: of the arithmetic.
static inline void cg_pointwise(struct cudnn_graph *g, const char *step, cudnnPointwiseMode_t mode,
                                cudnnDataType_t prec, const struct cg_tensor *x,
                                const struct cg_tensor *b, const struct cg_tensor *t,
                                const struct cg_tensor *y, int64_t axis)
{
    const cudnnBackendDescriptor_t d = cg_new(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, step);
    cg_set(g, d, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode, step);
    cg_set(g, d, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &prec, step);
    if (axis >= 0)
        cg_set(g, d, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis, step);
    cg_finalize(g, d, step);
    const cudnnBackendDescriptor_t op = cg_new(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
                                               step);
    cg_set(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
           &d, step);
    cg_port(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x, step, "x");
    cg_port(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b, step, "b");
    cg_port(g, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t, step, "t");
    cg_port(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y, step, "y");
    cg_add_op(g, op, step);
}

// c = a b over the last two dimensions. m, n, k: tensors that hold the true extents, or NULL.
static inline void cg_matmul(struct cudnn_graph *g, const char *step, const struct cg_tensor *a,
                             const struct cg_tensor *b, const struct cg_tensor *c,
                             const struct cg_tensor *m, const struct cg_tensor *n,
                             const struct cg_tensor *k)
{
    const cudnnDataType_t prec = CUDNN_DATA_FLOAT;
    const cudnnBackendDescriptor_t d = cg_new(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR, step);
    cg_set(g, d, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &prec, step);
    cg_finalize(g, d, step);
    const cudnnBackendDescriptor_t op = cg_new(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, step);
    cg_port(g, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a, step, "a");
    cg_port(g, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b, step, "b");
    cg_port(g, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c, step, "c");
    cg_set(g, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &d, step);
    cg_port(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, m, step, "m override");
    cg_port(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, n, step, "n override");
    cg_port(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, k, step, "k override");
    cg_add_op(g, op, step);
}

// y = sum or maximum of x over the dimensions that y has as 1.
static inline void cg_reduce(struct cudnn_graph *g, const char *step, cudnnReduceTensorOp_t how,
                             const struct cg_tensor *x, const struct cg_tensor *y)
{
    const cudnnDataType_t prec = CUDNN_DATA_FLOAT;
    const cudnnBackendDescriptor_t d = cg_new(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR, step);
    cg_set(g, d, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &prec, step);
    cg_set(g, d, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &how, step);
    cg_finalize(g, d, step);
    const cudnnBackendDescriptor_t op = cg_new(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR,
                                               step);
    cg_port(g, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x, step, "x");
    cg_port(g, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y, step, "y");
    cg_set(g, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &d, step);
    cg_add_op(g, op, step);
}

// y is x with the shape, strides and type that y has.
static inline void cg_reshape(struct cudnn_graph *g, const char *step, const struct cg_tensor *x,
                              const struct cg_tensor *y)
{
    const cudnnBackendDescriptor_t op = cg_new(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, step);
    cg_port(g, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x, step, "x");
    cg_port(g, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y, step, "y");
    cg_add_op(g, op, step);
}

// --- plans ---------------------------------------------------------------------------------------
// Engine and knobs of a configuration into g->tag, as cuDNN's own log writes them: eng4_k24=12.
// What cannot be read is left out.
static inline void cg_describe_config(struct cudnn_graph *g, cudnnBackendDescriptor_t config)
{
    const struct cudnn_lib *const c = g->lib;
    cudnnBackendDescriptor_t engine = NULL, knob[CUDNN_KNOB_TYPE_COUNTS] = { NULL };
    int64_t n = 0, id = -1, n_knobs = 0;
    if (c->BackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) == CUDNN_STATUS_SUCCESS
        && c->BackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                  CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine)
           == CUDNN_STATUS_SUCCESS)
        c->BackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n,
                               &id);
    int made = 0, at = snprintf(g->tag, sizeof g->tag, "eng%lld", (long long)id);
    while (made < CUDNN_KNOB_TYPE_COUNTS
           && c->BackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knob[made])
              == CUDNN_STATUS_SUCCESS)
        made++;
    if (c->BackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                               CUDNN_TYPE_BACKEND_DESCRIPTOR, made, &n_knobs, knob)
        != CUDNN_STATUS_SUCCESS)
        n_knobs = 0;
    for (int64_t i = 0; i < n_knobs && i < made && at < (int)sizeof g->tag; i++) {
        cudnnBackendKnobType_t type = CUDNN_KNOB_TYPE_COUNTS;
        int64_t value = 0;
        c->BackendGetAttribute(knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1,
                               &n, &type);
        c->BackendGetAttribute(knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &n,
                               &value);
        at += snprintf(g->tag + at, sizeof g->tag - (size_t)at, "_k%d=%lld", (int)type,
                       (long long)value);
    }
    while (made-- > 0)
        c->BackendDestroyDescriptor(knob[made]);
    if (engine)
        c->BackendDestroyDescriptor(engine);
}

// The first of at most `most` configurations of this kind of heuristics that becomes a plan. False:
// none; the reason is in g->why. `device`: NULL, or properties of a device that is not here.
static inline bool cg_try_plans(struct cudnn_graph *g, cudnnHandle_t handle,
                                cudnnBackendDescriptor_t device, cudnnBackendDescriptor_t graph,
                                cudnnBackendHeurMode_t mode, int most)
{
    const char *const step = mode == CUDNN_HEUR_MODE_A ? "heuristics A" : "fallback heuristics";
    const cudnnBackendDescriptor_t heur = cg_new(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, step);
    cg_set(g, heur, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph,
           step);
    cg_set(g, heur, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode, step);
    if (device)
        cg_set(g, heur, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &device,
               step);
    cg_finalize(g, heur, step);
    cudnnBackendDescriptor_t config[CG_CONFIGS];
    for (int i = 0; i < most; i++)
        config[i] = cg_new(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, step);
    int64_t n = 0;
    if (g->why[0] || !cg_ok(g, g->lib->BackendGetAttribute(heur, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                           CUDNN_TYPE_BACKEND_DESCRIPTOR, most, &n,
                                                           config), step, "results"))
        return false;
    if (n <= 0)
        cg_fail(g, "%s: no engine", step);
    char first[sizeof g->why] = "";
    for (int64_t i = 0; i < n && i < most; i++) {
        g->why[0] = '\0';
        cg_describe_config(g, config[i]);
        const char *const tag = g->tag;
        const cudnnBackendDescriptor_t plan = cg_new(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
                                                     tag);
        cg_set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
               &config[i], tag);
        if (handle)
            cg_set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle, tag);
        if (device)
            cg_set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                   &device, tag);
        cg_finalize(g, plan, tag);
        int64_t got = 0;
        if (!g->why[0])
            cg_ok(g, g->lib->BackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                                 CUDNN_TYPE_INT64, 1, &got, &g->workspace),
                  tag, "workspace size");
        if (!g->why[0]) {
            g->plan = plan;
            return true;
        }
        if (!first[0])
            memcpy(first, g->why, sizeof first);
    }
    if (first[0])
        memcpy(g->why, first, sizeof first);
    return false;
}

// From operations to an execution plan; the choice is cuDNN's own: its first that works. g->why
// says what was wrong if g->plan is NULL afterwards. Only one configuration is asked for at first:
// cuDNN compiles every one that it hands out. With a description of a device (made from its JSON
// representation) in place of a handle, graphs can be tried out where no device is: all goes well
// until the compiled kernel is loaded.
static inline void cg_build(struct cudnn_graph *g, cudnnHandle_t handle,
                            cudnnBackendDescriptor_t device)
{
    const char *const step = "operation graph";
    const cudnnBackendDescriptor_t graph = cg_new(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, step);
    cg_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->n_op, g->op,
           step);
    if (handle)
        cg_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle, step);
    cg_finalize(g, graph, step);
    if (g->why[0])
        return;
    const struct { cudnnBackendHeurMode_t mode; int most; } tries[] = {
        { CUDNN_HEUR_MODE_A, 1 }, { CUDNN_HEUR_MODE_A, CG_CONFIGS },
        { CUDNN_HEUR_MODE_FALLBACK, CG_CONFIGS },
    };
    char first[sizeof g->why] = "";
    for (int i = 0; i < 3; i++) {
        g->why[0] = '\0';
        if (cg_try_plans(g, handle, device, graph, tries[i].mode, tries[i].most))
            return;
        if (i == 0)
            memcpy(first, g->why, sizeof first);
    }
    memcpy(g->why, first, sizeof first);
}

// Executes the plan on the handle's stream. at[uid]: where each real tensor or value is. NULL, or
// what went wrong, in `buf`. The pack of addresses is made anew for every call (a quarter of a
// microsecond): a final one cannot be changed.
static inline const char *cg_execute(const struct cudnn_graph *g, cudnnHandle_t handle,
                                     void *const *at, void *workspace, char *buf, size_t cap)
{
    const struct cudnn_lib *const c = g->lib;
    const void *real[CG_REAL];
    for (int i = 0; i < g->n_real; i++)
        real[i] = at[g->real[i]];
    cudnnBackendDescriptor_t pack = NULL;
    cudnnStatus_t s = c->BackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (s == CUDNN_STATUS_SUCCESS)
        s = c->BackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64,
                                   g->n_real, g->real);
    if (s == CUDNN_STATUS_SUCCESS)
        s = c->BackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR,
                                   g->n_real, real);
    if (s == CUDNN_STATUS_SUCCESS)
        s = c->BackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
                                   &workspace);
    if (s == CUDNN_STATUS_SUCCESS)
        s = c->BackendFinalize(pack);
    if (s == CUDNN_STATUS_SUCCESS)
        s = c->BackendExecute(handle, g->plan, pack);
    if (s != CUDNN_STATUS_SUCCESS)
        cg_status(c, s, buf, cap);
    if (pack)
        c->BackendDestroyDescriptor(pack);
    return s == CUDNN_STATUS_SUCCESS ? NULL : buf;
}

#endif
