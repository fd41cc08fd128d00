/* One walker; VALUE is the type of rows and thresholds, SUM that of the sums, SETS whether nodes may be categorical.
 *
 * data: a pointer to each feature's column of `stop` values or more; room: ROWS values for each column; sums: (rows,
 * targets) doubles. */
void NAME(const forest_t *restrict forest, const VALUE *const *restrict data, int64_t start, int64_t stop,
          VALUE *restrict room, double *restrict sums) {
  const int32_t columns = forest->columns, targets = forest->targets, width = forest->width;
  const NODE *restrict nodes = forest->nodes;
  const VALUE tiny = (VALUE)1e-35f;
  SUM single[ROWS];
  for (; start < stop; start += ROWS) {
    const int32_t here = stop - start < ROWS ? (int32_t)(stop - start) : ROWS;
    for (int32_t c = 0; c < columns; c++) {
      const VALUE *from = data[forest->source[c]] + start;
      const uint8_t rule = forest->rules[c];
      for (int32_t r = 0; r < ROWS; r++) { /* the last rows' places are filled with the last row */
        VALUE value = from[r < here ? r : here - 1];
        if (rule) {
          if (value <= tiny && value >= -tiny) {
            if (rule & TINY_IS_ZERO) value = 0;
            if (rule & TINY_IS_NAN) value = (VALUE)NAN;
          }
          if ((rule & INF_IS_MAX) && value > LARGEST) value = LARGEST;
        }
        room[r * columns + c] = forest->negated[c] ? -value : value;
      }
    }
    double *out = sums + start * targets;
    for (int32_t r = 0; r < here; r++) memcpy(out + r * targets, forest->base, sizeof(double) * targets);
    for (int32_t r = 0; r < ROWS; r++) single[r] = (SUM)forest->base[0];
    for (int32_t t = 0; t < forest->trees; t++) {
      int32_t at[ROWS];
      for (int32_t r = 0; r < ROWS; r++) at[r] = forest->roots[t];
      for (int32_t step = forest->depths[t]; step > 0; step--) {
        for (int32_t r = 0; r < ROWS; r++) {
          const NODE *node = nodes + at[r];
#if SETS
          if (node->column < 0) {
            at[r] = node->left + in_set(forest, (int32_t)node->threshold, (double)room[r * columns + ~node->column]);
            continue;
          }
#endif
          at[r] = node->left + (room[r * columns + node->column] > node->threshold);
        }
      }
      if (targets == 1) {
        for (int32_t r = 0; r < ROWS; r++) single[r] += (SUM)forest->values[forest->slots[at[r]]];
        continue;
      }
      for (int32_t r = 0; r < here; r++) {
        const double *values = forest->values + (int64_t)forest->slots[at[r]] * width;
        double *to = out + r * targets + forest->target[t];
        for (int32_t k = 0; k < width; k++) to[k] = (SUM)((SUM)to[k] + (SUM)values[k]);
      }
    }
    if (targets == 1)
      for (int32_t r = 0; r < here; r++) out[r] = single[r];
  }
}
