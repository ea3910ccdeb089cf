// What the arithmetic needs of a processor's instructions, and small pieces of it on registers of AVX2.
#pragma once

#include <immintrin.h>

#include <initializer_list>

// Each function says what it needs, so that the files are compiled alike for all processors and choose when they run.
#define AVX2 __attribute__((target("avx2,fma,f16c")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")))

namespace hearth {

AVX2 inline float total(__m256 x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

AVX2 inline float greatest(__m256 x) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

// e^x to the last bits of f32: 2^n by the exponent, 2^f for f in [-1/2, 1/2] by its series.
AVX2 inline __m256 exponential(__m256 x) {
    x = _mm256_mul_ps(_mm256_max_ps(_mm256_min_ps(x, _mm256_set1_ps(88)), _mm256_set1_ps(-87)),
                      _mm256_set1_ps(1.44269504f));
    const __m256 whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 f = _mm256_mul_ps(_mm256_sub_ps(x, whole), _mm256_set1_ps(0.693147181f));
    __m256 sum = _mm256_set1_ps(1.0f / 720);
    for (const float one : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
        sum = _mm256_fmadd_ps(sum, f, _mm256_set1_ps(one));
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(sum, _mm256_castsi256_ps(power));
}

}  // namespace hearth
