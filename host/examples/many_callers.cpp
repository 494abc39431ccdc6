// A call for each line of standard input, all at the same time: the texts of calls that wait share
// encoder batches. Labels come out in the order of the lines.
#include <bitheads/bitheads.hpp>
#include <chrono>
#include <cstdio>
#include <iostream>

int main(int argc, char **argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: many_callers BUNDLE TASK <LINES\n");
    return 2;
  }
  try {
    bitheads::Options options;
    options.share_batches = true;
    const bitheads::Engine engine = bitheads::Engine::load(argv[1], options);

    std::vector<bitheads::Pending<std::vector<bitheads::Prediction>>> calls;
    for (std::string line; std::getline(std::cin, line);) {
      calls.push_back(engine.predict_later({line}, {argv[2]}));
    }
    for (const auto &call : calls) {
      if (!call.wait_for(std::chrono::seconds(10))) call.cancel();
      std::printf("%s\n", call.get().front().top(0).c_str());
    }
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
