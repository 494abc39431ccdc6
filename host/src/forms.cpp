#include "forms.h"

#include <algorithm>

#include "error.h"

namespace bitheads {
namespace {

const char *shown(bool is_pair) {
  return is_pair ? "a pair" : "a single text";
}

// Those that `fits`; the others, if they are named, are an error that `fix` ends.
template <class Fits>
Heads choose(const Heads &heads, bool are_named, const Fits &fits, const char *fix) {
  Heads fitting;
  for (const auto &head : heads) {
    if (fits(*head)) {
      fitting.push_back(head);
    } else if (are_named) {
      fail(Status::invalid_input, "task '", head->task, "': its form is ", name_of(head->form),
           fix);
    }
  }
  return fitting;
}

}  // namespace

std::vector<bool> forms_of(const std::vector<Text> &texts) {
  std::vector<bool> is_pair;
  is_pair.reserve(texts.size());
  for (const Text &text : texts) is_pair.push_back(text.is_pair);
  return is_pair;
}

Heads choose_fitting(const Heads &heads, const std::vector<bool> &is_pair, bool are_named) {
  const auto first_of = [&](bool form) {
    return static_cast<size_t>(std::find(is_pair.begin(), is_pair.end(), form) - is_pair.begin());
  };
  Heads fitting;
  for (const auto &head : heads) {
    const bool answers_pairs = reads_pairs(head->form);
    const size_t other = first_of(!answers_pairs);
    if (other == is_pair.size()) {
      fitting.push_back(head);
    } else if (are_named) {
      fail(Status::invalid_input, "task '", head->task, "': its head answers ",
           answers_pairs ? "pairs" : "single texts", ", text ", other, " is ",
           shown(!answers_pairs), ". Ask it of texts of its form only.");
    }
  }
  const size_t single = first_of(false);
  const size_t pair = first_of(true);
  if (!heads.empty() && single < is_pair.size() && pair < is_pair.size()) {
    fail(Status::invalid_input, "texts: got single texts and pairs in one call (text ", single,
         " is ", shown(false), ", text ", pair, " is ", shown(true),
         "), expected one form: no head answers both. Ask for each form in a call of its own.");
  }
  return fitting;
}

Heads choose_of_codes(const Heads &heads, bool are_named) {
  return choose(
      heads, are_named, [](const LaidOutHead &head) { return head.form != Form::two_texts; },
      ", which answers pairs of texts that were encoded each by itself, expected another of a "
      "call of predict_features. Ask predict_pairs.");
}

Heads choose_of_two_texts(const Heads &heads, bool are_named) {
  return choose(
      heads, are_named, [](const LaidOutHead &head) { return head.form == Form::two_texts; },
      ", expected two_texts of a call of predict_pairs. Ask predict or predict_features.");
}

}  // namespace bitheads
