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

// A head as the kernels read it, in half the bytes of its float32 weights; or as a GPU's heads are
// laid out from, in groups, when they are first asked.
struct LaidOutHead {
  std::string task;
  std::vector<std::string> labels;
  const Kind *kind = nullptr;
  Decision decision;
  Form form = Form::single;
  size_t num_outputs = 0;   // the kind's logits and, last, the reject output, if it has one
  size_t vector_size = 0;   // two_texts only
  AlignedBytes block;       // two_texts: of the half that makes a text's vector
  AlignedBytes pair_block;  // two_texts only: of the half that answers a pair
  std::shared_ptr<const FoldedHead> folded;  // of a GPU's, which have no `block`

  // Numbers that `block` makes of a text.
  size_t block_outputs() const { return form == Form::two_texts ? vector_size : num_outputs; }
  size_t bytes() const;
};

using Heads = std::vector<std::shared_ptr<const LaidOutHead>>;

// What each of some heads makes of each text, or of each word if it reads words.
using Outputs = std::vector<std::vector<float>>;

// Their answers, from what they make of each text, or of these words.
std::vector<Prediction> answers_of(const Heads &heads, Outputs outputs,
                                   const std::shared_ptr<const Words> &words = nullptr);

// Throws Error(invalid_input) for a text of no tokens, or of more than the kernels take.
void check_lengths(const PackedFeatures &features);

// Throws Error for what the kernels answered, unless that is success.
void check_call(bh_status status);

// Whether one of the heads answers words, not texts.
bool read_words(const Heads &heads);

// Throws Error(head), its message beginning with `what`, for weights that the kernels refuse, and
// for heads on float16 codes.
std::shared_ptr<const LaidOutHead> lay_out(const FoldedHead &head, const std::string &what);

// The same for heads that another than the processor runs, of any codes.
std::shared_ptr<const LaidOutHead> keep_folded(FoldedHead head, const std::string &what);

// What runs the heads' first halves elsewhere than on the processor's cores: what reads codes.
class HeadRunner {
 public:
  virtual ~HeadRunner() = default;
  // May be called from many threads. Throws Error(backend) or Error(device_memory).
  virtual Outputs outputs_of(const PackedFeatures &features, const Heads &heads) = 0;
};

// Workspaces of calls, some megabytes each, kept between them. May be used by many threads.
class HeadThreads {
 public:
  // elsewhere: what runs the heads' first halves, or null: these threads do.
  explicit HeadThreads(int threads, HeadRunner *elsewhere = nullptr)
      : threads_(threads), elsewhere_(elsewhere) {}

  // Every head's answers, in the order of the heads: to the kernels, words are texts. Throws
  // Error(invalid_input) for a text of no tokens, or of more than the kernels take, and for
  // features without words where a head reads them.
  std::vector<Prediction> predict(const PackedFeatures &features, const FeatureSpec &spec,
                                  const Heads &heads);

  // What their answers are made of, of heads of two texts the texts' vectors. Throws as `predict`.
  Outputs outputs_of(const PackedFeatures &features, const FeatureSpec &spec, const Heads &heads);

  // Every head's answers to pairs of rows of the features, in the order of the heads, which are of
  // two texts. Throws Error(invalid_input) as `predict`.
  std::vector<Prediction> predict_pairs(const PackedFeatures &features,
                                        const std::vector<RowPair> &pairs, const FeatureSpec &spec,
                                        const Heads &heads);

  // What the heads' pair blocks make of pairs of texts, from their vectors.
  Outputs run_pair_blocks(const Outputs &vectors, const std::vector<RowPair> &pairs,
                          const Heads &heads);

 private:
  // Texts and heads of one call.
  struct Part {
    size_t first_text, last_text;
    size_t first_head, last_head;
  };
  // Codes of texts, as the kernels read them.
  struct Codes {
    const uint8_t *codes;
    const int64_t *offsets;  // [texts + 1]
    size_t texts;
    int64_t num_tokens;
    int64_t dim;
    bh_quantization quantization;
  };

  // How calls are shared out among the threads, of blocks of so many bytes in all.
  std::vector<Part> parts(size_t texts, size_t heads, size_t bytes) const;
  // What the heads' blocks make of texts.
  Outputs run_blocks(const PackedFeatures &features, const FeatureSpec &spec, const Heads &heads);
  void run_pair_block(const LaidOutHead &head, const std::vector<float> &vectors,
                      const RowPair *pairs, size_t num_pairs, float *outputs);
  // One call of the kernels, which writes each block's outputs.
  void run(const Codes &codes, const std::vector<const AlignedBytes *> &blocks,
           const std::vector<float *> &outputs);
  AlignedBytes borrow(int64_t bytes);
  void give_back(AlignedBytes workspace);

  int threads_;
  HeadRunner *elsewhere_;
  std::mutex lock_;
  std::vector<AlignedBytes> workspaces_;
};

}  // namespace bitheads

#endif
