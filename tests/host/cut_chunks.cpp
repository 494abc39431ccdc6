// cut_chunks MAX_BATCH_TOKENS <LINES: the chunks of the texts, a line of indices each.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

#include "chunks.h"

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  std::vector<bitheads::Text> texts;
  for (std::string line; std::getline(std::cin, line);) {
    const size_t tab = line.find('\t');
    if (tab == std::string::npos) {
      texts.emplace_back(line);
    } else {
      texts.emplace_back(line.substr(0, tab), line.substr(tab + 1));
    }
  }
  for (const bitheads::Chunk &chunk : bitheads::cut_chunks(texts, std::atoll(argv[1]))) {
    for (const size_t text : chunk) std::printf("%zu ", text);
    std::printf("\n");
  }
}
