// inner.h: what hyena and mha do alike around the implementation inside them: find it and ask it,
// take device memory from a table of tensors, give it back.
#ifndef HB_INNER_H
#define HB_INNER_H

#include <string.h>
#include "device.h"

// The implementation `name` for the problem `in`, on the host's device. `outer` is who asks, `what`
// the kind that was expected ("a longconv"). 0 and *impl, or HB_ERR_* with the message set.
static inline int hb_inner_open(const struct hb_host *host, const char *outer, const char *what,
                                const char *name, const struct hb_problem *in,
                                const struct hb_impl **impl)
{
    const struct hb_impl *i = *impl = host->open(host, name);
    if (!i) return HB_ERR_INPUT;
    if (i->op != in->op || strcmp(i->device, host->device->name) != 0)
        return host->fail(host, HB_ERR_INPUT, "%s:%s: expected %s on device %s", outer, name, what,
                          host->device->name);
    const char *why = i->refuses ? i->refuses(in) : NULL;
    if (!why && in->backward && !i->backward) why = "it has no backward pass";
    return why ? host->fail(host, HB_ERR_REFUSED, "%s: %s", name, why) : 0;
}

// One tensor of a state: where its pointer is kept and its floats; 0: not needed.
struct hb_need { float **at; int64_t n; };

// Until the first that does not fit; what was taken stays for the caller's destroy.
static inline int hb_need_alloc(const struct hb_device *dev, const struct hb_need *need, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (need[i].n == 0) continue;
        *need[i].at = dev->alloc(dev, (size_t)need[i].n * sizeof(float));
        if (!*need[i].at) return HB_ERR_OOM;
    }
    return 0;
}

// NULL entries are skipped.
static inline void hb_free_all(const struct hb_device *dev, void *const *mem, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (mem[i]) dev->free(dev, mem[i]);
}

#endif
