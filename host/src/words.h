// Words of texts, by the rule of engine/features/words.py: what heads of the kind token_label read.
#ifndef BITHEADS_HOST_WORDS_H
#define BITHEADS_HOST_WORDS_H

#include <cstddef>
#include <string_view>
#include <vector>

namespace bitheads {

// Part of a text, in bytes.
struct Place {
  size_t start = 0;
  size_t end = 0;
};

// Runs of characters that are neither blank nor alone, and each character that is alone, in order.
// The text is valid UTF-8.
std::vector<Place> find_words(std::string_view text);

// Whether the character that begins at a byte is a blank: Unicode's White_Space.
bool is_blank(std::string_view text, size_t at);

}  // namespace bitheads

#endif
