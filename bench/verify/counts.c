// counts.c: the rule `count`: parameters and FLOPs of published models, computed exactly.
//
//     rows[]   {name, count: params | flop | number, the architecture (counts.h), L and tokens of
//              flop, n of number, published, half: half a unit of the last printed digit}
//     value    deviation: the largest |ours/published - 1|; rounding: the largest |ours -
//              published| / half (at most 1: the printed number is ours, rounded);
//              reduction: 1 - second/first; ratio: last/first; first: the first row itself
// Formulas  parameters of a Hyena layer: (N+1) D^2 + (N+1) D into the operator, D^2 + D out of it,
//           4 (N+1) D short filter, (N-1) D skip, filter network E M + M + 2 (M^2 + M) + (N-1) D M
//           + M frequencies, the table Lmax E if it is trained. Block: 4 D of norms, MLP
//           2 D F + F + D. Model: V D embedding (also the head), 2 D last norm.
//           FLOPs of a layer (Poli et al. 2023, A.2, with N+1 projections): 2 [(N+1) D^2 L +
//           3 (N+1) D L + 5 (N-1) D L log2 L + D^2 L]; attention 2 [3 D^2 L + 2 L^2 D + D^2 L] +
//           3 H L^2 of the softmax; MLP 4 D F L; 4 V D L embedding and logits.
#include "counts.h"

#include <math.h>
#include <string.h>

#include "verify.h"

double hb_arch_params(const struct hb_arch *a)
{
    const double D = (double)a->D, F = (double)a->ffn, V = (double)a->V;
    double mixer = 4 * D * D + 4 * D;
    if (!a->attention) {
        const double N = (double)a->order, E = (double)a->E, M = (double)a->M;
        mixer = (N + 1) * (D * D + D) + D * D + D + 4 * (N + 1) * D + (N - 1) * D + E * M + M +
                2 * (M * M + M) + (N - 1) * D * M + M + (a->train_z ? (double)a->Lmax * E : 0);
    }
    const double block = mixer + 4 * D + 2 * D * F + F + D;
    return (double)a->layers * block + V * D + (double)a->positions * D + 2 * D;
}

double hb_arch_flop(const struct hb_arch *a, int64_t len)
{
    const double D = (double)a->D, F = (double)a->ffn, V = (double)a->V, L = (double)len;
    double mixer;
    if (a->attention) {
        const double H = a->heads ? (double)a->heads : D / 64;
        mixer = 2 * (3 * D * D * L + 2 * L * L * D + D * D * L) + 3 * H * L * L;
    } else {
        const double N = (double)a->order, blocks = a->printed ? N : N + 1;
        mixer = 2 * (blocks * D * D * L + 3 * blocks * D * L + 5 * (N - 1) * D * L * log2(L) +
                     D * D * L);
    }
    return (double)a->layers * (mixer + 4 * D * F * L) + 4 * V * D * L;
}

static int64_t whole(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

// false: not a kind of count.
static bool row_value(const json_t *row, double *out)
{
    const char *kind = json_string_value(json_object_get(row, "count")),
               *mixer = json_string_value(json_object_get(row, "mixer"));
    const struct hb_arch a = {.attention = mixer && !strcmp(mixer, "attention"),
                              .D = whole(row, "D"),
                              .layers = whole(row, "layers"),
                              .ffn = whole(row, "ffn"),
                              .V = whole(row, "V"),
                              .heads = whole(row, "heads"),
                              .positions = whole(row, "positions"),
                              .order = whole(row, "order"),
                              .E = whole(row, "E"),
                              .M = whole(row, "M"),
                              .Lmax = whole(row, "Lmax"),
                              .train_z = json_is_true(json_object_get(row, "train_z")),
                              .printed = json_is_true(json_object_get(row, "printed"))};
    const double L = (double)whole(row, "L");
    if (!kind) return false;
    if (!strcmp(kind, "params")) *out = hb_arch_params(&a);
    else if (!strcmp(kind, "flop"))
        *out = 3 * hb_arch_flop(&a, (int64_t)L) / L *
               json_number_value(json_object_get(row, "tokens"));
    else if (!strcmp(kind, "number")) *out = json_number_value(json_object_get(row, "n"));
    else return false;
    return true;
}

enum { MAX_ROWS = 32 };

int hb_rule_count(const struct hb_evidence *e, const json_t *check, struct hb_outcome *out)
{
    const json_t *rows = json_object_get(check, "rows");
    const char *what = json_string_value(json_object_get(check, "value"));
    const size_t n = json_array_size(rows), cap = sizeof out->ours;
    double v[MAX_ROWS], worst = 0;
    size_t k = 0;
    (void)e;
    if (!what || !n || n > MAX_ROWS)
        return hb_fail(HB_ERR_INPUT, "rule count: \"value\" and 1 to %d rows", MAX_ROWS);
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(rows, i);
        const char *name = json_string_value(json_object_get(row, "name"));
        const double p = json_number_value(json_object_get(row, "published")),
                     half = json_number_value(json_object_get(row, "half"));
        if (!row_value(row, &v[i])) return hb_fail(HB_ERR_INPUT, "rule count: row %zu", i + 1);
        if (p > 0)
            worst = fmax(worst, half > 0 ? fabs(v[i] - p) / half : fabs(v[i] / p - 1));
        if (k < cap)
            k += (size_t)snprintf(out->ours + k, cap - k, v[i] == rint(v[i]) && v[i] < 1e12
                                                              ? "%s%s %.0f"
                                                              : "%s%s %.4g",
                                  i ? "; " : "", name ? name : "", v[i]);
    }
    out->value = !strcmp(what, "reduction") ? 1 - v[n - 1] / v[0]
                 : !strcmp(what, "ratio")   ? v[n - 1] / v[0]
                 : !strcmp(what, "first")   ? v[0]
                                            : worst;
    if (k < cap)
        snprintf(out->ours + k, cap - k, !strcmp(what, "deviation")  ? "; largest deviation %.2f %%"
                                         : !strcmp(what, "rounding") ? "; off by at most %.2f of "
                                                                       "half the last printed digit"
                                         : !strcmp(what, "reduction") ? "; %.1f %% less"
                                         : !strcmp(what, "ratio")     ? "; ratio %.4g"
                                                                      : "",
                 !strcmp(what, "deviation") || !strcmp(what, "reduction") ? 100 * out->value
                                                                          : out->value);
    out->ci = (struct hb_interval){out->value, out->value};
    snprintf(out->bound, sizeof out->bound, "exact");
    return 0;
}
