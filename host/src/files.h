// Whole files, and their hashes.
#ifndef BITHEADS_HOST_FILES_H
#define BITHEADS_HOST_FILES_H

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "bitheads/bitheads.hpp"

namespace bitheads {

namespace fs = std::filesystem;

// SHA-256, fed in parts.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256 &) = delete;
  Sha256 &operator=(const Sha256 &) = delete;

  void update(const void *data, size_t bytes);
  void update(std::string_view text) { update(text.data(), text.size()); }
  // 64 hexadecimal digits. To be called once.
  std::string finish();

 private:
  void *context_;
};

std::string sha256_of(std::string_view text);

struct FileHash {
  uint64_t bytes = 0;
  std::string sha256;
};

// Throws Error(status) for a file that cannot be read; `what` begins the message.
std::string read_file(const fs::path &path, Status status, const std::string &what);
FileHash hash_file(const fs::path &path, Status status, const std::string &what);

}  // namespace bitheads

#endif
