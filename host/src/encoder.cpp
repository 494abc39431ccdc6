#include "encoder.h"

#include <algorithm>

#include "batching.h"
#include "bitheads/kernels.h"
#include "cores.h"
#include "error.h"
#include "parallel.h"

namespace bitheads {
namespace {

// Batches of a call from which on lanes are opened: for fewer, compiling the graph a second time
// takes longer than lanes save.
constexpr size_t kOpenLanesFrom = 16;
// The largest graph that gets lanes, in bytes: they are a second compiled graph, and those of
// larger ones cost more in memory than they gain in time.
constexpr uint64_t kMaxLanesGraphBytes = 256 << 20;

GraphOptions find_graph(const fs::path &folder, const Manifest &manifest, const Options &options) {
  const std::string &precision = options.precision;
  if (precision != "auto" && precision != "fp32" && precision != "bf16" && precision != "int8") {
    fail(Status::invalid_input, "precision: got '", precision,
         "', expected auto, fp32, bf16 or int8.");
  }
  if (options.threads < 0 || options.max_batch_tokens < 1) {
    fail(Status::invalid_input, "options: got ", options.threads, " threads and ",
         options.max_batch_tokens,
         " tokens a batch, expected 0 for all cores, or more, and 1 or "
         "more.");
  }
  const std::string name = precision == "int8" ? "encoder_int8.xml" : "encoder.onnx";
  if (manifest.artifacts.count(name) == 0) {
    fail(Status::backend, "bundle ", folder, " has no ", name, ". Build it with ",
         precision == "int8" ? "--precision int8: " : "", "bitheads build");
  }
  return {folder / name, precision, options.threads, false};
}

uint64_t graph_bytes(const Manifest &manifest) {
  uint64_t bytes = 0;
  for (const auto &[name, artifact] : manifest.artifacts) {
    bytes += name.rfind("encoder.onnx", 0) == 0 ? artifact.bytes : 0;  // and the files beside it
  }
  return bytes;
}

// One input of a batch, int64 [rows, seq], padded on the right.
ov::Tensor make_input(const std::string &name, const std::vector<Tokens> &texts,
                      const std::vector<size_t> &rows, size_t seq, int64_t pad_id) {
  ov::Tensor tensor(ov::element::i64, {rows.size(), seq});
  int64_t *out = tensor.data<int64_t>();
  for (const size_t row : rows) {
    const Tokens &text = texts[row];
    for (size_t t = 0; t < seq; ++t, ++out) {
      const bool is_real = t < text.ids.size();
      if (name == "input_ids") {
        *out = is_real ? text.ids[t] : pad_id;
      } else if (name == "attention_mask") {
        *out = is_real ? 1 : 0;
      } else {
        *out = is_real && t >= text.num_first ? 1 : 0;
      }
    }
  }
  return tensor;
}

bh_dtype dtype_of(const ov::Tensor &layer) {
  if (layer.get_element_type() == ov::element::f32) return BH_FLOAT32;
  if (layer.get_element_type() == ov::element::f16) return BH_FLOAT16;
  if (layer.get_element_type() == ov::element::bf16) return BH_BFLOAT16;
  throw std::invalid_argument("hidden states of the type " + layer.get_element_type().to_string());
}

const float *or_null(const std::vector<float> &array) {
  return array.empty() ? nullptr : array.data();
}

}  // namespace

Encoder::Encoder(ov::Core &core, const fs::path &folder, const Manifest &manifest,
                 const Options &options)
    : core_(core),
      graph_(find_graph(folder, manifest, options)),
      manifest_(manifest),
      calibration_(read_calibration(folder, manifest.spec)),
      max_batch_tokens_(options.max_batch_tokens),
      may_have_lanes_((options.threads > 0 ? options.threads : count_cores()) > 1 &&
                      graph_bytes(manifest) <= kMaxLanesGraphBytes),
      session_(std::make_unique<Session>(core, graph_)),
      name_("openvino " + session_->precision()) {
  for (const std::string &input : session_->inputs()) {
    if (input != "input_ids" && input != "attention_mask" && input != "token_type_ids") {
      fail(Status::bundle, "bundle ", folder, ": the graph has an input '", input,
           "', which no encoder of ours has. Export the bundle again.");
    }
  }
}

PackedFeatures Encoder::encode(const std::vector<Tokens> &texts) {
  check(texts);
  PackedFeatures features;
  features.code_bytes = manifest_.spec.code_bytes;
  features.spec_id = manifest_.spec.id;
  std::vector<int64_t> lengths;
  for (const Tokens &text : texts) {
    lengths.push_back(static_cast<int64_t>(text.ids.size()));
    features.offsets.push_back(features.offsets.back() + lengths.back());
  }
  features.codes.resize(static_cast<size_t>(features.offsets.back() * features.code_bytes));
  const auto batches = cut_batches(round_lengths(lengths, manifest_.max_length), max_batch_tokens_);
  Session &session = choose_session(batches.size());
  for_each_on_threads(static_cast<int>(session.num_lanes()), batches.size(), [&](size_t i) {
    session.with_request(
        [&](ov::InferRequest &request) { encode_batch(request, texts, batches[i], features); });
  });
  return features;
}

void Encoder::check(const std::vector<Tokens> &texts) const {
  const int64_t token_types =
      manifest_.token_types > 0 ? manifest_.token_types : session_->token_types();
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
      if (id < 0 || id >= session_->vocabulary()) {
        fail(Status::invalid_input, "text ", i, ": got the token id ", id, ", expected 0 to ",
             session_->vocabulary() - 1, ". Use the bundle's own tokenizer.");
      }
    }
  }
}

