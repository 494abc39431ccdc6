#include "tag_sequences.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace bitheads {
namespace {

// Least difference of a tag's logit to the word's largest, for probabilities: so that no sum of
// exponentials is 0.
constexpr double kLeast = -300.0;

bool goes_on(size_t tag) {
  return tag > 0 && tag % 2 == 0;
}

template <class Iterator>
size_t index_of_max(Iterator begin, Iterator end) {
  return static_cast<size_t>(std::max_element(begin, end) - begin);
}

std::vector<size_t> best_path(const float *logits, size_t words, size_t tags) {
  std::vector<double> best(logits, logits + tags);  // sums up to the last word so far
  for (size_t tag = 2; tag < tags; tag += 2) best[tag] = -std::numeric_limits<double>::infinity();
  std::vector<size_t> came_from(words * tags);  // the best tag before each
  for (size_t word = 1; word < words; ++word) {
    const std::vector<double> before = best;
    const size_t likeliest = index_of_max(before.begin(), before.end());
    for (size_t tag = 0; tag < tags; ++tag) {
      const size_t from = !goes_on(tag) ? likeliest : before[tag] > before[tag - 1] ? tag : tag - 1;
      came_from[word * tags + tag] = from;
      best[tag] = before[from] + double{logits[word * tags + tag]};
    }
  }
  std::vector<size_t> path(words);
  size_t tag = index_of_max(best.begin(), best.end());
  for (size_t word = words; word-- > 0;) {
    path[word] = tag;
    tag = came_from[word * tags + tag];
  }
  return path;
}

}  // namespace

std::vector<size_t> best_tags(const float *logits, size_t words, size_t labels) {
  const size_t tags = 1 + 2 * labels;
  std::vector<size_t> found(words);
  bool may_follow = true;
  for (size_t word = 0; word < words; ++word) {
    const float *row = logits + word * tags;
    const size_t tag = index_of_max(row, row + tags);
    const size_t before = word > 0 ? found[word - 1] : 0;
    may_follow = may_follow && (!goes_on(tag) || before == tag || before == tag - 1);
    found[word] = tag;
  }
  return may_follow ? found : best_path(logits, words, tags);
}

std::vector<float> label_probabilities(const float *logits, size_t words, size_t labels) {
  const size_t tags = 1 + 2 * labels;
  std::vector<double> odds(words * tags);
  for (size_t word = 0; word < words; ++word) {
    const float *row = logits + word * tags;
    const double most = *std::max_element(row, row + tags);
    for (size_t tag = 0; tag < tags; ++tag) {
      odds[word * tags + tag] = std::exp(std::max(double{row[tag]} - most, kLeast));
    }
  }
  // Of each word's tags, given the words before it; they sum to 1.
  std::vector<double> outside(words);
  std::vector<double> inside(words * labels);
  for (size_t word = 0; word < words; ++word) {
    const double *odd = &odds[word * tags];
    double *in = inside.data() + word * labels;
    double sum = 0;
    for (size_t i = 0; i < labels; ++i) {
      const double following =
          word > 0 ? in[static_cast<ptrdiff_t>(i) - static_cast<ptrdiff_t>(labels)] : 0;
      in[i] = odd[1 + 2 * i] + odd[2 + 2 * i] * following;
      sum += in[i];
    }
    const double whole = odd[0] + sum;
    outside[word] = odd[0] / whole;
    for (size_t i = 0; i < labels; ++i) in[i] /= whole;
  }
  // What follows, given that a word is outside, or of a label; the largest is 1.
  std::vector<float> found(words * labels);
  double after_outside = 1;
  std::vector<double> after_inside(labels, 1.0);
  for (size_t word = words; word-- > 0;) {
    const double *in = inside.data() + word * labels;
    double sum = 0;
    for (size_t i = 0; i < labels; ++i) sum += in[i] * after_inside[i];
    const double whole = outside[word] * after_outside + sum;
    for (size_t i = 0; i < labels; ++i) {
      found[word * labels + i] = static_cast<float>(in[i] * after_inside[i] / whole);
    }
    const double *odd = &odds[word * tags];
    double starts = 0;
    for (size_t i = 0; i < labels; ++i) starts += odd[1 + 2 * i] * after_inside[i];
    starts += odd[0] * after_outside;
    double most = 0;
    for (size_t i = 0; i < labels; ++i) {
      after_inside[i] = starts + odd[2 + 2 * i] * after_inside[i];
      most = std::max(most, after_inside[i]);
    }
    after_outside = starts / most;
    for (double &after : after_inside) after /= most;
  }
  return found;
}

}  // namespace bitheads
