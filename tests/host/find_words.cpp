// find_words FOLDER LIBRARY MAX_LENGTH PREFIX: texts in, one JSON string a line; out, for each, the
// token ids and the words: [[token, tokens, start, end, first byte, last byte], ...]. FOLDER has a
// tokenizer.json and, in `host`, its graph. find_words rule: for each text the words that it has by
// their letters alone, [[first byte, last byte], ...].
#include <iostream>

#include "bundle.h"
#include "tokenizer.h"

namespace {

std::vector<bitheads::Text> read_texts() {
  std::vector<bitheads::Text> texts;
  for (std::string line; std::getline(std::cin, line);) {
    texts.emplace_back(bitheads::parse_json(line).get<std::string>());
  }
  return texts;
}

void show_rule() {
  for (const bitheads::Text &text : read_texts()) {
    bitheads::Json words = bitheads::Json::array();
    for (const bitheads::Place &word : bitheads::find_words(text.first)) {
      words.push_back({word.start, word.end});
    }
    std::cout << words << "\n";
  }
}

}  // namespace

int main(int argc, char **argv) {
  if (argc == 2 && std::string(argv[1]) == "rule") return show_rule(), 0;
  if (argc != 5) return 2;
  try {
    const bitheads::fs::path folder = argv[1];
    bitheads::Manifest manifest;
    manifest.max_length = std::stol(argv[3]);
    manifest.spec.prefix = argv[4];
    manifest.artifacts["tokenizer.json"] =
        bitheads::hash_file(folder / "tokenizer.json", bitheads::Status::bundle, "tokenizer");
    ov::Core core;
    core.add_extension(std::string(argv[2]));
    bitheads::Tokenizer tokenizer(core, folder, manifest, true, 1);
    for (const bitheads::CutTokens &found : tokenizer(read_texts(), true)) {
      bitheads::Json words = bitheads::Json::array();
      for (const bitheads::Word &word : found.words) {
        words.push_back(
            {word.token, word.num_tokens, word.start, word.end, word.start_byte, word.end_byte});
      }
      std::cout << bitheads::Json{{"ids", found.tokens.ids}, {"words", words}} << "\n";
    }
    return 0;
  } catch (const std::exception &error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
