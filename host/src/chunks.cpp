#include "chunks.h"

#include <algorithm>
#include <numeric>

#include "utf8.h"

namespace bitheads {
namespace {

// These are as in engine/text_chunks.py, so that both hosts cut the same batches.
constexpr size_t kLeastTexts = 256;
constexpr int64_t kCharsPerBatchToken = 128;
constexpr int64_t kPartChars = 1 << 24;

// Runs of items whose beginnings lie in the same stretch of `most`.
std::vector<Chunk> runs_of(const Chunk &items, const std::vector<int64_t> &sizes, int64_t most) {
  std::vector<Chunk> runs;
  int64_t before = 0;
  int64_t stretch = -1;
  for (const size_t item : items) {
    if (before / most != stretch) {
      stretch = before / most;
      runs.emplace_back();
    }
    runs.back().push_back(item);
    before += sizes[item];
  }
  return runs;
}

// The texts of a call by which of the different ones they are.
struct CallTexts {
  std::vector<size_t> starts;
  std::vector<size_t> texts;

  struct Range {
    const size_t *first;
    const size_t *last;
    const size_t *begin() const { return first; }
    const size_t *end() const { return last; }
  };
  Range of(size_t different) const {
    return {texts.data() + starts[different], texts.data() + starts[different + 1]};
  }
};

CallTexts invert(const std::vector<size_t> &places, size_t num_different) {
  if (places.empty()) return {every_text(num_different + 1), every_text(num_different)};
  CallTexts found;
  found.starts.resize(num_different + 1);
  for (const size_t place : places) ++found.starts[place + 1];
  std::partial_sum(found.starts.begin(), found.starts.end(), found.starts.begin());
  found.texts.resize(places.size());
  std::vector<size_t> next(found.starts.begin(), found.starts.end() - 1);
  for (size_t text = 0; text < places.size(); ++text) found.texts[next[places[text]]++] = text;
  return found;
}

}  // namespace

Chunk every_text(size_t count) {
  Chunk all(count);
  std::iota(all.begin(), all.end(), size_t{0});
  return all;
}

std::vector<Chunk> cut_chunks(const std::vector<Text> &texts, int64_t max_batch_tokens) {
  const Chunk all = every_text(texts.size());
  if (texts.size() < kLeastTexts) return {all};
  std::vector<int64_t> chars;
  for (const Text &text : texts) {
    const size_t count = count_chars(text.first) + (text.is_pair ? count_chars(text.second) : 0);
    chars.push_back(static_cast<int64_t>(count));
  }
  constexpr int64_t kMost = kPartChars / kCharsPerBatchToken;  // so that no product is too large
  const int64_t chunk_chars = kCharsPerBatchToken * std::min(max_batch_tokens, kMost);
  if (std::accumulate(chars.begin(), chars.end(), int64_t{0}) <= chunk_chars) return {all};
  std::vector<Chunk> chunks;
  for (Chunk &part : runs_of(all, chars, kPartChars)) {
    std::stable_sort(part.begin(), part.end(),
                     [&](size_t a, size_t b) { return chars[a] > chars[b]; });
    for (Chunk &chunk : runs_of(part, chars, chunk_chars)) chunks.push_back(std::move(chunk));
  }
  return chunks;
}

PackedFeatures in_order(std::vector<PackedFeatures> parts, const std::vector<Chunk> &chunks,
                        const std::vector<size_t> &places) {
  if (parts.size() == 1 && places.empty()) return std::move(parts.front());
  size_t texts = 0;
  for (const Chunk &chunk : chunks) texts += chunk.size();
  const auto call_texts = invert(places, texts);
  PackedFeatures features;
  features.code_bytes = parts.front().code_bytes;
  features.spec_id = parts.front().spec_id;
  features.offsets.resize(call_texts.texts.size() + 1);
  for (size_t i = 0; i < chunks.size(); ++i) {
    for (size_t j = 0; j < chunks[i].size(); ++j) {
      for (const size_t text : call_texts.of(chunks[i][j])) {
        features.offsets[text + 1] = parts[i].offsets[j + 1] - parts[i].offsets[j];
      }
    }
  }
  std::partial_sum(features.offsets.begin(), features.offsets.end(), features.offsets.begin());
  features.codes.resize(static_cast<size_t>(features.offsets.back() * features.code_bytes));
  features.embedding_dim = parts.front().embedding_dim;
  const auto dim = static_cast<size_t>(features.embedding_dim);
  features.embeddings.resize(call_texts.texts.size() * dim);
  for (size_t i = 0; i < chunks.size(); ++i) {
    const PackedFeatures part = std::move(parts[i]);
    for (size_t j = 0; j < chunks[i].size(); ++j) {
      const auto begin = part.codes.begin() + part.offsets[j] * part.code_bytes;
      const auto end = part.codes.begin() + part.offsets[j + 1] * part.code_bytes;
      for (const size_t text : call_texts.of(chunks[i][j])) {
        std::copy(begin, end,
                  features.codes.begin() + features.offsets[text] * features.code_bytes);
        std::copy_n(part.embeddings.data() + j * dim, dim, features.embeddings.data() + text * dim);
      }
    }
  }
  return features;
}

}  // namespace bitheads
