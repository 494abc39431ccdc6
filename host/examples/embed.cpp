#include <bitheads/bitheads.hpp>
#include <cstdio>

int main(int argc, char **argv) {
  try {
    bitheads::Engine engine =
        bitheads::Engine::load(argc > 1 ? argv[1] : "bundles/all-MiniLM-L6-v2");
    const std::vector<bitheads::Text> texts = {"What a lovely film.", "The plot makes no sense."};

    // One encoder pass, any number of tasks. The codes can be kept and asked again.
    const bitheads::PackedFeatures features = engine.encode(texts);
    for (const bitheads::Prediction &answer : engine.predict_features(features, {"sentiment"})) {
      for (size_t i = 0; i < answer.size(); ++i) {
        std::printf("%s: %s\n", answer.task.c_str(), answer.top(i).c_str());
      }
    }
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
