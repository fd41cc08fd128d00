/* What the compiler does not find by itself: comparisons that mask, and leaves looked up in registers. */
#define WIDE static inline TARGET

#define CLEAR_float(left, x, node, how)                                                                       \
  left = (words_t)_mm512_mask_andnot_epi32(                                                                   \
      (__m512i)left, _mm512_cmp_ps_mask(_mm512_loadu_ps(x), _mm512_set1_ps((node)->threshold), how),          \
      _mm512_set1_epi32((int32_t)(node)->clear), (__m512i)left)
#define CLEAR_double(left, x, node, how)                                                                      \
  left = (words_t)_mm512_mask_andnot_epi64(                                                                   \
      (__m512i)left, _mm512_cmp_pd_mask(_mm512_loadu_pd(x), _mm512_set1_pd((node)->threshold), how),          \
      _mm512_set1_epi64((int64_t)(node)->clear), (__m512i)left)

/* The lowest bit's place, plus `leaf`, where a bit is left; else what was reached before. */
WIDE __m512i reach_float(__m512i left, __m512i reached, int32_t leaf) {
  const __m512i lowest = _mm512_and_si512(left, _mm512_sub_epi32(_mm512_setzero_si512(), left));
  const __m512i place = _mm512_sub_epi32(_mm512_set1_epi32(leaf + 31), _mm512_lzcnt_epi32(lowest));
  return _mm512_mask_mov_epi32(reached, _mm512_test_epi32_mask(left, left), place);
}

WIDE __m512i reach_double(__m512i left, __m512i reached, int32_t leaf) {
  const __m512i lowest = _mm512_and_si512(left, _mm512_sub_epi64(_mm512_setzero_si512(), left));
  const __m512i place = _mm512_sub_epi64(_mm512_set1_epi64(leaf + 63), _mm512_lzcnt_epi64(lowest));
  return _mm512_mask_mov_epi64(reached, _mm512_test_epi64_mask(left, left), place);
}

/* Eight values of a tree of up to 64 leaves; the table's end is padded. */
WIDE __m512d pick_double(const double *table, int32_t leaves, __m512i at) {
  if (leaves > 64) return _mm512_i64gather_pd(at, table, 8);
  __m512d low = _mm512_permutex2var_pd(_mm512_loadu_pd(table), at, _mm512_loadu_pd(table + 8));
  if (leaves <= 16) return low;
  const __mmask8 second = _mm512_test_epi64_mask(at, _mm512_set1_epi64(16));
  const __m512d next = _mm512_permutex2var_pd(_mm512_loadu_pd(table + 16), at, _mm512_loadu_pd(table + 24));
  low = _mm512_mask_mov_pd(low, second, next);
  if (leaves <= 32) return low;
  const __m512d third = _mm512_permutex2var_pd(_mm512_loadu_pd(table + 32), at, _mm512_loadu_pd(table + 40));
  const __m512d fourth = _mm512_permutex2var_pd(_mm512_loadu_pd(table + 48), at, _mm512_loadu_pd(table + 56));
  const __m512d high = _mm512_mask_mov_pd(third, second, fourth);
  return _mm512_mask_mov_pd(low, _mm512_test_epi64_mask(at, _mm512_set1_epi64(32)), high);
}

WIDE __m512 pick_float(const float *table, int32_t leaves, __m512i at) {
  if (leaves > 64) return _mm512_i32gather_ps(at, table, 4);
  const __m512 low = _mm512_permutex2var_ps(_mm512_loadu_ps(table), at, _mm512_loadu_ps(table + 16));
  if (leaves <= 32) return low;
  const __m512 high = _mm512_permutex2var_ps(_mm512_loadu_ps(table + 32), at, _mm512_loadu_ps(table + 48));
  return _mm512_mask_mov_ps(low, _mm512_test_epi32_mask(at, _mm512_set1_epi32(32)), high);
}

WIDE void add_float_double(double *total, const double *table, int32_t leaves, const __m512i *reached) {
  for (int32_t v = 0; v < 4; v++, total += 16) {
    const __m512i low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(reached[v]));
    const __m512i high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(reached[v], 1));
    _mm512_storeu_pd(total, _mm512_add_pd(_mm512_loadu_pd(total), pick_double(table, leaves, low)));
    _mm512_storeu_pd(total + 8, _mm512_add_pd(_mm512_loadu_pd(total + 8), pick_double(table, leaves, high)));
  }
}

WIDE void add_float_float(float *total, const float *table, int32_t leaves, const __m512i *reached) {
  for (int32_t v = 0; v < 4; v++, total += 16)
    _mm512_storeu_ps(total, _mm512_add_ps(_mm512_loadu_ps(total), pick_float(table, leaves, reached[v])));
}

WIDE void add_double_double(double *total, const double *table, int32_t leaves, const __m512i *reached) {
  for (int32_t v = 0; v < 4; v++, total += 8)
    _mm512_storeu_pd(total, _mm512_add_pd(_mm512_loadu_pd(total), pick_double(table, leaves, reached[v])));
}
