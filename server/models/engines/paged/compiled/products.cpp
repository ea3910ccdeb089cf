// The arithmetic of `products.hpp` in AVX-512 with VNNI and in AVX2.
#include "products.hpp"

#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "instructions.hpp"

namespace hearth {

namespace {

constexpr int64_t AHEAD = 4096;  // bytes of weights asked for before they are needed; memory is that far away
constexpr int64_t FEW = 8;       // rows up to which memory is waited for; with more, weights are in the cache

}  // namespace

AVX2 float normal(const float* row, int64_t columns, double eps) {
    __m256 squares[4] = {};
    for (int64_t k = 0; k < columns; k += GROUP)
        for (int i = 0; i < 4; ++i) {
            const __m256 x = _mm256_loadu_ps(row + k + 8 * i);
            squares[i] = _mm256_fmadd_ps(x, x, squares[i]);
        }
    const float sum = total(_mm256_add_ps(_mm256_add_ps(squares[0], squares[1]), _mm256_add_ps(squares[2], squares[3])));
    return 1.0f / std::sqrt(sum / static_cast<float>(columns) + static_cast<float>(eps));
}

namespace {

template <int BITS>
AVX2 void rounded(const float* row, int64_t groups, float factor, const float* weights, int8_t* values, float* scales,
                  int32_t* shifts) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    // Packing works on halves of a register; this puts the fours of columns back into their order.
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    // Bytes of nibbles hold columns 2i and 2i + 1: of eight columns the even ones meet the low nibbles, then the odd
    // ones the high.
    const __m256i nibbles = _mm256_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15,  //
                                             0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    for (int64_t g = 0; g < groups; ++g) {
        __m256 x[4], most = _mm256_setzero_ps();
        for (int i = 0; i < 4; ++i) {
            x[i] = _mm256_loadu_ps(row + g * GROUP + 8 * i);
            if (weights) {
                const __m256 by = _mm256_loadu_ps(weights + g * GROUP + 8 * i);
                x[i] = _mm256_mul_ps(_mm256_mul_ps(x[i], _mm256_set1_ps(factor)), by);
            }
            most = _mm256_max_ps(most, _mm256_andnot_ps(sign, x[i]));
        }
        const float top = greatest(most);
        const __m256 by = _mm256_set1_ps(top > 0 ? 127.0f / top : 0.0f);
        __m256i n[4];
        for (int i = 0; i < 4; ++i) n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x[i], by));
        const __m256i pairs = _mm256_add_epi32(_mm256_add_epi32(n[0], n[1]), _mm256_add_epi32(n[2], n[3]));
        __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
        __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3]));
        bytes = _mm256_permutevar8x32_epi32(bytes, order);
        if (BITS == 4) bytes = _mm256_shuffle_epi8(bytes, nibbles);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + g * GROUP), bytes);
        scales[g] = top / 127.0f;
        shifts[g] = -(BITS == 4 ? 8 : 128) * _mm_cvtsi128_si32(sum);
    }
}

}  // namespace

void quantise(const float* from, int64_t groups, float factor, const float* weights, int64_t bits, Rounded& into,
              int64_t row, int64_t first) {
    const int64_t at = row * into.groups + first;
    (bits == 4 ? rounded<4> : rounded<8>)(from, groups, factor, weights, into.values.data() + at * GROUP,
                                          into.scales.data() + at, into.shifts.data() + at);
}

namespace {

// ---- tiles ----------------------------------------------------------------------------------------------------------

inline int32_t four(const int8_t* at) {
    int32_t read;
    std::memcpy(&read, at, 4);
    return read;
}

template <int BITS, int M>
AVX512 void tile512(const Rows& rows, int64_t first, const Matrix& matrix, int64_t block, float* sums) {
    const int64_t groups = matrix.groups;
    const uint8_t* w = matrix.values + block * groups * BLOCK * GROUP * BITS / 8;
    const uint16_t* scales = matrix.scales + block * groups * BLOCK;
    const int8_t* values = rows.values + first * groups * GROUP;
    const __m512i low = _mm512_set1_epi8(15);
    __m512 sum[M];
    for (int m = 0; m < M; ++m) sum[m] = _mm512_setzero_ps();
    for (int64_t g = 0; g < groups; ++g, w += BLOCK * GROUP * BITS / 8, scales += BLOCK) {
        __m512i q[8];  // the group's columns by fours, without sign: once for all rows
        for (int i = 0; i < BITS; ++i) {
            const __m512i read = _mm512_loadu_si512(w + 64 * i);
            if (M <= FEW) _mm_prefetch(reinterpret_cast<const char*>(w + 64 * i + AHEAD), _MM_HINT_T0);
            if (BITS == 4) {
                q[2 * i] = _mm512_and_si512(read, low);
                q[2 * i + 1] = _mm512_and_si512(_mm512_srli_epi16(read, 4), low);
            } else {
                q[i] = read;
            }
        }
        const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
            const int64_t at = (first + m) * groups + g;
            const int8_t* a = values + (m * groups + g) * GROUP;
            __m512i dot = _mm512_set1_epi32(rows.shifts[at]);
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) dot = _mm512_dpbusd_epi32(dot, q[i], _mm512_set1_epi32(four(a + 4 * i)));
            const __m512 by = _mm512_mul_ps(scale, _mm512_set1_ps(rows.scales[at]));
            sum[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), by, sum[m]);
        }
    }
    for (int m = 0; m < M; ++m) _mm512_storeu_ps(sums + m * BLOCK, sum[m]);
}

