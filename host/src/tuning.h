// Which of several precisions is the fastest on this machine. The rule is that of
// engine/sessions/tuning.py, but nothing is remembered.
#ifndef BITHEADS_HOST_TUNING_H
#define BITHEADS_HOST_TUNING_H

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "session.h"

namespace bitheads {

// Seconds that a session takes for a batch of the default budget, of texts of a usual length.
double time_session(Session &session, int64_t max_length);

// Index of the first, but for a later one that is clearly faster: between two that are as good,
// noise must not decide. `seconds`: of each, at least one, best guess first.
size_t find_fastest(const std::vector<double> &seconds);

struct Opened {
  std::string precision;
  std::unique_ptr<Session> session;
};

// Opens the fastest of some precisions, at least one, best guess first. One that cannot be opened
// is not taken. Throws Error(backend), the first one's, if none can be opened.
Opened open_fastest(
    const std::vector<std::string> &precisions,
    const std::function<std::unique_ptr<Session>(const std::string &precision)> &open,
    int64_t max_length);

}  // namespace bitheads

#endif
