/* One kernel: VALUE is the type of rows and thresholds, WORD and INDEX integers as wide, SUM the type of the sums.
 *
 * data: a pointer to each feature's column of `stop` values or more; room: a pointer and 4 vectors for each column, and
 * as many rows' SUM for each target, and a vector; sums: (rows, targets) doubles. */
TARGET void JOIN4(masks, VALUE, SUM, LEVEL)(const masks_t *restrict forest, const VALUE *const *restrict data,
                                            int64_t start, int64_t stop, void *restrict room,
                                            double *restrict sums) {
  enum { LANES = BYTES / sizeof(VALUE), ROWS = 4 * LANES };
  typedef VALUE values_t __attribute__((vector_size(BYTES), aligned(sizeof(VALUE)), may_alias));
  typedef INDEX index_t __attribute__((vector_size(BYTES), aligned(sizeof(VALUE)), may_alias));
  typedef WORD words_t __attribute__((vector_size(BYTES), aligned(sizeof(VALUE)), may_alias));
  const int32_t columns = forest->columns, targets = forest->targets;
  const NODE *restrict nodes = forest->nodes;
  const SUM *restrict values = forest->values;
  const VALUE tiny = (VALUE)1e-35f;
  const VALUE **restrict here = room;
  /* A vector that crosses a line of the cache costs two loads: columns that lie badly are copied. */
  VALUE *restrict made = (VALUE *)(((uintptr_t)(here + columns) + BYTES - 1) / BYTES * BYTES);
  SUM *restrict totals = (SUM *)(made + (int64_t)columns * ROWS);
  for (; start < stop; start += ROWS) {
    const int32_t count = stop - start < ROWS ? (int32_t)(stop - start) : ROWS;
    for (int32_t c = 0; c < columns; c++) {
      const VALUE *from = data[forest->source[c]] + start;
      const uint8_t rule = forest->rules[c];
      if (!rule && count == ROWS && (uintptr_t)from % BYTES == 0) {
        here[c] = from;
        continue;
      }
      VALUE *to = made + (int64_t)c * ROWS;
      here[c] = to;
      for (int32_t r = 0; r < ROWS; r++) { /* the last rows' places are filled with the last row */
        VALUE value = from[r < count ? r : count - 1];
        if (rule & CODES) {
          const INDEX code = value != value ? NAN_CODE : value > -1 && value < 2147483520 ? (INDEX)value : NO_CODE;
          memcpy(to + r, &code, sizeof code);
          continue;
        }
        if (rule && value <= tiny && value >= -tiny) value = rule & TINY_IS_NAN ? (VALUE)NAN : 0;
        to[r] = value;
      }
    }
    for (int32_t k = 0; k < targets; k++)
      for (int32_t r = 0; r < ROWS; r++) totals[k * ROWS + r] = (SUM)forest->base[k];
    for (int32_t t = 0; t < forest->trees; t++) {
      SUM *restrict total = totals + (int64_t)forest->target[t] * ROWS;
      const SUM *restrict table = values + forest->leaf[forest->first[t]];
#ifdef WIDE
      __m512i reached[4] = {0};
#else
      int32_t reached[ROWS] = {0};
#endif
      /* From the last word to the first: the leftmost word that has a bit left has the last say. */
      for (int32_t w = forest->first[t + 1] - 1; w >= forest->first[t]; w--) {
        const int32_t *run = forest->runs + 4 * (int64_t)w;
        words_t a = ~(words_t){0}, b = a, c = a, d = a;
        int32_t n = run[0];
        for (; n < run[1]; n++) {
          const NODE *node = nodes + n;
          const values_t *x = (const values_t *)here[node->column];
          CLEAR(a, x + 0, node, ABOVE);
          CLEAR(b, x + 1, node, ABOVE);
          CLEAR(c, x + 2, node, ABOVE);
          CLEAR(d, x + 3, node, ABOVE);
        }
        for (; n < run[2]; n++) {
          const NODE *node = nodes + n;
          const values_t *x = (const values_t *)here[node->column];
          CLEAR(a, x + 0, node, NOT_BELOW);
          CLEAR(b, x + 1, node, NOT_BELOW);
          CLEAR(c, x + 2, node, NOT_BELOW);
          CLEAR(d, x + 3, node, NOT_BELOW);
        }
        for (; n < run[3]; n++) {
          const NODE *node = nodes + n;
          const int32_t *set = forest->sets + 3 * (int64_t)node->set;
          const index_t *x = (const index_t *)here[node->column];
          words_t in[4];
          for (int32_t v = 0; v < 4; v++) in[v] = set[2] ? (words_t)(x[v] == NAN_CODE) : (words_t){0};
          for (int32_t s = 0; s < set[1]; s++) {
            const WORD bits = forest->bits[set[0] + s];
            if (!bits) continue;
            for (int32_t v = 0; v < 4; v++)
              in[v] |= (words_t)((x[v] >> 5) == s) & -(((words_t){0} + bits) >> (words_t)(x[v] & 31) & 1);
          }
          a &= ~(~in[0] & node->clear);
          b &= ~(~in[1] & node->clear);
          c &= ~(~in[2] & node->clear);
          d &= ~(~in[3] & node->clear);
        }
        const int32_t leaf = forest->leaf[w] - forest->leaf[forest->first[t]];
#ifdef WIDE
        reached[0] = JOIN2(reach, VALUE)((__m512i)a, reached[0], leaf);
        reached[1] = JOIN2(reach, VALUE)((__m512i)b, reached[1], leaf);
        reached[2] = JOIN2(reach, VALUE)((__m512i)c, reached[2], leaf);
        reached[3] = JOIN2(reach, VALUE)((__m512i)d, reached[3], leaf);
      }
      const int32_t leaves = forest->leaf[forest->first[t + 1]] - forest->leaf[forest->first[t]];
      JOIN3(add, VALUE, SUM)(total, table, leaves, reached);
#else
        WORD left[ROWS];
        memcpy(left, &a, BYTES);
        memcpy(left + LANES, &b, BYTES);
        memcpy(left + 2 * LANES, &c, BYTES);
        memcpy(left + 3 * LANES, &d, BYTES);
        for (int32_t r = 0; r < ROWS; r++)
          if (left[r]) reached[r] = leaf + LOWEST(left[r]);
      }
      for (int32_t r = 0; r < ROWS; r++) total[r] += table[reached[r]];
#endif
    }
    for (int32_t r = 0; r < count; r++)
      for (int32_t k = 0; k < targets; k++) sums[(start + r) * targets + k] = totals[k * ROWS + r];
  }
}
