// The feature spec: what a code means. engine/features/spec.py has it in full.
#ifndef BITHEADS_HOST_FEATURE_SPEC_H
#define BITHEADS_HOST_FEATURE_SPEC_H

#include <cstdint>
#include <string>
#include <vector>

#include "bitheads/kernels.h"
#include "json.h"

namespace bitheads {

struct FeatureSpec {
  std::string id;  // 16 hexadecimal digits: a hash of all the rest
  std::string encoder;
  std::string weights_sha256;
  std::vector<int64_t> layers;  // hidden states that are pooled, ascending
  std::string layer_pooling;
  std::string quantization_name;
  bh_quantization quantization = BH_SIGN;
  std::string order_name;
  bh_order order = BH_POOL_THEN_SIGN;
  int64_t dim = 0;
  std::vector<float> layer_weights;  // none: the plain mean
  std::string calibration_sha256;    // empty: none
  std::string prefix;                // of every text that the encoder reads
  int64_t code_bytes = 0;

  // Throws Json::exception or std::invalid_argument for what is no spec.
  static FeatureSpec read(const Json &json);

  // The spec in words, for messages.
  std::string shown() const;
};

// The beginning of a prefix, for messages; the text must be valid UTF-8.
std::string show_prefix(const std::string &prefix);

// Throws Error(spec_mismatch), naming both, unless they have the same id.
void check_spec(const std::string &what, const FeatureSpec &got, const FeatureSpec &expected);

}  // namespace bitheads

#endif
