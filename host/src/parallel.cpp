#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace bitheads {

void for_each_on_threads(int threads, size_t count, const std::function<void(size_t)> &work) {
  std::atomic<size_t> next{0};
  // Of the least number, whoever was faster: those before it have all begun.
  std::exception_ptr error;
  size_t failed = count;
  std::mutex lock;
  const auto run = [&] {
    for (size_t i = next++; i < count; i = next++) {
      try {
        work(i);
      } catch (...) {
        const std::lock_guard<std::mutex> hold(lock);
        if (i < failed) {
          failed = i;
          error = std::current_exception();
        }
        next = count;
      }
    }
  };
  std::vector<std::thread> others;
  const auto wanted = std::min(count, static_cast<size_t>(std::max(1, threads)));
  others.reserve(wanted);
  for (size_t i = 1; i < wanted; ++i) {
    try {
      others.emplace_back(run);
    } catch (const std::system_error &) {  // no more threads can be had: the others do the work
      break;
    }
  }
  run();
  for (std::thread &thread : others) thread.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace bitheads
