// The safetensors format: a JSON header, then the tensors' bytes, without holes.
#ifndef BITHEADS_HOST_SAFETENSORS_H
#define BITHEADS_HOST_SAFETENSORS_H

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "files.h"
#include "json.h"

namespace bitheads {

struct Tensor {
  std::string dtype;  // "F32", "F16"
  std::vector<int64_t> shape;
  size_t begin = 0;  // where its bytes begin in the file
  size_t bytes = 0;

  int64_t size() const;  // numbers
};

class SafeTensors {
 public:
  // Throws Error(status), its message beginning with `what`, for anything but a sound file of
  // float32 and float16 tensors.
  static SafeTensors read(const fs::path &path, Status status, const std::string &what);

  const std::map<std::string, Tensor> &tensors() const { return tensors_; }
  const Json &metadata() const { return metadata_; }  // texts by name
  std::string_view data(const Tensor &tensor) const {
    return std::string_view(content_).substr(tensor.begin, tensor.bytes);
  }
  // As float32.
  std::vector<float> floats(const Tensor &tensor) const;

 private:
  void parse();

  std::string content_;
  std::map<std::string, Tensor> tensors_;
  Json metadata_ = Json::object();
};

}  // namespace bitheads

#endif
