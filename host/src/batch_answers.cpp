#include "batch_answers.h"

#include <algorithm>
#include <map>
#include <utility>

namespace bitheads {
namespace {

// What is asked of one head: rows, and of each who asks which of them it is, and where its outputs
// go.
struct Asked {
  std::vector<size_t> rows;
  std::vector<std::pair<size_t, float *>> to;
};

// Words of a call's text; how many, and the first of them.
std::pair<const Word *, size_t> words_of(const CallRow &row) {
  const Words &words = *row.owner->features.words;
  const int64_t *at = words.offsets.data() + (row.index - row.owner->part_of(row.index).first);
  return {words.table.data() + at[0], static_cast<size_t>(at[1] - at[0])};
}

// Numbers that a head puts out for a text.
size_t num_outputs(const LaidOutHead &head, const CallRow &row) {
  return head.block_outputs() * (head.kind->is_of_words() ? words_of(row).second : 1);
}

// Where a head's outputs for a text are among those of the call.
float *place_of(const CallRow &row, Call::Part &part, size_t head) {
  const LaidOutHead &asked = *part.heads[head];
  size_t before = row.index - part.first;
  if (asked.kind->is_of_words()) {
    before = static_cast<size_t>(row.owner->features.words->offsets[before]);
  }
  return part.outputs[head].data() + before * asked.block_outputs();
}

// Some rows, with the words of the texts if there are heads that read them.
PackedFeatures choose_rows(const PackedFeatures &features, const PlacedRows &placed,
                           const std::vector<size_t> &chosen, bool with_words) {
  PackedFeatures found;
  found.code_bytes = features.code_bytes;
  found.spec_id = features.spec_id;
  auto words = std::make_shared<Words>();
  for (const size_t row : chosen) {
    const int64_t *tokens = features.offsets.data() + placed.texts[row];
    const auto codes = features.codes.begin();
    found.codes.insert(found.codes.end(), codes + tokens[0] * features.code_bytes,
                       codes + tokens[1] * features.code_bytes);
    found.offsets.push_back(found.offsets.back() + tokens[1] - tokens[0]);
    if (!with_words) continue;
    const auto [first, count] = words_of(placed.rows[row]);
    words->table.insert(words->table.end(), first, first + count);
    words->offsets.push_back(static_cast<int64_t>(words->table.size()));
  }
  if (with_words) found.words = std::move(words);
  return found;
}

// Copies what a call keeps of its text.
void copy_text(const PackedFeatures &from, size_t text, const CallRow &row) {
  PackedFeatures &to = row.owner->features;
  if (row.owner->keeps_codes) {
    const auto codes = from.codes.begin();
    std::copy(codes + from.offsets[text] * from.code_bytes,
              codes + from.offsets[text + 1] * from.code_bytes,
              to.codes.begin() + to.offsets[row.index] * from.code_bytes);
  }
  if (row.owner->wants_embeddings()) {
    const auto dim = static_cast<size_t>(to.embedding_dim);
    std::copy_n(from.embeddings.data() + text * dim, dim, to.embeddings.data() + row.index * dim);
  }
}

using ByHead = std::map<std::shared_ptr<const LaidOutHead>, Asked>;

// Equal texts are read once by a head, unless it reads words: those are of the texts themselves.
ByHead find_asked(const PlacedRows &placed) {
  ByHead asked;
  for (size_t i = 0; i < placed.rows.size(); ++i) {
    const CallRow &row = placed.rows[i];
    Call::Part &part = row.owner->part_of(row.index);
    for (size_t head = 0; head < part.heads.size(); ++head) {
      Asked &of_head = asked[part.heads[head]];
      std::vector<size_t> &rows = of_head.rows;
      const bool is_read = !rows.empty() && !part.heads[head]->kind->is_of_words() &&
                           placed.texts[rows.back()] == placed.texts[i];
      if (!is_read) rows.push_back(i);
      of_head.to.emplace_back(rows.size() - 1, place_of(row, part, head));
    }
  }
  return asked;
}

}  // namespace

void PlacedRows::add(CallRow row, size_t text) {
  rows.push_back(std::move(row));
  texts.push_back(text);
}

void hand_out(const PlacedRows &placed, const PackedFeatures &features, HeadThreads &heads,
              const FeatureSpec &spec) {
  for (size_t i = 0; i < placed.rows.size(); ++i) {
    copy_text(features, placed.texts[i], placed.rows[i]);
  }
  const ByHead asked = find_asked(placed);
  std::map<std::vector<size_t>, Heads> groups;  // heads that are asked of the same rows
  for (const auto &[head, of_head] : asked) groups[of_head.rows].push_back(head);
  for (const auto &[chosen, of_group] : groups) {
    const bool with_words = read_words(of_group);
    const Outputs outputs =
        heads.outputs_of(choose_rows(features, placed, chosen, with_words), spec, of_group);
    for (size_t i = 0; i < of_group.size(); ++i) {
      std::vector<const float *> from{outputs[i].data()};
      for (const size_t row : chosen) {
        from.push_back(from.back() + num_outputs(*of_group[i], placed.rows[row]));
      }
      for (const auto &[row, to] : asked.at(of_group[i]).to) {
        std::copy(from[row], from[row + 1], to);
      }
    }
  }
}

std::vector<std::shared_ptr<const Kept>> keep(const CallRows &rows, const PackedFeatures &batch) {
  const auto dim = static_cast<size_t>(batch.embedding_dim);
  std::vector<std::shared_ptr<const Kept>> all;
  for (size_t i = 0; i < rows.size(); ++i) {
    auto kept = std::make_shared<Kept>();
    kept->text = rows[i].owner->texts[rows[i].index];
    const auto codes = batch.codes.begin();
    kept->codes.assign(codes + batch.offsets[i] * batch.code_bytes,
                       codes + batch.offsets[i + 1] * batch.code_bytes);
    if (rows[i].owner->wants_embeddings()) {
      const float *vector = batch.embeddings.data() + i * dim;
      kept->embedding.assign(vector, vector + dim);
    }
    all.push_back(std::move(kept));
  }
  return all;
}

PackedFeatures restore(const std::vector<std::shared_ptr<const Kept>> &kept,
                       const FeatureSpec &spec, bool embeddings) {
  PackedFeatures features;
  features.code_bytes = spec.code_bytes;
  features.spec_id = spec.id;
  for (const auto &one : kept) {
    features.codes.insert(features.codes.end(), one->codes.begin(), one->codes.end());
    features.offsets.push_back(features.offsets.back() +
                               static_cast<int64_t>(one->text.ids.size()));
    if (!embeddings) continue;
    features.embedding_dim = static_cast<int64_t>(one->embedding.size());
    features.embeddings.insert(features.embeddings.end(), one->embedding.begin(),
                               one->embedding.end());
  }
  return features;
}

}  // namespace bitheads
