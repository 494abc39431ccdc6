#include "kinds.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>

#include "decision.h"
#include "tag_sequences.h"

namespace bitheads {
namespace {

template <class Float>
Float sigmoid_of(Float logit) {
  const Float small = std::exp(-std::fabs(logit));
  return (logit >= 0 ? Float{1} : small) / (1 + small);
}

void check_labels(const Labels &labels, size_t least) {
  if (labels.size() < least) {
    throw std::invalid_argument("got " + std::to_string(labels.size()) +
                                " labels, expected at least " + std::to_string(least));
  }
}

void check_count(size_t got, const char *what, size_t expected) {
  if (got != expected) {
    throw std::invalid_argument("got " + std::to_string(got) + " " + what + ", expected " +
                                std::to_string(expected) + " for its labels");
  }
}

// One of a closed list of labels; logits are the classes', under a softmax.
class SingleLabel : public Kind {
 public:
  SingleLabel() : Kind("single_label", {"abstain_below"}) {}

  void check(const Labels &labels, const Decision &decision) const override {
    Kind::check(labels, decision);
    check_labels(labels, 2);
  }

  // In double, so that as float they are the same in every host: abstaining compares them.
  void probabilities(const float *logits, const Labels &labels, const Decision & /*decision*/,
                     float *found) const override {
    const float largest = *std::max_element(logits, logits + labels.size());
    std::vector<double> shifted(labels.size());
    double sum = 0;
    for (size_t i = 0; i < labels.size(); ++i) {
      shifted[i] = std::exp(static_cast<double>(logits[i] - largest));
      sum += shifted[i];
    }
    for (size_t i = 0; i < labels.size(); ++i) found[i] = static_cast<float>(shifted[i] / sum);
  }

  std::optional<size_t> best(const float *logits, const Labels &labels,
                             const Decision & /*decision*/) const override {
    return static_cast<size_t>(std::max_element(logits, logits + labels.size()) - logits);
  }

  // The reject output is one more class, held against the likeliest of the others.
  float reject_score(float reject_logit, const float *logits, const Labels &labels) const override {
    return reject_logit - *std::max_element(logits, logits + labels.size());
  }
};

// Any number of the labels, each under a sigmoid and with a threshold of its own.
class MultiLabel : public Kind {
 public:
  MultiLabel() : Kind("multi_label", {"thresholds"}) {}

  void check(const Labels &labels, const Decision &decision) const override {
    Kind::check(labels, decision);
    check_labels(labels, 1);
    check_count(decision.thresholds.size(), "thresholds", labels.size());
  }

  void probabilities(const float *logits, const Labels &labels, const Decision & /*decision*/,
                     float *found) const override {
    std::transform(logits, logits + labels.size(), found, sigmoid_of<float>);
  }

  void select(const float *logits, const Labels &labels, const Decision &decision,
              uint8_t *found) const override {
    for (size_t i = 0; i < labels.size(); ++i) found[i] = logits[i] >= decision.thresholds[i];
  }
};

// The number that a label is, written in digits, with a sign or a point: the same in Python.
std::optional<double> number_of(const std::string &label) {
  const bool is_negative = label[0] == '-';
  const std::string digits = label.substr(is_negative ? 1 : 0);
  const size_t point = digits.find('.');
  if (digits.empty() || digits.size() > 15) return std::nullopt;
  if (point == 0 || point + 1 == digits.size()) return std::nullopt;
  double number = 0;  // below 2^53, as are the powers of ten: the quotient is rounded once
  double scale = 1;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i == point) continue;
    if (digits[i] < '0' || digits[i] > '9') return std::nullopt;
    number = 10 * number + (digits[i] - '0');
    if (i > point) scale *= 10;
  }
  return (is_negative ? -number : number) / scale;
}

// What the labels stand for: themselves if all are numbers, else their places from 0.
std::vector<double> levels_of(const Labels &labels) {
  std::vector<double> numbers;
  for (const std::string &label : labels) {
    if (const auto number = number_of(label)) numbers.push_back(*number);
  }
  if (numbers.size() == labels.size()) return numbers;
  numbers.clear();
  for (size_t i = 0; i < labels.size(); ++i) numbers.push_back(static_cast<double>(i));
  return numbers;
}

// One of labels that have an order, from one logit and the cuts between the labels: the chance of a
// label above the k-th is sigmoid(logit - cut_k). The answer is the median, its value the mean.
class Ordinal : public Kind {
 public:
  Ordinal() : Kind("ordinal", {"abstain_below", "cuts"}) {}

  size_t num_logits(const Labels & /*labels*/) const override { return 1; }

  void check(const Labels &labels, const Decision &decision) const override {
    Kind::check(labels, decision);
    check_labels(labels, 2);
    check_count(decision.cuts.size(), "cuts", labels.size() - 1);
  }

  void probabilities(const float *logits, const Labels &labels, const Decision &decision,
                     float *found) const override {
    double from = 1;
    for (size_t i = 0; i < labels.size(); ++i) {
      const bool is_last = i + 1 == labels.size();
      const double above =
          is_last ? 0 : sigmoid_of(static_cast<double>(*logits) - double{decision.cuts[i]});
      found[i] = static_cast<float>(from - above);
      from = above;
    }
  }

