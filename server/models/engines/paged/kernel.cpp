// Rows of f32 times a matrix of group-quantised weights, as an operation of OpenVINO that its graph runs like its own.
//
// OpenVINO's multiplications unpack 4-bit weights to bf16 for a few rows, and then compute longer than they read. Here
// the rows are rounded to int8 in groups of 32, as the weights are, and the products are sums of integers: what
// llama.cpp's Q4_0 and Q8_0 do too. Weights are in blocks of 16 rows, so that one AVX-512 register holds 4 columns of
// 16 rows, and one load of 4 bytes of activations meets them all. `kernel.py` packs them so and makes the nodes.
#include <immintrin.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "openvino/core/op_extension.hpp"
#include "openvino/op/op.hpp"

// Each function says what it needs, so that the file is compiled alike for all processors and chooses when it runs.
#define AVX2 __attribute__((target("avx2,fma,f16c")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")))

namespace {

constexpr int64_t GROUP = 32;           // columns that share a scale
constexpr int64_t BLOCK = 16;           // rows of weights side by side
constexpr int64_t AHEAD = 4096;         // bytes of weights asked for before they are needed; memory is that far away
constexpr int64_t FEW = 8;              // rows up to which memory is waited for; with more, weights are in the cache
constexpr int64_t CACHED = 512 << 10;   // bytes of activations that stay in a core's own cache beside the weights
constexpr int64_t PIECE = 1 << 13;      // rows times columns that are worth a task of their own

struct Rows {
    int64_t groups;
    const int8_t* values;   // [rows, groups, 32]
    const float* scales;    // [rows, groups]
    const int32_t* shifts;  // [rows, groups]: what to add because weights are stored without their sign
};

struct Matrix {
    int64_t groups;
    const uint8_t* values;   // [blocks, groups, 16 * 32 * bits / 8]
    const uint16_t* scales;  // f16 [blocks, groups, 16]
};

// One tile: as many rows as the function is made for, from `first`, by one block; [rows, 16] into `sums`.
using Tile = void (*)(const Rows&, int64_t first, const Matrix&, int64_t block, float* sums);

// ---- activations ----------------------------------------------------------------------------------------------------

AVX2 float total(__m256 x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

AVX2 float greatest(__m256 x) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

// 1 / sqrt(mean of squares + eps): RMS normalisation (arXiv 1910.07467), whose weights are multiplied in `quantise`.
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

// A row, by `factor` and `weights` where there are any, as int8 with a scale a group.
template <int BITS>
AVX2 void quantise(const float* row, int64_t groups, float factor, const float* weights, int8_t* values, float* scales,
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

// The tiles of one kind, by their number of rows: as many as its registers hold sums.
struct Tiles {
    int64_t most;
    std::array<Tile, 17> of;
};

template <int BITS, std::size_t... M>
Tiles with512(std::index_sequence<M...>) {
    return {sizeof...(M), {nullptr, tile512<BITS, M + 1>...}};
}

template <int BITS, std::size_t... M>
Tiles with256(std::index_sequence<M...>) {
    return {sizeof...(M), {nullptr, tile256<BITS, M + 1>...}};
}

// ---- results --------------------------------------------------------------------------------------------------------

// e^x to the last bits of f32: 2^n by the exponent, 2^f for f in [-1/2, 1/2] by its series.
AVX2 __m256 exponential(__m256 x) {
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

// silu(gate) * up (arXiv 2002.05202), into `gate`.
AVX2 void gated(float* gate, const float* up, int64_t count) {
    for (int64_t i = 0; i < count; i += 8) {
        const __m256 x = _mm256_loadu_ps(gate + i);
        const __m256 below = _mm256_add_ps(_mm256_set1_ps(1), exponential(_mm256_sub_ps(_mm256_setzero_ps(), x)));
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(_mm256_div_ps(x, below), _mm256_loadu_ps(up + i)));
    }
}

// All that one node computes; the pointers that may be null are of what it does not do.
struct Product {
    int64_t count, columns, width;  // rows in, their columns, columns out
    const float* rows;
    const float* norm;  // [columns]
    double eps;
    Matrix matrix;
    bool gate;           // blocks are of the gate and of what it lets through, in turns
    const float* added;  // [count, width]
    float* out;          // [count, width]
};

void put(const Product& p, int64_t row, int64_t column, int64_t rows, const float* sums) {
    const int64_t count = std::min(BLOCK, p.width - column);
    for (int64_t m = 0; m < rows; ++m, sums += BLOCK) {
        const int64_t at = (row + m) * p.width + column;
        if (p.added)
            for (int64_t i = 0; i < count; ++i) p.out[at + i] = sums[i] + p.added[at + i];
        else
            std::memcpy(p.out + at, sums, count * sizeof(float));
    }
}

template <int BITS>
void compute(const Product& p, const Tiles& tiles) {
    // One thread computes one node at a time; `isolate` below keeps it from beginning another while it waits.
    static thread_local std::vector<int8_t> values;
    static thread_local std::vector<float> scales;
    static thread_local std::vector<int32_t> shifts;
    const int64_t groups = p.matrix.groups;
    values.resize(p.count * p.columns), scales.resize(p.count * groups), shifts.resize(p.count * groups);
    const Rows rows{groups, values.data(), scales.data(), shifts.data()};
    int8_t* const into = values.data();
    float* const by = scales.data();
    int32_t* const shift = shifts.data();
    const auto round = [&](int64_t m) {
        const float* row = p.rows + m * p.columns;
        const float factor = p.norm ? normal(row, p.columns, p.eps) : 1.0f;
        quantise<BITS>(row, groups, factor, p.norm, into + m * p.columns, by + m * groups, shift + m * groups);
    };
    if (p.count * p.columns < 2 * PIECE)
        for (int64_t m = 0; m < p.count; ++m) round(m);
    else
        tbb::parallel_for<int64_t>(0, p.count, round);
    const int64_t units = (p.width + BLOCK - 1) / BLOCK;
    const int64_t together = std::max(BLOCK, CACHED / p.columns / BLOCK * BLOCK);
    for (int64_t first = 0; first < p.count; first += together) {
        const int64_t end = std::min(p.count, first + together);
        const int64_t grain = std::max<int64_t>(1, PIECE / p.columns / (end - first));
        tbb::parallel_for(tbb::blocked_range<int64_t>(0, units, grain), [&](const tbb::blocked_range<int64_t>& part) {
            alignas(64) float sums[2][16 * BLOCK];
            for (int64_t unit = part.begin(); unit != part.end(); ++unit)
                for (int64_t m = first; m < end; m += tiles.most) {
                    const int64_t size = std::min(tiles.most, end - m);
                    tiles.of[size](rows, m, p.matrix, p.gate ? 2 * unit : unit, sums[0]);
                    if (p.gate) {
                        tiles.of[size](rows, m, p.matrix, 2 * unit + 1, sums[1]);
                        gated(sums[0], sums[1], size * BLOCK);
                    }
                    put(p, m, unit * BLOCK, size, sums[0]);
                }
        });
    }
}

int64_t widest() {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) return 0;
    const bool all = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    return all ? 512 : 256;
}

}  // namespace

// Bits of the widest registers that this has a kernel for on this processor: 512, 256, or 0 where it has none.
extern "C" __attribute__((visibility("default"))) int hearth_kernel_width() { return static_cast<int>(widest()); }

// Inputs: rows f32 [..., columns], and what is added to the result where there is such. Output: f32 [..., width].
//
// Weights are addresses of arrays that live as long as the graph, and no inputs: for a node of a kind that it does not
// know OpenVINO makes all inputs anew in each step, which took a tenth of a step of a small model.
class QuantisedProduct : public ov::op::Op {
public:
    OPENVINO_OP("QuantisedProduct", "hearth");
    QuantisedProduct() = default;

