/* Softmax cross-entropy: logits become their own gradient, in the memory that they are in. Whole rows a thread. */

#include <string.h>

#include "threads.h"

int lowrank_cross_entropy(void *logits, enum dtype dtype, int64_t rows, int64_t vocabulary, const int64_t *targets,
                          int64_t ignored, int with_gradient, float *losses, int threads)
{
    const int64_t size = vocabulary * (int64_t)size_of(dtype);
#pragma omp parallel num_threads(useful_threads(threads, rows *vocabulary))
    {
        const range mine = thread_range(rows, 1);
        for (int64_t row = mine.first; row < mine.end; row++) {
            char *const own = (char *)logits + row * size;
            if (targets[row] == ignored) {
                losses[row] = 0;
                if (with_gradient)
                    memset(own, 0, size);
            } else
                losses[row] = chosen_set()->cross_entropy(own, dtype, vocabulary, targets[row], with_gradient);
        }
    }
    return 0;
}