  std::optional<size_t> best(const float *logits, const Labels & /*labels*/,
                             const Decision &decision) const override {
    const auto &cuts = decision.cuts;
    return static_cast<size_t>(
        std::count_if(cuts.begin(), cuts.end(), [&](float cut) { return *logits >= cut; }));
  }

  std::optional<float> value(const float *logits, const Labels &labels,
                             const Decision &decision) const override {
    std::vector<float> found(labels.size());
    probabilities(logits, labels, decision, found.data());
    const std::vector<double> levels = levels_of(labels);
    double mean = 0;
    for (size_t i = 0; i < labels.size(); ++i) mean += static_cast<double>(found[i]) * levels[i];
    return static_cast<float>(mean);
  }
};

// One number, which is the logit itself, kept within a range; there are no labels.
class Regression : public Kind {
 public:
  Regression() : Kind("regression", {"value_range"}) {}

  size_t num_logits(const Labels & /*labels*/) const override { return 1; }

  void check(const Labels &labels, const Decision &decision) const override {
    Kind::check(labels, decision);
    check_count(labels.size(), "labels", 0);
    if (!decision.value_range) {
      throw std::invalid_argument("got no value_range, expected the least and the largest value");
    }
  }

  void probabilities(const float * /*logits*/, const Labels & /*labels*/,
                     const Decision & /*decision*/, float * /*found*/) const override {}

  std::optional<float> value(const float *logits, const Labels & /*labels*/,
                             const Decision &decision) const override {
    if (!decision.value_range) return *logits;  // of no file: a program's own
    const auto [least, largest] = *decision.value_range;
    return std::min(std::max(*logits, least), largest);
  }
};

// Spans of a text, from the logits of each word's tag, see tag_sequences.h.
class TokenLabel : public Kind {
 public:
  TokenLabel() : Kind("token_label", {}) {}

  bool is_of_words() const override { return true; }

  size_t num_logits(const Labels &labels) const override { return 1 + 2 * labels.size(); }

  void check(const Labels &labels, const Decision &decision) const override {
    Kind::check(labels, decision);
    check_labels(labels, 1);
  }

  // Of a text of one word; see label_probabilities for more.
  void probabilities(const float *logits, const Labels &labels, const Decision & /*decision*/,
                     float *found) const override {
    const std::vector<float> likely = label_probabilities(logits, {0, 1}, labels.size());
    std::copy(likely.begin(), likely.end(), found);
  }
};

const std::vector<const Kind *> &all_kinds() {
  static const SingleLabel single_label;
  static const MultiLabel multi_label;
  static const Ordinal ordinal;
  static const Regression regression;
  static const TokenLabel token_label;
  static const std::vector<const Kind *> kinds = {&single_label, &multi_label, &ordinal,
                                                  &regression, &token_label};
  return kinds;
}

}  // namespace

void Kind::check(const Labels &labels, const Decision &decision) const {
  for (const std::string &setting : settings_of(decision)) {
    if (std::find(settings_.begin(), settings_.end(), setting) == settings_.end()) {
      throw std::invalid_argument("its decision has " + setting + ", which a " + name +
                                  " head has not");
    }
  }
  if (std::set<std::string>(labels.begin(), labels.end()).size() != labels.size()) {
    throw std::invalid_argument("it has equal labels, expected all different");
  }
}

std::optional<size_t> Kind::best(const float * /*logits*/, const Labels & /*labels*/,
                                 const Decision & /*decision*/) const {
  return std::nullopt;
}

void Kind::select(const float *logits, const Labels &labels, const Decision &decision,
                  uint8_t *found) const {
  std::fill(found, found + labels.size(), uint8_t{0});
  if (const auto label = best(logits, labels, decision)) found[*label] = 1;
}

std::optional<float> Kind::value(const float * /*logits*/, const Labels & /*labels*/,
                                 const Decision & /*decision*/) const {
  return std::nullopt;
}

float Kind::reject_score(float reject_logit, const float * /*logits*/,
                         const Labels & /*labels*/) const {
  return reject_logit;
}

std::vector<FoundSpan> find_spans(const float *logits, size_t words, const Labels &labels) {
  const std::vector<int64_t> offsets = {0, static_cast<int64_t>(words)};
  const std::vector<int64_t> tags = best_tags(logits, offsets, labels.size());
  std::vector<FoundSpan> spans;
  // Most texts have no span, and then nobody asks for their words' probabilities.
  if (std::all_of(tags.begin(), tags.end(), [](int64_t tag) { return tag == 0; })) return spans;
  const std::vector<float> likely = label_probabilities(logits, offsets, labels.size());
  for (size_t word = 0; word < words; ++word) {
    if (tags[word] == 0) continue;
    const size_t label = static_cast<size_t>(tags[word] - 1) / 2;
    const float probability = likely[word * labels.size() + label];
    if (tags[word] % 2 == 1) {
      spans.push_back({word, word, label, probability});
    } else {
      spans.back().last = word;
      spans.back().probability = std::min(spans.back().probability, probability);
    }
  }
  return spans;
}

const Kind *find_kind(const std::string &name) {
  for (const Kind *kind : all_kinds()) {
    if (kind->name == name) return kind;
  }
  return nullptr;
}

std::string names_of_kinds() {
  std::string names;
  for (const Kind *kind : all_kinds())
    names += (names.empty() ? "" : ", ") + std::string(kind->name);
  return names;
}

float sigmoid(float logit) {
  return sigmoid_of(logit);
}

}  // namespace bitheads
