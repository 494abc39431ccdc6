#include "bundle.h"

#include <cmath>
#include <limits>
#include <set>
#include <stdexcept>

#include "error.h"
#include "external_files.h"
#include "safetensors.h"

namespace bitheads {
namespace {

constexpr int kFormatVersion = 1;
constexpr int64_t kMaxLayers = 1 << 20;
constexpr int64_t kMaxLength = 1 << 24;
constexpr int64_t kMaxRows = int64_t{1} << 31;
constexpr int64_t kMaxBytes = std::numeric_limits<int64_t>::max();
const char *const again = "Export the bundle again.";

// A number that earlier bundles do not have: 0 for those, and for null.
int64_t number_or_0(const Json &object, const char *key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return 0;
  return whole_number(*found, 1, kMaxRows);
}

// The fields of an encoder, used and unused: the list of `engine/bundle.py`. Returns its layers.
int64_t read_encoder(Manifest &manifest, const Json &encoder) {
  static const std::set<std::string> known = {"model_type", "num_layers", "attention_heads",
                                              "max_length", "pad_id",     "precision",
                                              "vocabulary", "token_types"};
  for (const auto &[name, value] : encoder.items()) {
    if (known.count(name) == 0) throw std::invalid_argument("an encoder with an unknown " + name);
  }
  const int64_t num_layers = whole_number(encoder.at("num_layers"), 1, kMaxLayers);
  whole_number(encoder.at("attention_heads"), 1, kMaxLayers);
  encoder.at("model_type").get_ref<const std::string &>();
  manifest.precision = encoder.at("precision").get<std::string>();
  if (manifest.precision != "fp16" && manifest.precision != "fp32") {
    throw std::invalid_argument("an encoder of an unknown precision");
  }
  manifest.max_length = whole_number(encoder.at("max_length"), 1, kMaxLength);
  manifest.pad_id = whole_number(encoder.at("pad_id"), 0, kMaxRows - 1);
  manifest.token_types = number_or_0(encoder, "token_types");
  manifest.vocabulary = number_or_0(encoder, "vocabulary");
  if (manifest.vocabulary > 0 && manifest.pad_id >= manifest.vocabulary) {
    throw std::invalid_argument("a padding id that is no token of the encoder");
  }
  return num_layers;
}

bool is_plain_name(const std::string &name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

void read_artifacts(Manifest &manifest, const Json &artifacts) {
  if (!artifacts.is_object()) throw std::invalid_argument("artifacts that are no object");
  for (const auto &[name, artifact] : artifacts.items()) {
    if (!is_plain_name(name)) {
      throw std::invalid_argument("an artifact that is no file of the bundle's own folder");
    }
    if (!artifact.is_object() || artifact.size() != 2) {
      throw std::invalid_argument("an artifact of other than a size and a hash");
    }
    manifest.artifacts[name] = {
        static_cast<uint64_t>(whole_number(artifact.at("bytes"), 0, kMaxBytes)),
        artifact.at("sha256").get<std::string>()};
  }
  std::vector<std::string> wanted = {"encoder.onnx", "tokenizer.json"};
  if (!manifest.spec.calibration_sha256.empty()) wanted.push_back("calibration.safetensors");
  if (manifest.embedding) wanted.push_back("embedding.safetensors");
  for (const std::string &name : wanted) {
    if (manifest.artifacts.count(name) == 0) {
      throw std::invalid_argument(name + " is not among the artifacts");
    }
  }
}

// What the build measured of its sessions; a report that is of another form measures nothing.
void read_parity(Manifest &manifest, const Json &parity) {
  const auto sessions = parity.find("sessions");
  if (sessions == parity.end()) return;
  for (const char *name : {"openvino fp32", "openvino bf16", "openvino int8_dynamic",
                           "openvino int8", "onnxruntime fp32"}) {
    const Json *found = &*sessions;
    for (const char *key : {name, "pooled", "sign_agreement"}) {
      const auto next = found->is_object() ? found->find(key) : found->end();
      found = next == found->end() ? nullptr : &*next;
      if (found == nullptr) break;
    }
    if (found != nullptr && found->is_number()) {
      manifest.sign_agreement.emplace_back(name, found->get<double>());
    }
  }
}

std::vector<float> inverse(const std::vector<float> &scale) {
  std::vector<float> inverse;
  for (const float value : scale) inverse.push_back(1.0F / value);
  return inverse;
}

}  // namespace

std::vector<std::string> Manifest::output_names() const {
  std::vector<std::string> names;
  for (const int64_t layer : spec.layers) names.push_back("hidden_" + std::to_string(layer));
  return names;
}

std::vector<std::string> Manifest::quantized() const {
  std::vector<std::string> found;
  for (const std::string precision : {"int8", "int8_dynamic"}) {
    const std::string graph = "encoder_" + precision;
    if (artifacts.count(graph + ".xml") > 0 && artifacts.count(graph + ".bin") > 0) {
      found.push_back(precision);
    }
  }
  return found;
}

std::string Manifest::graph_sha256() const {
  // Whose plans are not for this host: their products have 8 bits.
  static const std::set<std::string> quantized = {"encoder.fp8.onnx", "encoder.fp8.onnx.data",
                                                  "encoder.int8.onnx", "encoder.int8.onnx.data"};
  static const std::set<std::string> others = {
      "encoder_int8.xml",         "encoder_int8.bin", "encoder_int8_dynamic.xml",
      "encoder_int8_dynamic.bin", "tokenizer.json",   "calibration.safetensors",
      "embedding.safetensors"};
  std::vector<std::string> hashes;  // in the order of the files' names
  for (const auto &[name, artifact] : artifacts) {
    if (others.count(name) + quantized.count(name) == 0) hashes.push_back(artifact.sha256);
  }
  if (hashes.size() == 1) return hashes.front();
  std::string joined;
  for (const std::string &hash : hashes) joined += (joined.empty() ? "" : "\n") + hash;
  return sha256_of(joined);
}

std::optional<Embedder> read_embedder(const fs::path &folder, const Manifest &manifest) {
  if (!manifest.embedding) return std::nullopt;
  return Embedder::read(folder, *manifest.embedding, manifest.spec.dim);
}

Json read_hashed_json(const fs::path &path, const std::string &what, const std::string &fix) {
  const std::string text = read_file(path, Status::bundle, what);
  const std::string name = path.filename().string();
  try {
    Json content = parse_json(without_byte_order_mark(text));
    if (!content.at("format_version").is_number_integer()) {
      fail(Status::bundle, what, ": ", name, " has a format version that is no whole number. ",
           fix);
    }
    const auto version = content.at("format_version").get<int64_t>();
    if (version != kFormatVersion) {
      fail(Status::bundle, what, ": ", name, " has format version ", version, ", expected ",
           kFormatVersion, ". ", fix);
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
    const int64_t num_layers = read_encoder(manifest, content.at("encoder"));
    if (const auto embedding = content.find("embedding");
        embedding != content.end() && !embedding->is_null()) {
      manifest.embedding = EmbeddingSpec::read(*embedding);
      if (manifest.spec.layers.back() != num_layers) {
        throw std::invalid_argument("an embedding, but not the last layer's states");
      }
    }
    read_artifacts(manifest, content.at("artifacts"));
    if (!content.at("versions").is_object() || !content.at("parity").is_object()) {
      throw std::invalid_argument("versions or parity that are no object");
    }
    read_parity(manifest, content.at("parity"));
    return manifest;
  } catch (const Json::exception &error) {
    fail(Status::bundle, what, ": bundle.json is malformed (", error.what(), "). ", again);
  } catch (const std::invalid_argument &error) {
    fail(Status::bundle, what, ": bundle.json is malformed (", error.what(), "). ", again);
  }
}

void verify_artifacts(const fs::path &folder, const Manifest &manifest) {
  const std::string what = "bundle " + folder.string();
  std::set<std::string> beside;
  try {
    beside = external_files(read_file(folder / "encoder.onnx", Status::bundle, what));
  } catch (const std::invalid_argument &error) {
    fail(Status::bundle, what, ": encoder.onnx cannot be read (", error.what(), "). ", again);
  }
  for (const std::string &name : beside) {
    if (manifest.artifacts.count(name) == 0) {
      fail(Status::bundle, what, ": its graph reads the file '", name.substr(0, 200),
           "', which is not among the artifacts, so nobody knows what is in it. ", again);
    }
  }
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
  for (const auto &[name, tensor] :
       file.tensors()) {  // in the order of their names, as they are hashed
    const bool is_known = name == "thresholds" || name == "scale" || name == "zero_point";
    arrays[name] = file.floats(tensor);
    bool is_finite = true;
    for (const float value : arrays[name]) is_finite = is_finite && std::isfinite(value);
    if (!is_known || tensor.dtype != "F32" || !is_finite ||
        tensor.shape != std::vector<int64_t>{spec.dim}) {
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
