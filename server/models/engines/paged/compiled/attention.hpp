// Attention of few tokens over pages of keys and values: one head of keys, and all that ask it.
#pragma once

#include <cmath>
#include <cstring>

#include "instructions.hpp"
#include "products.hpp"

namespace hearth {

// bf16, the upper half of a float.
struct Half {
    uint16_t bits;
};

AVX2 inline __m256 loaded(const float* at) { return _mm256_loadu_ps(at); }

AVX2 inline __m256 loaded(const Half* at) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

AVX2 inline void stored(float* at, __m256 x) { _mm256_storeu_ps(at, x); }

// To the nearest, and of two as near to the even one.
AVX2 inline void stored(Half* at, __m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i high = _mm256_srli_epi32(sum, 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0xd8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm256_castsi256_si128(packed));
}

// One head of a token as attention meets it, [dim]: with its bias, normalised, rotated (arXiv 2104.09864; the two
// halves of a head are pairs) and times `factor`. `bias` and `norm` may be null; so may both angles, for values.
AVX2 inline void turned(const float* from, const float* bias, const float* norm, double eps, const float* cosines,
                        const float* sines, float factor, int64_t dim, float* into) {
    for (int64_t i = 0; i < dim; i += 8) {
        __m256 x = _mm256_loadu_ps(from + i);
        if (bias) x = _mm256_add_ps(x, _mm256_loadu_ps(bias + i));
        _mm256_storeu_ps(into + i, x);
    }
    if (norm) {
        const __m256 by = _mm256_set1_ps(normal(into, dim, eps));
        for (int64_t i = 0; i < dim; i += 8) {
            const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(into + i), by);
            _mm256_storeu_ps(into + i, _mm256_mul_ps(x, _mm256_loadu_ps(norm + i)));
        }
    }
    if (!cosines) return;
    const __m256 by = _mm256_set1_ps(factor);
    const int64_t half = dim / 2;
    for (int64_t i = 0; i < half; i += 8) {
        const __m256 first = _mm256_mul_ps(_mm256_loadu_ps(into + i), by);
        const __m256 second = _mm256_mul_ps(_mm256_loadu_ps(into + half + i), by);
        const __m256 c = _mm256_loadu_ps(cosines + i), s = _mm256_loadu_ps(sines + i);
        _mm256_storeu_ps(into + i, _mm256_fmsub_ps(first, c, _mm256_mul_ps(second, s)));
        _mm256_storeu_ps(into + half + i, _mm256_fmadd_ps(second, c, _mm256_mul_ps(first, s)));
    }
}

template <class Cell>
AVX2 inline void kept(const float* from, Cell* into, int64_t dim) {
    for (int64_t i = 0; i < dim; i += 8) stored(into + i, _mm256_loadu_ps(from + i));
}

// What queries saw so far of what they see (arXiv 1805.02867): the greatest score, the sum of e^(score - greatest), and
// the values weighted so.
struct Seen {
    float greatest, sum;
    float* values;  // [dim]
};

constexpr int64_t PAGE = 32;  // positions of a page
constexpr int SUMS = 8;       // registers of sums, so that one waits for none

