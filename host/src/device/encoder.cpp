#include "device/encoder.h"

#include <algorithm>
#include <numeric>

#include "batching.h"
#include "error.h"

namespace bitheads {
namespace {

constexpr size_t kBatchesInFlight = 2;
constexpr size_t kAlignment = 256;
constexpr int64_t kMaxLaunchRows = 65535;  // of pool_and_pack, kernels/SPEC.md
// Texts of a call that is to give embeddings: with four tokens each they fill the largest one, and
// their pooled states take 16 MB at 1,024 features.
constexpr int64_t kMaxPooledRows = 4096;

DeviceOwned<CudaHandle> open_stream(const Device &device) {
  const Device::Current current(device, "loading the encoder");
  return make_stream(device);
}

DeviceMemory upload_floats(const Device &device, const std::vector<float> &array) {
  return array.empty() ? DeviceMemory()
                       : upload(device, array.data(), array.size() * sizeof(float));
}

template <class Pointee>
Pointee *at(DeviceAddress address) {
  return reinterpret_cast<Pointee *>(static_cast<uintptr_t>(address));
}

// Rows of the graph that serves so many: four sizes between one power of two and the next.
int64_t round_rows(int64_t rows) {
  int64_t power = 1;
  while (power < rows) power *= 2;
  const int64_t step = std::max<int64_t>(1, power / 8);
  return (rows + step - 1) / step * step;
}

std::vector<const Tokens *> pointers(const std::vector<Tokens> &texts) {
  std::vector<const Tokens *> found;
  for (const Tokens &text : texts) found.push_back(&text);
  return found;
}

// Calls `leave` at the end of a block, however it ends.
template <class Leave>
class AtEnd {
 public:
  explicit AtEnd(Leave leave) : leave_(std::move(leave)) {}
  ~AtEnd() { leave_(); }
  AtEnd(const AtEnd &) = delete;
  AtEnd &operator=(const AtEnd &) = delete;

 private:
  Leave leave_;
};

}  // namespace

DeviceEncoder::DeviceEncoder(const fs::path &folder, const Manifest &manifest, TableRows rows,
                             const DeviceOptions &options)
    : Encoder(manifest, rows),
      limits_(options.limits),
      calibration_(read_calibration(folder, manifest.spec)),
      embedder_(read_embedder(folder, manifest)),
      device_(options.device),
      stream_(open_stream(device_)),
      code_(device_, options.code) {
  {
    const Device::Current current(device_, "loading the encoder");
    session_ = std::make_unique<DeviceSession>(options.plugin, options.backend, folder, manifest,
                                               device_, stream_.get());
  }
  const Device::Current current(device_, "allocating the encoder's buffers");
  records_ = session_->is_capturable();
  heads_ = std::make_unique<DeviceHeads>(
      HeadPlace{device_, code_, manifest_.spec, stream_.get(), limits_.heads});
  thresholds_ = upload_floats(device_, calibration_.thresholds);
  inverse_scale_ = upload_floats(device_, calibration_.inverse_scale);
  zero_point_ = upload_floats(device_, calibration_.zero_point);
  allocate_buffers();
}

DeviceEncoder::~DeviceEncoder() {
  try {
    const Device::Current current(device_, "freeing the encoder's buffers");
    device_.driver().synchronize_stream(stream_.get());
  } catch (...) {  // after a failed launch, which has been reported, the driver refuses everything
  }
}

// For as many tokens as fit: half of them, and half of that, as long as memory is short.
void DeviceEncoder::allocate_buffers() {
  const int64_t longest = std::min(session_->max_seq(), session_->max_tokens());
  int64_t tokens = std::min(std::max(limits_.max_batch_tokens, longest), session_->max_tokens());
  while (true) {
    try {
      allocate_for(tokens);
      break;
    } catch (const Error &error) {
      if (error.status() != Status::device_memory || tokens <= longest) throw;
      tokens = std::max(longest, tokens / 2);
    }
  }
  allocated_tokens_ = tokens;
  room_ = tokens;
}

void DeviceEncoder::allocate_for(int64_t num_tokens) {
  slots_.clear();  // of an attempt before
  inputs_.clear();
  for (DeviceMemory *memory : {&hidden_, &codes_, &rows_, &pooled_}) memory->reset();
  const FeatureSpec &spec = manifest_.spec;
  const auto tokens = static_cast<size_t>(num_tokens);
  const size_t item_bytes = session_->item_bytes();
  const size_t used_bytes = tokens * static_cast<size_t>(spec.dim) * item_bytes;
  const size_t layer_bytes = (used_bytes + kAlignment - 1) / kAlignment * kAlignment;
  hidden_ = allocate(device_, layer_bytes * spec.layers.size());
  layers_.clear();
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    layers_.push_back(hidden_.get() + i * layer_bytes);
  }
  codes_ = allocate(device_, tokens * static_cast<size_t>(spec.code_bytes));
  for (size_t i = 0; i < session_->inputs().size(); ++i) {
    inputs_.push_back(allocate(device_, tokens * sizeof(int64_t)));
  }
  rows_ = allocate(device_, (2 * tokens + 1) * sizeof(int64_t));  // lengths, then offsets
  if (embedder_) {
    const auto texts = static_cast<size_t>(std::min(num_tokens, kMaxPooledRows));
    pooled_ = allocate(device_, pooled_floats(texts) * sizeof(float));
  }
  for (size_t i = 0; i < kBatchesInFlight; ++i) {
    slots_.push_back(std::make_unique<Slot>(device_, tokens, inputs_.size(),
                                            static_cast<size_t>(spec.code_bytes)));
  }
  std::vector<uint64_t> inputs;
  for (const DeviceMemory &input : inputs_) inputs.push_back(input.get());
  session_->bind(inputs, {layers_.begin(), layers_.end()});
}

