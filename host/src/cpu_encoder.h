// The encoder on a CPU: OpenVINO, lanes beside it, and the native kernels.
#ifndef BITHEADS_HOST_CPU_ENCODER_H
#define BITHEADS_HOST_CPU_ENCODER_H

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "batching.h"
#include "encoder.h"
#include "session.h"
#include "tuning.h"

namespace bitheads {

class CpuEncoder final : public Encoder {
 public:
  // Of the precision that is asked for; with a budget in its place, the fastest within it. Throws
  // Error(backend), Error(bundle) or Error(invalid_input).
  CpuEncoder(ov::Core &core, const fs::path &folder, const Manifest &manifest,
             const Options &options);

  const std::string &name() const override { return name_; }
  int64_t max_batch_tokens() const override { return max_batch_tokens_; }
  int64_t call_tokens() const override { return kCallTokens; }
  std::vector<int64_t> pad_lengths(const std::vector<int64_t> &lengths) const override;
  PackedFeatures encode(const std::vector<Tokens> &texts, bool embeddings) override;
  std::vector<PackedFeatures> encode_chunks(const NextChunk &next, bool embeddings) override;
  size_t open_lanes() override;
  PackedFeatures encode_together(const std::vector<const Tokens *> &texts, bool on_lane,
                                 bool embeddings) override;

 private:
  class Batches;

  CpuEncoder(ov::Core &core, const fs::path &folder, const Manifest &manifest,
             const Options &options, Opened opened);
  // The lanes, if there are any or enough batches to open them; else the session with all threads.
  Session &choose_session(size_t num_batches);
  // `places`: which of the features' texts each of these is.
  void encode_batch(ov::InferRequest &request, const std::vector<const Tokens *> &texts,
                    const std::vector<size_t> &places, PackedFeatures &features) const;
  void pack(ov::InferRequest &request, int64_t seq, const std::vector<int64_t> &lengths,
            const std::vector<size_t> &places, PackedFeatures &features) const;

  ov::Core &core_;
  GraphOptions graph_;
  Calibration calibration_;
  std::optional<Embedder> embedder_;
  int64_t max_batch_tokens_;
  bool may_have_lanes_;
  std::unique_ptr<Session> session_;
  std::string name_;
  std::mutex lock_;
  std::unique_ptr<Session> lanes_;
};

}  // namespace bitheads

#endif
