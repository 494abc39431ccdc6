// The texts of a call, each of them once: what is equal is encoded only once.
#ifndef BITHEADS_HOST_DISTINCT_H
#define BITHEADS_HOST_DISTINCT_H

#include <cstddef>
#include <optional>
#include <vector>

#include "bitheads/bitheads.hpp"

namespace bitheads {

struct DistinctTexts {
  std::vector<Text> texts;     // in the order in which they come
  std::vector<size_t> places;  // of each text of the call, which of them it is
};

// Nothing if no two are equal.
std::optional<DistinctTexts> find_distinct(const std::vector<Text> &texts);

}  // namespace bitheads

#endif
