// Which texts go through the encoder together: the kernels' batches (kernels/SPEC.md) as vectors.
#ifndef BITHEADS_HOST_BATCHING_H
#define BITHEADS_HOST_BATCHING_H

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bitheads {

// What an encoder call costs beside its tokens, in tokens, on a CPU.
constexpr int64_t kCallTokens = 32;

// The lengths that texts are padded to, so that OpenVINO sees few shapes.
std::vector<int64_t> round_lengths(const std::vector<int64_t> &lengths, int64_t max_length);

// Indices of each batch's texts, longest texts first, at the least cost in total: a batch costs
// rows * longest, the tokens that are computed, and call_tokens.
//
// max_batch_tokens, at least 1, bounds rows * longest; a longer text makes a batch of its own.
std::vector<std::vector<size_t>> cut_batches(const std::vector<int64_t> &lengths,
                                             int64_t max_batch_tokens, int64_t call_tokens);

// Places of the texts that go with the first one at least cost, in one batch; the first among them.
//
// lengths: of texts that wait, whoever is to go first before the others; not empty.
// are_all: whether no more texts wait. Then all of these will be encoded soon, in the batches that
// cost least in total; else the batch is the one with most tokens for what it costs.
//
// engine/serve/fair_queue.py has the same rule.
std::vector<size_t> choose_batch(const std::vector<int64_t> &lengths, bool are_all,
                                 int64_t max_batch_tokens, int64_t call_tokens);

}  // namespace bitheads

#endif