    void validate_and_infer_types() override {
        ov::PartialShape shape = get_input_partial_shape(0);
        shape[shape.rank().get_length() - 1] = m_told.width;
        set_output_type(0, ov::element::f32, shape);
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& arguments) const override {
        auto made = std::make_shared<QuantisedProduct>();
        made->m_told = m_told;
        made->set_arguments(arguments);
        made->validate_and_infer_types();
        return made;
    }

    bool visit_attributes(ov::AttributeVisitor& visitor) override {
        visitor.on_attribute("columns", m_told.columns);
        visitor.on_attribute("width", m_told.width);
        visitor.on_attribute("bits", m_told.bits);
        visitor.on_attribute("registers", m_told.registers);
        visitor.on_attribute("values", m_told.values);
        visitor.on_attribute("scales", m_told.scales);
        visitor.on_attribute("norm", m_told.norm);
        visitor.on_attribute("eps", m_told.eps);
        visitor.on_attribute("gated", m_told.gated);
        return true;
    }

    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        ov::Shape shape = inputs[0].get_shape();
        const auto count = static_cast<int64_t>(inputs[0].get_size()) / m_told.columns;
        shape.back() = m_told.width;
        outputs[0].set_shape(shape);
        const Matrix matrix{m_told.columns / GROUP, reinterpret_cast<const uint8_t*>(m_told.values),
                            reinterpret_cast<const uint16_t*>(m_told.scales)};
        const Product product{count,
                              m_told.columns,
                              m_told.width,
                              inputs[0].data<float>(),
                              reinterpret_cast<const float*>(m_told.norm),
                              m_told.eps,
                              matrix,
                              m_told.gated,
                              inputs.size() > 1 ? inputs[1].data<float>() : nullptr,
                              outputs[0].data<float>()};
        const int64_t registers = std::min(widest(), m_told.registers);
        if (!registers) return false;
        if (!count) return true;
        const bool wide = registers == 512;
        static const Tiles of4[] = {with256<4>(std::make_index_sequence<4>()), with512<4>(std::make_index_sequence<16>())};
        static const Tiles of8[] = {with256<8>(std::make_index_sequence<4>()), with512<8>(std::make_index_sequence<16>())};
        tbb::this_task_arena::isolate([&] {
            if (m_told.bits == 4)
                compute<4>(product, of4[wide]);
            else
                compute<8>(product, of8[wide]);
        });
        return true;
    }

private:
    struct Told {
        int64_t columns = GROUP, width = 0, bits = 4, registers = 512;
        int64_t values = 0, scales = 0, norm = 0;  // addresses; 0 is no norm
        double eps = 0;
        bool gated = false;
    } m_told;
};

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>{std::make_shared<ov::OpExtension<QuantisedProduct>>()})
