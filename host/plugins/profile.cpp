#include "profile.h"

#include <algorithm>
#include <string>
#include <tuple>

#include "plugin.h"

namespace bitheads::plugins {
namespace {

// As `--plan-profile` reads it: "1x1,8x64,32x64".
std::string write(const bitheads_device_profile &profile) {
  std::string text;
  for (const auto &shape : {profile.min, profile.opt, profile.max}) {
    text += (text.empty() ? "" : ",") + std::to_string(shape[0]) + "x" + std::to_string(shape[1]);
  }
  return text;
}

}  // namespace

std::int64_t max_tokens(const bitheads_device_profile &profile) {
  return profile.max[0] * profile.max[1];
}

bool fits(const bitheads_device_profile &profile, std::int64_t rows, std::int64_t seq) {
  return profile.min[0] <= rows && rows <= profile.max[0] && profile.min[1] <= seq &&
         seq <= profile.max[1];
}

std::size_t choose_profile(const Profiles &profiles, std::int64_t rows, std::int64_t seq) {
  std::size_t best = profiles.size();
  const auto size = [&](std::size_t i) {
    return std::make_tuple(max_tokens(profiles[i]), profiles[i].max[1]);
  };
  for (std::size_t i = 0; i < profiles.size(); ++i) {
    if (!fits(profiles[i], rows, seq)) continue;
    if (best == profiles.size() || size(i) < size(best)) best = i;
  }
  if (best < profiles.size()) return best;
  std::string expected;
  std::string options;
  for (const bitheads_device_profile &profile : profiles) {
    expected += (expected.empty() ? "" : " or ") + write(profile);
    options += " --plan-profile " + write(profile);
  }
  const std::string wanted = std::to_string(rows) + "x" + std::to_string(seq);
  fail(BITHEADS_DEVICE_FAILED, "the plan's profiles are too small: got a batch of ", rows,
       " rows of ", seq, " tokens, expected one that fits ", expected,
       " (min, opt, max). Use a smaller token budget (max_batch_tokens), or type: bitheads plan "
       "--bundle BUNDLE",
       options, " --plan-profile 1x1,", wanted, ",", wanted);
}

std::int64_t max_rows(const Profiles &profiles, std::int64_t seq) {
  std::int64_t rows = 0;
  for (const bitheads_device_profile &profile : profiles) {
    if (fits(profile, 1, seq)) rows = std::max(rows, profile.max[0]);
  }
  return rows;
}

}  // namespace bitheads::plugins
