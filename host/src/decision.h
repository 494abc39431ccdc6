// What turns a head's logits into an answer, as a head's file has it: engine/kinds/decision.py.
#ifndef BITHEADS_HOST_DECISION_H
#define BITHEADS_HOST_DECISION_H

#include <string>
#include <vector>

#include "bitheads/bitheads.hpp"
#include "json.h"

namespace bitheads {

// Throws std::invalid_argument for what no kind takes, and for what is not written in a file.
Decision read_decision(const Json &json);

// The settings that it has, but for those of rejecting, which any kind may have.
std::vector<std::string> settings_of(const Decision &decision);

}  // namespace bitheads

#endif
