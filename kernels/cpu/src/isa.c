/* Which instruction set is used. */

#include <stdlib.h>
#include <string.h>

#include "isa.h"

#define MATRIX_UNIT "amx" /* stands for the widest set, and tiles beside it */

/* Widest first. */
static const instruction_set *const sets[] = {
#if defined(__x86_64__)
    &avx512_set,
    &avx2_set,
#elif defined(__aarch64__)
    &neon_set,
#endif
    &portable_set,
};

static int is_supported(const instruction_set *set)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (set == &avx512_set)
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (set == &avx2_set)
        return avx2;
#endif
    return set != NULL;
}

static const instruction_set *chosen;
static int tiles;

int lowrank_choose(const char *name)
{
    const int matrix_unit = name && !strcmp(name, MATRIX_UNIT);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (is_supported(sets[i]) && (!name || matrix_unit || !strcmp(name, sets[i]->name))) {
            chosen = sets[i];
            tiles = (!name || matrix_unit) && has_amx();
            return matrix_unit && !tiles ? -1 : 0;
        }
    return -1;
}

const instruction_set *chosen_set(void) { return chosen; }

const char *lowrank_instruction_set(void) { return tiles ? MATRIX_UNIT : chosen->name; }
