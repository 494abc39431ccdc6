// Calls that go on by themselves, as a caller has them.
#include "call.h"
#include "scheduler.h"

namespace bitheads {
namespace {

constexpr const char *kCancelled =
    "call: it was cancelled before it had an answer. Make it again if the answer is wanted.";

}  // namespace

template <class Answer>
bool Pending<Answer>::wait_for(std::chrono::nanoseconds time) const {
  return call_->wait_for(time);
}

template <>
PackedFeatures Pending<PackedFeatures>::get() const {
  call_->wait();
  return call_->features;
}

template <>
std::vector<Prediction> Pending<std::vector<Prediction>>::get() const {
  call_->wait();
  return call_->predictions();
}

template <class Answer>
void Pending<Answer>::cancel() const {
  if (is_done()) return;
  if (const auto scheduler = call_->scheduler.lock()) scheduler->drop(call_);
  call_->end(Failure{Status::cancelled, kCancelled});
}

template class Pending<PackedFeatures>;
template class Pending<std::vector<Prediction>>;

}  // namespace bitheads
