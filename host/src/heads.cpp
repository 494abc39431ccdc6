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

// The codes of words: each word of each text as a text.
PackedFeatures of_words(const PackedFeatures &features) {
  const Words &words = *features.words;
  PackedFeatures found;
  found.code_bytes = features.code_bytes;
  found.spec_id = features.spec_id;
  for (size_t text = 0; text < features.size(); ++text) {
    for (int64_t i = words.offsets[text]; i < words.offsets[text + 1]; ++i) {
      const Word &word = words.table[static_cast<size_t>(i)];
      const auto begin =
          features.codes.begin() + (features.offsets[text] + word.token) * features.code_bytes;
      found.codes.insert(found.codes.end(), begin, begin + word.num_tokens * features.code_bytes);
      found.offsets.push_back(found.offsets.back() + word.num_tokens);
    }
  }
  return found;
}

// Throws Error(head), its message beginning with `what`, for weights that the kernels refuse.
AlignedBytes lay_out(const bh_head_weights &weights, const std::string &what) {
  const int64_t bytes = bh_head_bytes(&weights);
  AlignedBytes block;
  bh_status status = BH_INVALID_ARGUMENT;
  if (bytes >= 0) {
    block = AlignedBytes(bytes);
    status = bh_lay_out_head(&weights, static_cast<bh_head *>(block.data()));
  }
  if (status != BH_OK) {
    fail(Status::head, what, ": the kernels refuse it (", bh_status_message(status),
         "): a size out of range, or a row of weights that sums up to more than 1e30. Train it "
         "again.");
  }
  return block;
}

bh_head_weights weights_of(const FoldedHead &head) {
  bh_head_weights weights = {};
  weights.quantization = head.spec.quantization;
  weights.position_pooling = head.position_pooling;
  weights.dim = head.spec.dim;
  weights.attention_heads = head.attention_heads;
  weights.inner = static_cast<int64_t>(head.dense_bias.size());
  weights.classes = static_cast<int64_t>(head.output_bias.size());
  weights.query = head.query.empty() ? nullptr : head.query.data();
  weights.value = head.value.empty() ? nullptr : head.value.data();
  weights.dense = head.dense.data();
  weights.dense_bias = head.dense_bias.data();
  weights.output = head.output.data();
  weights.output_bias = head.output_bias.data();
  weights.level = BH_LEVEL_ACTIVE;
  return weights;
}

// To the kernels, a pair is a text of one token.
bh_head_weights weights_of(const PairHalf &pair, size_t vector_size) {
  bh_head_weights weights = {};
  weights.quantization = BH_UINT8;
  weights.position_pooling = BH_CLS;
  weights.dim = static_cast<int64_t>(combined_size(vector_size));
  weights.inner = static_cast<int64_t>(pair.dense_bias.size());
  weights.classes = static_cast<int64_t>(pair.output_bias.size());
  weights.dense = pair.dense.data();
  weights.dense_bias = pair.dense_bias.data();
  weights.output = pair.output.data();
  weights.output_bias = pair.output_bias.data();
  weights.level = BH_LEVEL_ACTIVE;
  return weights;
}

// All but the half that reads codes.
std::shared_ptr<LaidOutHead> describe(const FoldedHead &head, const std::string &what) {
  auto described = std::make_shared<LaidOutHead>();
  if (head.form == Form::two_texts) {
    described->pair_block = lay_out(weights_of(head.pair, head.vector_size), what);
  }
  described->task = head.task;
  described->labels = head.labels;
  described->kind = head.kind;
  described->decision = head.decision;
  described->num_outputs = head.num_outputs;
  described->form = head.form;
  described->vector_size = head.vector_size;
  return described;
}

}  // namespace

AlignedBytes::AlignedBytes(int64_t bytes) : size_(bytes) {
  const size_t rounded = (static_cast<size_t>(bytes) + 63) / 64 * 64;
  data_.reset(std::aligned_alloc(64, std::max<size_t>(64, rounded)));
  if (!data_) throw std::bad_alloc();
}

std::vector<Prediction> answers_of(const Heads &heads, Outputs outputs,
                                   const std::shared_ptr<const Words> &words) {
  std::vector<Prediction> answers;
  for (size_t i = 0; i < heads.size(); ++i) {
    const LaidOutHead &head = *heads[i];
    answers.push_back(
        {head.task, head.labels, std::move(outputs[i]), head.kind->name, head.decision});
    if (head.decision.reject_above) split_reject_output(answers.back(), head.num_outputs);
    if (head.kind->is_of_words()) answers.back().words = words;
  }
  return answers;
}

void check_lengths(const PackedFeatures &features) {
  for (size_t text = 0; text < features.size(); ++text) {
    const int64_t tokens = features.offsets[text + 1] - features.offsets[text];
    if (tokens < 1 || tokens > BH_MAX_TEXT_TOKENS) {
      fail(Status::invalid_input, "text ", text, ": got ", tokens, " tokens, expected 1 to ",
           BH_MAX_TEXT_TOKENS, ". Leave it out, or encode it in parts.");
    }
  }
}

void check_call(bh_status status) {
  if (status != BH_OK) {
    fail(status == BH_INVALID_ARGUMENT ? Status::internal : Status::backend,
         "heads: the kernels refused a call: ", bh_status_message(status),
         ". Look at BITHEADS_KERNEL_LEVEL.");
  }
}

bool read_words(const Heads &heads) {
  return std::any_of(heads.begin(), heads.end(),
                     [](const auto &head) { return head->kind->is_of_words(); });
}

