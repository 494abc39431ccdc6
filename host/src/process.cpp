#include "process.h"

#include <unistd.h>

#include "error.h"

namespace bitheads {

OwnProcess::OwnProcess() : id_(getpid()) {}

bool OwnProcess::is_this() const {
  return getpid() == id_;
}

void OwnProcess::check() const {
  if (!is_this()) {
    fail(Status::forked, "engine: loaded in process ", id_, ", this is process ", getpid(),
         ", a child of it that has none of its threads. Load the engine in the child.");
  }
}

}  // namespace bitheads
