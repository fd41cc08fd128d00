/* Walks rows through an ensemble of trees; built once for each model by batchscore/engines/trees/library.py.
 *
 * Nodes lie breadth first, siblings side by side, so a step is `next = left + (value > threshold)`, without a branch.
 * A leaf's left is itself and its threshold +inf. NaN compares false and so goes to `left`: where a model sends it the
 * other way, the node looks at a column that holds -x. Sixteen rows walk at once: their steps do not wait for each other.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define ROWS 16
#define TINY_IS_ZERO 1
#define TINY_IS_NAN 2
#define INF_IS_MAX 4

typedef struct {
  int32_t trees, columns, targets, width;
  const int32_t *roots, *depths, *target; /* of each tree */
  const void *nodes;
  const int32_t *slots;  /* node -> row of values */
  const double *values;  /* (leaves, width) */
  const double *base;    /* (targets) */
  const int32_t *source; /* column -> feature */
  const uint8_t *rules;  /* column -> what is done to its value */
  const uint8_t *negated;
  const int32_t *sets;   /* (sets, 3): start and number of words, and whether NaN counts as inside */
  const uint32_t *words;
} forest_t;

typedef struct { float threshold; int32_t column, left; } node_float;
typedef struct { double threshold; int32_t column, left; } node_double;

/* Whether a code is in a set. */
static inline int32_t in_set(const forest_t *forest, int32_t set, double value) {
  const int32_t *entry = forest->sets + 3 * set;
  if (value != value) return entry[2];
  if (!(value > -1.0 && value < 32.0 * entry[1])) return 0;
  const uint32_t code = (uint32_t)(int32_t)value;
  return (forest->words[entry[0] + (code >> 5)] >> (code & 31)) & 1;
}

#define VALUE float
#define LARGEST 3.40282346638528859812e+38F
#define NODE node_float
#define SUM double
#define SETS 0
#define NAME walk_float_double
#include "walk_rows.h"
#undef NAME
#undef SETS
#define SETS 1
#define NAME walk_float_double_sets
#include "walk_rows.h"
#undef NAME
#undef SUM
#define SUM float
#define NAME walk_float_float_sets
#include "walk_rows.h"
#undef NAME
#undef SETS
#define SETS 0
#define NAME walk_float_float
#include "walk_rows.h"
#undef NAME
#undef SUM
#undef NODE
#undef LARGEST
#undef VALUE

#define VALUE double
#define LARGEST 1.79769313486231570815e+308
#define NODE node_double
#define SUM double
#define NAME walk_double_double
#include "walk_rows.h"
#undef NAME
#undef SETS
#define SETS 1
#define NAME walk_double_double_sets
#include "walk_rows.h"

/* The links in the order of operations of the library that they stand for, on libm. */

void sigmoid_double(double *values, int64_t count, double scale) {
  for (int64_t i = 0; i < count; i++) values[i] = 1.0 / (1.0 + exp(-scale * values[i]));
}

void softmax_double(double *values, int64_t rows, int32_t width) {
  for (int64_t r = 0; r < rows; r++, values += width) {
    double largest = values[0], sum = 0.0;
    for (int32_t i = 1; i < width; i++) if (values[i] > largest) largest = values[i];
    for (int32_t i = 0; i < width; i++) sum += values[i] = exp(values[i] - largest);
    for (int32_t i = 0; i < width; i++) values[i] /= sum;
  }
}

void exp_double(double *values, int64_t count) {
  for (int64_t i = 0; i < count; i++) values[i] = exp(values[i]);
}

/* XGBoost's: floats, kept in doubles. */
void sigmoid_float(double *values, int64_t count, double scale) {
  (void)scale;
  for (int64_t i = 0; i < count; i++) {
    const float x = fminf(-(float)values[i], 88.7f);
    values[i] = 1.0f / (expf(x) + 1.0f + 1e-16f);
  }
}

void softmax_float(double *values, int64_t rows, int32_t width) {
  for (int64_t r = 0; r < rows; r++, values += width) {
    float largest = (float)values[0];
    double sum = 0.0;
    for (int32_t i = 1; i < width; i++) largest = fmaxf((float)values[i], largest);
    for (int32_t i = 0; i < width; i++) sum += values[i] = expf((float)values[i] - largest);
    for (int32_t i = 0; i < width; i++) values[i] = (float)values[i] / (float)sum;
  }
}

void exp_float(double *values, int64_t count) {
  for (int64_t i = 0; i < count; i++) values[i] = expf((float)values[i]);
}
