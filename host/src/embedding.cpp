#include "embedding.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <stdexcept>

#include "error.h"
#include "safetensors.h"

namespace bitheads {
namespace {

constexpr int64_t kMaxDim = 1 << 16;
constexpr size_t kMaxSteps = 16;
constexpr float kLayerNormEpsilon = 1e-5F;
constexpr float kLeastLength = 1e-12F;
const char *const file_name = "embedding.safetensors";

template <class Value>
Value find_word(const Json &word, std::initializer_list<std::pair<const char *, Value>> all) {
  for (const auto &[name, value] : all) {
    if (word.get_ref<const std::string &>() == name) return value;
  }
  throw std::invalid_argument("an embedding with an unknown " + word.get<std::string>());
}

bh_embedding_pooling read_pooling(const Json &json) {
  return find_word<bh_embedding_pooling>(json,
                                         {{"cls", BH_EMBEDDING_CLS},
                                          {"max", BH_EMBEDDING_MAX},
                                          {"mean", BH_EMBEDDING_MEAN},
                                          {"mean_sqrt_len_tokens", BH_EMBEDDING_MEAN_SQRT_LEN},
                                          {"weightedmean", BH_EMBEDDING_WEIGHTEDMEAN},
                                          {"lasttoken", BH_EMBEDDING_LASTTOKEN}});
}

EmbeddingStep read_step(const Json &json) {
  using Kind = EmbeddingStep::Kind;
  for (const auto &[name, value] : json.items()) {
    if (name != "kind" && name != "activation" && name != "residual") {
      throw std::invalid_argument("a step of an embedding with an unknown " + name);
    }
  }
  EmbeddingStep step;
  step.kind = find_word<Kind>(
      json.at("kind"),
      {{"dense", Kind::dense}, {"layer_norm", Kind::layer_norm}, {"normalize", Kind::normalize}});
  if (const auto found = json.find("activation"); found != json.end()) {
    step.activation = find_word<Activation>(*found, {{"identity", Activation::identity},
                                                     {"tanh", Activation::tanh},
                                                     {"relu", Activation::relu},
                                                     {"sigmoid", Activation::sigmoid},
                                                     {"gelu", Activation::gelu},
                                                     {"silu", Activation::silu}});
  }
  if (const auto found = json.find("residual"); found != json.end()) {
    step.residual = found->get_ref<const bool &>();
  }
  return step;
}

float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::identity:
      return x;
    case Activation::tanh:
      return std::tanh(x);
    case Activation::relu:
      return std::max(x, 0.0F);
    case Activation::sigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::gelu:
      return x * 0.5F * (1 + std::erf(x / std::sqrt(2.0F)));
    case Activation::silu:
      return x / (1 + std::exp(-x));
  }
  return x;
}

// Row by row, in order, so that a vector is the same whatever it is computed beside.
std::vector<float> product(const std::vector<float> &matrix, const std::vector<float> &vector) {
  std::vector<float> found(matrix.size() / vector.size());
  const float *row = matrix.data();
  for (float &value : found) {
    for (size_t i = 0; i < vector.size(); ++i) value += row[i] * vector[i];
    row += vector.size();
  }
  return found;
}

void make_length_one(float *vector, size_t size) {
  float squares = 0;
  for (size_t i = 0; i < size; ++i) squares += vector[i] * vector[i];
  const float length = std::max(std::sqrt(squares), kLeastLength);
  for (size_t i = 0; i < size; ++i) vector[i] /= length;
}

std::vector<float> normalized(std::vector<float> vector, const std::vector<float> &weight,
                              const std::vector<float> &bias) {
  const auto size = static_cast<float>(vector.size());
  float sum = 0;
  for (const float value : vector) sum += value;
  float squares = 0;
  for (float &value : vector) {
    value -= sum / size;
    squares += value * value;
  }
  const float deviation = std::sqrt(squares / size + kLayerNormEpsilon);
  for (size_t i = 0; i < vector.size(); ++i) {
    vector[i] = vector[i] / deviation * weight[i] + (bias.empty() ? 0.0F : bias[i]);
  }
  return vector;
}

// A text's states as float32, one token behind the other.
std::vector<float> as_floats(const void *states, bh_dtype dtype, int64_t tokens, int64_t stride,
                             int64_t dim) {
  std::vector<float> found(static_cast<size_t>(tokens * dim));
  for (int64_t token = 0; token < tokens; ++token) {
    const auto *from = static_cast<const char *>(states) + token * stride;
    float *to = found.data() + token * dim;
    if (dtype == BH_FLOAT32) {
      std::memcpy(to, from, static_cast<size_t>(dim) * sizeof(float));
    } else if (dtype == BH_FLOAT16) {
      const auto *halves = reinterpret_cast<const uint16_t *>(from);
      const bh_status status = bh_floats_of_halves(halves, dim, to, BH_LEVEL_ACTIVE);
      if (status != BH_OK) fail(Status::internal, "float16: ", bh_status_message(status));
    } else {
      const auto *upper = reinterpret_cast<const uint16_t *>(from);
      for (int64_t i = 0; i < dim; ++i) {
        const uint32_t bits = static_cast<uint32_t>(upper[i]) << 16;
        std::memcpy(to + i, &bits, sizeof(bits));
      }
    }
  }
  return found;
}

