// How many processor cores there are for this process. engine/process/cores.py has the same rule.
#ifndef BITHEADS_HOST_CORES_H
#define BITHEADS_HOST_CORES_H

#include <filesystem>

namespace bitheads {

// Processor cores that this process may run on.
int count_cores();

// As many threads as were asked for. 0, all cores, stays 0 unless a quota gives fewer: OpenVINO
// counts cores itself, and sees no quotas.
int obey_quota(int threads);

// How many cores' worth of processor time the process's control groups allow, those above them
// included: the smallest quota, rounded up; 0 if there is none. Control groups of both versions are
// read. `root` is "/" except in tests.
int find_quota(const std::filesystem::path &root);

}  // namespace bitheads

#endif
