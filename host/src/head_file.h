// The head file format, read. engine/heads/head_file.py owns it.
#ifndef BITHEADS_HOST_HEAD_FILE_H
#define BITHEADS_HOST_HEAD_FILE_H

#include <string>
#include <vector>

#include "feature_spec.h"
#include "files.h"
#include "kinds.h"

namespace bitheads {

// What a head answers: single texts, pairs that the encoder reads as one, or pairs of two texts
// that it reads each by itself.
enum class Form { single, pair, two_texts };

// As in a head's file.
const char *name_of(Form form);
// Whether it is pairs that are answered.
constexpr bool reads_pairs(Form form) {
  return form != Form::single;
}

// Of a head of two texts, what answers a pair; it reads the row that bh_combine_texts makes of
// both.
struct PairHalf {
  std::vector<float> dense;        // [inner, combined_size(vector_size)]
  std::vector<float> dense_bias;   // [inner]
  std::vector<float> output;       // [outputs, inner]
  std::vector<float> output_bias;  // [outputs]
};

// Codes of a pair whose texts have vectors of that size, one byte each.
constexpr size_t combined_size(size_t vector_size) {
  return 4 * vector_size + 2;
}

// A task head with its algebra done once.
struct FoldedHead {
  std::string task;
  std::vector<std::string> labels;
  const Kind *kind = nullptr;
  Decision decision;
  Form form = Form::single;
  bh_position_pooling position_pooling = BH_ATTENTION;
  FeatureSpec spec;
  size_t num_outputs = 0;  // the kind's logits and, last, the reject output, if it has one
  size_t vector_size = 0;  // two_texts only: numbers that its `output` makes of a text
  int64_t attention_heads = 0;
  std::vector<float> query;        // [attention_heads, dim], attention only
  std::vector<float> value;        // [dim, dim], attention only
  std::vector<float> dense;        // [inner, dim]
  std::vector<float> dense_bias;   // [inner]
  std::vector<float> output;       // [outputs, inner]; two_texts: [vector_size, inner]
  std::vector<float> output_bias;  // [outputs]; two_texts: [vector_size]
  PairHalf pair;                   // two_texts only
};

// Reads and checks a head file. Throws Error(head), naming the file, for any defect.
FoldedHead read_head(const fs::path &path);

}  // namespace bitheads

#endif
