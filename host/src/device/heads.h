// Task heads on a GPU: four launches for some dozens of tasks.
//
//     codes -> packed_attention_pool -> grouped_dense: values -> hidden -> output -> logits
//
// engine/device/heads.py has the same; weights are float16 with one power of two per row, sums are
// float32.
#ifndef BITHEADS_HOST_DEVICE_HEADS_H
#define BITHEADS_HOST_DEVICE_HEADS_H

#include <list>
#include <memory>
#include <vector>

#include "../heads.h"  // not the one beside this
#include "bitheads/cuda.h"
#include "device/code.h"
#include "device/head_layout.h"
#include "device/memory.h"

namespace bitheads {

struct HeadLimits {
  // Bytes that lie between the stages, at most, whatever the number of texts (one text aside).
  size_t workspace_bytes = size_t{256} << 20;
  // Texts that fit the workspace, at least: tasks are cut into parts for that, as a part's weights
  // are read once for all of them.
  size_t min_block_texts = 128;
  // Texts, and bytes of their codes, that go through the heads together.
  size_t max_block_texts = 1024;
  int64_t max_block_codes = 64 << 20;
  // Sets of heads that are kept laid out: all of a bundle's, and those asked for by name.
  size_t max_groups = 4;
};

// Where heads run: all of it is there longer than they are.
struct HeadPlace {
  const Device &device;
  DeviceCode &code;
  const FeatureSpec &spec;
  CudaHandle stream;
  HeadLimits limits;
};

// Heads that share four launches. Offsets come first, addresses with `place`.
class HeadPart {
 public:
  HeadPart(FoldedHeads heads, const FeatureSpec &spec, Arena &arena);

  size_t text_bytes() const { return 2 * (widths_[0] + widths_[1] + widths_[2]); }
  size_t num_outputs() const { return num_outputs_; }

  // Makes the tables and uploads them: `base` is the arena's address, `workspace` that of
  // texts * text_bytes, `logits` that of the part's first; a text's logits are `stride` floats.
  void place(const HeadPlace &where, DeviceAddress base, DeviceAddress workspace, size_t texts,
             DeviceAddress logits, size_t stride);
  // Enqueues its launches over texts whose codes and offsets are on the device.
  void enqueue(const HeadPlace &where, DeviceAddress codes, DeviceAddress offsets,
               size_t texts) const;

 private:
  // Offsets in the arena.
  struct Weights {
    size_t halves, scale;
    bool has_bias;
    size_t bias;
  };
  // One launch of grouped_dense: its rows of the table, there and here.
  struct Stage {
    bh_dense_kind kind;
    std::vector<bh_dense_group> groups = {};
    DeviceMemory table = {};
  };

  FoldedHeads heads_;
  Columns columns_;
  size_t pooled_dim_;
  size_t num_outputs_ = 0;
  size_t widths_[3];  // items of a text at each stage, all float16
  size_t fragments_, column_scale_, end_bias_;
  std::vector<std::vector<Weights>> weights_;  // of each head's matrices
  DeviceAddress base_ = 0;
  DeviceAddress pooled_ = 0;
  std::vector<Stage> stages_;
};

// Some heads laid out together on the device.
class HeadGroup {
 public:
  // Throws Error(device_memory) if the device has no room for them.
  HeadGroup(const HeadPlace &where, const FoldedHeads &heads);

  // Of all heads; the logits of a text are so many floats.
  size_t num_outputs() const { return num_outputs_; }
  size_t num_parts() const { return parts_.size(); }

  // Enqueues all heads over texts whose codes are on the device, and the copy of the answers to
  // float [texts, num_outputs], page-locked unless the caller waits.
  void enqueue(DeviceAddress codes, DeviceAddress offsets, size_t num_texts, float *logits) const;
  // Copies the logits of a text to its place in each head's outputs.
  void split(const float *logits, size_t text, Outputs &outputs) const;

 private:
  HeadPlace where_;
  std::vector<size_t> sizes_;  // of each head's logits
  size_t num_outputs_ = 0;
  size_t block_texts_ = 1;
  DeviceMemory weights_;
  DeviceMemory workspace_;
  DeviceMemory logits_;
  std::vector<HeadPart> parts_;
};

// Heads of one feature spec on one stream. Its functions want a current context.
class DeviceHeads {
 public:
  explicit DeviceHeads(const HeadPlace &where) : where_(where) {}

  // The heads laid out on the device, as they are or from now on.
  const HeadGroup &group(const Heads &heads);
  // What they make of each text.
  Outputs outputs_of(const PackedFeatures &features, const Heads &heads);

 private:
  struct Kept {
    Heads heads;
    HeadGroup group;
  };
  // Frees all but so many groups, those used last.
  void forget(size_t kept);

  HeadPlace where_;
  std::list<Kept> groups_;  // the one used last at the front
};

}  // namespace bitheads

#endif
