#include "external_files.h"

#include <cstdint>
#include <map>
#include <stdexcept>
#include <vector>

namespace bitheads {
namespace {

constexpr std::string_view location = "location"; /* key of the entries that name files */
constexpr int max_depth = 64;                     /* of graphs within graphs */

enum class Kind { model, training, graph, function, node, attribute, sparse, tensor, entry };

/* Messages of onnx.proto that lead to entries; `engine/files/external_files.py` has the same list.
 */
const std::map<Kind, std::map<std::uint64_t, Kind>> fields_of = {
    {Kind::model, {{7, Kind::graph}, {20, Kind::training}, {25, Kind::function}}},
    {Kind::training, {{1, Kind::graph}, {2, Kind::graph}}},
    {Kind::graph, {{1, Kind::node}, {5, Kind::tensor}, {15, Kind::sparse}}},
    {Kind::function, {{7, Kind::node}, {11, Kind::attribute}}},
    {Kind::node, {{5, Kind::attribute}}},
    {Kind::attribute,
     {{5, Kind::tensor},
      {6, Kind::graph},
      {10, Kind::tensor},
      {11, Kind::graph},
      {22, Kind::sparse},
      {23, Kind::sparse}}},
    {Kind::sparse, {{1, Kind::tensor}, {2, Kind::tensor}}},
    {Kind::tensor, {{13, Kind::entry}}},
    {Kind::entry, {}},
};

/* Takes a number off the front. */
std::uint64_t take_varint(std::string_view &text) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 70 && !text.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(text.front());
    text.remove_prefix(1);
    value |= shift < 64 ? static_cast<std::uint64_t>(byte & 0x7F) << shift : 0;
    if (byte < 0x80) {
      return value;
    }
  }
  throw std::invalid_argument("a number without an end");
}

/* A field with a length. */
struct Field {
  std::uint64_t number;
  std::string_view content;
};

std::vector<Field> fields(std::string_view message) {
  std::vector<Field> found;
  while (!message.empty()) {
    const std::uint64_t key = take_varint(message);
    const std::uint64_t wire = key & 7;
    std::uint64_t size = wire == 1 ? 8 : 4;
    if (wire == 0) {
      take_varint(message);
      continue;
    }
    if (wire == 2) {
      size = take_varint(message);
    } else if (wire != 1 && wire != 5) {
      throw std::invalid_argument("a field of the kind " + std::to_string(wire));
    }
    if (size > message.size()) {
      throw std::invalid_argument("a field that goes past its end");
    }
    if (wire == 2) {
      found.push_back({key >> 3 & 0x1FFFFFFF, message.substr(0, size)});
    }
    message.remove_prefix(size);
  }
  return found;
}

void add_names(Kind kind, std::string_view message, int depth, std::set<std::string> &names) {
  if (depth > max_depth) {
    throw std::invalid_argument("messages more than 64 levels deep");
  }
  const auto &within = fields_of.at(kind);
  bool is_location = false;
  const std::vector<Field> found = fields(message);
  for (const Field &field : found) {
    is_location = is_location || (field.number == 1 && field.content == location);
    if (const auto inner = within.find(field.number); inner != within.end()) {
      add_names(inner->second, field.content, depth + 1, names);
    }
  }
  if (kind == Kind::entry && is_location) {
    for (const Field &field : found) {
      if (field.number == 2) {
        names.emplace(field.content);
      }
    }
  }
}

}  // namespace

std::set<std::string> external_files(std::string_view graph) {
  std::set<std::string> names;
  if (graph.find(location) != std::string_view::npos) {
    add_names(Kind::model, graph, 0, names);
  }
  return names;
}

}  // namespace bitheads
