#include "device/slot.h"

#include <algorithm>

namespace bitheads {
namespace {

int64_t token_of(const Tokens &text, const std::string &input, size_t t) {
  if (input == "input_ids") return text.ids[t];
  if (input == "attention_mask") return 1;
  return t >= text.num_first ? 1 : 0;
}

}  // namespace

Slot::Slot(const Device &device, size_t num_tokens, size_t num_inputs, size_t code_bytes)
    : tokens(num_tokens),
      inputs(device, num_inputs * num_tokens),
      rows(device, 2 * num_tokens + 1),
      codes(device, num_tokens * code_bytes),
      done(make_event(device)) {}

void Slot::fill(const Piece &filled, const std::vector<const Tokens *> &texts,
                const std::vector<std::string> &names, int64_t pad_id, int64_t num_rows,
                int64_t seq) {
  piece = filled;
  padded_rows = num_rows;
  for (size_t i = 0; i < names.size(); ++i) {
    int64_t *out = input(i);
    std::fill(out, out + num_rows * seq, names[i] == "input_ids" ? pad_id : 0);
    for (const size_t text : piece.texts) {
      for (size_t t = 0; t < texts[text]->ids.size(); ++t) {
        out[t] = token_of(*texts[text], names[i], t);
      }
      out += seq;
    }
  }
  int64_t *its_lengths = rows.data();
  int64_t *its_offsets = rows.data() + num_rows;
  its_offsets[0] = 0;
  for (int64_t row = 0; row < num_rows; ++row) {
    const auto index = static_cast<size_t>(row);
    const bool is_real = index < piece.texts.size();
    its_lengths[row] = is_real ? static_cast<int64_t>(texts[piece.texts[index]]->ids.size()) : 0;
    its_offsets[row + 1] = its_offsets[row] + its_lengths[row];
  }
}

void Slot::reserve_logits(const Device &device, size_t size) {
  if (logits.size() < size) logits = PageLocked<float>(device, size);
}

void Slot::reserve_pooled(const Device &device, size_t size) {
  if (pooled.size() < size) pooled = PageLocked<float>(device, size);
}

}  // namespace bitheads
