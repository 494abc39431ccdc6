// The head file format, read. engine/heads/head_file.py owns it.
#ifndef BITHEADS_HOST_HEAD_FILE_H
#define BITHEADS_HOST_HEAD_FILE_H

#include <string>
#include <vector>

#include "feature_spec.h"
#include "files.h"
#include "kinds.h"

namespace bitheads {

// A task head with its algebra done once.
struct FoldedHead {
  std::string task;
  std::vector<std::string> labels;
  const Kind *kind = nullptr;
  Decision decision;
  bool is_pair = false;
  bh_position_pooling position_pooling = BH_ATTENTION;
  FeatureSpec spec;
  size_t num_outputs = 0;  // the kind's logits and, last, the reject output, if it has one
  int64_t attention_heads = 0;
  std::vector<float> query;        // [attention_heads, dim], attention only
  std::vector<float> value;        // [dim, dim], attention only
  std::vector<float> dense;        // [inner, dim]
  std::vector<float> dense_bias;   // [inner]
  std::vector<float> output;       // [outputs, inner]
  std::vector<float> output_bias;  // [outputs]
};

// Reads and checks a head file. Throws Error(head), naming the file, for any defect.
FoldedHead read_head(const fs::path &path);

}  // namespace bitheads

#endif
