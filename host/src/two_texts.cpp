// Heads of two texts: each text's vector, which depends on nothing but that text; what a pair's
// vectors make together; and the answer to that. kernels/SPEC.md, combine_texts.
#include <algorithm>
#include <iterator>
#include <numeric>
#include <optional>

#include "bitheads/kernels.h"
#include "heads.h"
#include "parallel.h"

namespace bitheads {
namespace {

constexpr size_t kPairsAtOnce = 240;  // whose codes are then still in the cache: 4 blocks of texts

// Vectors that are kept at a time, in bytes: of so many heads as that comes to, but of one at
// least.
constexpr size_t kMaxVectorBytes = 64 << 20;

// Some of the features' texts, and pairs of these.
struct Asked {
  PackedFeatures features;
  std::vector<RowPair> pairs;
};

// Those that pairs ask for; nothing where these are all of them.
std::optional<Asked> leave_out_unasked(const PackedFeatures &features,
                                       const std::vector<RowPair> &pairs) {
  std::vector<int64_t> places(features.size(), -1);
  const auto place_of = [&](int64_t row) -> int64_t & { return places[static_cast<size_t>(row)]; };
  for (const RowPair &pair : pairs) place_of(pair.first) = place_of(pair.second) = 0;
  if (std::count(places.begin(), places.end(), -1) == 0) return std::nullopt;
  Asked asked;
  asked.features.code_bytes = features.code_bytes;
  const auto code = [&](int64_t token) {
    return features.codes.begin() + token * features.code_bytes;
  };
  for (size_t text = 0; text < features.size(); ++text) {
    if (places[text] < 0) continue;
    places[text] = static_cast<int64_t>(asked.features.size());
    const int64_t *tokens = features.offsets.data() + text;
    asked.features.codes.insert(asked.features.codes.end(), code(tokens[0]), code(tokens[1]));
    asked.features.offsets.push_back(asked.features.offsets.back() + tokens[1] - tokens[0]);
  }
  for (const RowPair &pair : pairs) {
    asked.pairs.push_back({place_of(pair.first), place_of(pair.second)});
  }
  return asked;
}

// As many heads, from the first on, as vectors of all texts may be kept of.
size_t end_of_group(const Heads &heads, size_t first, size_t texts) {
  size_t bytes = 0;
  size_t end = first;
  do {
    bytes += texts * heads[end++]->vector_size * sizeof(float);
  } while (end < heads.size() && bytes < kMaxVectorBytes);
  return end;
}

}  // namespace

std::vector<Prediction> HeadThreads::predict_pairs(const PackedFeatures &features,
                                                   const std::vector<RowPair> &pairs,
                                                   const FeatureSpec &spec, const Heads &heads) {
  check_lengths(features);
  if (const auto asked = leave_out_unasked(features, pairs)) {
    return predict_pairs(asked->features, asked->pairs, spec, heads);
  }
  Outputs outputs;
  for (size_t first = 0; first < heads.size();) {
    const size_t end = end_of_group(heads, first, features.size());
    const Heads group(heads.begin() + static_cast<ptrdiff_t>(first),
                      heads.begin() + static_cast<ptrdiff_t>(end));
    const Outputs vectors = run_blocks(features, spec, group);
    Outputs of_group = run_pair_blocks(vectors, pairs, group);
    std::move(of_group.begin(), of_group.end(), std::back_inserter(outputs));
    first = end;
  }
  return answers_of(heads, std::move(outputs));
}

Outputs HeadThreads::run_pair_blocks(const Outputs &vectors, const std::vector<RowPair> &pairs,
                                     const Heads &heads) {
  Outputs outputs;
  size_t bytes = 0;
  for (const auto &head : heads) {
    outputs.emplace_back(pairs.size() * head->num_outputs);
    bytes += static_cast<size_t>(head->pair_block.size());
  }
  const std::vector<Part> calls = parts(pairs.size(), heads.size(), bytes);
  for_each_on_threads(threads_, calls.size(), [&](size_t i) {
    const Part &part = calls[i];
    for (size_t head = part.first_head; head < part.last_head; ++head) {
      for (size_t pair = part.first_text; pair < part.last_text; pair += kPairsAtOnce) {
        run_pair_block(*heads[head], vectors[head], pairs.data() + pair,
                       std::min(kPairsAtOnce, part.last_text - pair),
                       outputs[head].data() + pair * heads[head]->num_outputs);
      }
    }
  });
  return outputs;
}

void HeadThreads::run_pair_block(const LaidOutHead &head, const std::vector<float> &vectors,
                                 const RowPair *pairs, size_t num_pairs, float *outputs) {
  const size_t size = head.vector_size;
  std::vector<int64_t> rows;
  for (size_t i = 0; i < num_pairs; ++i) {
    rows.push_back(pairs[i].first);
    rows.push_back(pairs[i].second);
  }
  std::vector<uint8_t> codes(num_pairs * combined_size(size));
  std::vector<int16_t> workspace(2 * size);
  bh_combine_texts_args args = {};
  args.vectors = vectors.data();
  args.texts = static_cast<int64_t>(vectors.size() / size);
  args.size = static_cast<int64_t>(size);
  args.pairs = rows.data();
  args.num_pairs = static_cast<int64_t>(num_pairs);
  args.codes = codes.data();
  args.workspace = workspace.data();
  check_call(bh_combine_texts(&args));
  std::vector<int64_t> offsets(num_pairs + 1);  // a token each
  std::iota(offsets.begin(), offsets.end(), 0);
  run({codes.data(), offsets.data(), num_pairs, offsets.back(),
       static_cast<int64_t>(combined_size(size)), BH_UINT8},
      {&head.pair_block}, {outputs});
}

}  // namespace bitheads
