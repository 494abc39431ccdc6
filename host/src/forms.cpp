#include "forms.h"

#include <algorithm>

#include "error.h"

namespace bitheads {
namespace {

const char *shown(bool is_pair) {
  return is_pair ? "a pair" : "a single text";
}

}  // namespace

Heads choose_fitting(const Heads &heads, const std::vector<bool> &is_pair, bool are_named) {
  const auto first_of = [&](bool form) {
    return static_cast<size_t>(std::find(is_pair.begin(), is_pair.end(), form) - is_pair.begin());
  };
  Heads fitting;
  for (const auto &head : heads) {
    const size_t other = first_of(!head->is_pair);
    if (other == is_pair.size()) {
      fitting.push_back(head);
    } else if (are_named) {
      fail(Status::invalid_input, "task '", head->task, "': its head answers ",
           head->is_pair ? "pairs" : "single texts", ", text ", other, " is ",
           shown(!head->is_pair), ". Ask it of texts of its form only.");
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

}  // namespace bitheads
