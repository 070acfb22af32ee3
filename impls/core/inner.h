// inner.h: what hyena and mha do alike around the implementation inside them: find it and ask it,
// take device memory from a table of tensors, give it back.
#ifndef HB_INNER_H
#define HB_INNER_H

#include <string.h>
#include "device.h"
#include "halves.h"

// Does this device have the problem's type of activations? NULL = yes.
static inline const char *hb_device_refuses(const struct hb_device *d, const struct hb_problem *p)
{
    return d->dtypes >> p->dtype & 1 ? NULL : "the device does not have this dtype";
}

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
    const char *why = i->dtypes >> in->dtype & 1 ? NULL : "it does not have this dtype";
    if (!why && in->gated && !i->gates) why = "it takes no gates";
    if (!why) why = i->refuses ? i->refuses(in) : NULL;
    if (!why && in->backward && !i->backward) why = "it has no backward pass";
    return why ? host->fail(host, HB_ERR_REFUSED, "%s: %s", name, why) : 0;
}

// n elements of `size` bytes further.
static inline void *hb_at(const void *x, int64_t n, size_t size)
{
    return (char *)x + n * (int64_t)size;
}

// One tensor of a state: the address of the pointer that keeps it, its elements (0: not needed) and
// the bytes of one.
struct hb_need { void *at; int64_t n; size_t size; };

// Until the first that does not fit; what was taken stays for the caller's destroy.
static inline int hb_need_alloc(const struct hb_device *dev, const struct hb_need *need, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (need[i].n == 0) continue;
        void *p = dev->alloc(dev, (size_t)need[i].n * need[i].size);
        if (!p) return HB_ERR_OOM;
        memcpy(need[i].at, &p, sizeof p);        // of whatever type the pointer there is
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
