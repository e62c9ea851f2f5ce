/* The maxima of blocks by rows of W, for products that go down its columns: dX = dY W by dot products and by tiles. */

#ifndef LOWRANK_TRANSPOSED_ABSMAX_H
#define LOWRANK_TRANSPOSED_ABSMAX_H

#include "bf16/dots.h"

#ifdef HAS_DOTS

BEGIN_DOTS

/* The maxima of `count` <= 64 blocks of each of sixteen rows of W, transposed. */
static void transpose_absmax_of_rows(const blockwise_4bit *w, int64_t row, int64_t block, int64_t count, float *to,
                                     int64_t stride)
{
    enum { ROWS = 16 };
    float of_rows[ROWS][64];
    memset(of_rows, 0, sizeof of_rows);
    for (int64_t r = 0; r < min_i64(ROWS, w->rows - row); r++)
        chosen_set()->maxima(w, (row + r) * (w->columns / w->blocksize) + block, count, of_rows[r]);
    for (int64_t part = 0; part < count; part += ROWS) {
        __m512i transposed[ROWS];
        for (int r = 0; r < ROWS; r++)
            transposed[r] = _mm512_loadu_si512(of_rows[r] + part);
        transpose_words(transposed);
        for (int64_t i = 0; i < min_i64(ROWS, count - part); i++)
            _mm512_storeu_si512(to + (part + i) * stride, transposed[i]);
    }
}

/* All maxima as [block of a row][row of W], `stride` rows, zero behind the last; by the whole team. Read as they lie,
   each pair of rows would cost two cache lines of them. */
static void transpose_absmax(const blockwise_4bit *w, int64_t stride, float *to)
{
    const int64_t blocks = w->columns / w->blocksize;
    const range mine = thread_range(stride, 16);
    for (int64_t row = mine.first; row < mine.end; row += 16)
        for (int64_t block = 0; block < blocks; block += 64)
            transpose_absmax_of_rows(w, row, block, min_i64(64, blocks - block), to + block * stride + row, stride);
}

END_DOTS

#endif

#endif
