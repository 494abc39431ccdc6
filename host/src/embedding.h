// A text's embedding: one float vector of its last hidden states. engine/features/embedding.py has
// the same.
#ifndef BITHEADS_HOST_EMBEDDING_H
#define BITHEADS_HOST_EMBEDDING_H

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bitheads/bitheads.hpp"
#include "bitheads/cuda.h"
#include "files.h"
#include "json.h"

namespace bitheads {

enum class Activation { identity, tanh, relu, sigmoid, gelu, silu };

// What is done with the vector then.
struct EmbeddingStep {
  enum class Kind { dense, layer_norm, normalize };

  Kind kind = Kind::normalize;
  Activation activation = Activation::identity;  // of a dense one
  bool residual = false;                         // whether what went in is added
};

// What bundle.json says of it.
struct EmbeddingSpec {
  std::vector<bh_embedding_pooling> pooling;  // of several the vectors are put one behind the other
  std::vector<EmbeddingStep> steps;
  int64_t dim = 0;
  std::map<std::string, std::string> prompts;
  std::optional<std::string> default_prompt;

  // Throws Json::exception or std::invalid_argument for what is none.
  static EmbeddingSpec read(const Json &json);
  // What is put before a text. Throws Error(invalid_input) for a prompt that is not there.
  std::string prompt(const EmbedOptions &options) const;
};

// Makes embeddings. A vector depends on its own text's states alone.
class Embedder {
 public:
  // Throws Error(bundle) if the file does not hold what the spec says. `hidden_dim`: of the states.
  static Embedder read(const fs::path &folder, const EmbeddingSpec &spec, int64_t hidden_dim);

  int64_t dim() const { return spec_.dim; }
  const std::vector<bh_embedding_pooling> &poolings() const { return spec_.pooling; }
  // Of one text's states, [tokens, hidden dim]: `stride` bytes from one token to the next.
  void embed(const void *states, bh_dtype dtype, int64_t tokens, int64_t stride, float *out) const;
  // Of one text's pooled states, [poolings, hidden dim], as `embed` or a GPU makes them.
  void embed_pooled(const float *pooled, float *out) const;

 private:
  struct Weights {
    std::vector<float> weight, bias, projection;  // those that there are
  };

  Embedder(EmbeddingSpec spec, int64_t hidden_dim)
      : spec_(std::move(spec)), hidden_dim_(hidden_dim) {}
  std::vector<float> take(size_t step, const std::vector<float> &vector) const;

  EmbeddingSpec spec_;
  int64_t hidden_dim_;
  std::vector<Weights> weights_;  // of each step
};

// Embeddings as they are asked for: cut, then made of length 1. Throws Error(invalid_input).
Embeddings finish(const PackedFeatures &features, const EmbedOptions &options);
// Throws Error(invalid_input) for what `finish` cannot give.
void check_asked(const EmbedOptions &options, int64_t dim);

}  // namespace bitheads

#endif
