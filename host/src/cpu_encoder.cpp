#include "cpu_encoder.h"

#include <algorithm>
#include <deque>
#include <map>
#include <string>
#include <utility>

#include "agreement.h"
#include "batching.h"
#include "bitheads/kernels.h"
#include "chunks.h"
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
// Default token budget of an encoder call: past this, larger batches gain nothing on a CPU.
constexpr int64_t kMaxBatchTokens = 1024;

GraphOptions find_graph(const fs::path &folder, const Manifest &manifest,
                        const std::string &precision, int threads) {
  // Precision -> the graph that is computed in it, as in engine/bundle.py.
  static const std::map<std::string, std::string> graphs = {
      {"auto", "encoder.onnx"},
      {"fp32", "encoder.onnx"},
      {"bf16", "encoder.onnx"},
      {"int8_dynamic", "encoder_int8_dynamic.xml"},
      {"int8", "encoder_int8.xml"}};
  const auto found = graphs.find(precision);
  if (found == graphs.end()) {
    fail(Status::invalid_input, "precision: got '", precision,
         "', expected auto, fp32, bf16, int8_dynamic or int8.");
  }
  const std::string &name = found->second;
  if (manifest.artifacts.count(name) == 0) {
    fail(Status::backend, "bundle ", folder, " has no ", name, ". Build it with ",
         name != "encoder.onnx" ? "--precision " + precision + ": " : "", "bitheads build");
  }
  return {folder / name, precision, threads, false};
}

Opened open_session(ov::Core &core, const fs::path &folder, const Manifest &manifest,
                    const Options &options) {
  const auto &asked = options.min_sign_agreement;
  const auto open = [&](const std::string &precision) {
    return std::make_unique<Session>(core,
                                     find_graph(folder, manifest, precision, options.threads));
  };
  return open_fastest(asked ? precisions_within(manifest, *asked, has_bf16(core))
                            : std::vector<std::string>{options.precision},
                      open, manifest.max_length);
}

uint64_t graph_bytes(const Manifest &manifest) {
  uint64_t bytes = 0;
  for (const auto &[name, artifact] : manifest.artifacts) {
    bytes += name.rfind("encoder.onnx", 0) == 0 ? artifact.bytes : 0;  // and the files beside it
  }
  return bytes;
}

