// Rows of f32 times a matrix of group-quantised weights: the arithmetic, without threads.
//
// The rows are rounded to int8 in groups of 32, as the weights are, and the products are sums of integers: what
// llama.cpp's Q4_0 and Q8_0 do too. Weights are in blocks of 16 rows, so that one AVX-512 register holds 4 columns of
// 16 rows, and one load of 4 bytes of activations meets them all. `kernel.py` packs them so.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace hearth {

constexpr int64_t GROUP = 32;  // columns that share a scale
constexpr int64_t BLOCK = 16;  // rows of weights side by side

struct Matrix {
    int64_t groups;
    const uint8_t* values;   // [blocks, groups, 16 * 32 * bits / 8]
    const uint16_t* scales;  // f16 [blocks, groups, 16]
};

struct Rows {
    int64_t groups;
    const int8_t* values;   // [rows, groups, 32]
    const float* scales;    // [rows, groups]
    const int32_t* shifts;  // [rows, groups]: what to add because weights are stored without their sign
};

// Room for rows that are rounded.
struct Rounded {
    int64_t groups = 0;
    std::vector<int8_t> values;
    std::vector<float> scales;
    std::vector<int32_t> shifts;

    void resize(int64_t count, int64_t columns) {
        groups = columns / GROUP;
        values.resize(count * columns), scales.resize(count * groups), shifts.resize(count * groups);
    }
    Rows rows() const { return {groups, values.data(), scales.data(), shifts.data()}; }
};

// `groups` groups of a row from its group `first` on into row `row` of `into`, by `factor` and `weights` where there
// are any; `from` and `weights` begin at the first of them. `bits` are those of the weights that they will meet.
void quantise(const float* from, int64_t groups, float factor, const float* weights, int64_t bits, Rounded& into,
              int64_t row, int64_t first = 0);

// 1 / sqrt(mean of squares + eps): RMS normalisation (arXiv 1910.07467), whose weights are multiplied in `quantise`.
// `columns` are whole groups.
float normal(const float* row, int64_t columns, double eps);

// One tile: as many rows as the function is made for, from `first`, by one block; [rows, 16] into `sums`.
using Tile = void (*)(const Rows&, int64_t first, const Matrix&, int64_t block, float* sums);

// The tiles of one kind, by their number of rows: as many as its registers hold sums.
struct Tiles {
    int64_t most;
    std::array<Tile, 17> of;
};

// For weights of 4 or 8 bits, by registers of at most so many bits; nullptr where the processor has no such.
const Tiles* tiles(int64_t bits, int64_t registers);

// Bits of the widest registers that there are tiles for on this processor: 512, 256, or 0 where there are none.
int64_t widest();

// silu(gate) * up (arXiv 2002.05202), into `gate`; `count` is a multiple of 8.
void gated(float* gate, const float* up, int64_t count);

}  // namespace hearth
