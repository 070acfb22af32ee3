// judge.c: bands and verdicts.
#include "judge.h"

#include <math.h>
#include <string.h>

// From the best to the worst.
static const char *const verdicts[] = {HB_REPRODUCED, HB_FIGURE_ONLY,  HB_REDUCED,
                                       HB_NOT_HERE,   HB_INCONCLUSIVE, HB_NOT_MEASURED,
                                       HB_CONTRADICTED};
enum { N_VERDICTS = sizeof verdicts / sizeof *verdicts };

static int rank_of(const char *name)
{
    for (int i = 0; name && i < N_VERDICTS; i++)
        if (!strcmp(name, verdicts[i])) return i;
    return -1;
}

const char *hb_verdict_named(const char *name)
{
    const int i = rank_of(name);
    return i < 0 ? NULL : verdicts[i];
}

static double edge(const json_t *band, const char *key, double open)
{
    const json_t *v = json_object_get(band, key);
    return json_is_number(v) ? json_number_value(v) : open;
}

const char *hb_judge(const json_t *check, double value, struct hb_interval ci)
{
    const json_t *bands = json_object_get(check, "bands"), *otherwise = json_object_get(check,
                                                                                        "else");
    const char *outside = otherwise ? hb_verdict_named(json_string_value(otherwise))
                                    : HB_CONTRADICTED;
    bool touches = false;
    if (json_is_true(json_object_get(check, "shows")) && !bands) return HB_NOT_MEASURED;
    if (!outside || !json_array_size(bands)) {
        hb_fail(HB_ERR_INPUT, "check '%.80s': no bands, or an unknown verdict",
                json_string_value(json_object_get(check, "label")));
        return NULL;
    }
    for (size_t i = 0; i < json_array_size(bands); i++) {
        const json_t *band = json_array_get(bands, i);
        const char *v = hb_verdict_named(json_string_value(json_object_get(band, "verdict")));
        const double lo = edge(band, "lo", -INFINITY), hi = edge(band, "hi", INFINITY);
        if (!v) {
            hb_fail(HB_ERR_INPUT, "check '%.80s': a band without a verdict",
                    json_string_value(json_object_get(check, "label")));
            return NULL;
        }
        if (ci.lo >= lo && ci.hi <= hi) return v;
        touches |= ci.hi >= lo && ci.lo <= hi;
    }
    // NaN compares false everywhere above.
    return !isfinite(value) ? HB_NOT_MEASURED : touches ? HB_INCONCLUSIVE : outside;
}

const char *hb_verdict_join(const char *const *v, size_t n, enum hb_join how)
{
    const int holds = rank_of(HB_REDUCED), settled = rank_of(HB_CONTRADICTED);
    int worst = 0, best = N_VERDICTS - 1, open = -1;
    for (size_t i = 0; i < n; i++) {
        const int k = rank_of(v[i]);
        if (k < 0) return HB_INCONCLUSIVE;
        worst = k > worst ? k : worst;
        best = k < best ? k : best;
        if (k > holds && k < settled && k > open) open = k;
    }
    if (!n) return HB_INCONCLUSIVE;
    if (how == HB_JOIN_ANY && best > holds) return verdicts[open < 0 ? settled : open];
    if (how == HB_JOIN_ANY) return verdicts[best];
    if (how == HB_JOIN_ALL || worst == best || worst != settled) return verdicts[worst];
    return best > holds ? verdicts[open] : HB_INCONCLUSIVE;
}
