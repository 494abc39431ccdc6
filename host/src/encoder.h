// The encoder: token ids in, codes out, batch by batch.
#ifndef BITHEADS_HOST_ENCODER_H
#define BITHEADS_HOST_ENCODER_H

#include <memory>
#include <mutex>
#include <vector>

#include "bundle.h"
#include "session.h"

namespace bitheads {

class Encoder {
 public:
  // Throws Error(backend), Error(bundle) or Error(invalid_input).
  Encoder(ov::Core &core, const fs::path &folder, const Manifest &manifest, const Options &options);

  const std::string &name() const { return name_; }

  // Codes of all texts, in their order. May be called from many threads: they take turns, batch by
  // batch. Throws Error(invalid_input) for token ids the graph does not have, Error(backend).
  PackedFeatures encode(const std::vector<Tokens> &texts);

 private:
  void check(const std::vector<Tokens> &texts) const;
  // The lanes, if there are any or enough batches to open them; else the session with all threads.
  Session &choose_session(size_t num_batches);
  void encode_batch(ov::InferRequest &request, const std::vector<Tokens> &texts,
                    const std::vector<size_t> &rows, PackedFeatures &features) const;
  void pack(ov::InferRequest &request, int64_t seq, const std::vector<int64_t> &lengths,
            const std::vector<int64_t> &token_offsets, PackedFeatures &features) const;

  ov::Core &core_;
  GraphOptions graph_;
  const Manifest &manifest_;
  Calibration calibration_;
  int64_t max_batch_tokens_;
  bool may_have_lanes_;
  std::unique_ptr<Session> session_;
  std::string name_;
  std::mutex lock_;
  std::unique_ptr<Session> lanes_;
};

}  // namespace bitheads

#endif
