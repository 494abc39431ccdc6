// Reads files as the host does, as they are and mutated; built with sanitizers, which end it where
// a read goes wrong. fuzz_files MUTATIONS FOLDER FILE...: bundle.json, calibrations and weights of
// embeddings are read in FOLDER, everything else as a head. Prints how many were accepted.
#include <cstdio>
#include <fstream>
#include <random>
#include <string>

#include "bundle.h"
#include "embedding.h"
#include "error.h"
#include "head_file.h"
#include "heads.h"
#include "utf8.h"

namespace {

using namespace bitheads;

std::string mutated(std::string content, std::mt19937 &draw) {
  const auto below = [&](size_t limit) { return draw() % (limit == 0 ? 1 : limit); };
  for (size_t i = 0, count = 1 + below(4); i < count && !content.empty(); ++i) {
    // Half of them in the header, which is where a reader can be led astray.
    const size_t room = draw() % 2 == 0 ? content.size() : content.size() / 16 + 1;
    const size_t at = below(room < content.size() ? room : content.size());
    switch (below(6)) {
      case 0:
        content[at] = static_cast<char>(draw());
        break;
      case 1:
        content[at] = "0123456789-\"{}[],:.e"[below(20)];
        break;
      case 2:
        content.erase(at, 1 + below(9));
        break;
      case 3:
        content.insert(at, 1 + below(9), static_cast<char>('0' + below(10)));
        break;
      case 4:
        content.resize(at);
        break;
      default:
        content[below(8)] = static_cast<char>(draw());
        break;
    }
  }
  return content;
}

void ask_all(const Prediction &answer) {
  answer.probabilities();
  for (size_t text = 0; text < answer.size(); ++text) {
    if (answer.best(text)) answer.top(text);
    answer.selected(text);
    answer.value(text);
    answer.out_of_domain(text);
    answer.accepted(text);
  }
}

bool read(const fs::path &folder, const std::string &name) {
  try {
    if (name == "bundle.json") {
      read_manifest(folder);
    } else if (name == "calibration.safetensors") {
      FeatureSpec spec;
      spec.dim = 64;
      spec.quantization = BH_UINT8;
      spec.calibration_sha256 = "any";
      read_calibration(folder, spec);
    } else if (name == "embedding.safetensors") {
      using Kind = EmbeddingStep::Kind;
      EmbeddingSpec spec;
      spec.pooling = {BH_EMBEDDING_MEAN, BH_EMBEDDING_MAX};
      spec.steps = {{Kind::dense, Activation::gelu, true},
                    {Kind::layer_norm, Activation::identity, false},
                    {Kind::normalize, Activation::identity, false}};
      spec.dim = 3;
      const Embedder embedder = Embedder::read(folder, spec, 4);
      const std::vector<float> states(5 * 4, 0.5F);
      std::vector<float> vector(3);
      embedder.embed(states.data(), BH_FLOAT32, 5, 4 * sizeof(float), vector.data());
      embedder.embed(states.data(), BH_FLOAT16, 5, 4 * sizeof(float), vector.data());
      embedder.embed(states.data(), BH_BFLOAT16, 5, 4 * sizeof(float), vector.data());
    } else {
      const FoldedHead head = read_head(folder / name);
      const auto laid_out = lay_out(head, "head " + name);
      PackedFeatures features;
      features.codes.resize(static_cast<size_t>(head.spec.code_bytes) * 3, 0x5A);
      features.offsets = {0, 1, 3};
      HeadThreads threads(2);
      const auto answers =
          head.form == Form::two_texts
              ? threads.predict_pairs(features, {{0, 1}, {1, 1}}, head.spec, {laid_out})
              : threads.predict(features, head.spec, {laid_out});
      for (const Prediction &answer : answers) ask_all(answer);
    }
    return true;
  } catch (const Error &error) {
    if (error.status() == Status::internal || std::string(error.what()).size() < 20) {
      std::printf("%s: %s\n", name.c_str(), error.what());
      std::exit(1);
    }
    return false;
  }
}

}  // namespace

int main(int argc, char **argv) {
  const int mutations = argc > 2 ? std::stoi(argv[1]) : 0;
  const fs::path folder = argc > 2 ? argv[2] : ".";
  std::mt19937 draw(1);
  int accepted = 0;
  int refused = 0;
  for (int i = 3; i < argc; ++i) {
    const fs::path path = argv[i];
    const std::string name = path.filename().string();
    const std::string content = read_file(path, Status::internal, "fuzz");
    for (int j = 0; j <= mutations; ++j) {
      const std::string changed = j == 0 ? content : mutated(content, draw);
      std::ofstream(folder / name, std::ios::binary) << changed;
      (read(folder, name) ? accepted : refused) += 1;
      if (changed.size() < 4096) {  // any bytes are a text for these
        cut_at_space(changed, 40);
        find_invalid_utf8(changed);
      }
    }
  }
  std::printf("accepted %d, refused %d\n", accepted, refused);
}
