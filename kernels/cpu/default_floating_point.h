#ifndef BITHEADS_CPU_DEFAULT_FLOATING_POINT_H
#define BITHEADS_CPU_DEFAULT_FLOATING_POINT_H

#include <cfenv>

namespace bitheads {

// Results must not depend on what a host left in the thread's floating-point mode: libraries built
// with fast-math turn subnormals off for the whole thread, some hosts change the rounding.
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint() noexcept {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatingPoint() { std::fesetenv(&saved_); }
  DefaultFloatingPoint(const DefaultFloatingPoint &) = delete;
  DefaultFloatingPoint &operator=(const DefaultFloatingPoint &) = delete;

 private:
  std::fenv_t saved_;
};

}  // namespace bitheads

#endif
