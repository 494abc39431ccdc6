// Task heads over codes: all in one call of the kernels, on several threads where that pays.
#ifndef BITHEADS_HOST_HEADS_H
#define BITHEADS_HOST_HEADS_H

#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "head_file.h"

namespace bitheads {

// Memory at a multiple of 64 bytes, as the kernels want theirs.
class AlignedBytes {
 public:
  AlignedBytes() = default;
  explicit AlignedBytes(int64_t bytes);

  void *data() const { return data_.get(); }
  int64_t size() const { return size_; }

 private:
  struct Free {
    void operator()(void *memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> data_;
  int64_t size_ = 0;
};

// A head as the kernels read it, in half the bytes of its float32 weights.
struct LaidOutHead {
  std::string task;
  std::vector<std::string> labels;
  const Kind *kind = nullptr;
  Decision decision;
  bool is_pair = false;
  size_t num_outputs = 0;  // the kind's logits and, last, the reject output, if it has one
  AlignedBytes block;
};

using Heads = std::vector<std::shared_ptr<const LaidOutHead>>;

// Throws Error(head), its message beginning with `what`, for weights that the kernels refuse, and
// for heads on float16 codes.
std::shared_ptr<const LaidOutHead> lay_out(const FoldedHead &head, const std::string &what);

// Workspaces of calls, some megabytes each, kept between them. May be used by many threads.
class HeadThreads {
 public:
  explicit HeadThreads(int threads) : threads_(threads) {}

  // Every head's answers, in the order of the heads. Throws Error(invalid_input) for a text of no
  // tokens, or of more than the kernels take.
  std::vector<Prediction> predict(const PackedFeatures &features, const FeatureSpec &spec,
                                  const Heads &heads);

 private:
  struct Part;
  void run(const Part &part, const PackedFeatures &features, const FeatureSpec &spec,
           const Heads &heads, std::vector<Prediction> &answers);
  AlignedBytes borrow(int64_t bytes);
  void give_back(AlignedBytes workspace);
  std::vector<Part> parts(size_t texts, const Heads &heads) const;

  int threads_;
  std::mutex lock_;
  std::vector<AlignedBytes> workspaces_;
};

}  // namespace bitheads

#endif
