// Texts as code points: limits on a text's length count those.
#ifndef BITHEADS_HOST_UTF8_H
#define BITHEADS_HOST_UTF8_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bitheads {

// Where the first byte is that begins no code point; the text's size if there is none. Surrogates
// and overlong forms are no code points.
size_t find_invalid_utf8(std::string_view text);
// The text with a question mark for each byte that is part of no code point.
std::string to_valid_utf8(std::string text);

// The functions below want valid UTF-8.
struct CodePoint {
  uint32_t code;
  size_t bytes;
};
// The one that begins at a byte.
CodePoint code_point_at(std::string_view text, size_t at);
// Where the character before a byte begins, where one does.
size_t char_before(std::string_view text, size_t at);
size_t count_chars(std::string_view text);
// The first so many characters.
std::string_view first_chars(std::string_view text, size_t chars);
// The same, but only up to the last blank in their second half, if there is one.
std::string_view cut_at_space(std::string_view text, size_t chars);

}  // namespace bitheads

#endif
