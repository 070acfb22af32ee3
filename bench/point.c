// point.c: the name of a point and back, and what a point must satisfy (contract: point.h).
//
//     IMPL/dev:cpu0/dt:f32/B:1/D:256[/H:4][/N:2][options]/L:1024/pass:fwd/plan:measure/T:2/
//         mode:warm/scope:core/manual_time
// H is there for attention and mha, N for hyena. An operator's options follow only where they
// differ from the default (zero in struct hb_oper_opts): /E: /W: /lmax: /w: /shift: /window:off
// /layout:package /z:trained /long:off /taps: /rope:on.
// A name is read key by key into a point and is valid iff that point's name is the same text again:
// that makes the two functions exact inverses, and every order, sign or leading zero that differs
// an error.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "choose/choose.h"
#include "cli.h"
#include "paraminit.h"
#include "point.h"

#define MAX_LEN   ((int64_t)1 << 31)
// Of one (B,D,L) tensor: its bytes, times any small factor, fit int64_t.
#define MAX_ELEMS ((int64_t)1 << 48)

// --- enumerations --------------------------------------------------------------------------------

static const char *const op_names[HB_OP_COUNT] = { "longconv", "attention", "hyena", "mha" };
static const char *const dtype_names[HB_DTYPE_COUNT] = { "f32", "f64", "f16", "bf16" };
static const char *const pass_names[HB_PASS_COUNT] = { "fwd", "fwd_cached", "bwd", "fwdbwd" };
static const char *const scope_names[HB_SCOPE_COUNT] = { "core", "operator", "step" };
static const char *const mode_names[HB_MODE_COUNT] = { "warm", "cold" };
static const char *const plan_names[] = { "estimate", "measure", "wisdom" };
enum { PLAN_COUNT = sizeof plan_names / sizeof *plan_names };

static const char *name_of(const char *const *names, int n, int i)
{
    return i >= 0 && i < n ? names[i] : "?";
}

static int index_of(const char *what, const char *const *names, int n, const char *text, int *out)
{
    char all[200] = "";
    for (int i = 0; i < n; i++) {
        if (strcmp(names[i], text) == 0) {
            *out = i;
            return 0;
        }
        size_t len = strlen(all);
        snprintf(all + len, sizeof all - len, "%s%s", i ? ", " : "", names[i]);
    }
    return hb_fail(HB_ERR_INPUT, "%s: '%.80s' is none of %s", what, text, all);
}

// The pair of functions for one enumeration.
#define ENUM_TEXT(word, type, names, count)                                                 \
    const char *hb_##word##_str(type v) { return name_of(names, count, (int)v); }           \
    int hb_##word##_parse(const char *text, type *out)                                      \
    {                                                                                       \
        int i = 0, rc = index_of(#word, names, count, text, &i);                            \
        if (rc == 0) *out = (type)i;                                                        \
        return rc;                                                                          \
    }
ENUM_TEXT(op, enum hb_op, op_names, HB_OP_COUNT)
ENUM_TEXT(dtype, enum hb_dtype, dtype_names, HB_DTYPE_COUNT)
ENUM_TEXT(pass, enum hb_pass, pass_names, HB_PASS_COUNT)
ENUM_TEXT(scope, enum hb_scope, scope_names, HB_SCOPE_COUNT)
ENUM_TEXT(mode, enum hb_mode, mode_names, HB_MODE_COUNT)
ENUM_TEXT(planning, enum hb_planning, plan_names, PLAN_COUNT)

// --- what follows from the name of the implementation --------------------------------------------

// "hyena:longconv_fftw" -> HB_HYENA and inner "longconv_fftw"; "longconv_fftw" -> HB_LONGCONV and
// "".
static int set_impl(struct hb_point *pt, const char *name)
{
    if (strlen(name) >= sizeof pt->impl)
        return hb_fail(HB_ERR_INPUT, "implementation: '%.60s...' is longer than %d", name,
                       HB_NAME_MAX - 1);
    int op = 0;
    for (; op < HB_OP_COUNT; op++) {
        size_t n = strlen(op_names[op]);
        if (strncmp(name, op_names[op], n) == 0 &&
            (name[n] == '_' || name[n] == ':' || name[n] == '\0'))
            break;
    }
    const char *colon = strchr(name, ':');
    bool oper = op == HB_HYENA || op == HB_MHA;
    if (op == HB_OP_COUNT)
        return hb_fail(
            HB_ERR_INPUT,
            "implementation: '%.100s' begins with none of longconv, attention, hyena, mha", name);
    if (oper && (!colon || !colon[1]))
        return hb_fail(HB_ERR_INPUT, "implementation: '%s' needs what is inside, as in %s:%s", name,
                       op_names[op], op == HB_HYENA ? "longconv_fftw" : "attention_flash");
    if (!oper && colon)
        return hb_fail(HB_ERR_INPUT, "implementation: '%s': %s has nothing inside", name,
                       op_names[op]);
    if (name != pt->impl) snprintf(pt->impl, sizeof pt->impl, "%s", name);
    snprintf(pt->p.inner, sizeof pt->p.inner, "%s", oper ? colon + 1 : "");
    pt->p.op = (enum hb_op)op;
    pt->scope = oper ? HB_SCOPE_OPERATOR : HB_SCOPE_CORE;
    return 0;
}

static bool has_heads(const struct hb_problem *p)
{
    return p->op == HB_ATTENTION || p->op == HB_MHA;
}

static void set_pass(struct hb_point *pt, enum hb_pass pass)
{
    pt->pass = pass;
    pt->p.filter = pass == HB_PASS_FWD_CACHED ? HB_FILTER_FIXED : HB_FILTER_FRESH;
    pt->p.backward = pass == HB_PASS_BWD || pass == HB_PASS_FWDBWD;
}

// --- name ----------------------------------------------------------------------------------------

struct text { char *buf; size_t cap, len; };

static void put(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->len < t->cap ? t->buf + t->len : NULL,
                      t->len < t->cap ? t->cap - t->len : 0, fmt, ap);
    va_end(ap);
    t->len += n > 0 ? (size_t)n : 0;
}

