/* The kernels for one width of vectors: LEVEL names it, BYTES is a vector's size, TARGET lets the compiler use them. */
#define VALUE float
#define WORD uint32_t
#define INDEX int32_t
#define NODE mask_float
#define LOWEST __builtin_ctz
#define SUM double
#include "masks_rows.h"
#undef SUM
#define SUM float
#include "masks_rows.h"
#undef SUM
#undef VALUE
#undef WORD
#undef INDEX
#undef NODE
#undef LOWEST

#define VALUE double
#define WORD uint64_t
#define INDEX int64_t
#define NODE mask_double
#define LOWEST __builtin_ctzll
#define SUM double
#include "masks_rows.h"
#undef SUM
#undef VALUE
#undef WORD
#undef INDEX
#undef NODE
#undef LOWEST

#undef LEVEL
#undef TARGET
#undef BYTES
