#include "cores.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace bitheads {
namespace {

namespace fs = std::filesystem;

// A hierarchy of control groups that limits processor time, or part of one, as it is mounted.
struct Mount {
  bool is_v1;
  std::string group;  // the group that the mount shows: "/" is all of them
  std::string point;
};

std::vector<std::string> lines_of(const fs::path &path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> split(std::string_view text, char at) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == at) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

bool holds(const std::vector<std::string> &words, const char *word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// Undoes the file's escapes: blanks of paths are written as \040, and so on.
std::string unescape(const std::string &text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned code = 0;
    const char *digits = text.data() + i + 1;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(digits, digits + 3, code, 8).ptr == digits + 3) {
      out += static_cast<char>(code);
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<Mount> find_mounts(const fs::path &root) {
  std::vector<Mount> mounts;
  for (const std::string &line : lines_of(root / "proc/self/mountinfo")) {
    const std::vector<std::string> words = split(line, ' ');
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 5 || words.end() - dash < 4) continue;
    const bool is_v1 = dash[1] == "cgroup" && holds(split(dash[3], ','), "cpu");
    if (is_v1 || dash[1] == "cgroup2") {
      mounts.push_back({is_v1, unescape(words[3]), unescape(words[4])});
    }
  }
  return mounts;
}

// The process's own group; "" if it is in none of that version.
std::string find_group(const fs::path &root, bool is_v1) {
  for (const std::string &line : lines_of(root / "proc/self/cgroup")) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (is_v1 ? holds(split(controllers, ','), "cpu") : controllers.empty()) {
      return line.substr(second + 1);
    }
  }
  return "";
}

// Folders from the mount's own to that of the group, as far as the mount shows them: in a container
// its own group is often the top, whatever it is called outside.
std::vector<fs::path> find_folders(const fs::path &root, const Mount &mount,
                                   const std::string &group) {
  std::vector<fs::path> folders;
  if (group.empty()) return folders;
  folders.push_back(root / fs::path(mount.point).relative_path());
  const std::string shown = mount.group == "/" ? "" : mount.group;
  if ((group + "/").rfind(shown + "/", 0) == 0) {
    for (const std::string &name : split(group.substr(shown.size()), '/')) {
      if (name == "..") {  // outside of what this process may see
        break;
      }
      if (!name.empty()) folders.push_back(folders.back() / name);
    }
  }
  return folders;
}

// The number that a word is; 0 for words such as "max".
int64_t number(const std::string &word) {
  int64_t value = 0;
  std::from_chars(word.data(), word.data() + word.size(), value);
  return value;
}

std::string first_line(const fs::path &path) {
  const std::vector<std::string> lines = lines_of(path);
  return lines.empty() ? "" : lines[0];
}

// Microseconds of processor time per period; 0, or less, where there is no quota.
int cores_of(const fs::path &folder, bool is_v1) {
  std::vector<std::string> words = split(first_line(folder / "cpu.max"), ' ');
  if (is_v1) {
    words = {first_line(folder / "cpu.cfs_quota_us"), first_line(folder / "cpu.cfs_period_us")};
  }
  const int64_t quota = number(words[0]);
  const int64_t period = words.size() > 1 ? number(words[1]) : 0;
  if (quota <= 0 || period <= 0) return 0;
  return static_cast<int>(std::min<int64_t>((quota - 1) / period + 1, 1 << 20));
}

}  // namespace

int count_cores() {
#ifdef __linux__
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) return std::max(1, CPU_COUNT(&cores));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int find_quota(const fs::path &root) {
  int smallest = 0;
  for (const Mount &mount : find_mounts(root)) {
    const std::string group = find_group(root, mount.is_v1);
    for (const fs::path &folder : find_folders(root, mount, group)) {
      const int cores = cores_of(folder, mount.is_v1);
      smallest = cores > 0 && (smallest == 0 || cores < smallest) ? cores : smallest;
    }
  }
  return smallest;
}

int obey_quota(int threads) {
  if (threads != 0) return threads;
  const int quota = find_quota("/");
  return quota > 0 && quota < count_cores() ? quota : 0;
}

}  // namespace bitheads
