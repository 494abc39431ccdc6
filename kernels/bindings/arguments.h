// What the calls of the module share: names become enums, and arguments that do not go together are
// refused with a message before the C ABI would refuse them with a status.
#ifndef BITHEADS_BINDINGS_ARGUMENTS_H
#define BITHEADS_BINDINGS_ARGUMENTS_H

#include <string>

#include "bitheads/kernels.h"
#include "buffer.h"

namespace bitheads {

inline bh_quantization parse_quantization(const std::string &name) {
  if (name == "sign") return BH_SIGN;
  if (name == "uint8") return BH_UINT8;
  if (name == "float16") return BH_HALF;
  raise_value("quantization", "'" + name + "'", "sign, uint8 or float16");
}

inline bh_order parse_order(const std::string &name) {
  if (name == "pool_then_sign") return BH_POOL_THEN_SIGN;
  if (name == "sign_then_vote") return BH_SIGN_THEN_VOTE;
  raise_value("order", "'" + name + "'", "pool_then_sign or sign_then_vote");
}

// The optional per-feature and per-layer arrays, and which combinations mean something.
inline void require_options(const bh_pool_and_pack_args &args) {
  const bool is_sign = args.quantization == BH_SIGN;
  const bool is_uint8 = args.quantization == BH_UINT8;
  if (args.order == BH_SIGN_THEN_VOTE && !is_sign) {
    raise_value("order", "'sign_then_vote' without signs",
                "quantization 'sign', or order 'pool_then_sign'");
  }
  if (args.order == BH_SIGN_THEN_VOTE && args.layer_weights != nullptr) {
    raise_value("layer_weights", "weights with order 'sign_then_vote'",
                "none, as a vote counts layers equally; or order 'pool_then_sign'");
  }
  if (args.thresholds != nullptr && !is_sign) {
    raise_value("thresholds", "thresholds without signs", "none, or quantization 'sign'");
  }
  const bool has_both = args.inverse_scale != nullptr && args.zero_point != nullptr;
  const bool has_any = args.inverse_scale != nullptr || args.zero_point != nullptr;
  if (is_uint8 && !has_both) {
    raise_value("inverse_scale, zero_point", "one or none of them",
                "both with quantization 'uint8'; calibrate them first");
  }
  if (!is_uint8 && has_any) {
    raise_value("inverse_scale, zero_point", "calibration without uint8",
                "none, or quantization 'uint8'");
  }
}

// The arrays are readable copies of args.lengths and args.token_offsets.
inline void require_rows(const bh_pool_and_pack_args &args, const int64_t *lengths,
                         const int64_t *token_offsets) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const std::string at = "[" + std::to_string(row) + "]";
    const int64_t length = lengths[row];
    const int64_t first = token_offsets[row];
    if (length < 0 || length > args.seq) {
      raise_value("lengths" + at, std::to_string(length), "0 to seq = " + std::to_string(args.seq));
    }
    if (first < 0 || length > args.num_tokens || first > args.num_tokens - length) {
      raise_value("token_offsets" + at,
                  std::to_string(first) + " for " + std::to_string(length) + " tokens",
                  "all of them inside the " + std::to_string(args.num_tokens) + " of codes");
    }
  }
}

inline bh_position_pooling parse_position_pooling(const std::string &name) {
  if (name == "attention") return BH_ATTENTION;
  if (name == "mean") return BH_MEAN;
  if (name == "cls") return BH_CLS;
  if (name == "last") return BH_LAST;
  raise_value("position_pooling", "'" + name + "'", "attention, mean, cls or last");
}

// "active", or the name of a level that can run here (module.cpp).
bh_level parse_level(const std::string &name);

// Batches of texts (batching.cpp), pairs of texts (combine_texts.cpp), the task heads (heads.cpp),
// the launches of the CUDA kernels (launches.cpp), and tags of words (tag_sequences.cpp).
void define_batching(nanobind::module_ &m);
void define_combine_texts(nanobind::module_ &m);
void define_heads(nanobind::module_ &m);
void define_launches(nanobind::module_ &m);
void define_tag_sequences(nanobind::module_ &m);

}  // namespace bitheads

#endif
