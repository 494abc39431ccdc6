// bh_best_tags and bh_label_probabilities: what the logits of a head of spans say of the words of
// texts. No level: this is little work beside an encoder's.
#include <algorithm>
#include <cstring>
#include <limits>

#include "bitheads/kernels.h"
#include "default_floating_point.h"

namespace bitheads {
namespace {

// The first of the largest; a NaN is larger than any number.
template <class Number>
int64_t index_of_largest(const Number *numbers, int64_t count) noexcept {
  int64_t at = 0;
  for (int64_t i = 1; i < count && numbers[at] == numbers[at]; ++i) {
    if (!(numbers[i] <= numbers[at])) at = i;
  }
  return at;
}

bool goes_on(int64_t tag) noexcept {
  return tag > 0 && tag % 2 == 0;
}

// The tags of largest logits; false if one of them may not follow the one before.
bool write_largest(const float *logits, int64_t words, int64_t labels, int64_t *tags) noexcept {
  const int64_t num_tags = 1 + 2 * labels;
  int64_t before = 0;
  bool may_follow = true;
  for (int64_t word = 0; word < words; ++word) {
    const int64_t tag = index_of_largest(logits + word * num_tags, num_tags);
    may_follow = may_follow && (!goes_on(tag) || before == tag || before == tag - 1);
    tags[word] = before = tag;
  }
  return may_follow;
}

// The tags of the sequence with the largest sum of logits (Viterbi's algorithm). Its words' rows of
// came_from [words, 1 + labels] are the tags before: any tag that does not go on, and for each
// label the one that goes on.
void write_best_path(const float *logits, int64_t words, int64_t labels, int64_t *tags,
                     double *sums, uint16_t *came_from) noexcept {
  const int64_t num_tags = 1 + 2 * labels;
  for (int64_t tag = 0; tag < num_tags; ++tag) {
    sums[tag] = goes_on(tag) ? -std::numeric_limits<double>::infinity() : double{logits[tag]};
  }
  for (int64_t word = 1; word < words; ++word) {
    const float *row = logits + word * num_tags;
    uint16_t *came = came_from + word * (1 + labels);
    const int64_t likeliest = index_of_largest(sums, num_tags);
    const double largest = sums[likeliest];
    came[0] = static_cast<uint16_t>(likeliest);
    sums[0] = largest + double{row[0]};
    for (int64_t i = 0; i < labels; ++i) {
      const int64_t begin = 1 + 2 * i;
      const double begun = sums[begin];
      const double gone_on = sums[begin + 1];
      came[1 + i] = static_cast<uint16_t>(gone_on > begun ? begin + 1 : begin);
      const bool is_begun = begun != begun || gone_on <= begun;  // a NaN stays one
      sums[begin] = largest + double{row[begin]};
      sums[begin + 1] = (is_begun ? begun : gone_on) + double{row[begin + 1]};
    }
  }
  int64_t tag = index_of_largest(sums, num_tags);
  for (int64_t word = words - 1; word > 0; --word) {
    tags[word] = tag;
    tag = came_from[word * (1 + labels) + (goes_on(tag) ? tag / 2 : 0)];
  }
  tags[0] = tag;
}

// exp(-x) for 0 <= x <= 300, by products and sums that are the same on every machine.
double exp_minus(double x) noexcept {
  // ln(2)^i / i!
  constexpr double kCoefficients[] = {
      1.0,
      0x1.62e42fefa39efp-1,
      0x1.ebfbdff82c58fp-3,
      0x1.c6b08d704a0c0p-5,
      0x1.3b2ab6fba4e77p-7,
      0x1.5d87fe78a6731p-10,
      0x1.430912f86c787p-13,
      0x1.ffcbfc588b0c7p-17,
      0x1.62c0223a5c824p-20,
      0x1.b5253d395e7c4p-24,
      0x1.e4cf5158b8ecap-28,
      0x1.e8cac7351bb25p-32,
  };
  constexpr int kDegree = 11;
  constexpr double kLog2E = 0x1.71547652b82fep+0;
  constexpr double kNoFraction = 0x1.8p+52;  // what is added leaves no bits for a fraction
  const double z = x * kLog2E;
  const double shifted = z + kNoFraction;
  const double f = (shifted - kNoFraction) - z;
  double p = kCoefficients[kDegree];
  for (int i = kDegree - 1; i >= 0; --i) p = p * f + kCoefficients[i];
  // The last bits of `shifted` are the rounded z: 0 to 433, so 2^-z is a normal number.
  uint64_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (uint64_t{1023} - bits) << 52;
  double power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

// How likely each tag of a word is beside its likeliest, were there no other words. Of a NaN, and
// of +inf, which is inf - inf, it is NaN.
void write_odds(const float *logits, int64_t num_tags, double *odds) noexcept {
  float most = -3e38f;
  for (int64_t tag = 0; tag < num_tags; ++tag) most = logits[tag] > most ? logits[tag] : most;
  for (int64_t tag = 0; tag < num_tags; ++tag) {
    const double less = double{most} - double{logits[tag]};
    odds[tag] = exp_minus(less > 300.0 ? 300.0 : less);  // so that no sum of odds is 0
  }
}

// Of one text (the forward-backward algorithm). In rows of the workspace the first item is of what
// is outside of any span, the others are of the labels.
void write_probabilities(const float *logits, int64_t words, int64_t labels, float *probabilities,
                         double *workspace) noexcept {
  const int64_t num_tags = 1 + 2 * labels;
  double *odds = workspace;                      // [words, num_tags]
  double *given = odds + words * num_tags;       // [words, 1 + labels], of the words before
  double *after = given + words * (1 + labels);  // [1 + labels], of the words behind
  std::fill(after, after + 1 + labels, 0.0);
  const double *before = after;  // no span goes on at the first word
  for (int64_t word = 0; word < words; ++word) {
    double *odd = odds + word * num_tags;
    write_odds(logits + word * num_tags, num_tags, odd);
    double *of_word = given + word * (1 + labels);
    double sum = 0;
    for (int64_t i = 1; i <= labels; ++i) {
      of_word[i] = odd[2 * i - 1] + odd[2 * i] * before[i];
      sum += of_word[i];
    }
    const double whole = odd[0] + sum;
    of_word[0] = odd[0];
    for (int64_t i = 0; i <= labels; ++i) of_word[i] /= whole;
    before = of_word;
  }
  std::fill(after, after + 1 + labels, 1.0);
  for (int64_t word = words - 1; word >= 0; --word) {
    const double *odd = odds + word * num_tags;
    double *of_word = given + word * (1 + labels);
    double sum = 0;
    double begun = 0;
    for (int64_t i = 1; i <= labels; ++i) {
      of_word[i] *= after[i];
      sum += of_word[i];
      begun += odd[2 * i - 1] * after[i];
    }
    const double whole = of_word[0] * after[0] + sum;
    float *found = probabilities + word * labels;
    for (int64_t i = 1; i <= labels; ++i) found[i - 1] = static_cast<float>(of_word[i] / whole);
    const double starts = odd[0] * after[0] + begun;
    double most = 0;
    for (int64_t i = 1; i <= labels; ++i) {
      after[i] = starts + odd[2 * i] * after[i];
      most = after[i] > most ? after[i] : most;
    }
    after[0] = starts;
    for (int64_t i = 0; i <= labels; ++i) after[i] /= most;
  }
}

bool is_valid(const bh_word_logits *of) noexcept {
  if (of == nullptr || of->words < 0 || of->labels < 1 || of->labels > BH_MAX_SPAN_LABELS ||
      of->texts < 0 || of->offsets == nullptr || (of->words > 0 && of->logits == nullptr)) {
    return false;
  }
  if (of->offsets[0] != 0 || of->offsets[of->texts] != of->words) return false;
  return std::is_sorted(of->offsets, of->offsets + of->texts + 1);
}

}  // namespace
}  // namespace bitheads

extern "C" {

bh_status bh_best_tags(const bh_word_logits *of, int64_t *tags, double *sums, uint16_t *came_from) {
  if (!bitheads::is_valid(of)) return BH_INVALID_ARGUMENT;
  if (of->words == 0) return BH_OK;
  if (tags == nullptr || sums == nullptr || came_from == nullptr) return BH_INVALID_ARGUMENT;
  const bitheads::DefaultFloatingPoint scope;
  for (int64_t text = 0; text < of->texts; ++text) {
    const int64_t first = of->offsets[text];
    const int64_t words = of->offsets[text + 1] - first;
    const float *logits = of->logits + first * (1 + 2 * of->labels);
    if (bitheads::write_largest(logits, words, of->labels, tags + first)) continue;
    bitheads::write_best_path(logits, words, of->labels, tags + first, sums, came_from);
  }
  return BH_OK;
}

bh_status bh_label_probabilities(const bh_word_logits *of, float *probabilities,
                                 double *workspace) {
  if (!bitheads::is_valid(of)) return BH_INVALID_ARGUMENT;
  if (of->words == 0) return BH_OK;
  if (probabilities == nullptr || workspace == nullptr) return BH_INVALID_ARGUMENT;
  const bitheads::DefaultFloatingPoint scope;
  for (int64_t text = 0; text < of->texts; ++text) {
    const int64_t first = of->offsets[text];
    bitheads::write_probabilities(of->logits + first * (1 + 2 * of->labels),
                                  of->offsets[text + 1] - first, of->labels,
                                  probabilities + first * of->labels, workspace);
  }
  return BH_OK;
}

}  // extern "C"