template <int BITS, int M>
AVX2 void tile256(const Rows& rows, int64_t first, const Matrix& matrix, int64_t block, float* sums) {
    const int64_t groups = matrix.groups, bytes = BLOCK * GROUP * BITS / 8;
    const int8_t* values = rows.values + first * groups * GROUP;
    const __m256i low = _mm256_set1_epi8(15), sign = _mm256_set1_epi8(-128), ones = _mm256_set1_epi16(1);
    for (int half = 0; half < 2; ++half) {
        const uint8_t* w = matrix.values + block * groups * bytes + 32 * half;
        const uint16_t* scales = matrix.scales + block * groups * BLOCK + 8 * half;
        __m256 sum[M];
        for (int m = 0; m < M; ++m) sum[m] = _mm256_setzero_ps();
        for (int64_t g = 0; g < groups; ++g, w += bytes, scales += BLOCK) {
            __m256i q[8];
            for (int i = 0; i < BITS; ++i) {
                const __m256i read = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 64 * i));
                if (BITS == 4) {
                    q[2 * i] = _mm256_and_si256(read, low);
                    q[2 * i + 1] = _mm256_and_si256(_mm256_srli_epi16(read, 4), low);
                } else {
                    q[i] = _mm256_xor_si256(read, sign);
                }
            }
            const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales)));
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m) {
                const int64_t at = (first + m) * groups + g;
                const int8_t* a = values + (m * groups + g) * GROUP;
                __m256i dot = _mm256_setzero_si256();
#pragma GCC unroll 8
                for (int i = 0; i < 8; ++i) {
                    const __m256i k = _mm256_set1_epi32(four(a + 4 * i));
                    // Pairs are added as int16. Eight of 15 * 127 twice fit; of int8 one pair does, once the sign is
                    // with the activations: 128 * 127 twice.
                    if (BITS == 4)
                        dot = _mm256_add_epi16(dot, _mm256_maddubs_epi16(q[i], k));
                    else
                        dot = _mm256_add_epi32(dot, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(q[i]),
                                                                                           _mm256_sign_epi8(k, q[i])),
                                                                      ones));
                }
                if (BITS == 4)
                    dot = _mm256_add_epi32(_mm256_madd_epi16(dot, ones), _mm256_set1_epi32(rows.shifts[at]));
                const __m256 by = _mm256_mul_ps(scale, _mm256_set1_ps(rows.scales[at]));
                sum[m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), by, sum[m]);
            }
        }
        for (int m = 0; m < M; ++m) _mm256_storeu_ps(sums + m * BLOCK + 8 * half, sum[m]);
    }
}

template <int BITS, std::size_t... M>
Tiles with512(std::index_sequence<M...>) {
    return {sizeof...(M), {nullptr, tile512<BITS, M + 1>...}};
}

template <int BITS, std::size_t... M>
Tiles with256(std::index_sequence<M...>) {
    return {sizeof...(M), {nullptr, tile256<BITS, M + 1>...}};
}

}  // namespace

int64_t widest() {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) return 0;
    const bool all = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    return all ? 512 : 256;
}

const Tiles* tiles(int64_t bits, int64_t registers) {
    static const Tiles of4[] = {with256<4>(std::make_index_sequence<4>()), with512<4>(std::make_index_sequence<16>())};
    static const Tiles of8[] = {with256<8>(std::make_index_sequence<4>()), with512<8>(std::make_index_sequence<16>())};
    const int64_t width = std::min(widest(), registers);
    return width ? (bits == 4 ? of4 : of8) + (width == 512) : nullptr;
}

// ---- results --------------------------------------------------------------------------------------------------------

AVX2 void gated(float* gate, const float* up, int64_t count) {
    for (int64_t i = 0; i < count; i += 8) {
        const __m256 x = _mm256_loadu_ps(gate + i);
        const __m256 below = _mm256_add_ps(_mm256_set1_ps(1), exponential(_mm256_sub_ps(_mm256_setzero_ps(), x)));
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(_mm256_div_ps(x, below), _mm256_loadu_ps(up + i)));
    }
}

}  // namespace hearth
