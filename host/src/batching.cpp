#include "batching.h"

#include <algorithm>
#include <numeric>

#include "bitheads/kernels.h"
#include "error.h"

namespace bitheads {
namespace {

void require_ok(bh_status status) {
  if (status != BH_OK) {
    fail(Status::invalid_input, "batches: got texts longer than ", BH_MAX_BATCH_LENGTH,
         " tokens, or more than ", BH_MAX_BATCH_TEXTS, " of them: split the call.");
  }
}

// A run of texts by length, from one that is no shorter than the first text on, with as many as the
// budget has room for.
std::vector<size_t> fullest_with_first(const std::vector<int64_t> &lengths,
                                       int64_t max_batch_tokens, int64_t call_tokens) {
  std::vector<size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lengths[a] > lengths[b]; });
  const auto first =
      static_cast<size_t>(std::find(order.begin(), order.end(), size_t{0}) - order.begin());
  std::vector<int64_t> tokens(order.size() + 1);  // of all texts before each
  for (size_t i = 0; i < order.size(); ++i) tokens[i + 1] = tokens[i] + lengths[order[i]];
  size_t best = 0;
  size_t best_end = 0;
  double best_worth = -1;
  for (size_t start = 0; start <= first; ++start) {
    const int64_t longest = lengths[order[start]];
    const auto room = static_cast<size_t>(std::max<int64_t>(1, max_batch_tokens / longest));
    const size_t rows = std::min(room, order.size() - start);
    if (start + rows <= first) continue;  // ends before the first text
    const double worth = static_cast<double>(tokens[start + rows] - tokens[start]) /
                         static_cast<double>(static_cast<int64_t>(rows) * longest + call_tokens);
    if (worth > best_worth) {
      best = start;
      best_end = start + rows;
      best_worth = worth;
    }
  }
  return {order.begin() + static_cast<ptrdiff_t>(best),
          order.begin() + static_cast<ptrdiff_t>(best_end)};
}

}  // namespace

std::vector<int64_t> round_lengths(const std::vector<int64_t> &lengths, int64_t max_length) {
  std::vector<int64_t> rounded(lengths.size());
  require_ok(bh_round_lengths(lengths.data(), static_cast<int64_t>(lengths.size()), max_length,
                              rounded.data()));
  return rounded;
}

std::vector<std::vector<size_t>> cut_batches(const std::vector<int64_t> &lengths,
                                             int64_t max_batch_tokens, int64_t call_tokens) {
  std::vector<int64_t> order(lengths.size());
  std::vector<int64_t> offsets(lengths.size() + 1);
  std::vector<int64_t> workspace(lengths.size() + 1);
  int64_t num_batches = 0;
  bh_cut_batches_args args{};
  args.lengths = lengths.data();
  args.texts = static_cast<int64_t>(lengths.size());
  args.max_batch_tokens = max_batch_tokens;
  args.call_tokens = call_tokens;
  args.order = order.data();
  args.batch_offsets = offsets.data();
  args.num_batches = &num_batches;
  args.workspace = workspace.data();
  require_ok(bh_cut_batches(&args));
  std::vector<std::vector<size_t>> batches;
  for (int64_t batch = 0; batch < num_batches; ++batch) {
    const auto at = offsets.begin() + batch;
    batches.emplace_back(order.begin() + at[0], order.begin() + at[1]);
  }
  return batches;
}

std::vector<size_t> choose_batch(const std::vector<int64_t> &lengths, bool are_all,
                                 int64_t max_batch_tokens, int64_t call_tokens) {
  std::vector<size_t> chosen;
  if (!are_all) {
    chosen = fullest_with_first(lengths, max_batch_tokens, call_tokens);
  } else {
    for (std::vector<size_t> &batch : cut_batches(lengths, max_batch_tokens, call_tokens)) {
      if (std::find(batch.begin(), batch.end(), size_t{0}) != batch.end()) chosen.swap(batch);
    }
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace bitheads
