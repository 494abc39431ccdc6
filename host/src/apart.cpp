#include "apart.h"

#include <string_view>
#include <unordered_map>

namespace bitheads {

TextsApart take_apart(const std::vector<Text> &pairs) {
  TextsApart apart;
  std::unordered_map<std::string_view, int64_t> rows;
  const auto row_of = [&](const std::string &text) {
    const auto [found, is_new] = rows.try_emplace(text, static_cast<int64_t>(apart.texts.size()));
    if (is_new) apart.texts.emplace_back(text);
    return found->second;
  };
  for (const Text &pair : pairs) {
    const int64_t first = row_of(pair.first);
    apart.pairs.push_back({first, row_of(pair.second)});
  }
  return apart;
}

}  // namespace bitheads
