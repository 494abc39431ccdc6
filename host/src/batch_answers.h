// What is encoded, or kept, to the calls that asked for it: codes, embeddings, and what their heads
// make of them.
#ifndef BITHEADS_HOST_BATCH_ANSWERS_H
#define BITHEADS_HOST_BATCH_ANSWERS_H

#include <memory>
#include <vector>

#include "codes_cache.h"
#include "equal_rows.h"
#include "heads.h"

namespace bitheads {

// Rows of calls whose codes are in some features; equal ones share theirs.
struct PlacedRows {
  CallRows rows;
  std::vector<size_t> texts;  // [rows], never falling: which text of the features each row is

  void add(CallRow row, size_t text);
};

// Writes each row's results to its call. Every head reads the texts of all who ask it together, and
// no others. Throws Error for what heads cannot read.
void hand_out(const PlacedRows &placed, const PackedFeatures &features, HeadThreads &heads,
              const FeatureSpec &spec);

// What is to be kept of the texts of a batch, [rows].
std::vector<std::shared_ptr<const Kept>> keep(const CallRows &rows, const PackedFeatures &batch);

// The features of what is kept of some texts, in their order.
PackedFeatures restore(const std::vector<std::shared_ptr<const Kept>> &kept,
                       const FeatureSpec &spec, bool embeddings);

}  // namespace bitheads

#endif
