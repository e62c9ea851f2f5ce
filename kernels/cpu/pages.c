/* Large pages: a weight that is read whole for every token should not need an entry of the page table for each 4 KiB. */

#include "native.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>

#define LARGE (2 << 20)
#define COLLAPSE 25 /* MADV_COLLAPSE, Linux 6.1: now, and not when the kernel comes round to it */

void lowrank_large_pages(void *memory, int64_t bytes)
{
    const uintptr_t first = ((uintptr_t)memory + LARGE - 1) / LARGE * LARGE, end = (uintptr_t)memory + (uintptr_t)bytes;
    if (first + LARGE > end)
        return;
    const size_t length = (end - first) / LARGE * LARGE;
    if (madvise((void *)first, length, MADV_HUGEPAGE) == 0)
        (void)madvise((void *)first, length, COLLAPSE); /* a wish: where it is not granted the pages stay as they are */
}
#else
void lowrank_large_pages(void *memory, int64_t bytes) { (void)memory, (void)bytes; }
#endif
