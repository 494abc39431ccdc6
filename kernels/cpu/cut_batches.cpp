// bh_round_lengths and bh_cut_batches: which texts go through the encoder together, and how long
// they are then. No level: this is little work beside an encoder's.
#include <algorithm>
#include <limits>

#include "bitheads/kernels.h"

namespace bitheads {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

bool lengths_are_valid(const int64_t *lengths, int64_t texts) noexcept {
  if (texts < 0 || texts > BH_MAX_BATCH_TEXTS) return false;
  if (texts > 0 && lengths == nullptr) return false;
  for (int64_t text = 0; text < texts; ++text) {
    if (lengths[text] < 0 || lengths[text] > BH_MAX_BATCH_LENGTH) return false;
  }
  return true;
}

bool is_valid(const bh_cut_batches_args &args) noexcept {
  return lengths_are_valid(args.lengths, args.texts) && args.max_batch_tokens >= 1 &&
         args.call_tokens >= 0 && args.call_tokens <= BH_MAX_BATCH_LENGTH &&
         (args.order != nullptr || args.texts == 0) && args.batch_offsets != nullptr &&
         args.num_batches != nullptr && args.workspace != nullptr;
}

int64_t round_length(int64_t length, int64_t max_length) noexcept {
  const int64_t step = length <= 64 ? 2 : length <= 128 ? 4 : length <= 256 ? 8 : 16;
  return std::min((length + step - 1) / step * step, std::max(length, max_length));
}

// Batches of texts that are in order, longest first.
class Batches {
 public:
  explicit Batches(const bh_cut_batches_args &args) noexcept
      : args_(args), cost_(args.workspace), sizes_(args.batch_offsets + 1) {}

  // How many texts the batch that starts at each text has, by dynamic programming from the last
  // text on.
  //
  // A batch that starts amid texts of one length and has room for more may as well take the text
  // before it: that one costs no more here than with the longer texts before. So only batches that
  // start a run of equal lengths have a choice; all others are full, or need no looking at.
  void choose_sizes() noexcept {
    cost_[args_.texts] = 0;
    int64_t stop = args_.texts;
    while (stop > 0) {
      const int64_t length = length_at(stop - 1);
      int64_t start = stop - 1;
      while (start > 0 && length_at(start - 1) == length) --start;
      const int64_t rows =
          std::min(std::max<int64_t>(1, args_.max_batch_tokens / length), args_.texts);
      for (int64_t i = stop - 1; i > start; --i) {
        sizes_[i] = rows;
        cost_[i] = add(args_.call_tokens + rows * length, cost_at(i + rows));
      }
      choose_first_size(start, length, std::min(rows, args_.texts - start));
      stop = start;
    }
  }

  // From sizes to offsets, in place: a batch's place is at or before that of its first text.
  int64_t offsets_of_sizes() noexcept {
    int64_t batches = 0;
    int64_t start = 0;
    while (start < args_.texts) {
      start += sizes_[start];
      args_.batch_offsets[++batches] = start;
    }
    args_.batch_offsets[0] = 0;
    return batches;
  }

 private:
  int64_t length_at(int64_t place) const noexcept {
    return std::max<int64_t>(1, args_.lengths[args_.order[place]]);
  }

  // Of all texts from this one on, which are none past the last; kNever for batches that end there.
  int64_t cost_at(int64_t place) const noexcept {
    return place <= args_.texts ? cost_[place] : kNever;
  }

  static int64_t add(int64_t tokens, int64_t cost) noexcept {
    return cost == kNever ? kNever : tokens + cost;
  }

  void choose_first_size(int64_t start, int64_t length, int64_t most) noexcept {
    int64_t best = kNever;
    for (int64_t size = 1; size <= most; ++size) {
      const int64_t next = start + size;
      const int64_t cost = add(length * size, cost_at(next));
      if (cost <= best) {  // of equal choices the largest: fewer calls
        best = cost;
        sizes_[start] = size;
      }
      // The texts that a larger batch would have besides could be a batch of their own after this
      // one, for call_tokens and less padding: so no larger one can be as good any more, and there
      // are few steps whatever the budget. (Costs are the least possible where a run starts.)
      const bool starts_run = next < args_.texts && length_at(next) != length_at(next - 1);
      if (starts_run && cost - args_.call_tokens > best) break;
    }
    cost_[start] = args_.call_tokens + best;
  }

  const bh_cut_batches_args &args_;
  int64_t *const cost_;
  int64_t *const sizes_;
};

}  // namespace
}  // namespace bitheads

extern "C" {

bh_status bh_round_lengths(const int64_t *lengths, int64_t texts, int64_t max_length,
                           int64_t *rounded) {
  if (!bitheads::lengths_are_valid(lengths, texts)) return BH_INVALID_ARGUMENT;
  if (texts > 0 && rounded == nullptr) return BH_INVALID_ARGUMENT;
  for (int64_t text = 0; text < texts; ++text) {
    rounded[text] = bitheads::round_length(lengths[text], max_length);
  }
  return BH_OK;
}

bh_status bh_cut_batches(const bh_cut_batches_args *args) {
  if (args == nullptr || !bitheads::is_valid(*args)) return BH_INVALID_ARGUMENT;
  for (int64_t text = 0; text < args->texts; ++text) args->order[text] = text;
  // A stable order of its own: std::stable_sort would allocate.
  std::sort(args->order, args->order + args->texts, [&](int64_t a, int64_t b) {
    return args->lengths[a] != args->lengths[b] ? args->lengths[a] > args->lengths[b] : a < b;
  });
  bitheads::Batches batches(*args);
  batches.choose_sizes();
  *args->num_batches = batches.offsets_of_sizes();
  return BH_OK;
}

}  // extern "C"
