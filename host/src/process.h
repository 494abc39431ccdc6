// The process that an engine was loaded in.
#ifndef BITHEADS_HOST_PROCESS_H
#define BITHEADS_HOST_PROCESS_H

#include <sys/types.h>

namespace bitheads {

// A forked child has a copy of an engine but none of its threads, and its locks are as they were:
// whoever waits for either waits for ever.
class OwnProcess {
 public:
  OwnProcess();

  bool is_this() const;
  // Throws Error(forked) in any other process.
  void check() const;

 private:
  pid_t id_;
};

}  // namespace bitheads

#endif
