/* Scores rows against an ensemble of trees without walking it; built once for each model by library.py.
 *
 * A tree's leaves are the bits of words, its leftmost leaf the lowest bit of the first. A row that goes right at a node
 * cannot end in a leaf on the node's left, so the node clears those bits; the leftmost bit that is left is the row's
 * leaf, whatever the order of the nodes (QuickScorer: Lucchese et al., SIGIR 2015; for vectors: RapidScorer, Ye et al.,
 * KDD 2018). Every node looks at four vectors of rows at once, straight in the table's columns, without a branch.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define TINY_IS_ZERO 1
#define TINY_IS_NAN 2
#define CODES 4
#define NO_CODE (-1)
#define NAN_CODE (-2)

typedef struct {
  int32_t trees, columns, targets, words;
  const int32_t *source; /* column -> feature */
  const uint8_t *rules;  /* column -> what is done to its values */
  const int32_t *target; /* tree -> the sum that it adds to */
  const int32_t *first;  /* (trees + 1): the first word of each tree */
  const int32_t *leaf;   /* word -> the leaf of its lowest bit */
  const int32_t *runs;   /* (words, 4): the first node where NaN goes left, where it goes right, of sets, and the end */
  const void *nodes;
  const int32_t *sets;   /* (sets, 3): start and number of bits' words, and whether NaN counts as inside */
  const uint32_t *bits;
  const void *values;    /* leaves, in the type of the sums */
  const double *base;    /* (targets) */
} masks_t;

/* `set` is the set of a categorical node. */
typedef struct { uint32_t clear; float threshold; int32_t column, set; } mask_float;
typedef struct { uint64_t clear; double threshold; int32_t column, set; } mask_double;

#define GLUE2(a, b) a##_##b
#define GLUE3(a, b, c) a##_##b##_##c
#define GLUE4(a, b, c, d) a##_##b##_##c##_##d
#define JOIN2(a, b) GLUE2(a, b)
#define JOIN3(a, b, c) GLUE3(a, b, c)
#define JOIN4(a, b, c, d) GLUE4(a, b, c, d)

/* Clears a node's bits where x > threshold (NaN stays) or where not x <= threshold (NaN clears). */
#define CLEAR(left, x, node, how) left &= ~(how(*(x), (node)->threshold) & (node)->clear)
#define ABOVE(x, threshold) (words_t)((x) > (threshold))
#define NOT_BELOW(x, threshold) ~(words_t)((x) <= (threshold))

#define LEVEL plain
#define TARGET
#define BYTES 16
#include "masks_level.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define LEVEL avx2
#define TARGET __attribute__((target("avx2,bmi")))
#define BYTES 32
#include "masks_level.h"

#define LEVEL avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,bmi")))
#define BYTES 64
#undef CLEAR
#undef ABOVE
#undef NOT_BELOW
#define CLEAR JOIN2(CLEAR, VALUE)
#define ABOVE _CMP_GT_OQ
#define NOT_BELOW _CMP_NLE_UQ
#include "masks_avx512.h"
#include "masks_level.h"
#endif

/* The widest vectors that this processor has: 2 for AVX-512, 1 for AVX2, else 0. */
int32_t masks_level(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("bmi"))
    return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi")) return 1;
#endif
  return 0;
}
