#include "tag_sequences.h"

#include <algorithm>

#include "bitheads/kernels.h"
#include "error.h"

namespace bitheads {
namespace {

struct WordLogits {
  WordLogits(const float *logits, const std::vector<int64_t> &offsets, size_t labels)
      : of{logits, offsets.empty() ? 0 : offsets.back(), static_cast<int64_t>(labels),
           offsets.data(), static_cast<int64_t>(offsets.size()) - 1} {
    if (offsets.empty() || offsets.front() != 0 || labels == 0) refuse();
    for (size_t text = 1; text < offsets.size(); ++text) {
      const int64_t count = offsets[text] - offsets[text - 1];
      if (count < 0) refuse();
      longest = std::max(longest, static_cast<size_t>(count));
    }
  }

  [[noreturn]] static void refuse() {
    fail(Status::invalid_input,
         "words: got a head of no labels, or offsets that do not go from 0 on, expected those of "
         "an answer of `predict`.");
  }

  bh_word_logits of;
  size_t longest = 0;
};

}  // namespace

std::vector<int64_t> best_tags(const float *logits, const std::vector<int64_t> &offsets,
                               size_t labels) {
  const WordLogits words(logits, offsets, labels);
  std::vector<int64_t> tags(static_cast<size_t>(words.of.words));
  std::vector<double> sums(1 + 2 * labels);
  std::vector<uint16_t> came_from(words.longest * (1 + labels));
  if (bh_best_tags(&words.of, tags.data(), sums.data(), came_from.data()) != BH_OK)
    WordLogits::refuse();
  return tags;
}

std::vector<float> label_probabilities(const float *logits, const std::vector<int64_t> &offsets,
                                       size_t labels) {
  const WordLogits words(logits, offsets, labels);
  std::vector<float> found(static_cast<size_t>(words.of.words) * labels);
  std::vector<double> workspace(words.longest * (2 + 3 * labels) + 1 + labels);
  if (bh_label_probabilities(&words.of, found.data(), workspace.data()) != BH_OK)
    WordLogits::refuse();
  return found;
}

}  // namespace bitheads
