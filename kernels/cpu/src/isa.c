/* Which instruction set is used, and which functions this library has. */

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

__asm__(".section .rodata\n"
        ".hidden api_header\n"
        ".global api_header\n"
        "api_header: .incbin \"api.h\"\n"
        ".byte 0\n"
        ".previous");
extern const char api_header[] __attribute__((visibility("hidden")));

const char *lowrank_api_header(void) { return api_header; }

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

int has_bf16(void)
{
#if defined(__x86_64__)
    return is_supported(&avx512_set) && __builtin_cpu_supports("avx512bf16");
#else
    return 0;
#endif
}

/* Products beside the functions of the widest set, the fastest first. */
static const struct {
    const char *name;
    int (*is_here)(void);
} units[] = {{"amx", has_amx}, {"avx512bf16", has_bf16}};

static const instruction_set *chosen;
static const char *chosen_name;

int lowrank_choose(const char *name)
{
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if ((!name || !strcmp(name, units[i].name)) && is_supported(sets[0]) && units[i].is_here()) {
            chosen = sets[0];
            chosen_name = units[i].name;
            return 0;
        }
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (is_supported(sets[i]) && (!name || !strcmp(name, sets[i]->name))) {
            chosen = sets[i];
            chosen_name = sets[i]->name;
            return 0;
        }
    return -1;
}

const instruction_set *chosen_set(void) { return chosen; }

int uses_bf16(void) { return !strcmp(chosen_name, "avx512bf16"); }

int64_t first_level_bytes(void)
{
#ifdef _SC_LEVEL1_DCACHE_SIZE
    const long bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE);
    return bytes > 0 ? bytes : 0;
#else
    return 0;
#endif
}

const char *lowrank_instruction_set(void) { return chosen_name; }

const char *lowrank_processor(void)
{
    static char name[32];
#if defined(__x86_64__)
    unsigned a, vendor[3];
    if (!*name && __get_cpuid(0, &a, vendor, vendor + 2, vendor + 1) &&
        __get_cpuid(1, &a, &(unsigned){0}, &(unsigned){0}, &(unsigned){0})) {
        const unsigned family = a >> 8 & 15;
        snprintf(name, sizeof name, "%.12s %u", (const char *)vendor, family == 15 ? family + (a >> 20 & 255) : family);
    }
#endif
    return name;
}
