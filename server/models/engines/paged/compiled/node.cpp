// Rows of f32 times a matrix of group-quantised weights, as an operation of OpenVINO that its graph runs like its own.
//
// OpenVINO's multiplications unpack 4-bit weights to bf16 for a few rows, and then compute longer than they read.
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <cstring>
#include <memory>

#include "openvino/core/op_extension.hpp"
#include "openvino/op/op.hpp"
#include "products.hpp"

namespace hearth {

namespace {

constexpr int64_t CACHED = 512 << 10;   // bytes of activations that stay in a core's own cache beside the weights
constexpr int64_t PIECE = 1 << 13;      // rows times columns that are worth a task of their own

// All that one node computes; the pointers that may be null are of what it does not do.
struct Product {
    int64_t count, columns, width;  // rows in, their columns, columns out
    const float* rows;
    const float* norm;  // [columns]
    double eps;
    Matrix matrix;
    int64_t bits;
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

void compute(const Product& p, const Tiles& tiles) {
    // One thread computes one node at a time; `isolate` below keeps it from beginning another while it waits.
    static thread_local Rounded held;
    Rounded& rounded = held;
    rounded.resize(p.count, p.columns);
    const auto round = [&](int64_t m) {
        const float* row = p.rows + m * p.columns;
        const float factor = p.norm ? normal(row, p.columns, p.eps) : 1.0f;
        quantise(row, rounded.groups, factor, p.norm, p.bits, rounded, m);
    };
    if (p.count * p.columns < 2 * PIECE)
        for (int64_t m = 0; m < p.count; ++m) round(m);
    else
        tbb::parallel_for<int64_t>(0, p.count, round);
    const Rows rows = rounded.rows();
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

}  // namespace

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
                              m_told.bits,
                              m_told.gated,
                              inputs.size() > 1 ? inputs[1].data<float>() : nullptr,
                              outputs[0].data<float>()};
        const Tiles* const found = tiles(m_told.bits, m_told.registers);
        if (!found) return false;
        if (count) tbb::this_task_arena::isolate([&] { compute(product, *found); });
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

}  // namespace hearth

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>{std::make_shared<ov::OpExtension<hearth::QuantisedProduct>>()})
