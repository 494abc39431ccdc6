// Pairs as two texts: which texts there are, each once, and which of them go together.
#ifndef BITHEADS_HOST_APART_H
#define BITHEADS_HOST_APART_H

#include <vector>

#include "bitheads/bitheads.hpp"

namespace bitheads {

struct TextsApart {
  std::vector<Text> texts;  // single ones, in the order in which they come
  std::vector<RowPair> pairs;
};

// The texts of pairs.
TextsApart take_apart(const std::vector<Text> &pairs);

}  // namespace bitheads

#endif
