#include "batching.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace bitheads {
namespace {

/* How many texts the batch that starts at each text has; lengths fall, and are at least 1.
 *
 * By dynamic programming from the last text on. A batch that starts amid texts of one length and
 * has room for more may as well take the text before it, so only batches that start a run of equal
 * lengths have a choice; all others are full, or need no looking at. */
std::vector<std::size_t> best_sizes(const std::vector<std::int64_t> &lengths,
                                    std::int64_t max_batch_tokens) {
  const std::size_t texts = lengths.size();
  /* The cost of all texts from this one on; batches past the last text are none. */
  std::vector<double> cost(2 * texts + 1, std::numeric_limits<double>::infinity());
  cost[texts] = 0;
  std::vector<std::size_t> sizes(texts);
  std::size_t stop = texts;
  while (stop > 0) {
    std::size_t start = stop - 1;
    while (start > 0 && lengths[start - 1] == lengths[start]) {
      --start;
    }
    const std::int64_t length = lengths[start];
    const std::size_t rows = std::min(
        static_cast<std::size_t>(std::max<std::int64_t>(1, max_batch_tokens / length)), texts);
    const auto token_cost = static_cast<double>(length);
    for (std::size_t i = stop - 1; i > start; --i) {
      sizes[i] = rows;
      cost[i] = call_tokens + static_cast<double>(rows) * token_cost + cost[i + rows];
    }
    double best = std::numeric_limits<double>::infinity();
    for (std::size_t size = 1; size <= rows; ++size) {
      const double total = cost[start + size] + token_cost * static_cast<double>(size);
      if (total <= best) { /* of equal choices the largest: fewer calls */
        best = total;
        sizes[start] = size;
      }
    }
    cost[start] = call_tokens + best;
    stop = start;
  }
  return sizes;
}

}  // namespace

std::int64_t round_length(std::int64_t length, std::int64_t max_length) {
  const std::int64_t step = length <= 64 ? 2 : length <= 128 ? 4 : length <= 256 ? 8 : 16;
  return std::min((length + step - 1) / step * step, std::max(length, max_length));
}

std::vector<std::vector<std::size_t>> cut_batches(const std::vector<std::int64_t> &lengths,
                                                  std::int64_t max_batch_tokens) {
  std::vector<std::size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return lengths[a] > lengths[b]; });
  std::vector<std::int64_t> falling;
  for (const std::size_t text : order) {
    falling.push_back(std::max<std::int64_t>(1, lengths[text]));
  }
  const std::vector<std::size_t> sizes = best_sizes(falling, max_batch_tokens);
  std::vector<std::vector<std::size_t>> batches;
  for (std::size_t start = 0; start < order.size(); start += sizes[start]) {
    const auto first = order.begin() + static_cast<std::ptrdiff_t>(start);
    batches.emplace_back(first, first + static_cast<std::ptrdiff_t>(sizes[start]));
  }
  return batches;
}

}  // namespace bitheads