// One input of a batch, int64 [rows, seq], padded on the right.
ov::Tensor make_input(const std::string &name, const std::vector<const Tokens *> &texts, size_t seq,
                      int64_t pad_id) {
  ov::Tensor tensor(ov::element::i64, {texts.size(), seq});
  int64_t *out = tensor.data<int64_t>();
  for (const Tokens *one : texts) {
    const Tokens &text = *one;
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

CpuEncoder::CpuEncoder(ov::Core &core, const fs::path &folder, const Manifest &manifest,
                       const Options &options)
    : CpuEncoder(core, folder, manifest, options, open_session(core, folder, manifest, options)) {}

CpuEncoder::CpuEncoder(ov::Core &core, const fs::path &folder, const Manifest &manifest,
                       const Options &options, Opened opened)
    : Encoder(manifest, opened.session->rows()),
      core_(core),
      graph_(find_graph(folder, manifest, opened.precision, options.threads)),
      calibration_(read_calibration(folder, manifest.spec)),
      embedder_(read_embedder(folder, manifest)),
      max_batch_tokens_(options.max_batch_tokens > 0 ? options.max_batch_tokens : kMaxBatchTokens),
      may_have_lanes_((options.threads > 0 ? options.threads : count_cores()) > 1 &&
                      graph_bytes(manifest) <= kMaxLanesGraphBytes),
      session_(std::move(opened.session)),
      name_("openvino " + session_->precision()) {
  for (const std::string &input : session_->inputs()) {
    if (input != "input_ids" && input != "attention_mask" && input != "token_type_ids") {
      fail(Status::bundle, "bundle ", folder, ": the graph has an input '", input,
           "', which no encoder of ours has. Export the bundle again.");
    }
  }
}

// The batches of chunks, as who encodes them takes them.
class CpuEncoder::Batches {
 public:
  struct Batch {
    std::vector<const Tokens *> rows;
    std::vector<size_t> places;
    std::shared_ptr<const std::vector<Tokens>> texts;
    PackedFeatures *features = nullptr;
  };

  // Reads the first chunk.
  Batches(const CpuEncoder &encoder, const NextChunk &next, bool embeddings)
      : encoder_(encoder), next_(next), embeddings_(embeddings) {
    read();
  }

  size_t num_waiting() const { return waiting_.size(); }

  // False: there are no more.
  bool take(Batch &batch) {
    const std::lock_guard<std::mutex> hold(lock_);
    while (waiting_.empty() && !is_at_end_) read();
    if (waiting_.empty()) return false;
    batch = std::move(waiting_.front());
    waiting_.pop_front();
    return true;
  }

  // There are no more, as one has failed.
  void stop() {
    const std::lock_guard<std::mutex> hold(lock_);
    is_at_end_ = true;
    waiting_.clear();
  }

  std::vector<PackedFeatures> features() {
    std::vector<PackedFeatures> all;
    for (PackedFeatures &one : features_) all.push_back(std::move(one));
    return all;
  }

 private:
  void read() {
    is_at_end_ = true;  // unless it goes well
    const auto texts = next_();
    if (!texts) return;
    encoder_.check(*texts);
    const std::vector<int64_t> lengths = lengths_of(*texts);
    PackedFeatures &features = features_.emplace_back(encoder_.make_features(lengths, embeddings_));
    for (const auto &chosen :
         cut_batches(encoder_.pad_lengths(lengths), encoder_.max_batch_tokens_, kCallTokens)) {
      Batch &batch = waiting_.emplace_back();
      batch.texts = texts;
      batch.features = &features;
      batch.places.assign(chosen.begin(), chosen.end());
      for (const size_t row : chosen) batch.rows.push_back(&(*texts)[row]);
    }
    is_at_end_ = false;
  }

  const CpuEncoder &encoder_;
  const NextChunk &next_;
  bool embeddings_;
  std::mutex lock_;
  std::deque<Batch> waiting_;
  std::deque<PackedFeatures> features_;  // stay where they are
  bool is_at_end_ = false;
};

PackedFeatures CpuEncoder::encode(const std::vector<Tokens> &texts, bool embeddings) {
  // Owned by the caller.
  std::shared_ptr<const std::vector<Tokens>> only(std::shared_ptr<void>(), &texts);
  const NextChunk next = [&] { return std::exchange(only, nullptr); };
  return std::move(encode_chunks(next, embeddings).front());
}

std::vector<PackedFeatures> CpuEncoder::encode_chunks(const NextChunk &next, bool embeddings) {
  Batches batches(*this, next, embeddings);
  const size_t num_batches = batches.num_waiting();
  Session &session = choose_session(num_batches);
  const size_t lanes = session.num_lanes();
  const size_t threads = num_batches >= kOpenLanesFrom ? lanes : std::min(lanes, num_batches);
  for_each_on_threads(static_cast<int>(threads), threads, [&](size_t) {
    try {
      for (Batches::Batch batch; batches.take(batch);) {
        session.with_request([&](ov::InferRequest &request) {
          encode_batch(request, batch.rows, batch.places, *batch.features);
        });
      }
    } catch (...) {
      batches.stop();
      throw;
    }
  });
  return batches.features();
}

PackedFeatures CpuEncoder::encode_together(const std::vector<const Tokens *> &texts, bool on_lane,
                                           bool embeddings) {
  PackedFeatures features = make_features(lengths_of(texts), embeddings);
  (on_lane ? *lanes_ : *session_).with_request([&](ov::InferRequest &request) {
    encode_batch(request, texts, every_text(texts.size()), features);
  });
  return features;
}

std::vector<int64_t> CpuEncoder::pad_lengths(const std::vector<int64_t> &lengths) const {
  return round_lengths(lengths, manifest_.max_length);
}

Session &CpuEncoder::choose_session(size_t num_batches) {
  if (!may_have_lanes_ || num_batches < 2) return *session_;
  if (num_batches >= kOpenLanesFrom) open_lanes();
  const std::lock_guard<std::mutex> hold(lock_);
  return lanes_ ? *lanes_ : *session_;
}

size_t CpuEncoder::open_lanes() {
  if (!may_have_lanes_) return 0;
  const std::lock_guard<std::mutex> hold(lock_);
  if (!lanes_) {
    GraphOptions graph = graph_;
    graph.has_lanes = true;
    lanes_ = std::make_unique<Session>(core_, graph);
  }
  return lanes_->num_lanes();
}

void CpuEncoder::encode_batch(ov::InferRequest &request, const std::vector<const Tokens *> &texts,
                              const std::vector<size_t> &places, PackedFeatures &features) const {
  const std::vector<int64_t> lengths = lengths_of(texts);
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  const int64_t seq = round_lengths({longest}, manifest_.max_length).front();
  try {
    for (const std::string &name : session_->inputs()) {
      request.set_tensor(name, make_input(name, texts, static_cast<size_t>(seq), manifest_.pad_id));
    }
    request.infer();
    pack(request, seq, lengths, places, features);
  } catch (const Error &) {
    throw;
  } catch (const std::exception &error) {
    fail(Status::backend, name_, " failed on a batch of [", texts.size(), ", ", seq,
         "] tokens: ", error.what(), ". Try a smaller max_batch_tokens.");
  }
}

void CpuEncoder::pack(ov::InferRequest &request, int64_t seq, const std::vector<int64_t> &lengths,
                      const std::vector<size_t> &places, PackedFeatures &features) const {
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
  std::vector<int64_t> token_offsets;
  for (const size_t text : places) token_offsets.push_back(features.offsets[text]);
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
  if (features.embeddings.empty()) return;
  const bh_layer &last = layers.back();
  for (size_t row = 0; row < lengths.size(); ++row) {
    const char *states =
        static_cast<const char *>(last.data) + static_cast<int64_t>(row) * last.row_stride_bytes;
    float *to =
        features.embeddings.data() + places[row] * static_cast<size_t>(features.embedding_dim);
    embedder_->embed(states, args.dtype, lengths[row], last.token_stride_bytes, to);
  }
}

}  // namespace bitheads
