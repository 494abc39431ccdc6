// Passes of texts through a bundle's encoder: to codes, and to what the encoder's heads make of
// them.
#ifndef BITHEADS_HOST_TEXT_PASSES_H
#define BITHEADS_HOST_TEXT_PASSES_H

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bundle.h"
#include "chunks.h"
#include "distinct.h"
#include "encoder.h"
#include "heads.h"
#include "tokenizer.h"

namespace bitheads {

// All calls throw Error(backend) if there is no tokenizer, and what Tokenizer and Encoder throw.
class TextPasses {
 public:
  // A missing tokenizer is an error only when texts come in: token ids need none.
  TextPasses(ov::Core &core, const fs::path &folder, const Manifest &manifest,
             const Options &options, Encoder &encoder);

  // Token ids of texts; `features` gets to know what is not in them.
  std::vector<Tokens> tokenize(const std::vector<Text> &texts, bool words,
                               PackedFeatures &features);
  // Equal texts go through the encoder once.
  PackedFeatures encode(const std::vector<Text> &texts, bool words, bool embeddings);
  // The same, of an encoder that runs heads itself.
  Outputs encode_and_predict(const std::vector<Text> &texts, const Heads &heads);

 private:
  // Nothing if no two are equal, and for texts that an error may call by their numbers.
  std::optional<DistinctTexts> distinct_of(const std::vector<Text> &texts) const;
  // Whether nothing can be wrong with these texts that is found only when they are tokenized.
  bool may_be_renumbered(const std::vector<Text> &texts) const;
  // `cut` becomes what there is to know of the texts beside their token ids.
  PackedFeatures encode_one_chunk(const std::vector<Text> &texts, bool words, bool embeddings,
                                  std::vector<CutTokens> &cut);
  // The same chunk by chunk, of which the next is tokenized while one is encoded.
  std::vector<PackedFeatures> encode_chunks(const std::vector<Text> &texts,
                                            const std::vector<Chunk> &chunks, bool words,
                                            bool embeddings, std::vector<CutTokens> &cut);

  Encoder &encoder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::string no_tokenizer_;  // why there is none
};

}  // namespace bitheads

#endif
