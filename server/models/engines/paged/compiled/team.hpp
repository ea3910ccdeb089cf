// Threads that share the pieces of a piece of work, thousands of times a second.
//
// A step of a decoder is a hundred multiplications one after another, of some 50 microseconds each. To hand one to a
// pool of tasks takes 5 to 10 of those; here a piece is taken by one exchange of an atomic number.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace hearth {

class Team {
public:
    // `threads` with the one that calls `run`.
    explicit Team(int64_t threads) {
        for (int64_t i = 1; i < threads; ++i) m_threads.emplace_back([this] { serve(); });
    }

    ~Team() {
        {
            const std::lock_guard lock(m_mutex);
            m_over = true;
        }
        m_wake.notify_all();
        for (std::thread& each : m_threads) each.join();
    }

    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int64_t size() const { return static_cast<int64_t>(m_threads.size()) + 1; }

    // work(first, last) over [0, count), `grain` at a time, on whichever threads there are; returns when all is done.
    // Nobody is waited for but who has taken a piece. One thread runs at a time, and work throws nothing.
    template <class Work>
    void run(int64_t count, int64_t grain, const Work& work) {
        const int64_t pieces = (count + grain - 1) / grain;
        if (pieces <= 1 || m_threads.empty()) {
            if (count > 0) work(0, count);
            return;
        }
        ++m_turn;
        m_jobs[m_turn & 1] = {[](const void* with, int64_t first, int64_t last) {
                                  (*static_cast<const Work*>(with))(first, last);
                              },
                              &work, count, grain, pieces};
        m_left.store(pieces, std::memory_order_relaxed);
        m_open.store(m_turn << 32 | static_cast<uint64_t>(pieces));
        if (m_asleep.load()) {
            { const std::lock_guard lock(m_mutex); }
            m_wake.notify_all();
        }
        while (take()) {
        }
        for (int64_t waited = 0; m_left.load(std::memory_order_acquire); ++waited) rest(waited);
    }

private:
    struct Job {
        void (*work)(const void* with, int64_t first, int64_t last);
        const void* with;
        int64_t count, grain, pieces;
    };

    static constexpr int64_t PAUSES = 2000;   // a tenth of a millisecond, after which others may want the processor
    static constexpr int64_t PATIENCE = 8000;  // until a thread without work sleeps; steps are not so far apart

    static void rest(int64_t waited) {
        if (waited < PAUSES)
            _mm_pause();
        else
            std::this_thread::yield();
    }

    // Do one piece, if there is one that nobody took. The exchange succeeds while the job has such a piece, so the job
    // is not over, and its place is not yet another's.
    bool take() {
        uint64_t open = m_open.load(std::memory_order_acquire);
        while (const auto pieces = static_cast<uint32_t>(open)) {
            if (!m_open.compare_exchange_weak(open, open - 1, std::memory_order_acq_rel, std::memory_order_acquire))
                continue;
            const Job& job = m_jobs[open >> 32 & 1];
            const int64_t first = (job.pieces - pieces) * job.grain;
            job.work(job.with, first, std::min(job.count, first + job.grain));
            m_left.fetch_sub(1, std::memory_order_release);
            return true;
        }
        return false;
    }

    void serve() {
        for (int64_t waited = 0;; ++waited) {
            if (take()) {
                waited = 0;
            } else if (waited < PATIENCE) {
                rest(waited);
            } else {
                std::unique_lock lock(m_mutex);
                ++m_asleep;
                m_wake.wait(lock, [this] { return m_over || static_cast<uint32_t>(m_open.load()); });
                --m_asleep;
                if (m_over) return;
                waited = 0;
            }
        }
    }

    // The number of a job in its upper half, how many of its pieces nobody took in its lower.
    alignas(64) std::atomic<uint64_t> m_open{0};
    alignas(64) std::atomic<int64_t> m_left{0};
    alignas(64) std::atomic<int64_t> m_asleep{0};
    Job m_jobs[2];
    uint64_t m_turn = 0;
    bool m_over = false;
    std::mutex m_mutex;
    std::condition_variable m_wake;
    std::vector<std::thread> m_threads;
};

}  // namespace hearth
