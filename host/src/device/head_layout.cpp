#include "device/head_layout.h"

#include <map>

namespace bitheads {
namespace {

constexpr size_t kAlignment = 256;

// Bias of a token's score where a head reads that token alone.
constexpr float kOneTokenOnly = 1e30F;

// What a text's first and last tokens score more.
std::array<float, 2> end_bias_of(bh_position_pooling pooling) {
  return {pooling == BH_CLS ? kOneTokenOnly : 0.0F, pooling == BH_LAST ? kOneTokenOnly : 0.0F};
}

}  // namespace

size_t Arena::add(const void *data, size_t bytes) {
  const size_t offset = content_.size();
  const auto *first = static_cast<const uint8_t *>(data);
  content_.insert(content_.end(), first, first + bytes);
  content_.resize((content_.size() + kAlignment - 1) / kAlignment * kAlignment);
  return offset;
}

std::vector<Matrix> matrices_of(const FoldedHead &head) {
  const int64_t dim = head.spec.dim;
  const auto inner = static_cast<int64_t>(head.dense_bias.size());
  const auto outputs = static_cast<int64_t>(num_text_outputs(head));
  std::vector<Matrix> matrices;
  for (int64_t i = 0; i < head.attention_heads; ++i) {
    const int64_t size = dim / head.attention_heads;
    matrices.push_back({head.value.data() + i * size * dim, nullptr, size, dim});
  }
  matrices.push_back({head.dense.data(), head.dense_bias.data(), inner, dim});
  matrices.push_back({head.output.data(), head.output_bias.data(), outputs, inner});
  return matrices;
}

Columns::Columns(const FoldedHeads &heads, size_t dim) {
  std::map<bh_position_pooling, size_t> shared;
  for (const auto &head : heads) {
    const bh_position_pooling pooling = head->position_pooling;
    if (head->attention_heads > 0) {
      first.push_back(size());
      queries.insert(queries.end(), head->query.begin(), head->query.end());
      end_bias.insert(end_bias.end(), static_cast<size_t>(head->attention_heads),
                      end_bias_of(pooling));
      continue;
    }
    const auto [place, is_new] = shared.emplace(pooling, size());
    first.push_back(place->second);
    if (is_new) {
      // Equal scores are equal weights; a huge one takes all the weight.
      queries.resize(queries.size() + dim, 0.0F);
      end_bias.push_back(end_bias_of(pooling));
    }
  }
}

}  // namespace bitheads