// kernels/SPEC.md has it operation by operation.
void pool(bh_embedding_pooling pooling, const std::vector<float> &states, int64_t tokens,
          int64_t dim, float *out) {
  if (tokens == 0) {
    std::fill_n(out, dim, 0.0F);
    return;
  }
  const float *first = states.data();
  const float *last = first + (tokens - 1) * dim;
  if (pooling == BH_EMBEDDING_CLS || pooling == BH_EMBEDDING_LASTTOKEN) {
    std::copy_n(pooling == BH_EMBEDDING_CLS ? first : last, dim, out);
    return;
  }
  const bool is_weighted = pooling == BH_EMBEDDING_WEIGHTEDMEAN;
  std::copy_n(first, dim, out);  // whose weight is 1
  for (int64_t token = 1; token < tokens; ++token) {
    const float *row = first + token * dim;
    const float weight = is_weighted ? static_cast<float>(token + 1) : 1.0F;
    for (int64_t i = 0; i < dim; ++i) {
      if (pooling == BH_EMBEDDING_MAX) {
        if (row[i] > out[i] || std::isnan(row[i])) out[i] = row[i];  // a NaN stays
      } else {
        out[i] += row[i] * weight;
      }
    }
  }
  if (pooling == BH_EMBEDDING_MAX) return;
  auto divisor = static_cast<float>(is_weighted ? tokens * (tokens + 1) / 2 : tokens);
  if (pooling == BH_EMBEDDING_MEAN_SQRT_LEN) divisor = std::sqrt(divisor);
  for (int64_t i = 0; i < dim; ++i) out[i] /= divisor;
}

}  // namespace

EmbeddingSpec EmbeddingSpec::read(const Json &json) {
  EmbeddingSpec spec;
  const Json &pooling = json.at("pooling");
  const Json &steps = json.at("steps");
  const Json &prompts = json.at("prompts");
  if (!pooling.is_array() || pooling.empty() || !steps.is_array() || steps.size() > kMaxSteps ||
      !prompts.is_object()) {
    throw std::invalid_argument(
        "an embedding without a pooling, of too many steps, or without "
        "prompts");
  }
  for (const Json &name : pooling) spec.pooling.push_back(read_pooling(name));
  for (const Json &step : steps) spec.steps.push_back(read_step(step));
  spec.dim = whole_number(json.at("dim"), 1, kMaxDim);
  for (const auto &[name, text] : prompts.items()) {
    spec.prompts[name] = text.get_ref<const std::string &>();
  }
  if (const Json &name = json.at("default_prompt"); !name.is_null()) {
    spec.default_prompt = name.get_ref<const std::string &>();
    if (spec.prompts.count(*spec.default_prompt) == 0) {
      throw std::invalid_argument("an embedding whose default prompt is none of its prompts");
    }
  }
  return spec;
}

std::string EmbeddingSpec::prompt(const EmbedOptions &options) const {
  if (options.prompt && !options.prompt_name.empty()) {
    fail(Status::invalid_input, "prompt: got one, and a prompt_name, expected one of them.");
  }
  if (options.prompt) return *options.prompt;
  if (options.prompt_name.empty()) return default_prompt ? prompts.at(*default_prompt) : "";
  const auto found = prompts.find(options.prompt_name);
  if (found == prompts.end()) {
    std::string all;
    for (const auto &[name, text] : prompts) all += (all.empty() ? "" : ", ") + name;
    fail(Status::invalid_input, "prompt_name: got '", options.prompt_name.substr(0, 80),
         "', expected one of ", all.empty() ? "none: the checkpoint has no prompts" : all,
         ". Put the text there by yourself: prompt.");
  }
  return found->second;
}