static void put_options(struct text *t, const struct hb_oper_opts *o)
{
    if (o->emb_dim) put(t, "/E:%d", o->emb_dim);
    if (o->filter_width) put(t, "/W:%d", o->filter_width);
    if (o->lmax) put(t, "/lmax:%lld", (long long)o->lmax);
    if (o->w != 0) put(t, "/w:%.9g", (double)o->w);            // 9 digits identify a float
    if (o->shift != 0) put(t, "/shift:%.9g", (double)o->shift);
    if (o->no_window) put(t, "/window:off");
    if (o->package_layout) put(t, "/layout:package");
    if (o->train_z) put(t, "/z:trained");
    if (o->no_long) put(t, "/long:off");
    if (o->short_taps) put(t, "/taps:%d", o->short_taps);
    if (o->rope) put(t, "/rope:on");
}

int hb_point_name(const struct hb_point *pt, char *buf, size_t cap)
{
    const struct hb_problem *p = &pt->p;
    struct text t = { buf, cap, 0 };
    put(&t, "%s/dev:%s/dt:%s/B:%lld/D:%lld", pt->impl, pt->device, hb_dtype_str(p->dtype),
        (long long)p->B, (long long)p->D);
    if (has_heads(p)) put(&t, "/H:%lld", (long long)p->H);
    if (p->op == HB_HYENA) put(&t, "/N:%d", p->oper.order ? p->oper.order : 2);
    if (p->op == HB_HYENA || p->op == HB_MHA) put_options(&t, &p->oper);
    put(&t, "/L:%lld/pass:%s/plan:%s/T:%d/mode:%s/scope:%s/manual_time", (long long)p->L,
        hb_pass_str(pt->pass), hb_planning_str(p->planning), p->threads, hb_mode_str(pt->mode),
        hb_scope_str(pt->scope));
    if (t.len < cap) return 0;
    return hb_fail(HB_ERR_INPUT, "point name: %zu characters, room for %zu", t.len, cap);
}

// --- and back ------------------------------------------------------------------------------------

static int get_float(const char *key, const char *text, float *out)
{
    char *end;
    float v = strtof(text, &end);
    if (!*text || *end || !isfinite(v))
        return hb_fail(HB_ERR_INPUT, "%s: '%.60s' is not a number", key, text);
    *out = v;
    return 0;
}

static int get_word(const char *key, const char *text, const char *word, bool *out)
{
    if (strcmp(text, word))
        return hb_fail(HB_ERR_INPUT, "%s: '%.60s' is not '%s'", key, text, word);
    *out = true;
    return 0;
}

// Integers by key. Exactly one of the targets is there.
struct int_key { const char *key; int64_t *wide; int *narrow; };

static int get_int(const struct int_key *k, const char *text)
{
    int64_t v = 0;
    int rc = hb_parse_int(k->key, text, 0, k->wide ? INT64_MAX : INT32_MAX, &v);
    if (rc) return rc;
    if (k->wide) *k->wide = v;
    else *k->narrow = (int)v;
    return 0;
}

