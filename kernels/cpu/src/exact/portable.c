/* Any processor: vectors of four floats in plain C, which the compiler maps to what there is (on Arm, to NEON). */

#define VECTOR 4
#define TILE_ROWS 6
#define SET portable_exact
#include "set.inc"
