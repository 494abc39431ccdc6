// Answers: a task's logits for some texts, and what they mean by the head's kind.
#include <cmath>

#include "error.h"
#include "kinds.h"
#include "tag_sequences.h"

namespace bitheads {
namespace {

const Kind &kind_of(const Prediction &prediction) {
  const Kind *kind = find_kind(prediction.kind);
  if (kind == nullptr) {
    fail(Status::invalid_input, "task '", prediction.task, "': got an answer of the kind '",
         prediction.kind, "', expected one of ", names_of_kinds(), ".");
  }
  return *kind;
}

void check_text(const Prediction &prediction, size_t text, const char *asked) {
  if (text >= prediction.size()) {
    throw std::out_of_range(std::string("Prediction::") + asked + ": no such text");
  }
}

// Of a text; null where logits are those of words.
const float *logits_of(const Prediction &prediction, size_t text, const char *asked) {
  check_text(prediction, text, asked);
  if (prediction.words) return nullptr;
  return prediction.logits.data() + text * prediction.num_logits();
}

// The first of a text's words, and how many there are.
std::pair<size_t, size_t> words_of(const Words &words, size_t text) {
  const auto begin = static_cast<size_t>(words.offsets[text]);
  return {begin, static_cast<size_t>(words.offsets[text + 1]) - begin};
}

std::optional<size_t> place_or_none(int64_t place) {
  return place < 0 ? std::nullopt : std::optional(static_cast<size_t>(place));
}

}  // namespace

size_t Prediction::num_logits() const {
  return kind_of(*this).num_logits(labels);
}

size_t Prediction::size() const {
  if (words) return words->offsets.size() - 1;
  const size_t of_a_text = num_logits();
  return of_a_text == 0 ? 0 : logits.size() / of_a_text;
}

std::vector<float> Prediction::probabilities() const {
  const Kind &its_kind = kind_of(*this);
  if (words) return label_probabilities(logits.data(), words->offsets, labels.size());
  std::vector<float> found(size() * labels.size());
  for (size_t text = 0; text < size(); ++text) {
    its_kind.probabilities(logits_of(*this, text, "probabilities"), labels, decision,
                           found.data() + text * labels.size());
  }
  return found;
}

std::optional<size_t> Prediction::best(size_t text) const {
  return kind_of(*this).best(logits_of(*this, text, "best"), labels, decision);
}

const std::string &Prediction::top(size_t text) const {
  const auto label = kind_of(*this).best(logits_of(*this, text, "top"), labels, decision);
  if (!label) {
    fail(Status::invalid_input, "task '", task, "': got a call of top, but its ", kind,
         " head does not give one label. Ask for `selected`, `value` or `spans`.");
  }
  return labels[*label];
}

std::vector<std::string> Prediction::selected(size_t text) const {
  std::vector<uint8_t> has_label(labels.size());
  const float *row = logits_of(*this, text, "selected");
  if (words) {
    for (const Span &span : spans(text)) has_label[span.label] = 1;
  } else {
    kind_of(*this).select(row, labels, decision, has_label.data());
  }
  std::vector<std::string> found;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (has_label[i] != 0) found.push_back(labels[i]);
  }
  return found;
}

std::optional<float> Prediction::value(size_t text) const {
  return kind_of(*this).value(logits_of(*this, text, "value"), labels, decision);
}

std::optional<float> Prediction::out_of_domain(size_t text) const {
  const float *row = logits_of(*this, text, "out_of_domain");
  if (reject_logits.empty()) return std::nullopt;
  const float score = kind_of(*this).reject_score(reject_logits[text], row, labels);
  return sigmoid(score * decision.reject_scale);
}

bool Prediction::accepted(size_t text) const {
  const float *row = logits_of(*this, text, "accepted");
  if (!reject_logits.empty()) {
    const float score = kind_of(*this).reject_score(reject_logits[text], row, labels);
    if (!(score <= decision.reject_above.value_or(0))) return false;
  }
  if (!decision.abstain_below) return true;
  std::vector<float> found(labels.size());
  kind_of(*this).probabilities(row, labels, decision, found.data());
  const auto label = kind_of(*this).best(row, labels, decision);
  return label && found[*label] >= *decision.abstain_below;
}

std::vector<Span> Prediction::spans(size_t text) const {
  check_text(*this, text, "spans");
  std::vector<Span> found;
  if (!words) return found;
  const auto [begin, count] = words_of(*words, text);
  for (const FoundSpan &span : find_spans(logits.data() + begin * num_logits(), count, labels)) {
    const Word &first = words->table[begin + span.first];
    const Word &last = words->table[begin + span.last];
    found.push_back({static_cast<size_t>(first.start), static_cast<size_t>(last.end),
                     static_cast<size_t>(first.start_byte), static_cast<size_t>(last.end_byte),
                     span.label, span.probability});
  }
  return found;
}

std::optional<size_t> Prediction::truncated_at(size_t text) const {
  check_text(*this, text, "truncated_at");
  return words ? place_or_none(words->truncated_at[text]) : std::nullopt;
}

std::optional<size_t> Prediction::truncated_at_byte(size_t text) const {
  check_text(*this, text, "truncated_at_byte");
  return words ? place_or_none(words->truncated_at_byte[text]) : std::nullopt;
}

}  // namespace bitheads
