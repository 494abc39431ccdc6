// JSON, read with bounds, and written as Python's json module writes it: hashes are of that.
#ifndef BITHEADS_HOST_JSON_H
#define BITHEADS_HOST_JSON_H

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace bitheads {

using Json = nlohmann::json;

// Throws Json::exception for what is no JSON, or is nested deeper than anything of ours.
Json parse_json(std::string_view text);

// The text without the byte order mark that a file may begin with.
std::string_view without_byte_order_mark(std::string_view text);

// json.dumps(value, sort_keys=True), or with separators=(",", ":") if it is compact.
std::string python_json(const Json &value, bool compact = false);

// A whole number within the two bounds; throws std::invalid_argument for others, true and 2.0.
int64_t whole_number(const Json &value, int64_t least, int64_t most);

// repr(value) of a float.
std::string python_float(double value);

}  // namespace bitheads

#endif
