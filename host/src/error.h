// Errors in one line: fail(Status::head, "head ", path, ": ...").
#ifndef BITHEADS_HOST_ERROR_H
#define BITHEADS_HOST_ERROR_H

#include <locale>
#include <sstream>

#include "bitheads/bitheads.hpp"
#include "utf8.h"

namespace bitheads {

constexpr size_t kMaxMessageBytes = 4000;
constexpr const char *kNoMemory = "not enough memory: pass fewer texts in a call.";

template <class... Parts>
[[noreturn]] void fail(Status status, const Parts &...parts) {
  std::ostringstream message;
  message.imbue(std::locale::classic());  // the program's locale may write 30.521, or 30,521
  (message << ... << parts);
  // Files may have anything in them, and parsers quote what they came upon.
  throw Error(status, to_valid_utf8(message.str().substr(0, kMaxMessageBytes)));
}

}  // namespace bitheads

#endif
