// Head kinds: what a head's logits mean, and the answer that is made of them. One class per kind;
// engine/kinds has the same rules for Python, in a module per kind.
#ifndef BITHEADS_HOST_KINDS_H
#define BITHEADS_HOST_KINDS_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bitheads/bitheads.hpp"

namespace bitheads {

using Labels = std::vector<std::string>;

// What a kind is to all who ask heads. `logits` are those of one text, float [num_logits].
class Kind {
 public:
  // settings: the fields of a Decision, but for those of rejecting, that it takes.
  Kind(const char *name, std::vector<std::string> settings)
      : name(name), settings_(std::move(settings)) {}
  Kind(const Kind &) = delete;
  Kind &operator=(const Kind &) = delete;
  virtual ~Kind() = default;

  const char *const name;  // as in a head's file

  // Whether a head answers each word of a text; its logits are then those of one word.
  virtual bool is_of_words() const { return false; }
  // Outputs of a head, without its reject output.
  virtual size_t num_logits(const Labels &labels) const { return labels.size(); }
  // Throws std::invalid_argument for labels and decisions that are not its.
  virtual void check(const Labels &labels, const Decision &decision) const;
  // Of each label, written to float [labels].
  virtual void probabilities(const float *logits, const Labels &labels, const Decision &decision,
                             float *found) const = 0;
  // The label that is the answer, of a kind that gives one label.
  virtual std::optional<size_t> best(const float *logits, const Labels &labels,
                                     const Decision &decision) const;
  // The labels that the text has, 1 or 0, written to uint8 [labels].
  virtual void select(const float *logits, const Labels &labels, const Decision &decision,
                      uint8_t *found) const;
  // The number that is the answer, or part of it, of a kind that has one.
  virtual std::optional<float> value(const float *logits, const Labels &labels,
                                     const Decision &decision) const;
  // How much speaks for the text being none of the head's business.
  virtual float reject_score(float reject_logit, const float *logits, const Labels &labels) const;

 private:
  std::vector<std::string> settings_;
};

// A span of words of a text, with the label's index.
struct FoundSpan {
  size_t first, last;  // words, among those of the text
  size_t label;
  float probability;  // the least that one of its words has of being the label's
};

// The spans of a text, from the logits of its words, of a head of the kind that is of words.
std::vector<FoundSpan> find_spans(const float *logits, size_t words, const Labels &labels);

// Null for a name that no kind has.
const Kind *find_kind(const std::string &name);
// For messages.
std::string names_of_kinds();

// 1 / (1 + exp(-x)), without overflow.
float sigmoid(float logit);

}  // namespace bitheads

#endif
