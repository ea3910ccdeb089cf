// A decoder's step for few tokens, whole: what OpenVINO's graph computes for many, without what it costs to run a graph.
//
// For one token the graph's three hundred small nodes take as long as a third of the multiplications. Here a layer is
// five of them, each divided among the threads, and what lies between is done where its inputs are made. Keys and
// values lie in the same pages as the graph's. `decoding.py` fills the structures, field by field.
#include <atomic>
#include <memory>
#include <vector>

#include "attention.hpp"
#include "products.hpp"
#include "team.hpp"

namespace hearth {

struct Linear {
    const uint8_t* values;
    const uint16_t* scales;
    int64_t columns, width, bits;

    Matrix matrix() const { return {columns / GROUP, values, scales}; }
};

struct Layer {
    Linear qkv, o, gate, down;  // `gate` has blocks of the gate and of what it lets through, in turns
    const float *attention_norm, *ffn_norm, *q_norm, *k_norm, *bias;  // the last three may be null
    void *keys, *values;                                             // [pages, kv_heads, 32, dim]
};

struct Model {
    int64_t layers, hidden, heads, kv_heads, dim, ffn, window;  // a window of 0 sees everything
    int64_t cell;                                                // bytes of a number of the cache: 2 is bf16, 4 is f32
    int64_t registers, threads;
    double eps;
    const Layer* layer;
    Linear head;
    const float* norm;
};

struct Step {
    int64_t tokens, sequences, sampled;
    const int32_t *past, *begins, *pages, *page_begins;  // as the graph has them
    const float *cosines, *sines;                        // [tokens, dim / 2]
    const int64_t* rows;                                 // [sampled]
    float* state;                                        // [tokens, hidden]: embeddings, and written to
    float* logits;                                       // [sampled, vocabulary]
};

class Decoder {
public:
    explicit Decoder(const Model& model) : m_model(model), m_team(model.threads) {}

    void compute(const Step& step) {
        m_step = step;
        const Model& m = m_model;
        m_qkv.resize(step.tokens * (m.heads + 2 * m.kv_heads) * m.dim);
        m_attended.resize(step.tokens, m.heads * m.dim);
        m_gated.resize(step.tokens, m.ffn);
        for (int64_t i = 0; i < m.layers; ++i) {
            const Layer& layer = m.layer[i];
            normalise(layer.attention_norm, layer.qkv.bits, nullptr, step.tokens);
            put(layer.qkv, m_normal, step.tokens, m_qkv.data());
            m.cell == 2 ? attend<Half>(layer) : attend<float>(layer);
            add(layer.o, m_attended, step.tokens);
            normalise(layer.ffn_norm, layer.gate.bits, nullptr, step.tokens);
            let_through(layer);
            add(layer.down, m_gated, step.tokens);
        }
        normalise(m.norm, m.head.bits, step.rows, step.sampled);
        put(m.head, m_normal, step.sampled, step.logits);
    }

private:
    static constexpr int64_t BYTES = 48 << 10;  // of weights that are worth a piece of their own
    static constexpr int64_t SHARED = 16;       // pages of a sequence from which on several threads look at one head's
    static constexpr int64_t TURNS = 4;         // pieces for each thread, so that none waits long for the last

    // How many of `count` units of so many bytes are a piece.
    int64_t grain(int64_t count, int64_t bytes) const {
        return std::max<int64_t>(1, std::min(BYTES / bytes, count / (TURNS * m_team.size())));
    }

    // Rows of the state, all of them or those that `wanted` names, into m_normal.
    void normalise(const float* weights, int64_t bits, const int64_t* wanted, int64_t count) {
        const int64_t hidden = m_model.hidden;
        m_normal.resize(count, hidden);
        const auto row = [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i) {
                const float* from = m_step.state + (wanted ? wanted[i] : i) * hidden;
                quantise(from, hidden / GROUP, normal(from, hidden, m_model.eps), weights, bits, m_normal, i);
            }
        };
        if (count < m_team.size() * 2)  // done before another thread has heard of it
            row(0, count);
        else
            m_team.run(count, 1, row);
    }

