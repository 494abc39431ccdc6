// What goes to the device of heads: their weights in one piece, and their queries in one matrix.
#ifndef BITHEADS_HOST_DEVICE_HEAD_LAYOUT_H
#define BITHEADS_HOST_DEVICE_HEAD_LAYOUT_H

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "head_file.h"

namespace bitheads {

using FoldedHeads = std::vector<std::shared_ptr<const FoldedHead>>;

// Numbers that a head makes of a text: of a head of two texts, the text's vector.
inline size_t num_text_outputs(const FoldedHead &head) {
  return head.output_bias.size();
}

// Weights on their way to the device, in one piece.
class Arena {
 public:
  // Its offset, a multiple of 256.
  size_t add(const void *data, size_t bytes);
  template <class Item>
  size_t add(const std::vector<Item> &items) {
    return add(items.data(), items.size() * sizeof(Item));
  }

  const std::vector<uint8_t> &content() const { return content_; }

 private:
  std::vector<uint8_t> content_;
};

// A matrix of a head: float32 [n, k], and its bias [n] or null.
struct Matrix {
  const float *weights;
  const float *bias;
  int64_t n;
  int64_t k;
};

// Stage by stage: one value projection per attention head, then dense, then output.
std::vector<Matrix> matrices_of(const FoldedHead &head);

// The queries of all heads, one below the other. Heads that do not attend share a column of zeros
// with the others of their pooling.
struct Columns {
  Columns(const FoldedHeads &heads, size_t dim);

  size_t size() const { return end_bias.size(); }

  std::vector<float> queries;                  // [columns, dim]
  std::vector<std::array<float, 2>> end_bias;  // [columns, 2]: of a text's first and last token
  std::vector<size_t> first;                   // the first column of each head
};

}  // namespace bitheads

#endif