int64_t DeviceEncoder::max_batch_tokens() const {
  return std::min<int64_t>(limits_.max_batch_tokens, room_);
}

PackedFeatures DeviceEncoder::encode(const std::vector<Tokens> &texts, bool embeddings) {
  check(texts);
  return encode_batches(pointers(texts),
                        cut_batches(lengths_of(texts), max_batch_tokens(), call_tokens()),
                        embeddings);
}

PackedFeatures DeviceEncoder::encode_together(const std::vector<const Tokens *> &texts,
                                              bool /*on_lane*/, bool embeddings) {
  std::vector<size_t> all(texts.size());
  std::iota(all.begin(), all.end(), size_t{0});
  return encode_batches(texts, {all}, embeddings);
}

PackedFeatures DeviceEncoder::encode_batches(const Texts &texts, const Batches &batches,
                                             bool embeddings) {
  PackedFeatures features = make_features(lengths_of(texts), embeddings);
  const int64_t code_bytes = features.code_bytes;
  const std::lock_guard<std::mutex> hold(lock_);
  const Device::Current current(device_, "running the encoder");
  run(texts, batches, {nullptr, embeddings}, [&](const Slot &slot) {
    for (size_t row = 0; row < slot.piece.texts.size(); ++row) {
      const int64_t *tokens = slot.offsets() + row;
      std::copy(slot.codes.data() + tokens[0] * code_bytes,
                slot.codes.data() + tokens[1] * code_bytes,
                features.codes.begin() + features.offsets[slot.piece.texts[row]] * code_bytes);
      if (embeddings) {
        const size_t text = slot.piece.texts[row];
        embedder_->embed_pooled(
            slot.pooled.data() + pooled_floats(row),
            features.embeddings.data() + text * static_cast<size_t>(features.embedding_dim));
      }
    }
  });
  return features;
}

