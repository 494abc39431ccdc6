// Work for several threads, which take it piece by piece.
#ifndef BITHEADS_HOST_PARALLEL_H
#define BITHEADS_HOST_PARALLEL_H

#include <cstddef>
#include <functional>

namespace bitheads {

// Calls work(0) to work(count - 1), on at most so many threads, this one among them. After an
// exception no more calls begin; that of the least number is thrown again once all threads are
// done.
void for_each_on_threads(int threads, size_t count, const std::function<void(size_t)> &work);

}  // namespace bitheads

#endif