static int get_axis(struct hb_point *pt, const char *key, const char *text)
{
    struct hb_problem *p = &pt->p;
    struct hb_oper_opts *o = &p->oper;
    const struct int_key ints[] = {
        { "B", &p->B, NULL }, { "D", &p->D, NULL }, { "L", &p->L, NULL }, { "H", &p->H, NULL },
        { "T", NULL, &p->threads }, { "N", NULL, &o->order }, { "E", NULL, &o->emb_dim },
        { "W", NULL, &o->filter_width }, { "taps", NULL, &o->short_taps },
        { "lmax", &o->lmax, NULL },
    };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        if (strcmp(key, ints[i].key) == 0) return get_int(&ints[i], text);
    if (!strcmp(key, "dev")) {
        if (strlen(text) >= sizeof pt->device)
            return hb_fail(HB_ERR_INPUT, "dev: '%.60s' is too long", text);
        snprintf(pt->device, sizeof pt->device, "%.15s", text);
        return 0;
    }
    if (!strcmp(key, "dt")) return hb_dtype_parse(text, &p->dtype);
    if (!strcmp(key, "plan")) return hb_planning_parse(text, &p->planning);
    if (!strcmp(key, "mode")) return hb_mode_parse(text, &pt->mode);
    if (!strcmp(key, "scope")) return hb_scope_parse(text, &pt->scope);
    if (!strcmp(key, "pass")) {
        enum hb_pass pass = HB_PASS_FWD;
        int rc = hb_pass_parse(text, &pass);
        set_pass(pt, pass);
        return rc;
    }
    if (!strcmp(key, "w")) return get_float(key, text, &o->w);
    if (!strcmp(key, "shift")) return get_float(key, text, &o->shift);
    if (!strcmp(key, "window")) return get_word(key, text, "off", &o->no_window);
    if (!strcmp(key, "layout")) return get_word(key, text, "package", &o->package_layout);
    if (!strcmp(key, "z")) return get_word(key, text, "trained", &o->train_z);
    if (!strcmp(key, "long")) return get_word(key, text, "off", &o->no_long);
    if (!strcmp(key, "rope")) return get_word(key, text, "on", &o->rope);
    return hb_fail(HB_ERR_INPUT, "unknown key '%.60s'", key);
}

int hb_point_parse(const char *name, struct hb_point *pt)
{
    char copy[HB_POINT_NAME_MAX], again[HB_POINT_NAME_MAX];
    memset(pt, 0, sizeof *pt);
    if (strlen(name) >= sizeof copy)
        return hb_fail(HB_ERR_INPUT, "point name: longer than %zu", sizeof copy - 1);
    strcpy(copy, name);
    char *save = NULL, *field = strtok_r(copy, "/", &save);
    int rc = field ? set_impl(pt, field) : hb_fail(HB_ERR_INPUT, "point name: it is empty");
    while (rc == 0 && (field = strtok_r(NULL, "/", &save)) != NULL) {
        char *colon = strchr(field, ':');
        if (colon) {
            *colon = '\0';
            rc = get_axis(pt, field, colon + 1);
        } else if (strcmp(field, "manual_time")) {
            rc = hb_fail(HB_ERR_INPUT, "point name: '%.60s' is not key:value", field);
        }
    }
    if (rc == 0) rc = hb_point_name(pt, again, sizeof again);
    if (rc == 0 && strcmp(again, name))
        return hb_fail(HB_ERR_INPUT, "point name: '%s' should read '%s'", name, again);
    return rc;
}

// --- validity ------------------------------------------------------------------------------------

static int in_range(const char *what, int64_t v, int64_t lo, int64_t hi)
{
    if (v >= lo && v <= hi) return 0;
    return hb_fail(HB_ERR_INPUT, "%s: %lld is not in %lld..%lld", what, (long long)v, (long long)lo,
                   (long long)hi);
}

static int check_options(const struct hb_problem *p)
{
    const struct hb_oper_opts *o = &p->oper;
    if (p->op == HB_HYENA && in_range("order (N)", o->order, 2, 16)) return HB_ERR_INPUT;
    if (o->emb_dim && (o->emb_dim < 3 || o->emb_dim > HB_EMB_MAX || o->emb_dim % 2 == 0))
        return hb_fail(HB_ERR_INPUT, "emb_dim (E): %d is not odd and in 3..%d", o->emb_dim,
                       HB_EMB_MAX);
    if (o->filter_width && in_range("filter_width (W)", o->filter_width, 1, 65536))
        return HB_ERR_INPUT;
    if (o->lmax && in_range("lmax", o->lmax, p->L, MAX_LEN)) return HB_ERR_INPUT;
    if (!isfinite(o->w) || !isfinite(o->shift))
        return hb_fail(HB_ERR_INPUT, "w and shift must be finite");
    if (o->short_taps && in_range("short_taps", o->short_taps, 1, 64)) return HB_ERR_INPUT;
    return 0;
}

