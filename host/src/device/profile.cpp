#include "device/profile.h"

#include <limits>
#include <stdexcept>

namespace bitheads {
namespace {

void read_shape(const Json &shape, int64_t (&sizes)[2]) {
  if (!shape.is_array() || shape.size() != 2) {
    throw std::invalid_argument("profile: got " + shape.dump().substr(0, 60) +
                                ", expected (rows, seq), two integers.");
  }
  for (size_t i = 0; i < 2; ++i) {
    sizes[i] = whole_number(shape[i], 1, std::numeric_limits<int32_t>::max());
  }
}

}  // namespace

bitheads_device_profile read_profile(const Json &json) {
  bitheads_device_profile profile = {};
  read_shape(json.at("min"), profile.min);
  read_shape(json.at("opt"), profile.opt);
  read_shape(json.at("max"), profile.max);
  for (size_t i = 0; i < 2; ++i) {
    if (profile.min[i] > profile.opt[i] || profile.opt[i] > profile.max[i]) {
      throw std::invalid_argument("profile " + json.dump().substr(0, 120) +
                                  ": expected 1 <= min <= opt <= max, for rows and for seq.");
    }
  }
  return profile;
}

}  // namespace bitheads