    // Each unit of 16 columns of the product: then(first row, column, rows, sums [rows, 16]).
    template <class Then>
    void multiply(const Linear& by, const Rounded& rounded, int64_t count, const Then& then) {
        const Tiles& kind = *tiles(by.bits, m_model.registers);
        const Rows rows = rounded.rows();
        const Matrix matrix = by.matrix();
        const int64_t units = (by.width + BLOCK - 1) / BLOCK;
        m_team.run(units, grain(units, by.columns * BLOCK * by.bits / 8), [&](int64_t first, int64_t last) {
            alignas(64) float sums[16 * BLOCK];
            for (int64_t unit = first; unit < last; ++unit)
                for (int64_t row = 0; row < count; row += kind.most) {
                    const int64_t size = std::min(kind.most, count - row);
                    kind.of[size](rows, row, matrix, unit, sums);
                    then(row, unit * BLOCK, size, sums);
                }
        });
    }

    void put(const Linear& by, const Rounded& rounded, int64_t count, float* into) {
        multiply(by, rounded, count, [&](int64_t row, int64_t column, int64_t size, const float* sums) {
            const int64_t wide = std::min(BLOCK, by.width - column) * sizeof(float);
            for (int64_t i = 0; i < size; ++i) std::memcpy(into + (row + i) * by.width + column, sums + i * BLOCK, wide);
        });
    }

    // To the state.
    void add(const Linear& by, const Rounded& rounded, int64_t count) {
        multiply(by, rounded, count, [&](int64_t row, int64_t column, int64_t size, const float* sums) {
            for (int64_t i = 0; i < size; ++i) {
                float* into = m_step.state + (row + i) * by.width + column;
                for (int64_t j = 0; j < BLOCK; ++j) into[j] += sums[i * BLOCK + j];
            }
        });
    }

    // What the gate lets through, into m_gated: two units are a group, which is rounded at once.
    void let_through(const Layer& layer) {
        const Linear& by = layer.gate;
        const Tiles& kind = *tiles(by.bits, m_model.registers);
        const Rows rows = m_normal.rows();
        const Matrix matrix = by.matrix();
        const int64_t count = m_step.tokens, groups = by.width / GROUP;
        m_team.run(groups, grain(groups, 2 * by.columns * GROUP * by.bits / 8), [&](int64_t first, int64_t last) {
            alignas(64) float sums[2][16 * BLOCK], whole[16 * GROUP];
            for (int64_t group = first; group < last; ++group)
                for (int64_t row = 0; row < count; row += kind.most) {
                    const int64_t size = std::min(kind.most, count - row);
                    for (int64_t half = 0; half < 2; ++half) {
                        const int64_t block = 2 * (2 * group + half);
                        kind.of[size](rows, row, matrix, block, sums[0]);
                        kind.of[size](rows, row, matrix, block + 1, sums[1]);
                        gated(sums[0], sums[1], size * BLOCK);
                        for (int64_t i = 0; i < size; ++i)
                            std::memcpy(whole + i * GROUP + half * BLOCK, sums[0] + i * BLOCK, BLOCK * sizeof(float));
                    }
                    for (int64_t i = 0; i < size; ++i)
                        quantise(whole + i * GROUP, 1, 1, nullptr, layer.down.bits, m_gated, row + i, group);
                }
        });
    }

    // ---- attention --------------------------------------------------------------------------------------------------

