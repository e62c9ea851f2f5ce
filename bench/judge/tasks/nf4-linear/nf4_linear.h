/* The function that a shared library has to have, to be judged by `lowrank bench judge LIBRARY.so`.
 *
 *     y[m, n] = sum_k x[m, k] * W[n, k],    W.flatten()[i] = codebook[code i] * absmax[i / blocksize]
 *
 * codes     [ceil(N K / 2)], two codes a byte: of weights 2 i and 2 i + 1 the first is in the high nibble of codes[i]
 * absmax    [ceil(N K / blocksize)]; blocks may go on into the next row, and the last one may be short
 * codebook  [16], the level of each code; not always NF4's
 * x         [M, K], y [M, N]: row by row. y is full of NaN; nothing else is to be written
 * threads   that may compute; none of them does once the function has returned
 */
#ifndef NF4_LINEAR_H
#define NF4_LINEAR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C"
#endif
void nf4_linear(const uint8_t *codes, const float *absmax, const float *codebook, const float *x, float *y, int64_t M,
                int64_t N, int64_t K, int64_t blocksize, int threads);

#endif
