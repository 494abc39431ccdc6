#include "bundle.h"

#include <cmath>
#include <stdexcept>

#include "error.h"
#include "safetensors.h"

namespace bitheads {
namespace {

constexpr int format_version = 1;
const char *const again = "Export the bundle again.";

/* A number that earlier bundles do not have; 0 for those, and for null. */
std::int64_t number_or_0(const Json &object, const char *key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) {
    return 0;
  }
  const std::int64_t number = found->get<std::int64_t>();
  if (number < 1) {
    throw std::invalid_argument(std::string(key) + " below 1");
  }
  return number;
}

std::vector<float> inverse(const std::vector<float> &scale) {
  std::vector<float> inverse;
  for (const float value : scale) {
    inverse.push_back(1.0F / value);
  }
  return inverse;
}

}  // namespace

std::vector<std::string> Manifest::output_names() const {
  std::vector<std::string> names;
  for (const std::int64_t layer : spec.layers) {
    names.push_back("hidden_" + std::to_string(layer));
  }
  return names;
}

Json read_hashed_json(const fs::path &path, const std::string &what, const std::string &fix) {
  const std::string text = read_file(path, Status::bundle, what);
  const std::string name = path.filename().string();
  try {
    Json content = parse_json(text);
    const int version = content.at("format_version").get<int>();
    if (version != format_version) {
      fail(Status::bundle, what, ": ", name, " has format version ", version, ", expected ",
           format_version, ". ", fix);
    }
    const std::string expected = content.at("sha256").get<std::string>();
    content.erase("sha256");
    const std::string got = sha256_of(python_json(content));
    if (got != expected) {
      fail(Status::bundle, what, ": ", name, " was edited: got sha256 ", got.substr(0, 12),
           "..., expected ", expected.substr(0, 12), ".... ", fix);
    }
    return content;
  } catch (const Json::exception &error) {
    fail(Status::bundle, what, ": ", name, " cannot be read (", error.what(), "). ", fix);
  }
}

Manifest read_manifest(const fs::path &folder) {
  const std::string what = "bundle " + folder.string();
  const Json content = read_hashed_json(folder / "bundle.json", what, again);
  try {
    Manifest manifest;
    manifest.spec = FeatureSpec::read(content.at("spec"));
    const Json &encoder = content.at("encoder");
    manifest.max_length = encoder.at("max_length").get<std::int64_t>();
    manifest.pad_id = encoder.at("pad_id").get<std::int64_t>();
    if (manifest.max_length < 1 || manifest.max_length > 1 << 24 || manifest.pad_id < 0) {
      throw std::invalid_argument("a maximum length or padding id out of range");
    }
    manifest.token_types = number_or_0(encoder, "token_types");
    if (const std::int64_t rows = number_or_0(encoder, "vocabulary");
        rows > 0 && manifest.pad_id >= rows) {
      throw std::invalid_argument("a padding id that is no token of the encoder");
    }
    for (const auto &[name, artifact] : content.at("artifacts").items()) {
      manifest.artifacts[name] = {artifact.at("bytes").get<std::uint64_t>(),
                                  artifact.at("sha256").get<std::string>()};
    }
    return manifest;
  } catch (const Json::exception &error) {
    fail(Status::bundle, what, ": bundle.json is malformed (", error.what(), "). ", again);
  } catch (const std::invalid_argument &error) {
    fail(Status::bundle, what, ": bundle.json is malformed (", error.what(), "). ", again);
  }
}

void verify_artifacts(const fs::path &folder, const Manifest &manifest) {
  const std::string what = "bundle " + folder.string();
  for (const auto &[name, expected] : manifest.artifacts) {
    const FileHash got = hash_file(folder / name, Status::bundle, what);
    if (got.bytes != expected.bytes || got.sha256 != expected.sha256) {
      fail(Status::bundle, what, ": ", name, " was changed: got ", got.bytes, " bytes, sha256 ",
           got.sha256.substr(0, 12), "..., expected ", expected.bytes, " bytes, ",
           expected.sha256.substr(0, 12), ".... Copy it again, or export the bundle again.");
    }
  }
}

Calibration read_calibration(const fs::path &folder, const FeatureSpec &spec) {
  if (spec.calibration_sha256.empty()) {
    if (spec.quantization == BH_UINT8) {
      fail(Status::bundle, "bundle ", folder, ": uint8 codes without a calibration. ", again);
    }
    return {};
  }
  const fs::path path = folder / "calibration.safetensors";
  const std::string what = "calibration " + path.string();
  const SafeTensors file = SafeTensors::read(path, Status::bundle, what);
  std::map<std::string, std::vector<float>> arrays;
  Sha256 digest;
  for (const auto &[name, tensor] : file.tensors()) { /* by name, as they are hashed */
    const bool is_known = name == "thresholds" || name == "scale" || name == "zero_point";
    arrays[name] = file.floats(tensor);
    bool is_finite = true;
    for (const float value : arrays[name]) {
      is_finite = is_finite && std::isfinite(value);
    }
    if (!is_known || tensor.dtype != "F32" || !is_finite ||
        tensor.shape != std::vector<std::int64_t>{spec.dim}) {
      fail(Status::bundle, what, ": ", name, " is not finite float32 [", spec.dim,
           "]. It belongs to another encoder, or is damaged.");
    }
    digest.update(name);
    digest.update(std::string_view("\0", 1));
    digest.update(file.data(tensor));
  }
  if (const std::string got = digest.finish(); got != spec.calibration_sha256) {
    fail(Status::bundle, what, ": has the hash ", got.substr(0, 12), "..., expected ",
         spec.calibration_sha256.substr(0, 12), ".... ", again);
  }
  if (spec.quantization == BH_UINT8 && (arrays["scale"].empty() || arrays["zero_point"].empty())) {
    fail(Status::bundle, what, ": no scale and zero point for uint8 codes. ", again);
  }
  return {arrays["thresholds"], inverse(arrays["scale"]), arrays["zero_point"]};
}

}  // namespace bitheads