std::optional<Outputs> DeviceEncoder::encode_and_predict(const std::vector<Tokens> &texts,
                                                         const Heads &heads) {
  check(texts);
  Outputs outputs;
  for (const auto &head : heads) outputs.emplace_back(texts.size() * head->block_outputs());
  if (heads.empty() || texts.empty()) return outputs;
  const auto batches = cut_batches(lengths_of(texts), max_batch_tokens(), call_tokens());
  const std::lock_guard<std::mutex> hold(lock_);
  const Device::Current current(device_, "running the encoder");
  const HeadGroup &group = heads_->group(heads);
  run(pointers(texts), batches, {&group, false}, [&](const Slot &slot) {
    for (size_t row = 0; row < slot.piece.texts.size(); ++row) {
      group.split(slot.logits.data() + row * group.num_outputs(), slot.piece.texts[row], outputs);
    }
  });
  return outputs;
}

Outputs DeviceEncoder::outputs_of(const PackedFeatures &features, const Heads &heads) {
  const std::lock_guard<std::mutex> hold(lock_);
  const Device::Current current(device_, "running the task heads");
  return heads_->outputs_of(features, heads);
}

void DeviceEncoder::synchronize() const {
  device_.check(device_.driver().synchronize_stream(stream_.get()));
}

void DeviceEncoder::run(const Texts &texts, const Batches &batches, const Asked &asked,
                        const std::function<void(const Slot &)> &take) {
  // Also when something fails: the slots' memory is used again. That failure is on its way.
  const AtEnd wait([this] { device_.driver().synchronize_stream(stream_.get()); });
  std::deque<Slot *> in_flight;  // the oldest first
  std::vector<Slot *> idle;
  for (const auto &slot : slots_) idle.push_back(slot.get());
  const auto finish_oldest = [&] {
    Slot &oldest = *in_flight.front();
    device_.check(device_.driver().synchronize_event(oldest.done.get()));
    take(oldest);
    in_flight.pop_front();
    idle.push_back(&oldest);
  };
  for (const std::vector<size_t> &batch : batches) {
    std::deque<Piece> pieces = pieces_of(texts, batch);
    while (!pieces.empty()) {
      try {
        submit(texts, pieces.front(), *idle.back(), asked);
      } catch (const Error &error) {
        if (error.status() != Status::device_memory || pieces.front().texts.size() == 1) throw;
        shrink(pieces.front());
        std::deque<Piece> smaller;  // what is left was cut for the larger calls that were
        for (const Piece &piece : pieces) {
          for (Piece &part : pieces_of(texts, piece.texts)) smaller.push_back(std::move(part));
        }
        pieces = std::move(smaller);
        continue;
      }
      pieces.pop_front();
      in_flight.push_back(idle.back());
      idle.pop_back();
      if (idle.empty()) finish_oldest();
    }
  }
  while (!in_flight.empty()) finish_oldest();
}

