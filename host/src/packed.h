// Packed features that a caller made or changed: whether they hold together.
#ifndef BITHEADS_HOST_PACKED_H
#define BITHEADS_HOST_PACKED_H

#include <vector>

#include "bitheads/bitheads.hpp"
#include "feature_spec.h"

namespace bitheads {

// Throws Error(spec_mismatch) for features of another spec, Error(invalid_input) for sizes, forms
// or words that do not fit the codes.
void check_features(const PackedFeatures &features, const FeatureSpec &spec);

// Throws Error(invalid_input) for rows that are not there, and for those that were pairs.
void check_pairs(const PackedFeatures &features, const std::vector<RowPair> &pairs);

}  // namespace bitheads

#endif
