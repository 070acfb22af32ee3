// example.c: which long convolution for which length? With the installed library:
//     cc example.c $(pkg-config --cflags --libs hyena_bench) -o example && ./example
#include <hyena_bench.h>
#include <stdio.h>

int main(void)
{
    for (int64_t L = 64; L <= 65536; L *= 4) {
        struct hb_question q = { .op = "longconv", .B = 1, .D = 256, .L = L,
                                 .mem_limit = (int64_t)1 << 30 };
        struct hb_choice c;
        if (hb_choose(&q, &c)) {
            fprintf(stderr, "L %lld: %s\n", (long long)L, hb_choice_error());
            return 1;
        }
        printf("L %6lld  %-22s %9.3f ms [%.3f, %.3f]  %s%s\n", (long long)L, c.impl,
               1e-6 * c.time_ns, 1e-6 * c.time_lo_ns, 1e-6 * c.time_hi_ns, hb_reason_str(c.reason),
               c.tie ? ", a tie" : "");
    }
    return 0;
}
