// The encoder on a GPU: token ids go up, codes, logits or embeddings come back, nothing else
// crosses the bus.
//
// All work of an encoder is enqueued on one stream: token ids to the device, the encoder,
// pool_and_pack, the task heads or pool_positions, the results back. What the stages hand on stays
// where it is, in buffers that are allocated once. Two batches are in flight: while the GPU works
// on one, the host fills the other's page-locked memory and enqueues it behind, so the GPU never
// waits for the host.
#ifndef BITHEADS_HOST_DEVICE_ENCODER_H
#define BITHEADS_HOST_DEVICE_ENCODER_H

#include <atomic>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "../encoder.h"  // not the one beside this
#include "device/code.h"
#include "device/graphs.h"
#include "device/heads.h"
#include "device/session.h"
#include "device/slot.h"

namespace bitheads {

struct DeviceLimits {
  // Token budget of an encoder call; the hidden states of RoBERTa-large then take 0.5 GB.
  int64_t max_batch_tokens = 16384;
  // Tokens of a call up to which it takes the GPU less time than launching its kernels takes the
  // host: such calls are recorded as CUDA graphs, one per shape.
  int64_t graph_tokens = 2048;
  size_t max_graphs = 128;
  int64_t seq_step = 16;  // of the shapes that are recorded
  HeadLimits heads = {};
};

// Which encoder, and where everything is that it takes.
struct DeviceOptions {
  Plugin plugin;
  std::string backend;
  int device = 0;
  fs::path code;  // bitheads.fatbin
  DeviceLimits limits = {};
};

class DeviceEncoder final : public Encoder, public HeadRunner {
 public:
  // Allocates all buffers. Throws Error(device_memory) if not even one text would fit,
  // Error(backend) for what else cannot be had.
  DeviceEncoder(const fs::path &folder, const Manifest &manifest, TableRows rows,
                const DeviceOptions &options);
  ~DeviceEncoder() override;

  const std::string &name() const override { return session_->name(); }
  int64_t max_batch_tokens() const override;
  int64_t call_tokens() const override { return limits_.graph_tokens; }  // an estimate
  // As they are: shapes are rounded where they are recorded as graphs.
  std::vector<int64_t> pad_lengths(const std::vector<int64_t> &lengths) const override {
    return lengths;
  }
  PackedFeatures encode(const std::vector<Tokens> &texts, bool embeddings) override;
  size_t open_lanes() override { return 0; }  // batches share the device by taking turns
  PackedFeatures encode_together(const std::vector<const Tokens *> &texts, bool on_lane,
                                 bool embeddings) override;
  HeadRunner *head_runner() override { return this; }
  std::optional<Outputs> encode_and_predict(const std::vector<Tokens> &texts,
                                            const Heads &heads) override;
  Outputs outputs_of(const PackedFeatures &features, const Heads &heads) override;

 private:
  using Texts = std::vector<const Tokens *>;
  using Batches = std::vector<std::vector<size_t>>;
  using Shape = std::pair<int64_t, int64_t>;  // rows, tokens per row
  // A shape that ran once, and from its second call on its graph.
  struct Recorded {
    Shape shape;
    std::unique_ptr<Graph> graph;
  };

  void allocate_buffers();
  void allocate_for(int64_t tokens);
  PackedFeatures encode_batches(const Texts &texts, const Batches &batches, bool embeddings);
  // What of a batch comes back: codes, or what heads make of them; and embeddings.
  struct Asked {
    const HeadGroup *heads;
    bool embeddings;
  };
  // Runs batches through the stream; each of their pieces that is done is shown to `take`.
  void run(const Texts &texts, const Batches &batches, const Asked &asked,
           const std::function<void(const Slot &)> &take);
  // Texts in pieces that the session and the buffers can take.
  std::deque<Piece> pieces_of(const Texts &texts, const std::vector<size_t> &chosen) const;
  void shrink(const Piece &piece);
  void submit(const Texts &texts, const Piece &piece, Slot &slot, const Asked &asked);
  Shape recorded_shape(int64_t rows, int64_t seq) const;
  void encode_and_pack(Shape shape, const Slot &slot);
  void forget_old_graphs();
  void pack(Shape shape, const Slot &slot);
  void pool(int64_t seq, Slot &slot);
  size_t pooled_floats(size_t texts) const;
  void synchronize() const;

  DeviceLimits limits_;
  Calibration calibration_;
  std::optional<Embedder> embedder_;
  std::mutex lock_;
  // From here on the order counts: what uses others goes before them.
  Device device_;
  DeviceOwned<CudaHandle> stream_;
  DeviceCode code_;
  DeviceMemory thresholds_, inverse_scale_, zero_point_;
  DeviceMemory hidden_, codes_, rows_, pooled_;
  std::vector<DeviceMemory> inputs_;
  std::vector<DeviceAddress> layers_;  // in `hidden_`
  std::vector<std::unique_ptr<Slot>> slots_;
  std::unique_ptr<DeviceSession> session_;
  std::unique_ptr<DeviceHeads> heads_;
  std::list<Recorded> recorded_;  // the one used last at the front
  bool records_;                  // whether small calls become graphs
  int64_t allocated_tokens_ = 0;
  std::atomic<int64_t> room_{0};  // tokens of a call: fewer than allocated once memory was short
};

}  // namespace bitheads

#endif
