/* Wishes about memory, where the system takes them: pages of 2 MB for large weights, so that a product that reads W
   once seldom waits for an address to be translated; and what is freed is kept for what comes next, which finds its
   pages there. */

#include "api.h"

#include <stdlib.h>

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

#ifdef __GLIBC__
#include <malloc.h>

#define LARGE (32 << 20) /* bytes from which a piece is mapped by itself: as far as glibc's own rule goes */

void lowrank_keep_freed_memory(int keep)
{
    mallopt(M_MMAP_THRESHOLD, LARGE);
    mallopt(M_TRIM_THRESHOLD, keep ? -1 : 2 * LARGE);
    if (!keep)
        malloc_trim(0);
}

#else

void lowrank_keep_freed_memory(int keep) { (void)keep; }

#endif