Session &Encoder::choose_session(size_t num_batches) {
  if (!may_have_lanes_ || num_batches < 2) return *session_;
  const std::lock_guard<std::mutex> hold(lock_);
  if (!lanes_ && num_batches >= kOpenLanesFrom) {
    GraphOptions graph = graph_;
    graph.has_lanes = true;
    lanes_ = std::make_unique<Session>(core_, graph);
  }
  return lanes_ ? *lanes_ : *session_;
}

void Encoder::encode_batch(ov::InferRequest &request, const std::vector<Tokens> &texts,
                           const std::vector<size_t> &rows, PackedFeatures &features) const {
  std::vector<int64_t> lengths;
  std::vector<int64_t> token_offsets;
  for (const size_t row : rows) {
    lengths.push_back(static_cast<int64_t>(texts[row].ids.size()));
    token_offsets.push_back(features.offsets[row]);
  }
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  const int64_t seq = round_lengths({longest}, manifest_.max_length).front();
  try {
    for (const std::string &name : session_->inputs()) {
      request.set_tensor(name,
                         make_input(name, texts, rows, static_cast<size_t>(seq), manifest_.pad_id));
    }
    request.infer();
    pack(request, seq, lengths, token_offsets, features);
  } catch (const Error &) {
    throw;
  } catch (const std::exception &error) {
    fail(Status::backend, name_, " failed on a batch of [", rows.size(), ", ", seq,
         "] tokens: ", error.what(), ". Try a smaller max_batch_tokens.");
  }
}

void Encoder::pack(ov::InferRequest &request, int64_t seq, const std::vector<int64_t> &lengths,
                   const std::vector<int64_t> &token_offsets, PackedFeatures &features) const {
  const FeatureSpec &spec = manifest_.spec;
  const ov::Shape expected{lengths.size(), static_cast<size_t>(seq), static_cast<size_t>(spec.dim)};
  std::vector<ov::Tensor> tensors;
  std::vector<bh_layer> layers;
  for (const std::string &name : manifest_.output_names()) {
    tensors.push_back(request.get_tensor(name));
    const ov::Tensor &layer = tensors.back();
    if (layer.get_shape() != expected || dtype_of(layer) != dtype_of(tensors.front())) {
      fail(Status::bundle, "the graph's output ", name, " has the shape ",
           layer.get_shape().to_string(), ", expected ", expected.to_string(),
           " and one type for all. Export the bundle again.");
    }
    const auto strides = layer.get_strides();
    layers.push_back(
        {layer.data(), static_cast<int64_t>(strides[0]), static_cast<int64_t>(strides[1])});
  }
  bh_pool_and_pack_args args = {};
  args.layers = layers.data();
  args.num_layers = static_cast<int64_t>(layers.size());
  args.dtype = dtype_of(tensors.front());
  args.rows = static_cast<int64_t>(lengths.size());
  args.seq = seq;
  args.dim = spec.dim;
  args.lengths = lengths.data();
  args.token_offsets = token_offsets.data();
  args.quantization = spec.quantization;
  args.order = spec.order;
  args.layer_weights = or_null(spec.layer_weights);
  args.thresholds = or_null(calibration_.thresholds);
  args.inverse_scale = or_null(calibration_.inverse_scale);
  args.zero_point = or_null(calibration_.zero_point);
  args.codes = features.codes.data();
  args.num_tokens = features.offsets.back();
  args.level = BH_LEVEL_ACTIVE;
  const bh_status status = bh_pool_and_pack(&args);
  if (status != BH_OK) {
    fail(Status::backend, "the kernels refused a batch: ", bh_status_message(status),
         ". Look at BITHEADS_KERNEL_LEVEL; if it is not set, the bundle's feature spec makes no "
         "sense: export it again.");
  }
}

}  // namespace bitheads
