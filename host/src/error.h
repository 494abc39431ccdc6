/* Errors in one line: fail(Status::head, "head ", path, ": ..."). */
#ifndef BITHEADS_HOST_ERROR_H
#define BITHEADS_HOST_ERROR_H

#include <locale>
#include <sstream>

#include "bitheads/bitheads.hpp"

namespace bitheads {

template <typename... Parts>
[[noreturn]] void fail(Status status, const Parts &...parts) {
  std::ostringstream message;
  message.imbue(std::locale::classic()); /* the program's may write 30.521, or 30,521 */
  (message << ... << parts);
  throw Error(status, message.str());
}

}  // namespace bitheads

#endif
