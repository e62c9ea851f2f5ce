/* Pages of 2 MB for large weights: a product that reads W once then seldom waits for an address to be translated. */

#include "api.h"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

void lowrank_prefer_huge_pages(void *p, int64_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)p;
    const uintptr_t first = (begin + page - 1) / page * page, end = (begin + (uintptr_t)bytes) / page * page;
    if (first >= end)
        return;
    /* Wishes both: what a kernel does not grant, or does not know, changes nothing. */
    if (madvise((void *)first, end - first, MADV_HUGEPAGE) == 0)
        madvise((void *)first, end - first, MADV_COLLAPSE);
}

#else

void lowrank_prefer_huge_pages(void *p, int64_t bytes) { (void)p, (void)bytes; }

#endif