std::shared_ptr<const LaidOutHead> lay_out(const FoldedHead &head, const std::string &what) {
  if (head.spec.quantization == BH_HALF) {
    fail(Status::head, what,
         ": it reads float16 codes, for which this library has no kernels. Use the Python "
         "package, or a bundle of sign or uint8 codes.");
  }
  auto laid_out = describe(head, what);
  laid_out->block = lay_out(weights_of(head), what);
  return laid_out;
}

std::shared_ptr<const LaidOutHead> keep_folded(FoldedHead head, const std::string &what) {
  auto kept = describe(head, what);
  head.pair = {};
  kept->folded = std::make_shared<const FoldedHead>(std::move(head));
  return kept;
}

size_t LaidOutHead::bytes() const {
  size_t floats = 0;
  if (folded) {
    floats = folded->query.size() + folded->value.size() + folded->dense.size() +
             folded->dense_bias.size() + folded->output.size() + folded->output_bias.size();
  }
  return static_cast<size_t>(block.size() + pair_block.size()) + floats * sizeof(float);
}

// Texts go to the threads in whole blocks, several per thread, so that none waits for a slower one.
// Where there are too few texts, heads do: their weights are then read once, not once per thread.
std::vector<HeadThreads::Part> HeadThreads::parts(size_t texts, size_t heads, size_t bytes) const {
  const bool is_small = bytes * std::max<size_t>(1, texts / 8) < kMinSharedBytes;
  const size_t threads = is_small ? 1 : static_cast<size_t>(threads_);
  std::vector<Part> parts;
  if (texts == 0 || heads == 0) return parts;
  if (texts >= kBlockTexts * threads) {
    const size_t size = std::max<size_t>(1, texts / (4 * threads * kBlockTexts));
    for (size_t i = 0; i < texts; i += size * kBlockTexts) {
      parts.push_back({i, std::min(i + size * kBlockTexts, texts), 0, heads});
    }
  } else if (heads >= threads) {
    for (size_t i = 0; i < threads; ++i) {
      parts.push_back({0, texts, heads * i / threads, heads * (i + 1) / threads});
    }
  } else {
    const size_t count = std::min(texts, threads);
    for (size_t i = 0; i < count; ++i) {
      parts.push_back({texts * i / count, texts * (i + 1) / count, 0, heads});
    }
  }
  return parts;
}

std::vector<Prediction> HeadThreads::predict(const PackedFeatures &features,
                                             const FeatureSpec &spec, const Heads &heads) {
  return answers_of(heads, outputs_of(features, spec, heads), features.words);
}

Outputs HeadThreads::outputs_of(const PackedFeatures &features, const FeatureSpec &spec,
                                const Heads &heads) {
  check_lengths(features);
  Heads of_texts;
  Heads word_heads;
  for (const auto &head : heads) {
    (head->kind->is_of_words() ? word_heads : of_texts).push_back(head);
  }
  if (word_heads.empty()) return run_blocks(features, spec, heads);
  if (!features.words) {
    fail(Status::invalid_input, "features: got none of words, expected them for the task '",
         word_heads.front()->task, "', whose head is a token_label. Encode the texts with words.");
  }
  Outputs outputs_of_texts = run_blocks(features, spec, of_texts);
  Outputs outputs_of_words = run_blocks(of_words(features), spec, word_heads);
  auto next_of_texts = outputs_of_texts.begin();
  auto next_of_words = outputs_of_words.begin();
  Outputs outputs;
  for (const auto &head : heads) {
    outputs.push_back(std::move(head->kind->is_of_words() ? *next_of_words++ : *next_of_texts++));
  }
  return outputs;
}

Outputs HeadThreads::run_blocks(const PackedFeatures &features, const FeatureSpec &spec,
                                const Heads &heads) {
  if (elsewhere_ != nullptr) return elsewhere_->outputs_of(features, heads);
  Outputs outputs;
  size_t bytes = 0;
  for (const auto &head : heads) {
    outputs.emplace_back(features.size() * head->block_outputs());
    bytes += static_cast<size_t>(head->block.size());
  }
  const std::vector<Part> calls = parts(features.size(), heads.size(), bytes);
  for_each_on_threads(threads_, calls.size(), [&](size_t i) {
    const Part &part = calls[i];
    std::vector<const AlignedBytes *> blocks;
    std::vector<float *> of_part;
    for (size_t head = part.first_head; head < part.last_head; ++head) {
      blocks.push_back(&heads[head]->block);
      of_part.push_back(outputs[head].data() + part.first_text * heads[head]->block_outputs());
    }
    run({features.codes.data(), features.offsets.data() + part.first_text,
         part.last_text - part.first_text, features.offsets.back(), spec.dim, spec.quantization},
        blocks, of_part);
  });
  return outputs;
}

void HeadThreads::run(const Codes &codes, const std::vector<const AlignedBytes *> &blocks,
                      const std::vector<float *> &outputs) {
  std::vector<const bh_head *> heads;
  for (const AlignedBytes *block : blocks) {
    heads.push_back(static_cast<const bh_head *>(block->data()));
  }
  bh_predict_heads_args args = {};
  args.codes = codes.codes;
  args.num_tokens = codes.num_tokens;
  args.offsets = codes.offsets;
  args.texts = static_cast<int64_t>(codes.texts);
  args.dim = codes.dim;
  args.quantization = codes.quantization;
  args.heads = heads.data();
  args.num_heads = static_cast<int64_t>(heads.size());
  args.logits = outputs.data();
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
  check_call(status);
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
