/* JSON, read with bounds, and written as Python's json module writes it: hashes are of that. */
#ifndef BITHEADS_HOST_JSON_H
#define BITHEADS_HOST_JSON_H

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace bitheads {

using Json = nlohmann::json;

/* Throws Json::exception for what is no JSON, or nested deeper than anything of ours. */
Json parse_json(std::string_view text);

/* json.dumps(value, sort_keys=True), or with separators=(",", ":") if it is compact. */
std::string python_json(const Json &value, bool compact = false);

/* repr(value) of a float. */
std::string python_float(double value);

}  // namespace bitheads

#endif
