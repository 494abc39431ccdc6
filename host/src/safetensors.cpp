#include "safetensors.h"

#include <algorithm>
#include <cstring>

#include "bitheads/kernels.h"
#include "error.h"

namespace bitheads {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

size_t bytes_of(const std::string &dtype) {
  if (dtype == "F32") return 4;
  if (dtype == "F16") return 2;
  throw std::invalid_argument("dtype " + dtype + ", expected F32 or F16");
}

Tensor read_tensor(const Json &entry, size_t start, size_t room) {
  Tensor tensor;
  tensor.dtype = entry.at("dtype").get<std::string>();
  size_t bytes = bytes_of(tensor.dtype);
  for (const Json &length : entry.at("shape")) {
    if (!length.is_number_unsigned()) {
      throw std::invalid_argument("a shape that is not of whole numbers");
    }
    const auto size = length.get<uint64_t>();
    if (size > room || (size != 0 && bytes > room / size)) {
      throw std::invalid_argument("a tensor larger than the file");
    }
    bytes *= size;
    tensor.shape.push_back(static_cast<int64_t>(size));
  }
  const Json &offsets = entry.at("data_offsets");
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    throw std::invalid_argument("data_offsets that are not two whole numbers");
  }
  const auto begin = offsets[0].get<uint64_t>();
  const auto end = offsets[1].get<uint64_t>();
  if (begin > end || end > room || end - begin != bytes) {
    throw std::invalid_argument("data_offsets that do not fit the shape and the file");
  }
  tensor.begin = start + begin;
  tensor.bytes = bytes;
  return tensor;
}

}  // namespace

int64_t Tensor::size() const {
  return static_cast<int64_t>(bytes / bytes_of(dtype));
}

SafeTensors SafeTensors::read(const fs::path &path, Status status, const std::string &what) {
  SafeTensors file;
  file.content_ = read_file(path, status, what);
  try {
    file.parse();
  } catch (const Json::exception &error) {
    fail(status, what, ": its header cannot be read (", error.what(), "). Copy or make it again.");
  } catch (const std::invalid_argument &error) {
    fail(status, what, ": no sound safetensors file: it has ", error.what(),
         ". Copy or make it again.");
  }
  return file;
}

void SafeTensors::parse() {
  if (content_.size() < 8) throw std::invalid_argument("fewer than 8 bytes");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, content_.data(), 8);
  if (header_bytes > kMaxHeaderBytes || header_bytes > content_.size() - 8) {
    throw std::invalid_argument("a header larger than the file");
  }
  const size_t start = 8 + header_bytes;
  const Json header = parse_json(std::string_view(content_).substr(8, header_bytes));
  if (!header.is_object()) throw std::invalid_argument("a header that is no JSON object");
  for (const auto &[name, entry] : header.items()) {
    if (name == "__metadata__") {
      metadata_ = entry;
    } else {
      tensors_[name] = read_tensor(entry, start, content_.size() - start);
    }
  }
  if (!metadata_.is_object()) throw std::invalid_argument("metadata that is no JSON object");
  for (const Json &value : metadata_) {
    if (!value.is_string()) throw std::invalid_argument("metadata that is no text");
  }
  std::vector<std::pair<size_t, size_t>> spans;
  for (const auto &[name, tensor] : tensors_) {
    spans.emplace_back(tensor.begin, tensor.begin + tensor.bytes);
  }
  std::sort(spans.begin(), spans.end());
  size_t end = start;
  for (const auto &[first, last] : spans) {
    if (first != end) {
      throw std::invalid_argument("tensors with holes between them, or that overlap");
    }
    end = last;
  }
  if (end != content_.size()) throw std::invalid_argument("bytes that belong to no tensor");
}

std::vector<float> SafeTensors::floats(const Tensor &tensor) const {
  const std::string_view bytes = data(tensor);
  std::vector<float> floats(static_cast<size_t>(tensor.size()));
  if (tensor.dtype == "F32") {
    if (!bytes.empty()) std::memcpy(floats.data(), bytes.data(), bytes.size());
    return floats;
  }
  std::vector<uint16_t> halves(floats.size());  // aligned, which the file's need not be
  if (!bytes.empty()) {
    std::memcpy(halves.data(), bytes.data(), bytes.size());
    const bh_status status =
        bh_floats_of_halves(halves.data(), tensor.size(), floats.data(), BH_LEVEL_ACTIVE);
    if (status != BH_OK) fail(Status::internal, "float16 weights: ", bh_status_message(status));
  }
  return floats;
}

}  // namespace bitheads
