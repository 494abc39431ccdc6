#include "packed.h"

#include "error.h"

namespace bitheads {
namespace {

// Throws Error(invalid_input) for words that are none of these features.
void check_words(const PackedFeatures &features) {
  const Words &words = *features.words;
  const size_t texts = features.size();
  if (words.offsets.size() != texts + 1 || words.truncated_at.size() != texts ||
      words.truncated_at_byte.size() != texts) {
    fail(Status::invalid_input, "features: got the words of ", words.truncated_at.size(),
         " texts, expected those of ", texts, ".");
  }
  int64_t end = 0;
  bool is_sound = words.offsets[0] == 0;
  for (size_t text = 0; text < texts && is_sound; ++text) {
    is_sound = words.offsets[text + 1] >= end &&
               words.offsets[text + 1] <= static_cast<int64_t>(words.table.size());
    const int64_t tokens = features.offsets[text + 1] - features.offsets[text];
    for (; is_sound && end < words.offsets[text + 1]; ++end) {
      const Word &word = words.table[static_cast<size_t>(end)];
      is_sound = word.token >= 0 && word.num_tokens >= 1 &&
                 int64_t{word.token} + word.num_tokens <= tokens;
    }
  }
  if (!is_sound || static_cast<size_t>(end) != words.table.size()) {
    fail(Status::invalid_input,
         "features: got words whose tokens are none of their text's. Encode it again.");
  }
}

}  // namespace

void check_features(const PackedFeatures &features, const FeatureSpec &spec) {
  if (features.spec_id != spec.id) {
    fail(Status::spec_mismatch, "features: got feature spec ", features.spec_id, ", expected ",
         spec.shown(), ". Encode the texts with the bundle at hand.");
  }
  int64_t end = 0;
  bool is_rising = !features.offsets.empty() && features.offsets[0] == 0;
  for (const int64_t offset : features.offsets) {
    is_rising = is_rising && offset >= end;
    end = offset;
  }
  if (!is_rising || features.code_bytes != spec.code_bytes ||
      end > static_cast<int64_t>(features.codes.size()) / spec.code_bytes ||
      static_cast<size_t>(end * spec.code_bytes) != features.codes.size()) {
    fail(Status::invalid_input, "features: got ", features.codes.size(), " bytes of codes of ",
         features.code_bytes,
         " bytes, expected offsets that rise from 0 to the number of codes, of ", spec.code_bytes,
         " bytes each.");
  }
  if (!features.is_pair.empty() && features.is_pair.size() != features.size()) {
    fail(Status::invalid_input, "features: got the forms of ", features.is_pair.size(),
         " texts, expected those of ", features.size(), ", or none.");
  }
  if (features.words) check_words(features);
}

void check_pairs(const PackedFeatures &features, const std::vector<RowPair> &pairs) {
  const auto texts = static_cast<int64_t>(features.size());
  for (size_t i = 0; i < pairs.size(); ++i) {
    for (const int64_t row : {pairs[i].first, pairs[i].second}) {
      if (row < 0 || row >= texts) {
        fail(Status::invalid_input, "pair ", i, ": got the row ", row, " of features of ", texts,
             " texts, expected 0 to one less than these.");
      }
      if (!features.is_pair.empty() && features.is_pair[static_cast<size_t>(row)]) {
        fail(Status::invalid_input, "pair ", i, ": got the row ", row,
             ", which was encoded as a pair, expected single texts. Encode the two texts each by "
             "itself.");
      }
    }
  }
}

}  // namespace bitheads
