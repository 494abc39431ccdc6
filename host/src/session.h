// A compiled graph and as many of its requests as run at the same time.
#ifndef BITHEADS_HOST_SESSION_H
#define BITHEADS_HOST_SESSION_H

#include <condition_variable>
#include <functional>
#include <mutex>
#include <openvino/openvino.hpp>
#include <string>
#include <vector>

#include "files.h"
#include "table_rows.h"

namespace bitheads {

// The graph's file and how it is compiled.
struct GraphOptions {
  fs::path graph;
  std::string precision;   // "auto", "fp32", "bf16", "int8_dynamic" or "int8"
  int threads = 0;         // 0: all cores
  bool has_lanes = false;  // several requests, each on its share of the threads
};

// How any graph is compiled. threads: 0 is all cores.
//
// Threads are not pinned to cores: every process would begin at the first one, where those of
// several processes wait for each other while other cores have nothing to do. One process alone
// gains nothing by it that could be measured.
ov::AnyMap cpu_properties(int threads);

// Whether this processor has bfloat16 arithmetic.
bool has_bf16(ov::Core &core);

// Looks at a graph for them, of a bundle that does not say. Throws Error(backend).
TableRows find_table_rows(ov::Core &core, const fs::path &graph);

class Session {
 public:
  // Throws Error(backend).
  Session(ov::Core &core, const GraphOptions &options);

  const std::string &precision() const { return precision_; }
  const std::vector<std::string> &inputs() const { return inputs_; }
  TableRows rows() const { return rows_; }
  size_t num_lanes() const { return requests_.size(); }

  // Waits for a request that nobody else has, and calls work with it.
  void with_request(const std::function<void(ov::InferRequest &)> &work);

 private:
  std::string precision_;
  std::vector<std::string> inputs_;
  TableRows rows_;
  ov::CompiledModel compiled_;
  std::vector<ov::InferRequest> requests_;
  std::vector<size_t> free_;
  std::mutex lock_;
  std::condition_variable is_free_;
};

}  // namespace bitheads

#endif