// The eight sums of eight registers.
AVX2 inline __m256 totals(const __m256* x) {
    const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
    const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(x[4], x[5]), _mm256_hadd_ps(x[6], x[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

// Ask memory for what is looked at next: `count` cells.
template <class Cell>
inline void expect(const Cell* cells, int64_t count) {
    const auto at = reinterpret_cast<const char*>(cells);
    for (int64_t i = 0; i < count * static_cast<int64_t>(sizeof(Cell)); i += 64) __builtin_prefetch(at + i);
}

// Positions [from, to) of a page by Q queries [Q, dim]: scores [Q, PAGE], those of other positions -infinity.
template <int Q, class Cell>
AVX2 inline void score(const float* queries, const Cell* keys, int64_t from, int64_t to, int64_t dim, float* scores) {
    constexpr int EACH = Q == 1 ? 4 : SUMS / Q;
    const __m256 none = _mm256_set1_ps(-INFINITY), eight = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
    for (int64_t p = 0; p < PAGE; p += 8) {
        if (p + 8 <= from || p >= to) {
            for (int q = 0; q < Q; ++q) _mm256_store_ps(scores + q * PAGE + p, none);
            continue;
        }
        __m256 rows[Q][8];
        for (int r = 0; r < 8; ++r) {
            const Cell* key = keys + (p + r) * dim;
            __m256 sums[Q][EACH] = {};
            for (int64_t i = 0; i < dim; i += 8 * EACH)
                for (int j = 0; j < EACH; ++j) {
                    const __m256 cells = loaded(key + i + 8 * j);
                    for (int q = 0; q < Q; ++q)
                        sums[q][j] = _mm256_fmadd_ps(_mm256_loadu_ps(queries + q * dim + i + 8 * j), cells, sums[q][j]);
                }
            for (int q = 0; q < Q; ++q) {
                for (int j = 1; j < EACH; ++j) sums[q][0] = _mm256_add_ps(sums[q][0], sums[q][j]);
                rows[q][r] = sums[q][0];
            }
        }
        // Cells outside may hold anything, a number or none.
        const __m256 at = _mm256_add_ps(eight, _mm256_set1_ps(static_cast<float>(p)));
        const __m256 inside = _mm256_and_ps(_mm256_cmp_ps(at, _mm256_set1_ps(static_cast<float>(from)), _CMP_GE_OQ),
                                            _mm256_cmp_ps(at, _mm256_set1_ps(static_cast<float>(to)), _CMP_LT_OQ));
        for (int q = 0; q < Q; ++q)
            _mm256_store_ps(scores + q * PAGE + p, _mm256_blendv_ps(none, totals(rows[q]), inside));
    }
}

// The values of positions [from, to) of a page, weighted for Q queries and added to what those saw, times `kept`.
template <int Q, class Cell>
AVX2 inline void weigh(const float* weights, const Cell* values, int64_t from, int64_t to, int64_t dim,
                       const float* kept, Seen* seen) {
    constexpr int EACH = Q == 1 ? 4 : SUMS / Q;
    for (int64_t i = 0; i < dim; i += 8 * EACH) {
        __m256 sums[Q][EACH];
        for (int q = 0; q < Q; ++q)
            for (int j = 0; j < EACH; ++j)
                sums[q][j] = _mm256_mul_ps(_mm256_loadu_ps(seen[q].values + i + 8 * j), _mm256_set1_ps(kept[q]));
        for (int64_t p = from; p < to; ++p)
            for (int j = 0; j < EACH; ++j) {
                const __m256 cells = loaded(values + p * dim + i + 8 * j);
                for (int q = 0; q < Q; ++q)
                    sums[q][j] = _mm256_fmadd_ps(_mm256_set1_ps(weights[q * PAGE + p]), cells, sums[q][j]);
            }
        for (int q = 0; q < Q; ++q)
            for (int j = 0; j < EACH; ++j) _mm256_storeu_ps(seen[q].values + i + 8 * j, sums[q][j]);
    }
}

// The positions [from, to) of a page, of which there is at least one, by Q queries.
template <int Q, class Cell>
AVX2 void look(const float* queries, const Cell* keys, const Cell* values, int64_t from, int64_t to, int64_t dim,
               Seen* seen) {
    alignas(32) float scores[Q * PAGE];
    float kept[Q];
    score<Q>(queries, keys, from, to, dim, scores);
    for (int q = 0; q < Q; ++q) {
        float* const own = scores + q * PAGE;
        __m256 most = _mm256_load_ps(own);
        for (int i = 1; i < 4; ++i) most = _mm256_max_ps(most, _mm256_load_ps(own + 8 * i));
        const float before = seen[q].greatest;
        seen[q].greatest = std::max(before, greatest(most));
        const __m256 by = _mm256_set1_ps(seen[q].greatest);
        __m256 sum = _mm256_setzero_ps();
        for (int i = 0; i < 4; ++i) {
            const __m256 weight = exponential(_mm256_sub_ps(_mm256_load_ps(own + 8 * i), by));
            _mm256_store_ps(own + 8 * i, weight);
            sum = _mm256_add_ps(sum, weight);
        }
        kept[q] = std::exp(before - seen[q].greatest);
        seen[q].sum = seen[q].sum * kept[q] + total(sum);
    }
    weigh<Q>(scores, values, from, to, dim, kept, seen);
}

// By any number of queries.
template <class Cell>
void look(int64_t count, const float* queries, const Cell* keys, const Cell* values, int64_t from, int64_t to,
          int64_t dim, Seen* seen) {
    for (; count >= 4; count -= 4, queries += 4 * dim, seen += 4) look<4>(queries, keys, values, from, to, dim, seen);
    for (; count >= 2; count -= 2, queries += 2 * dim, seen += 2) look<2>(queries, keys, values, from, to, dim, seen);
    if (count) look<1>(queries, keys, values, from, to, dim, seen);
}

// Nothing seen yet.
inline void begin(Seen& seen, int64_t dim) {
    seen.greatest = -INFINITY, seen.sum = 0;
    std::memset(seen.values, 0, dim * sizeof(float));
}

// What another saw too, elsewhere.
inline void join(Seen& seen, const Seen& other, int64_t dim) {
    if (other.sum == 0) return;
    const float most = std::max(seen.greatest, other.greatest);
    const float mine = std::exp(seen.greatest - most), its = std::exp(other.greatest - most);
    seen.greatest = most, seen.sum = seen.sum * mine + other.sum * its;
    for (int64_t i = 0; i < dim; ++i) seen.values[i] = seen.values[i] * mine + other.values[i] * its;
}

}  // namespace hearth
