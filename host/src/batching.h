// Which texts go through the encoder together: the kernels' batches (kernels/SPEC.md) as vectors.
#ifndef BITHEADS_HOST_BATCHING_H
#define BITHEADS_HOST_BATCHING_H

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bitheads {

// What an encoder call costs beside its tokens, in tokens.
constexpr int64_t kCallTokens = 32;

// The lengths that texts are padded to, so that OpenVINO sees few shapes.
std::vector<int64_t> round_lengths(const std::vector<int64_t> &lengths, int64_t max_length);

// Indices of each batch's texts, longest texts first, at the least cost in total: a batch costs
// rows * longest, the tokens that are computed, and call_tokens.
//
// max_batch_tokens, at least 1, bounds rows * longest; a longer text makes a batch of its own.
std::vector<std::vector<size_t>> cut_batches(const std::vector<int64_t> &lengths,
                                             int64_t max_batch_tokens);

}  // namespace bitheads

#endif
