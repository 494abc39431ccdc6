#include "json.h"

#include <charconv>
#include <cmath>
#include <stdexcept>

#include "classic_locale.h"

namespace bitheads {
namespace {

constexpr int kMaxDepth = 64;  // readers go down as deep

void append(std::string &out, const Json &value, bool compact) {
  const char *comma = compact ? "," : ", ";
  const char *colon = compact ? ":" : ": ";
  const char *between = "";
  if (value.is_object()) {
    out += '{';
    for (const auto &[key, item] : value.items()) {  // sorted by bytes, so by code point
      out += between;
      out += Json(key).dump(-1, ' ', true);
      out += colon;
      append(out, item, compact);
      between = comma;
    }
    out += '}';
  } else if (value.is_array()) {
    out += '[';
    for (const Json &item : value) {
      out += between;
      append(out, item, compact);
      between = comma;
    }
    out += ']';
  } else if (value.is_number_float()) {
    out += python_float(value.get<double>());
  } else {
    out += value.dump(-1, ' ', true);
  }
}

}  // namespace

Json parse_json(std::string_view text) {
  // The parser ends at a NUL, and passes over a byte order mark; other parsers do neither.
  if (text.find('\0') != std::string_view::npos ||
      without_byte_order_mark(text).size() < text.size()) {
    throw Json::other_error::create(599, "a NUL, or a byte order mark", nullptr);
  }
  const ClassicLocale
      numbers;  // the parser copes with other decimal points only if they are one byte
  using Event = Json::parse_event_t;
  return Json::parse(text.begin(), text.end(), [](int depth, Event event, Json &) {
    // For what begins here, the depth is that of what it is in.
    const bool begins = event == Event::object_start || event == Event::array_start;
    if (depth + (begins ? 1 : 0) > kMaxDepth) {
      throw Json::other_error::create(599, "nested deeper than 64 levels", nullptr);
    }
    return true;
  });
}

std::string_view without_byte_order_mark(std::string_view text) {
  return text.substr(text.substr(0, 3) == "\xEF\xBB\xBF" ? 3 : 0);
}

std::string python_json(const Json &value, bool compact) {
  std::string out;
  append(out, value, compact);
  return out;
}

int64_t whole_number(const Json &value, int64_t least, int64_t most) {
  if (!value.is_number_integer() || value < least || value > most) {
    throw std::invalid_argument("got " + value.dump().substr(0, 60) +
                                ", expected a whole number from " + std::to_string(least) + " to " +
                                std::to_string(most));
  }
  return value.get<int64_t>();
}

std::string python_float(double value) {
  // The fewest digits that read back as the same number, which to_chars and Python agree on; where
  // the point goes is Python's own: as it is from 1e-4 up to 1e16, else with an exponent.
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, std::fabs(value),
                                 std::chars_format::scientific);
  const std::string shown(buffer, end.ptr);
  const size_t e = shown.find('e');
  std::string digits = shown.substr(0, 1) + (e > 2 ? shown.substr(2, e - 2) : "");
  const int exponent = std::stoi(shown.substr(e + 1));
  std::string out = std::signbit(value) ? "-" : "";
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits.substr(0, 1) + (count > 1 ? "." + digits.substr(1) : "");
    out += exponent < 0 ? "e-" : "e+";
    const std::string size = std::to_string(std::abs(exponent));
    out += (size.size() < 2 ? "0" : "") + size;
  } else if (exponent < 0) {
    out += "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  } else if (exponent >= count - 1) {
    out += digits + std::string(static_cast<size_t>(exponent - count + 1), '0') + ".0";
  } else {
    const auto point = static_cast<size_t>(exponent + 1);
    out += digits.substr(0, point) + "." + digits.substr(point);
  }
  return out;
}

}  // namespace bitheads
