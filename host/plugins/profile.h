// A plan's optimization profiles: which serves a batch. See engine/device/profile.py.
#ifndef BITHEADS_PLUGINS_PROFILE_H
#define BITHEADS_PLUGINS_PROFILE_H

#include <cstdint>
#include <vector>

#include "bitheads/device_session.h"

namespace bitheads::plugins {

using Profiles = std::vector<bitheads_device_profile>;

// Most tokens of a batch, padding included.
std::int64_t max_tokens(const bitheads_device_profile &profile);

bool fits(const bitheads_device_profile &profile, std::int64_t rows, std::int64_t seq);

// Index of the profile for a batch: the smallest that it fits, which is the one with room for the
// fewest tokens, of several the one for shorter texts. Fails if it fits none.
std::size_t choose_profile(const Profiles &profiles, std::int64_t rows, std::int64_t seq);

// Most rows of `seq` tokens that fit a profile; 0 if one row fits none.
std::int64_t max_rows(const Profiles &profiles, std::int64_t seq);

}  // namespace bitheads::plugins

#endif
