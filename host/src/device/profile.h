// A plan's optimization profiles: which batches it serves.
#ifndef BITHEADS_HOST_DEVICE_PROFILE_H
#define BITHEADS_HOST_DEVICE_PROFILE_H

#include <string>

#include "bitheads/device_session.h"
#include "json.h"

namespace bitheads {

// As the plan's metadata has it. Throws Json::exception or std::invalid_argument for what is no
// profile: shapes of (rows, seq) with 1 <= min <= opt <= max.
bitheads_device_profile read_profile(const Json &json);

}  // namespace bitheads

#endif
