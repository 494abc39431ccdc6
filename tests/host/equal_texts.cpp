// equal_texts BUNDLE: how many rows the encoder is given for a call of equal texts, and whether
// each has the codes and answers that it has by itself. The program's own ov::InferRequest::infer
// stands before OpenVINO's, and counts.
#include <algorithm>
#include <atomic>
#include <bitheads/bitheads.hpp>
#include <cstdio>
#include <iterator>

#include "next_infer.h"

namespace {

std::atomic<size_t> rows{0};

bool are_codes_of_each(const bitheads::Engine &engine, const std::vector<bitheads::Text> &texts,
                       const bitheads::PackedFeatures &found) {
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto alone = engine.encode({texts[i]}, true);
    const auto begin = found.codes.begin() + found.offsets[i] * found.code_bytes;
    const auto end = found.codes.begin() + found.offsets[i + 1] * found.code_bytes;
    const auto first_word = found.words->table.begin() + found.words->offsets[i];
    const auto last_word = found.words->table.begin() + found.words->offsets[i + 1];
    const auto is_same = [](const bitheads::Word &a, const bitheads::Word &b) {
      return a.start == b.start && a.end == b.end && a.token == b.token;
    };
    if (!std::equal(begin, end, alone.codes.begin(), alone.codes.end()) ||
        found.is_pair[i] != texts[i].is_pair ||
        !std::equal(first_word, last_word, alone.words->table.begin(), alone.words->table.end(),
                    is_same)) {
      return false;
    }
  }
  return found.size() == texts.size();
}

}  // namespace

void ov::InferRequest::infer() {
  if (!is_tokenizer(this)) rows += get_input_tensor(0).get_shape()[0];
  next_infer(this);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  bitheads::Options options;
  options.precision = "fp32";
  options.max_batch_tokens = 64;
  const bitheads::Engine engine = bitheads::Engine::load(argv[1], options);
  std::string longest;
  for (size_t word = 0; word < 1000; ++word) longest += "boat ";
  for (const size_t different : {10, 300}) {  // one chunk, and several
    std::vector<bitheads::Text> texts;
    for (size_t i = 0; i < 3 * different; ++i) {
      const size_t number = i % different;
      std::string text = number % 10 == 9 ? longest : "The tide was out, ";
      text += std::to_string(number);
      for (size_t word = 0; word < number % 10; ++word) text += " and a sailor";
      if (number % 3 == 0) {
        texts.emplace_back(text, "a boat");
      } else {
        texts.emplace_back(text);
      }
    }
    rows = 0;
    const auto found = engine.encode(texts, true);
    std::printf("%zu texts, %zu rows, %lld cut", texts.size(), rows.load(),
                static_cast<long long>(found.num_truncated));
    std::printf(", %s\n", are_codes_of_each(engine, texts, found) ? "their codes" : "other codes");
    std::vector<bitheads::Text> singles;
    std::copy_if(texts.begin(), texts.end(), std::back_inserter(singles),
                 [](const bitheads::Text &text) { return !text.is_pair; });
    rows = 0;
    const auto answers = engine.predict(singles, {"averages"});
    std::printf("%zu answers, %zu rows\n", answers.front().size(), rows.load());
  }
}
