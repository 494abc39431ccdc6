#include "distinct.h"

#include <functional>
#include <string_view>
#include <unordered_map>

namespace bitheads {
namespace {

struct Hash {
  size_t operator()(const Text *text) const {
    constexpr size_t kSpread = 0x9e3779b97f4a7c15;  // so that (a, b) is not (b, a)
    const std::hash<std::string_view> hash;
    return hash(text->first) * kSpread + hash(text->second) + (text->is_pair ? 1 : 0);
  }
};

struct Equal {
  bool operator()(const Text *a, const Text *b) const {
    return a->is_pair == b->is_pair && a->first == b->first && a->second == b->second;
  }
};

}  // namespace

std::optional<DistinctTexts> find_distinct(const std::vector<Text> &texts) {
  if (texts.size() < 2) return std::nullopt;
  std::unordered_map<const Text *, size_t, Hash, Equal> rows;
  rows.reserve(texts.size());
  DistinctTexts distinct;
  distinct.places.reserve(texts.size());
  for (const Text &text : texts) {
    distinct.places.push_back(rows.try_emplace(&text, rows.size()).first->second);
  }
  if (rows.size() == texts.size()) return std::nullopt;
  distinct.texts.reserve(rows.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    if (distinct.places[i] == distinct.texts.size()) distinct.texts.push_back(texts[i]);
  }
  return distinct;
}

}  // namespace bitheads
