#include "encoder.h"

#include "error.h"

namespace bitheads {

std::vector<PackedFeatures> Encoder::encode_chunks(const NextChunk &next, bool embeddings) {
  std::vector<PackedFeatures> all;
  while (const auto texts = next()) all.push_back(encode(*texts, embeddings));
  return all;
}

int64_t Encoder::token_types() const {
  return manifest_.token_types > 0 ? manifest_.token_types : rows_.token_types;
}

void Encoder::check(const std::vector<Tokens> &texts) const {
  const int64_t token_types = this->token_types();
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto size = static_cast<int64_t>(texts[i].ids.size());
    if (size < 1 || size > manifest_.max_length) {
      fail(Status::invalid_input, "text ", i, ": got ", size, " token ids, expected 1 to ",
           manifest_.max_length, ", the tokenizer's own included. Cut it.");
    }
    if (token_types == 1 && texts[i].num_first < texts[i].ids.size()) {
      fail(Status::invalid_input, "text ", i,
           ": got a pair, whose second text has the token type 1, but the encoder's table of token "
           "types has 1 rows: it reads single texts only. Pass the two texts one by one, or take "
           "another encoder.");
    }
    for (const int32_t id : texts[i].ids) {
      if (id < 0 || id >= rows_.vocabulary) {
        fail(Status::invalid_input, "text ", i, ": got the token id ", id, ", expected 0 to ",
             rows_.vocabulary - 1, ". Use the bundle's own tokenizer.");
      }
    }
  }
}

PackedFeatures Encoder::make_features(const std::vector<int64_t> &lengths, bool embeddings) const {
  PackedFeatures features;
  features.code_bytes = manifest_.spec.code_bytes;
  features.spec_id = manifest_.spec.id;
  for (const int64_t length : lengths) {
    features.offsets.push_back(features.offsets.back() + length);
  }
  features.codes.resize(static_cast<size_t>(features.offsets.back() * features.code_bytes));
  if (embeddings) {
    features.embedding_dim = manifest_.embedding->dim;
    features.embeddings.resize(lengths.size() * static_cast<size_t>(features.embedding_dim));
  }
  return features;
}

std::vector<int64_t> lengths_of(const std::vector<Tokens> &texts) {
  std::vector<int64_t> lengths;
  for (const Tokens &text : texts) lengths.push_back(static_cast<int64_t>(text.ids.size()));
  return lengths;
}

std::vector<int64_t> lengths_of(const std::vector<const Tokens *> &texts) {
  std::vector<int64_t> lengths;
  for (const Tokens *text : texts) lengths.push_back(static_cast<int64_t>(text->ids.size()));
  return lengths;
}

}  // namespace bitheads
