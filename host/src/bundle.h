// The bundle format, read. engine/bundle.py owns it.
#ifndef BITHEADS_HOST_BUNDLE_H
#define BITHEADS_HOST_BUNDLE_H

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "embedding.h"
#include "feature_spec.h"
#include "files.h"

namespace bitheads {

struct Manifest {
  FeatureSpec spec;
  int64_t max_length = 0;  // the most tokens that a text may have
  int64_t pad_id = 0;
  std::string precision;    // the floating-point type of the graph, "fp16" or "fp32"
  int64_t vocabulary = 0;   // rows of the table of tokens; 0: not known
  int64_t token_types = 0;  // rows of their table; 0: not known, or the encoder reads none
  std::map<std::string, FileHash> artifacts;
  std::optional<EmbeddingSpec> embedding;  // none: the bundle gives no embeddings
  // Session of the build that this version knows, such as "openvino fp32" -> share of signs that it
  // had as torch in fp32 has them; only those that the build looked at.
  std::vector<std::pair<std::string, double>> sign_agreement;

  // The names of the graph's outputs, ascending.
  std::vector<std::string> output_names() const;
  // The precisions in 8 bits of a processor whose graph is there, too.
  std::vector<std::string> quantized() const;
  // What a plan is known by: the hash of the graph and of the files that its weights are in.
  std::string graph_sha256() const;
};

// Per-feature constants of a spec, each [dim] or empty.
struct Calibration {
  std::vector<float> thresholds;
  std::vector<float> inverse_scale;
  std::vector<float> zero_point;
};

// All of these throw Error(bundle).
Manifest read_manifest(const fs::path &folder);
void verify_artifacts(const fs::path &folder, const Manifest &manifest);
Calibration read_calibration(const fs::path &folder, const FeatureSpec &spec);
// What makes embeddings of the last layer's states; nothing where the bundle gives none.
std::optional<Embedder> read_embedder(const fs::path &folder, const Manifest &manifest);

// Parses a JSON file that carries the hash of its own content in "sha256", and checks it.
Json read_hashed_json(const fs::path &path, const std::string &what, const std::string &fix);

}  // namespace bitheads

#endif
