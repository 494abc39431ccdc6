#include "files.h"

#include <openssl/evp.h>

#include <fstream>
#include <vector>

#include "error.h"

namespace bitheads {
namespace {

std::ifstream open_file(const fs::path &path, Status status, const std::string &what) {
  std::error_code ignored;  // a device or a pipe would be read to its end, which may never come
  std::ifstream file;
  if (fs::is_regular_file(path, ignored)) file.open(path, std::ios::binary);
  if (!file.is_open()) {
    fail(status, what, ": no file ", path, " that can be read. Copy it again, or name another.");
  }
  return file;
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  if (context_ == nullptr ||
      EVP_DigestInit_ex(static_cast<EVP_MD_CTX *>(context_), EVP_sha256(), nullptr) != 1) {
    EVP_MD_CTX_free(static_cast<EVP_MD_CTX *>(context_));
    fail(Status::internal, "sha256: OpenSSL has none.");
  }
}

Sha256::~Sha256() {
  EVP_MD_CTX_free(static_cast<EVP_MD_CTX *>(context_));
}

void Sha256::update(const void *data, size_t bytes) {
  if (bytes > 0 && EVP_DigestUpdate(static_cast<EVP_MD_CTX *>(context_), data, bytes) != 1) {
    fail(Status::internal, "sha256: OpenSSL failed.");
  }
}

std::string Sha256::finish() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (EVP_DigestFinal_ex(static_cast<EVP_MD_CTX *>(context_), digest, &size) != 1) {
    fail(Status::internal, "sha256: OpenSSL failed.");
  }
  std::string shown;
  for (unsigned int i = 0; i < size; ++i) {
    shown += "0123456789abcdef"[digest[i] >> 4];
    shown += "0123456789abcdef"[digest[i] & 15];
  }
  return shown;
}

std::string sha256_of(std::string_view text) {
  Sha256 digest;
  digest.update(text);
  return digest.finish();
}

std::string read_file(const fs::path &path, Status status, const std::string &what) {
  std::ifstream file = open_file(path, status, what);
  std::vector<char> block(1 << 20);
  std::string content;
  while (file) {
    file.read(block.data(), static_cast<std::streamsize>(block.size()));
    content.append(block.data(), static_cast<size_t>(file.gcount()));
  }
  if (file.bad()) fail(status, what, ": ", path, " could not be read to its end. Copy it again.");
  return content;
}

FileHash hash_file(const fs::path &path, Status status, const std::string &what) {
  std::ifstream file = open_file(path, status, what);
  std::vector<char> block(1 << 20);
  Sha256 digest;
  FileHash hash;
  while (file) {
    file.read(block.data(), static_cast<std::streamsize>(block.size()));
    digest.update(block.data(), static_cast<size_t>(file.gcount()));
    hash.bytes += static_cast<uint64_t>(file.gcount());
  }
  if (file.bad()) fail(status, what, ": ", path, " could not be read to its end. Copy it again.");
  hash.sha256 = digest.finish();
  return hash;
}

}  // namespace bitheads
