#include "batching.h"

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

}  // namespace

std::vector<int64_t> round_lengths(const std::vector<int64_t> &lengths, int64_t max_length) {
  std::vector<int64_t> rounded(lengths.size());
  require_ok(bh_round_lengths(lengths.data(), static_cast<int64_t>(lengths.size()), max_length,
                              rounded.data()));
  return rounded;
}

std::vector<std::vector<size_t>> cut_batches(const std::vector<int64_t> &lengths,
                                             int64_t max_batch_tokens) {
  std::vector<int64_t> order(lengths.size());
  std::vector<int64_t> offsets(lengths.size() + 1);
  std::vector<int64_t> workspace(lengths.size() + 1);
  int64_t num_batches = 0;
  bh_cut_batches_args args{};
  args.lengths = lengths.data();
  args.texts = static_cast<int64_t>(lengths.size());
  args.max_batch_tokens = max_batch_tokens;
  args.call_tokens = kCallTokens;
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

}  // namespace bitheads