std::deque<Piece> DeviceEncoder::pieces_of(const Texts &texts,
                                           const std::vector<size_t> &chosen) const {
  const auto length = [&](size_t text) { return static_cast<int64_t>(texts[text]->ids.size()); };
  int64_t longest = 1;
  for (const size_t text : chosen) longest = std::max(longest, length(text));
  const int64_t most = session_->max_rows(longest);
  if (most < 1 || longest > allocated_tokens_) {
    fail(Status::backend, "a text of ", longest, " tokens: got room for ", allocated_tokens_,
         " tokens and ", most,
         " rows of that length. Build a plan with a larger profile (`bitheads plan --help`), or "
         "free device memory.");
  }
  const int64_t fitting = std::max<int64_t>(1, room_ / longest);
  const int64_t most_texts = embedder_ ? kMaxPooledRows : kMaxLaunchRows;
  const auto rows = static_cast<size_t>(std::min({most, fitting, most_texts}));
  std::deque<Piece> pieces;
  for (size_t start = 0; start < chosen.size(); start += rows) {
    Piece piece;
    for (size_t i = start; i < std::min(start + rows, chosen.size()); ++i) {
      piece.texts.push_back(chosen[i]);
      piece.seq = std::max(piece.seq, length(chosen[i]));
    }
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

// Makes calls half the size of a piece for which the GPU had no memory left.
void DeviceEncoder::shrink(const Piece &piece) {
  synchronize();
  room_ = static_cast<int64_t>((piece.texts.size() + 1) / 2) * piece.seq;
}

void DeviceEncoder::submit(const Texts &texts, const Piece &piece, Slot &slot, const Asked &asked) {
  const Driver &driver = device_.driver();
  const CudaHandle stream = stream_.get();
  const auto num_rows = static_cast<int64_t>(piece.texts.size());
  const auto [rows, seq] = recorded_shape(num_rows, piece.seq);
  slot.fill(piece, texts, session_->inputs(), manifest_.pad_id, rows, seq);
  const size_t input_bytes = static_cast<size_t>(rows * seq) * sizeof(int64_t);
  for (size_t i = 0; i < inputs_.size(); ++i) {
    device_.check(driver.copy_up_async(inputs_[i].get(), slot.input(i), input_bytes, stream));
  }
  const size_t rows_bytes = static_cast<size_t>(2 * rows + 1) * sizeof(int64_t);
  device_.check(driver.copy_up_async(rows_.get(), slot.rows.data(), rows_bytes, stream));
  encode_and_pack({rows, seq}, slot);
  if (asked.embeddings) pool(seq, slot);
  if (asked.heads == nullptr) {
    const auto bytes = static_cast<size_t>(slot.num_tokens() * manifest_.spec.code_bytes);
    device_.check(driver.copy_down_async(slot.codes.data(), codes_.get(), bytes, stream));
  } else {
    slot.reserve_logits(device_, piece.texts.size() * asked.heads->num_outputs());
    const DeviceAddress offsets = rows_.get() + static_cast<size_t>(rows) * sizeof(int64_t);
    asked.heads->enqueue(codes_.get(), offsets, piece.texts.size(), slot.logits.data());
  }
  device_.check(driver.record_event(slot.done.get(), stream));
}

// The shape that is run: small ones are rounded up, so that few graphs serve them all.
DeviceEncoder::Shape DeviceEncoder::recorded_shape(int64_t rows, int64_t seq) const {
  if (!records_ || rows * seq > limits_.graph_tokens) return {rows, seq};
  const int64_t rounded_rows = round_rows(rows);
  const int64_t rounded_seq = (seq + limits_.seq_step - 1) / limits_.seq_step * limits_.seq_step;
  const bool fits =
      rounded_rows <= session_->max_rows(rounded_seq) && rounded_rows * rounded_seq <= room_;
  return fits ? Shape(rounded_rows, rounded_seq) : Shape(rows, seq);
}

// The encoder and pool_and_pack; from a shape's second call on, as a graph.
void DeviceEncoder::encode_and_pack(Shape shape, const Slot &slot) {
  const auto [rows, seq] = shape;
  const bool is_small = records_ && rows * seq <= limits_.graph_tokens;
  const auto known = std::find_if(recorded_.begin(), recorded_.end(),
                                  [&](const Recorded &one) { return one.shape == shape; });
  if (!is_small || known == recorded_.end()) {
    session_->enqueue(rows, seq, is_small);
    pack(shape, slot);
    if (is_small) {  // a session settles on a shape's memory in its first call
      recorded_.push_front({shape, nullptr});
      forget_old_graphs();
    }
    return;
  }
  recorded_.splice(recorded_.begin(), recorded_, known);
  const auto record = [&] {
    session_->enqueue(shape.first, shape.second, true);
    pack(shape, slot);
  };
  if (known->graph == nullptr) {
    try {
      known->graph = std::make_unique<Graph>(device_, stream_.get(), record);
    } catch (const Error &error) {
      if (error.status() == Status::device_memory) throw;
      records_ = false;  // the driver cannot hold this in a graph: go on without them
      record();
      return;
    }
  }
  known->graph->launch(stream_.get());
}

void DeviceEncoder::forget_old_graphs() {
  if (recorded_.size() <= limits_.max_graphs) return;
  synchronize();
  const Shape shape = recorded_.back().shape;
  recorded_.pop_back();
  session_->forget(shape.first, shape.second);
}

void DeviceEncoder::pack(Shape shape, const Slot &slot) {
  const FeatureSpec &spec = manifest_.spec;
  const auto [rows, seq] = shape;
  const int64_t token_bytes = spec.dim * static_cast<int64_t>(session_->item_bytes());
  std::vector<bh_layer> layers;
  for (const DeviceAddress layer : layers_) {
    layers.push_back({at<void>(layer), seq * token_bytes, token_bytes});
  }
  bh_pool_and_pack_args args = {};
  args.layers = layers.data();
  args.num_layers = static_cast<int64_t>(layers.size());
  args.dtype = session_->dtype();
  args.rows = rows;
  args.seq = seq;
  args.dim = spec.dim;
  args.lengths = at<int64_t>(rows_.get());
  args.token_offsets = at<int64_t>(rows_.get() + static_cast<size_t>(rows) * sizeof(int64_t));
  args.quantization = spec.quantization;
  args.order = spec.order;
  args.layer_weights = spec.layer_weights.empty() ? nullptr : spec.layer_weights.data();
  args.thresholds = at<float>(thresholds_.get());
  args.inverse_scale = at<float>(inverse_scale_.get());
  args.zero_point = at<float>(zero_point_.get());
  args.codes = at<uint8_t>(codes_.get());
  args.num_tokens = allocated_tokens_;
  args.level = BH_LEVEL_ACTIVE;
  bh_cuda_launch launch;
  const bh_status status =
      bh_cuda_plan_pool_and_pack(&args, slot.lengths(), slot.offsets(), &launch);
  if (status != BH_OK) {
    fail(Status::backend, "the kernels refused a batch: ", bh_status_message(status),
         ". The bundle's feature spec makes no sense: export it again.");
  }
  code_.launch(launch, stream_.get());
}

size_t DeviceEncoder::pooled_floats(size_t texts) const {
  return texts * embedder_->poolings().size() * static_cast<size_t>(manifest_.spec.dim);
}

// Behind the graph, if there is one: most calls ask for no embeddings.
void DeviceEncoder::pool(int64_t seq, Slot &slot) {
  const int64_t dim = manifest_.spec.dim;
  const int64_t token_bytes = dim * static_cast<int64_t>(session_->item_bytes());
  const size_t texts = slot.piece.texts.size();
  slot.reserve_pooled(device_, pooled_floats(texts));
  bh_pool_positions_args args = {};
  args.states = {at<void>(layers_.back()), seq * token_bytes, token_bytes};
  args.dtype = session_->dtype();
  args.rows = static_cast<int64_t>(texts);
  args.seq = seq;
  args.dim = dim;
  args.lengths = at<int64_t>(rows_.get());
  args.pooled = at<float>(pooled_.get());
  args.pooled_stride = static_cast<int64_t>(pooled_floats(1));
  for (const bh_embedding_pooling pooling : embedder_->poolings()) {
    args.pooling = pooling;
    bh_cuda_launch launch;
    const bh_status status = bh_cuda_plan_pool_positions(&args, slot.lengths(), &launch);
    if (status != BH_OK) {
      fail(Status::backend, "the kernels refused a batch: ", bh_status_message(status),
           ". The bundle's embedding makes no sense: export it again.");
    }
    code_.launch(launch, stream_.get());
    args.pooled += dim;
  }
  const size_t bytes = pooled_floats(texts) * sizeof(float);
  device_.check(
      device_.driver().copy_down_async(slot.pooled.data(), pooled_.get(), bytes, stream_.get()));
}

}  // namespace bitheads
