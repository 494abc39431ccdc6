// On a GPU where there is one, else on the processor, and why; then a task's answers.
#include <bitheads/bitheads.hpp>
#include <cstdio>

int main(int argc, char **argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: on_a_gpu BUNDLE TASK TEXT...\n");
    return 2;
  }
  try {
    bitheads::Options options;
    options.backend = "auto";
    bitheads::Engine engine = bitheads::Engine::load(argv[1], options);
    std::fprintf(stderr, "%s %s\n", engine.backend().c_str(), engine.why_not_gpu().c_str());
    const std::vector<bitheads::Text> texts(argv + 3, argv + argc);
    const auto answers = engine.predict(texts, {argv[2]});
    for (std::size_t i = 0; i < texts.size(); ++i) std::printf("%s\n", answers[0].top(i).c_str());
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