Embedder Embedder::read(const fs::path &folder, const EmbeddingSpec &spec, int64_t hidden_dim) {
  const std::string what = "bundle " + folder.string();
  const SafeTensors file = SafeTensors::read(folder / file_name, Status::bundle, what);
  std::set<std::string> wanted;
  const auto take = [&](const std::string &name, const std::vector<int64_t> &shape) {
    const auto found = file.tensors().find(name);
    wanted.insert(name);
    if (found == file.tensors().end() || found->second.dtype != "F32" ||
        found->second.shape != shape) {
      fail(Status::bundle, what, ": ", file_name, " does not fit (", name,
           " is not there, or of another shape). Export the bundle again.");
    }
    std::vector<float> values = file.floats(found->second);
    if (!std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); })) {
      fail(Status::bundle, what, ": ", file_name, " does not fit (", name,
           " has numbers that are not finite). Export the bundle again.");
    }
    return values;
  };
  Embedder embedder(spec, hidden_dim);
  int64_t size = hidden_dim * static_cast<int64_t>(spec.pooling.size());
  take("ranges", {2, spec.dim});  // of the rounding that only Python does
  for (size_t i = 0; i < spec.steps.size(); ++i) {
    Weights &weights = embedder.weights_.emplace_back();
    const EmbeddingStep &step = spec.steps[i];
    if (step.kind == EmbeddingStep::Kind::normalize) continue;
    const std::string prefix = std::to_string(i) + ".";
    const bool is_dense = step.kind == EmbeddingStep::Kind::dense;
    int64_t out = size;
    if (const auto found = file.tensors().find(prefix + "weight");
        is_dense && found != file.tensors().end() && !found->second.shape.empty()) {
      out = found->second.shape.front();
    }
    weights.weight = take(prefix + "weight",
                          is_dense ? std::vector<int64_t>{out, size} : std::vector<int64_t>{size});
    if (file.tensors().count(prefix + "bias") > 0) weights.bias = take(prefix + "bias", {out});
    if (step.residual && out != size) {
      weights.projection = take(prefix + "residual", {out, size});
    }
    size = out;
  }
  if (size != spec.dim || wanted.size() != file.tensors().size()) {
    fail(Status::bundle, what, ": ", file_name, " does not fit (its steps end with ", size,
         " numbers, expected ", spec.dim,
         ", or it has more than they want). Export the bundle "
         "again.");
  }
  return embedder;
}

void Embedder::embed(const void *states, bh_dtype dtype, int64_t tokens, int64_t stride,
                     float *out) const {
  const std::vector<float> rows = as_floats(states, dtype, tokens, stride, hidden_dim_);
  std::vector<float> vector(static_cast<size_t>(hidden_dim_) * spec_.pooling.size());
  for (size_t i = 0; i < spec_.pooling.size(); ++i) {
    pool(spec_.pooling[i], rows, tokens, hidden_dim_,
         vector.data() + i * static_cast<size_t>(hidden_dim_));
  }
  embed_pooled(vector.data(), out);
}

void Embedder::embed_pooled(const float *pooled, float *out) const {
  std::vector<float> vector(pooled,
                            pooled + static_cast<size_t>(hidden_dim_) * spec_.pooling.size());
  for (size_t i = 0; i < spec_.steps.size(); ++i) vector = take(i, vector);
  std::copy(vector.begin(), vector.end(), out);
}

std::vector<float> Embedder::take(size_t i, const std::vector<float> &vector) const {
  const EmbeddingStep &step = spec_.steps[i];
  const Weights &weights = weights_[i];
  if (step.kind == EmbeddingStep::Kind::layer_norm) {
    return normalized(vector, weights.weight, weights.bias);
  }
  if (step.kind == EmbeddingStep::Kind::normalize) {
    std::vector<float> found = vector;
    make_length_one(found.data(), found.size());
    return found;
  }
  std::vector<float> found = product(weights.weight, vector);
  const std::vector<float> added = !step.residual ? std::vector<float>(found.size())
                                   : weights.projection.empty()
                                       ? vector
                                       : product(weights.projection, vector);
  for (size_t j = 0; j < found.size(); ++j) {
    const float biased = found[j] + (weights.bias.empty() ? 0.0F : weights.bias[j]);
    found[j] = activate(step.activation, biased) + added[j];
  }
  return found;
}

void check_asked(const EmbedOptions &options, int64_t dim) {
  if (options.dim < 0 || options.dim > dim) {
    fail(Status::invalid_input, "dim: got ", options.dim, ", expected 1 to ", dim,
         ", which the embedding has, or 0 for all.");
  }
}

Embeddings finish(const PackedFeatures &features, const EmbedOptions &options) {
  check_asked(options, features.embedding_dim);
  const auto whole = static_cast<size_t>(features.embedding_dim);
  Embeddings found;
  found.dim = options.dim > 0 ? options.dim : features.embedding_dim;
  const auto dim = static_cast<size_t>(found.dim);
  for (size_t text = 0; text < features.size(); ++text) {
    const auto row = features.embeddings.begin() + static_cast<std::ptrdiff_t>(text * whole);
    found.values.insert(found.values.end(), row, row + static_cast<std::ptrdiff_t>(dim));
    if (options.normalize) make_length_one(found.values.data() + text * dim, dim);
  }
  return found;
}

}  // namespace bitheads
