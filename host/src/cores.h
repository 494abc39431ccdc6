/* How many processor cores there are for this process. engine/process/cores.py has the same rule.
 */
#ifndef BITHEADS_HOST_CORES_H
#define BITHEADS_HOST_CORES_H

#include <filesystem>

namespace bitheads {

/* Processor cores this process may run on. */
int count_cores();

/* So many threads as were asked for. 0, all cores, stays 0 unless a quota gives fewer: OpenVINO
 * counts cores itself, and sees no quotas. */
int obey_quota(int threads);

/* Cores' worth of processor time that the process's control groups allow, those above them
 * included: the smallest quota, rounded up. 0: there is none. Control groups of both versions.
 * `root` is "/", but in tests. */
int find_quota(const std::filesystem::path &root);

}  // namespace bitheads

#endif
