#include "tuning.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "error.h"

namespace bitheads {
namespace {

// The batch that is timed: the default budget, of a usual length.
constexpr int64_t kRows = 16;
constexpr int64_t kTokens = 64;
// Calls of each precision, of which the fastest counts, and seconds after which there are no more.
constexpr int kCalls = 5;
constexpr double kSeconds = 1.0;
// Share of the best time that another precision must do with to be taken instead.
constexpr double kWorthChanging = 0.9;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

double time_session(Session &session, int64_t max_length) {
  const ov::Shape shape{kRows, static_cast<size_t>(std::min(kTokens, max_length))};
  double fastest = 0;
  try {
    session.with_request([&](ov::InferRequest &request) {
      for (const std::string &name : session.inputs()) {
        ov::Tensor tensor(ov::element::i64, shape);
        std::fill_n(tensor.data<int64_t>(), tensor.get_size(), name == "attention_mask" ? 1 : 0);
        request.set_tensor(name, tensor);
      }
      const auto start = Clock::now();
      request.infer();  // what the first call of a shape makes is there afterwards
      for (int i = 0; i < kCalls && (i == 0 || seconds_since(start) <= kSeconds); ++i) {
        const auto call_start = Clock::now();
        request.infer();
        const double took = seconds_since(call_start);
        fastest = i == 0 ? took : std::min(fastest, took);
      }
    });
  } catch (const std::exception &error) {
    fail(Status::backend, "openvino failed on a batch of [", kRows, ", ", shape[1],
         "] tokens: ", error.what(), ". Name a precision.");
  }
  return fastest;
}

size_t find_fastest(const std::vector<double> &seconds) {
  size_t best = 0;
  for (size_t i = 1; i < seconds.size(); ++i) {
    if (seconds[i] < kWorthChanging * seconds[best]) best = i;
  }
  return best;
}

Opened open_fastest(
    const std::vector<std::string> &precisions,
    const std::function<std::unique_ptr<Session>(const std::string &precision)> &open,
    int64_t max_length) {
  if (precisions.size() == 1) return {precisions.front(), open(precisions.front())};
  std::vector<double> seconds;
  std::optional<Error> failure;
  Opened best;
  for (const std::string &precision : precisions) {
    try {
      std::unique_ptr<Session> session = open(precision);
      seconds.push_back(time_session(*session, max_length));
      // The other's memory is freed: two are there at most.
      if (find_fastest(seconds) + 1 == seconds.size()) best = {precision, std::move(session)};
    } catch (const Error &error) {
      if (!failure) failure = error;
    }
  }
  if (!best.session) throw Error(*failure);
  return best;
}

}  // namespace bitheads
