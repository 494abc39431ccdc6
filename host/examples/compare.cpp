// One text against others, by a head of the form two_texts: each text is encoded once, by itself,
// and what is kept of it can be compared with any other.
#include <bitheads/bitheads.hpp>
#include <cstdio>

int main(int argc, char **argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: compare BUNDLE TASK TEXT OTHER...\n");
    return 2;
  }
  try {
    bitheads::Engine engine = bitheads::Engine::load(argv[1]);
    const std::vector<bitheads::Text> texts(argv + 3, argv + argc);
    const bitheads::PackedFeatures features = engine.encode(texts);
    std::vector<bitheads::RowPair> pairs;
    for (std::size_t i = 1; i < texts.size(); ++i) {
      pairs.push_back({0, static_cast<std::int64_t>(i)});
    }
    const auto answers = engine.predict_pairs(features, pairs, {argv[2]});
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      std::printf("%s: %s\n", answers[0].top(i).c_str(), texts[i + 1].first.c_str());
    }
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
