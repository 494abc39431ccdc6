#include "utf8.h"

#include <cstdint>

namespace bitheads {
namespace {

bool continues(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

// Bytes of the code point at the front, 0 if there is none.
size_t code_point_bytes(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return 1;
  const size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < bytes) return 0;
  uint32_t code = lead & (0xFF >> (bytes + 1));
  for (size_t i = 1; i < bytes; ++i) {
    if (!continues(text[i])) return 0;
    code = code << 6 | (static_cast<unsigned char>(text[i]) & 0x3F);
  }
  const bool is_overlong = (bytes == 3 && code < 0x800) || (bytes == 4 && code < 0x10000);
  const bool is_surrogate = code >= 0xD800 && code < 0xE000;
  return is_overlong || is_surrogate || code > 0x10FFFF ? 0 : bytes;
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t bytes = code_point_bytes(text.substr(at));
    if (bytes == 0) break;
    at += bytes;
  }
  return at;
}

std::string to_valid_utf8(std::string text) {
  size_t at = 0;
  while ((at += find_invalid_utf8(std::string_view(text).substr(at))) < text.size()) text[at] = '?';
  return text;
}

CodePoint code_point_at(std::string_view text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  if (lead < 0x80) return {lead, 1};
  const size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  uint32_t code = lead & (0xFF >> (bytes + 1));
  for (size_t i = 1; i < bytes; ++i) {
    code = code << 6 | (static_cast<unsigned char>(text[at + i]) & 0x3F);
  }
  return {code, bytes};
}

size_t char_before(std::string_view text, size_t at) {
  do --at;
  while (continues(text[at]));
  return at;
}

size_t count_chars(std::string_view text) {
  size_t chars = 0;
  for (const char byte : text) chars += continues(byte) ? 0 : 1;
  return chars;
}

std::string_view first_chars(std::string_view text, size_t chars) {
  size_t at = 0;
  for (; at < text.size(); ++at) {
    if (!continues(text[at]) && chars-- == 0) break;
  }
  return text.substr(0, at);
}

std::string_view cut_at_space(std::string_view text, size_t chars) {
  const std::string_view prefix = first_chars(text, chars);
  if (prefix.size() == text.size()) return text;
  const size_t space = prefix.find_last_of(" \n\t");
  if (space != std::string_view::npos && count_chars(prefix.substr(0, space)) > chars / 2) {
    return prefix.substr(0, space);
  }
  return prefix;
}

}  // namespace bitheads
