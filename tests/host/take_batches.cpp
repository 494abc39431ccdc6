// The batches that a queue gives: take_batches BUDGET, and on standard input a line for each thing
// that happens: `put LENGTH PADDED LENGTH PADDED ...`, `drop CALL`, by the number of its line among
// those of calls, or `take`. A taken batch is a line of CALL:TEXT.
#include <cstdlib>
#include <iostream>
#include <numeric>
#include <sstream>
#include <string>

#include "fair_queue.h"

int main(int, char **argv) {
  const int64_t budget = std::atoll(argv[1]);
  bitheads::FairQueue<size_t> queue;
  size_t num_calls = 0;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string what;
    words >> what;
    if (what == "put") {
      std::vector<int64_t> lengths;
      std::vector<int64_t> padded;
      for (int64_t length = 0, full = 0; words >> length >> full;) {
        lengths.push_back(length);
        padded.push_back(full);
      }
      std::vector<size_t> texts(lengths.size());
      std::iota(texts.begin(), texts.end(), size_t{0});
      queue.put(num_calls++, texts, lengths, padded);
    } else if (what == "drop") {
      size_t call = 0;
      words >> call;
      int64_t tokens = 0;
      for (const auto &row : queue.drop(call)) tokens += row.length;
      std::cout << "dropped " << tokens << "\n";
    } else {
      for (const auto &row : queue.take(budget, bitheads::kCallTokens))
        std::cout << row.owner << ":" << row.index << " ";
      std::cout << "\n";
    }
  }
}
