// The plan format, read: a TensorRT engine, serialized, with what a host must know before it loads
// it. engine/device/plan.py owns it.
#ifndef BITHEADS_HOST_DEVICE_PLAN_H
#define BITHEADS_HOST_DEVICE_PLAN_H

#include <map>
#include <string>
#include <vector>

#include "device/profile.h"
#include "files.h"

namespace bitheads {

// What a plan was made from, and for.
struct PlanInfo {
  std::string graph_sha256;  // of the graph and its weights, see Manifest::graph_sha256
  std::string flavour;       // "tensorrt" or "tensorrt-rtx"
  std::string version;       // of TensorRT, in full; a plan runs on the version that made it
  std::vector<std::string> compute_capabilities;  // of the GPUs it runs on, such as "8.6"
  std::string precision;                          // "fp16" or "fp32"
  std::vector<bitheads_device_profile> profiles;  // in TensorRT's order
  std::vector<std::string> inputs;                // in the order of the metadata
  std::map<std::string, std::string> outputs;     // tensor name -> NumPy dtype
  uint64_t plan_bytes = 0;
  std::string plan_sha256;

  // Name of its two files, without suffix.
  std::string name() const;
};

// A plan in a bundle, its metadata read and checked, its bytes not read yet.
struct Plan {
  fs::path path;
  PlanInfo info;

  // What TensorRT deserializes. Throws Error(backend) if it is not what was written.
  std::string read_bytes() const;
};

// The plan of a bundle that runs here; of several, the one written last. Throws Error(backend) if
// there is none: it says what is there, why each does not fit, and what to type.
Plan find_plan(const fs::path &bundle, const std::string &graph_sha256, const std::string &flavour,
               const std::string &version, const std::string &compute_capability);

// A plan by its .plan file: reads the metadata beside it and compares the plan's size. Throws
// Error(backend), naming the file and what to type, for any defect.
Plan read_plan(const fs::path &path);

}  // namespace bitheads

#endif