    // A sequence's pages are looked at in `m_parts` parts, each a piece of work of its own with one head of keys.
    template <class Cell>
    void attend(const Layer& layer) {
        const Step& s = m_step;
        const int64_t heads = m_model.kv_heads, pieces = s.sequences * heads;
        int64_t pages = 0;
        for (int64_t i = 0; i < s.sequences; ++i)
            pages = std::max<int64_t>(pages, s.page_begins[i + 1] - s.page_begins[i]);
        m_parts = std::max<int64_t>(1, std::min(pages / SHARED, (TURNS * m_team.size() + pieces - 1) / pieces));
        if (m_parts > 1) {
            m_partial.resize(s.tokens * m_model.heads * m_parts * (m_model.dim + 2));
            if (m_waiting_size < pieces) m_waiting.reset(new std::atomic<int64_t>[m_waiting_size = pieces]);
            for (int64_t i = 0; i < pieces; ++i) m_waiting[i].store(m_parts, std::memory_order_relaxed);
        }
        m_team.run(pieces * m_parts, 1, [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i) {
                const int64_t piece = i / m_parts;
                attend<Cell>(layer, piece / heads, piece % heads, i % m_parts);
                if (m_parts > 1 && m_waiting[piece].fetch_sub(1, std::memory_order_acq_rel) == 1)
                    join(layer, piece / heads, piece % heads);
            }
        });
    }

    // One part of a sequence's pages, by all queries of one head of keys. The last part has the pages that new keys
    // and values go to, and writes them.
    template <class Cell>
    void attend(const Layer& layer, int64_t sequence, int64_t head, int64_t part) {
        const Model& m = m_model;
        const Step& s = m_step;
        const int64_t begin = s.begins[sequence], count = s.begins[sequence + 1] - begin, past = s.past[sequence];
        const int32_t* pages = s.pages + s.page_begins[sequence];
        const int64_t used = (past + count + PAGE - 1) / PAGE, written = past / PAGE;
        const bool ends = part + 1 == m_parts;
        const int64_t first = std::min(part * used / m_parts, written);
        const int64_t last = ends ? used : std::min((part + 1) * used / m_parts, written);
        const auto keys = static_cast<Cell*>(layer.keys), values = static_cast<Cell*>(layer.values);
        const auto cells = [&](int64_t page) { return (pages[page] * m.kv_heads + head) * PAGE * m.dim; };
        if (ends)
            for (int64_t t = 0; t < count; ++t) {
                const int64_t at = past + t, cell = cells(at / PAGE) + at % PAGE * m.dim;
                write(layer, begin + t, head, keys + cell, values + cell);
            }
        const auto ahead = [&](int64_t page) {
            if (page >= last) return;
            const int64_t wanted = std::min(PAGE, past + count - page * PAGE) * m.dim;
            expect(keys + cells(page), wanted);
            expect(values + cells(page), wanted);
        };
        ahead(first);
        const int64_t group = m.heads / m.kv_heads;
        static thread_local std::vector<float> room;
        room.resize(count * group * 2 * m.dim);
        static thread_local std::vector<Seen> seen;
        seen.resize(count * group);
        for (int64_t t = 0; t < count; ++t)
            for (int64_t j = 0; j < group; ++j) {
                const int64_t at = t * group + j;
                turn(layer, begin + t, head * group + j, room.data() + at * m.dim);
                seen[at].values = room.data() + (count * group + at) * m.dim;
                hearth::begin(seen[at], m.dim);
            }
        for (int64_t page = first; page < last; ++page) {
            ahead(page + 1);
            for (int64_t t = 0; t < count; ++t) {
                const int64_t end = past + t + 1, start = m.window ? std::max<int64_t>(0, end - m.window) : 0;
                const int64_t from = std::max<int64_t>(0, start - page * PAGE);
                const int64_t to = std::min(PAGE, end - page * PAGE);
                if (from >= to) continue;
                look(group, room.data() + t * group * m.dim, keys + cells(page), values + cells(page), from, to, m.dim,
                     seen.data() + t * group);
            }
        }
        for (int64_t t = 0; t < count; ++t)
            for (int64_t j = 0; j < group; ++j) {
                const Seen& each = seen[t * group + j];
                if (m_parts == 1) {
                    finish(layer, begin + t, head * group + j, each);
                } else {
                    float* into = partial(begin + t, head * group + j, part);
                    into[0] = each.greatest, into[1] = each.sum;
                    std::memcpy(into + 2, each.values, m.dim * sizeof(float));
                }
            }
    }

    // The parts of one head of keys, by whoever did the last of them.
    void join(const Layer& layer, int64_t sequence, int64_t head) {
        const int64_t group = m_model.heads / m_model.kv_heads;
        for (int64_t t = m_step.begins[sequence]; t < m_step.begins[sequence + 1]; ++t)
            for (int64_t query = head * group; query < (head + 1) * group; ++query) {
                float* first = partial(t, query, 0);
                Seen whole{first[0], first[1], first + 2};
                for (int64_t part = 1; part < m_parts; ++part) {
                    float* other = partial(t, query, part);
                    hearth::join(whole, {other[0], other[1], other + 2}, m_model.dim);
                }
                finish(layer, t, query, whole);
            }
    }

    float* partial(int64_t token, int64_t query, int64_t part) {
        return m_partial.data() + ((token * m_model.heads + query) * m_parts + part) * (m_model.dim + 2);
    }

    const float* projected(int64_t token, int64_t head) const {
        return m_qkv.data() + (token * (m_model.heads + 2 * m_model.kv_heads) + head) * m_model.dim;
    }

    const float* bias(const Layer& layer, int64_t head) const {
        return layer.bias ? layer.bias + head * m_model.dim : nullptr;
    }

    void turn(const Layer& layer, int64_t token, int64_t head, float* into) const {
        const int64_t half = m_model.dim / 2;
        const float factor = 1 / std::sqrt(static_cast<float>(m_model.dim));
        turned(projected(token, head), bias(layer, head), layer.q_norm, m_model.eps, m_step.cosines + token * half,
               m_step.sines + token * half, factor, m_model.dim, into);
    }

    template <class Cell>
    void write(const Layer& layer, int64_t token, int64_t head, Cell* keys, Cell* values) const {
        const Model& m = m_model;
        static thread_local std::vector<float> room;
        room.resize(m.dim);
        const int64_t half = m.dim / 2, key = m.heads + head, value = key + m.kv_heads;
        turned(projected(token, key), bias(layer, key), layer.k_norm, m.eps, m_step.cosines + token * half,
               m_step.sines + token * half, 1, m.dim, room.data());
        kept(room.data(), keys, m.dim);
        turned(projected(token, value), bias(layer, value), nullptr, m.eps, nullptr, nullptr, 1, m.dim, room.data());
        kept(room.data(), values, m.dim);
    }

    void finish(const Layer& layer, int64_t token, int64_t query, const Seen& seen) {
        const int64_t groups = m_model.dim / GROUP;
        static thread_local std::vector<float> room;
        room.resize(m_model.dim);
        for (int64_t i = 0; i < m_model.dim; ++i) room[i] = seen.values[i] / seen.sum;
        quantise(room.data(), groups, 1, nullptr, layer.o.bits, m_attended, token, query * groups);
    }

    const Model m_model;
    Team m_team;
    Step m_step{};
    Rounded m_normal, m_attended, m_gated;
    std::vector<float> m_qkv, m_partial;
    int64_t m_parts = 1, m_waiting_size = 0;
    std::unique_ptr<std::atomic<int64_t>[]> m_waiting;  // parts not yet done, by sequence and head of keys
};

}  // namespace hearth

#define EXPORTED extern "C" __attribute__((visibility("default")))

// Bits of the widest registers that there are multiplications for on this processor: 512, 256, or 0.
EXPORTED int hearth_width() { return static_cast<int>(hearth::widest()); }

// The model's layers, weights, caches and norms have to live as long as what this returns; 0 where memory is short.
EXPORTED void* hearth_decoder(const hearth::Model* model) {
    try {
        return new hearth::Decoder(*model);
    } catch (...) {
        return nullptr;
    }
}

// Whether memory was enough. One thread at a time.
EXPORTED int hearth_decoder_compute(void* decoder, const hearth::Step* step) {
    try {
        static_cast<hearth::Decoder*>(decoder)->compute(*step);
        return 1;
    } catch (...) {
        return 0;
    }
}

EXPORTED void hearth_decoder_free(void* decoder) { delete static_cast<hearth::Decoder*>(decoder); }
