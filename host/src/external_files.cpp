#include "external_files.h"

#include <cstdint>
#include <map>
#include <stdexcept>
#include <vector>

namespace bitheads {
namespace {

constexpr std::string_view kLocation = "location";  // the key of entries that name files
constexpr int kMaxDepth = 64;                       // of graphs within graphs

enum class Kind {
  kModel,
  kTraining,
  kGraph,
  kFunction,
  kNode,
  kAttribute,
  kSparse,
  kTensor,
  kEntry
};

// Messages of onnx.proto that lead to entries; `engine/files/external_files.py` has the same list.
const std::map<Kind, std::map<uint64_t, Kind>> fields_of = {
    {Kind::kModel, {{7, Kind::kGraph}, {20, Kind::kTraining}, {25, Kind::kFunction}}},
    {Kind::kTraining, {{1, Kind::kGraph}, {2, Kind::kGraph}}},
    {Kind::kGraph, {{1, Kind::kNode}, {5, Kind::kTensor}, {15, Kind::kSparse}}},
    {Kind::kFunction, {{7, Kind::kNode}, {11, Kind::kAttribute}}},
    {Kind::kNode, {{5, Kind::kAttribute}}},
    {Kind::kAttribute,
     {{5, Kind::kTensor},
      {6, Kind::kGraph},
      {10, Kind::kTensor},
      {11, Kind::kGraph},
      {22, Kind::kSparse},
      {23, Kind::kSparse}}},
    {Kind::kSparse, {{1, Kind::kTensor}, {2, Kind::kTensor}}},
    {Kind::kTensor, {{13, Kind::kEntry}}},
    {Kind::kEntry, {}},
};

// Takes a number off the front.
uint64_t take_varint(std::string_view &text) {
  uint64_t value = 0;
  for (int shift = 0; shift < 70 && !text.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(text.front());
    text.remove_prefix(1);
    value |= shift < 64 ? static_cast<uint64_t>(byte & 0x7F) << shift : 0;
    if (byte < 0x80) return value;
  }
  throw std::invalid_argument("a number without an end");
}

// A field with a length.
struct Field {
  uint64_t number;
  std::string_view content;
};

std::vector<Field> fields(std::string_view message) {
  std::vector<Field> found;
  while (!message.empty()) {
    const uint64_t key = take_varint(message);
    const uint64_t wire = key & 7;
    uint64_t size = wire == 1 ? 8 : 4;
    if (wire == 0) {
      take_varint(message);
      continue;
    }
    if (wire == 2) {
      size = take_varint(message);
    } else if (wire != 1 && wire != 5) {
      throw std::invalid_argument("a field of the kind " + std::to_string(wire));
    }
    if (size > message.size()) throw std::invalid_argument("a field that goes past its end");
    if (wire == 2) found.push_back({key >> 3 & 0x1FFFFFFF, message.substr(0, size)});
    message.remove_prefix(size);
  }
  return found;
}

void add_names(Kind kind, std::string_view message, int depth, std::set<std::string> &names) {
  if (depth > kMaxDepth) throw std::invalid_argument("messages more than 64 levels deep");
  const auto &within = fields_of.at(kind);
  bool is_location = false;
  const std::vector<Field> found = fields(message);
  for (const Field &field : found) {
    is_location = is_location || (field.number == 1 && field.content == kLocation);
    if (const auto inner = within.find(field.number); inner != within.end()) {
      add_names(inner->second, field.content, depth + 1, names);
    }
  }
  if (kind == Kind::kEntry && is_location) {
    for (const Field &field : found) {
      if (field.number == 2) names.emplace(field.content);
    }
  }
}

}  // namespace

std::set<std::string> external_files(std::string_view graph) {
  std::set<std::string> names;
  if (graph.find(kLocation) != std::string_view::npos) add_names(Kind::kModel, graph, 0, names);
  return names;
}

}  // namespace bitheads
