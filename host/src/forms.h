// A head answers texts of the form that it was made for: single texts, or pairs.
#ifndef BITHEADS_HOST_FORMS_H
#define BITHEADS_HOST_FORMS_H

#include <vector>

#include "heads.h"

namespace bitheads {

// Whether each text is a pair.
std::vector<bool> forms_of(const std::vector<Text> &texts);

// The heads that answer these texts.
//
// is_pair: whether each text is a pair; empty where that is not known, which fits all heads.
// are_named: whether the caller named the heads. Then one that does not fit a text is an
// Error(invalid_input); otherwise it does not answer. Single texts and pairs in one call, which no
// head fits, are that error too.
Heads choose_fitting(const Heads &heads, const std::vector<bool> &is_pair, bool are_named);

// Those that answer codes of texts as the encoder read them: all but those of two texts, of which
// one that is named is an Error(invalid_input).
Heads choose_of_codes(const Heads &heads, bool are_named);

// Those that answer pairs of texts that were encoded each by itself: those of two texts. One of
// another form that is named is an Error(invalid_input).
Heads choose_of_two_texts(const Heads &heads, bool are_named);

}  // namespace bitheads

#endif
