// What a batch in flight has to itself, while the stages' buffers are those of all batches.
#ifndef BITHEADS_HOST_DEVICE_SLOT_H
#define BITHEADS_HOST_DEVICE_SLOT_H

#include <string>
#include <vector>

#include "bitheads/bitheads.hpp"
#include "device/memory.h"

namespace bitheads {

// Texts of a call that go through the encoder together: their places among the call's.
struct Piece {
  std::vector<size_t> texts;
  int64_t seq = 1;  // tokens of the longest
};

// Page-locked memory and the event of one batch in flight.
struct Slot {
  Slot(const Device &device, size_t tokens, size_t num_inputs, size_t code_bytes);

  // Copies the piece, padded to [rows, seq]: masked tokens and empty rows.
  void fill(const Piece &piece, const std::vector<const Tokens *> &texts,
            const std::vector<std::string> &inputs, int64_t pad_id, int64_t num_rows, int64_t seq);
  void reserve_logits(const Device &device, size_t size);
  void reserve_pooled(const Device &device, size_t size);

  // The rows' lengths, [rows], then their offsets and the end, [rows + 1].
  const int64_t *lengths() const { return rows.data(); }
  const int64_t *offsets() const { return rows.data() + padded_rows; }
  int64_t num_tokens() const { return offsets()[piece.texts.size()]; }
  int64_t *input(size_t i) const { return inputs.data() + i * tokens; }

  size_t tokens;               // that there is room for
  PageLocked<int64_t> inputs;  // [inputs, tokens], each a [rows, seq] batch at its front
  PageLocked<int64_t> rows;    // [2 * tokens + 1]
  PageLocked<uint8_t> codes;   // [tokens, code_bytes], row after row
  PageLocked<float> logits;    // [rows * outputs]
  PageLocked<float> pooled;    // [rows, poolings, dim], of embeddings
  DeviceOwned<CudaHandle> done;
  Piece piece;
  int64_t padded_rows = 0;
};

}  // namespace bitheads

#endif
