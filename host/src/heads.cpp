#include "heads.h"

#include <algorithm>
#include <new>

#include "bitheads/kernels.h"
#include "error.h"
#include "parallel.h"

namespace bitheads {
namespace {

constexpr size_t kBlockTexts = 60;  // that the kernels take through a head together

// Bytes of weights, counted once per eight texts: with fewer, another thread costs what it saves.
constexpr size_t kMinSharedBytes = 16 << 20;

void check_features(const PackedFeatures &features) {
  for (size_t text = 0; text < features.size(); ++text) {
    const int64_t tokens = features.offsets[text + 1] - features.offsets[text];
    if (tokens < 1 || tokens > BH_MAX_TEXT_TOKENS) {
      fail(Status::invalid_input, "text ", text, ": got ", tokens, " tokens, expected 1 to ",
           BH_MAX_TEXT_TOKENS, ". Leave it out, or encode it in parts.");
    }
  }
}

// Moves the last output of each text to its place; the others close up.
void split_reject_output(Prediction &answer, size_t num_outputs) {
  const size_t texts = answer.logits.size() / num_outputs;
  answer.reject_logits.resize(texts);
  float *to = answer.logits.data();
  for (size_t text = 0; text < texts; ++text) {
    const float *from = answer.logits.data() + text * num_outputs;
    answer.reject_logits[text] = from[num_outputs - 1];
    to = std::copy(from, from + num_outputs - 1, to);
  }
  answer.logits.resize(texts * (num_outputs - 1));
}

const bh_head *block_of(const LaidOutHead &head) {
  return static_cast<const bh_head *>(head.block.data());
}

}  // namespace

AlignedBytes::AlignedBytes(int64_t bytes) : size_(bytes) {
  const size_t rounded = (static_cast<size_t>(bytes) + 63) / 64 * 64;
  data_.reset(std::aligned_alloc(64, std::max<size_t>(64, rounded)));
  if (!data_) throw std::bad_alloc();
}

std::shared_ptr<const LaidOutHead> lay_out(const FoldedHead &head, const std::string &what) {
  if (head.spec.quantization == BH_HALF) {
    fail(Status::head, what,
         ": it reads float16 codes, for which this library has no kernels. Use the Python "
         "package, or a bundle of sign or uint8 codes.");
  }
  bh_head_weights weights = {};
  weights.quantization = head.spec.quantization;
  weights.position_pooling = head.position_pooling;
  weights.dim = head.spec.dim;
  weights.attention_heads = head.attention_heads;
  weights.inner = static_cast<int64_t>(head.dense_bias.size());
  weights.classes = static_cast<int64_t>(head.num_outputs);
  weights.query = head.query.empty() ? nullptr : head.query.data();
  weights.value = head.value.empty() ? nullptr : head.value.data();
  weights.dense = head.dense.data();
  weights.dense_bias = head.dense_bias.data();
  weights.output = head.output.data();
  weights.output_bias = head.output_bias.data();
  weights.level = BH_LEVEL_ACTIVE;
  const int64_t bytes = bh_head_bytes(&weights);
  auto laid_out = std::make_shared<LaidOutHead>();
  bh_status status = BH_INVALID_ARGUMENT;
  if (bytes >= 0) {
    laid_out->block = AlignedBytes(bytes);
    status = bh_lay_out_head(&weights, static_cast<bh_head *>(laid_out->block.data()));
  }
  if (status != BH_OK) {
    fail(Status::head, what, ": the kernels refuse it (", bh_status_message(status),
         "): a size out of range, or a row of weights that sums up to more than 1e30. Train it "
         "again.");
  }
  laid_out->task = head.task;
  laid_out->labels = head.labels;
  laid_out->kind = head.kind;
  laid_out->decision = head.decision;
  laid_out->num_outputs = head.num_outputs;
  laid_out->is_pair = head.is_pair;
  return laid_out;
}

// Texts and heads of one call.
struct HeadThreads::Part {
  size_t first_text, last_text;
  size_t first_head, last_head;
};

// Texts go to the threads in whole blocks, several per thread, so that none waits for a slower one.
// Where there are too few texts, heads do: their weights are then read once, not once per thread.
std::vector<HeadThreads::Part> HeadThreads::parts(size_t texts, const Heads &heads) const {
  size_t weights = 0;
  for (const auto &head : heads) weights += static_cast<size_t>(head->block.size());
  const bool is_small = weights * std::max<size_t>(1, texts / 8) < kMinSharedBytes;
  const size_t threads = is_small ? 1 : static_cast<size_t>(threads_);
  std::vector<Part> parts;
  if (texts >= kBlockTexts * threads) {
    const size_t size = std::max<size_t>(1, texts / (4 * threads * kBlockTexts));
    for (size_t i = 0; i < texts; i += size * kBlockTexts) {
      parts.push_back({i, std::min(i + size * kBlockTexts, texts), 0, heads.size()});
    }
  } else if (heads.size() >= threads) {
    for (size_t i = 0; i < threads; ++i) {
      parts.push_back({0, texts, heads.size() * i / threads, heads.size() * (i + 1) / threads});
    }
  } else {
    const size_t count = std::min(texts, threads);
    for (size_t i = 0; i < count; ++i) {
      parts.push_back({texts * i / count, texts * (i + 1) / count, 0, heads.size()});
    }
  }
  return parts;
}

std::vector<Prediction> HeadThreads::predict(const PackedFeatures &features,
                                             const FeatureSpec &spec, const Heads &heads) {
  check_features(features);
  std::vector<Prediction> answers;
  for (const auto &head : heads) {
    answers.push_back({head->task, head->labels, {}, head->kind->name, head->decision});
    answers.back().logits.resize(features.size() * head->num_outputs);
  }
  if (features.size() > 0 && !heads.empty()) {
    const std::vector<Part> calls = parts(features.size(), heads);
    for_each_on_threads(threads_, calls.size(),
                        [&](size_t i) { run(calls[i], features, spec, heads, answers); });
  }
  for (size_t i = 0; i < heads.size(); ++i) {
    if (heads[i]->decision.reject_above) split_reject_output(answers[i], heads[i]->num_outputs);
  }
  return answers;
}

void HeadThreads::run(const Part &part, const PackedFeatures &features, const FeatureSpec &spec,
                      const Heads &heads, std::vector<Prediction> &answers) {
  std::vector<const bh_head *> blocks;
  std::vector<float *> logits;
  for (size_t i = part.first_head; i < part.last_head; ++i) {
    blocks.push_back(block_of(*heads[i]));
    logits.push_back(answers[i].logits.data() + part.first_text * heads[i]->num_outputs);
  }
  bh_predict_heads_args args = {};
  args.codes = features.codes.data();
  args.num_tokens = features.offsets.back();
  args.offsets = features.offsets.data() + part.first_text;
  args.texts = static_cast<int64_t>(part.last_text - part.first_text);
  args.dim = spec.dim;
  args.quantization = spec.quantization;
  args.heads = blocks.data();
  args.num_heads = static_cast<int64_t>(blocks.size());
  args.logits = logits.data();
  args.level = BH_LEVEL_ACTIVE;
  const int64_t bytes = bh_predict_heads_workspace(&args);
  bh_status status = BH_INVALID_ARGUMENT;
  if (bytes >= 0) {
    AlignedBytes workspace = borrow(bytes);
    args.workspace = workspace.data();
    args.workspace_bytes = workspace.size();
    status = bh_predict_heads(&args);
    give_back(std::move(workspace));
  }
  if (status != BH_OK) {
    fail(status == BH_INVALID_ARGUMENT ? Status::internal : Status::backend,
         "heads: the kernels refused a call: ", bh_status_message(status),
         ". Look at BITHEADS_KERNEL_LEVEL.");
  }
}

AlignedBytes HeadThreads::borrow(int64_t bytes) {
  {
    const std::lock_guard<std::mutex> hold(lock_);
    if (!workspaces_.empty()) {
      AlignedBytes workspace = std::move(workspaces_.back());
      workspaces_.pop_back();
      if (workspace.size() >= bytes) return workspace;
    }
  }
  return AlignedBytes(bytes);
}

void HeadThreads::give_back(AlignedBytes workspace) {
  const std::lock_guard<std::mutex> hold(lock_);
  workspaces_.push_back(std::move(workspace));
}

}  // namespace bitheads
