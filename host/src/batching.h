/* Which texts go through the encoder together. engine/batching.py says why. */
#ifndef BITHEADS_HOST_BATCHING_H
#define BITHEADS_HOST_BATCHING_H

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bitheads {

/* What an encoder call costs beside its tokens, in tokens. */
constexpr std::int64_t call_tokens = 32;

/* The length that a text is padded to, so that OpenVINO sees few shapes; engine/batching.py. */
std::int64_t round_length(std::int64_t length, std::int64_t max_length);

/* Indices of each batch's texts, longest texts first, at the least cost in total: a batch costs
 * rows * longest, the tokens that are computed, and call_tokens.
 *
 * max_batch_tokens, at least 1, bounds rows * longest; a longer text makes a batch of its own. */
std::vector<std::vector<std::size_t>> cut_batches(const std::vector<std::int64_t> &lengths,
                                                  std::int64_t max_batch_tokens);

}  // namespace bitheads

#endif