static int check_shape(const struct hb_problem *p)
{
    if (in_range("L", p->L, 1, MAX_LEN) || in_range("B", p->B, 1, MAX_LEN) ||
        in_range("D", p->D, 1, 1 << 24) || in_range("threads (T)", p->threads, 1, 1024))
        return HB_ERR_INPUT;
    if (p->B > MAX_ELEMS / p->L / p->D)
        return hb_fail(HB_ERR_INPUT, "B D L: %lld x %lld x %lld is more than 2^48 elements",
                       (long long)p->B, (long long)p->D, (long long)p->L);
    if (!has_heads(p))
        return p->H ? hb_fail(HB_ERR_INPUT, "H: %s has no heads", op_names[p->op]) : 0;
    if (in_range("H", p->H, 1, p->D)) return HB_ERR_INPUT;
    if (p->D % p->H)
        return hb_fail(HB_ERR_INPUT, "H: D = %lld is not a multiple of H = %lld", (long long)p->D,
                       (long long)p->H);
    if (p->oper.rope && p->D / p->H % 2)
        return hb_fail(HB_ERR_INPUT, "rope: D/H = %lld is odd", (long long)(p->D / p->H));
    return 0;
}

static int check_device(struct hb_point *pt)
{
    const char *device = hb_impl_device(pt->impl);
    if (!device) return hb_error_code() ? hb_error_code() : HB_ERR_INPUT;
    bool any = strcmp(device, "any") == 0;               // nothing inside decides
    size_t n = strlen(device);
    if (!pt->device[0]) snprintf(pt->device, sizeof pt->device, "%.10s0", any ? "cpu" : device);
    if (any && (!strcmp(pt->device, "cpu0") || !strcmp(pt->device, "cuda0"))) return 0;
    if (strncmp(pt->device, device, n) == 0 && strcmp(pt->device + n, "0") == 0) return 0;
    if (strncmp(pt->device, "cuda", 4) == 0 && !hb_registry_has("cuda"))
        return hb_fail(HB_ERR_MISSING,
                       "device: '%s' is not there: no CUDA implementations are built", pt->device);
    return hb_fail(HB_ERR_INPUT, "device: '%s': %s runs on %s0", pt->device, pt->impl,
                   any ? "cpu0 or cuda" : device);
}

int hb_point_resolve(struct hb_point *pt)
{
    struct hb_problem *p = &pt->p;
    enum hb_scope wanted = pt->scope;
    char chooser[HB_NAME_MAX];
    if (hb_auto_name(pt->impl, pt->device, chooser)) strcpy(pt->impl, chooser);
    int rc = set_impl(pt, pt->impl);
    if (rc) return rc;
    if (wanted == HB_SCOPE_STEP)
        return hb_fail(HB_ERR_INPUT, "scope: step is measured by 'train' only");
    if ((unsigned)pt->pass >= HB_PASS_COUNT || (unsigned)p->dtype >= HB_DTYPE_COUNT)
        return hb_fail(HB_ERR_INPUT, "pass or dtype: unknown value");
    bool backward = p->backward;               // may be planned for although only forward is timed
    set_pass(pt, pt->pass);
    p->backward |= backward;
    if (p->op == HB_HYENA && p->oper.order == 0) p->oper.order = 2;
    if (p->threads == 0) p->threads = hb_host()->threads;
    rc = check_shape(p);
    if (rc == 0) rc = check_options(p);
    if (rc == 0) rc = hb_registry_load();
    if (rc) return rc;
    return check_device(pt);
}

// What `in` says about the problem that an operator hands to it; the reason names it.
static const char *inner_refuses(const struct hb_problem *p, const struct hb_impl *in)
{
    static char text[HB_NAME_MAX + 200];
    const struct hb_problem part = { .op = in->op, .dtype = p->dtype, .B = p->B, .L = p->L,
                                     .D = p->D, .H = p->H, .threads = p->threads,
                                     .planning = p->planning, .backward = p->backward };
    const char *why = NULL;
    if (!(in->dtypes >> p->dtype & 1)) why = "it does not have this dtype";
    else if (p->backward && !in->backward) why = "it has no backward pass";
    else if (in->refuses) why = in->refuses(&part);
    if (!why) return NULL;
    snprintf(text, sizeof text, "%.127s inside: %.190s", in->name, why);
    return text;
}

const char *hb_point_refuses(const struct hb_point *pt, const struct hb_impl *impl)
{
    if (!(impl->dtypes >> pt->p.dtype & 1)) return "it does not have this dtype";
    if (pt->p.backward && !impl->backward) return "it has no backward pass";
    if (pt->p.filter == HB_FILTER_FIXED && !impl->set_filter)
        return "it has no fixed filter (pass fwd_cached)";
    const char *why = impl->refuses ? impl->refuses(&pt->p) : NULL;
    if (why || !pt->p.inner[0] || pt->p.oper.no_long) return why;
    const struct hb_impl *in = hb_registry_find(pt->p.inner);
    return in ? inner_refuses(&pt->p, in) : "what is inside is not there";
}
