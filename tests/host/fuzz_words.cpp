// fuzz_words COUNT: places words on the tokens of tokenizers that make no sense, under the
// sanitizers. Whatever ids come back, words are in their text and their tokens among its tokens, in
// order.
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>

#include "word_tokens.h"

namespace {

using bitheads::Ids;
using Draw = std::mt19937;

size_t below(Draw &draw, size_t count) {
  return std::uniform_int_distribution<size_t>(0, count - 1)(draw);
}

std::string random_text(Draw &draw) {
  const std::vector<std::string> pieces = {"a",  "bc", " ",  "  ",           "\n", "\r\n", ".",
                                           "..", "'s", "\t", "\xc2\xa0",     "x1", "-",    "_",
                                           "é",  "中", "😀", "\xe2\x80\x83", "▁",  "\x01", "word"};
  std::string text;
  for (size_t left = below(draw, 60); left > 0; --left) text += pieces[below(draw, pieces.size())];
  return text;
}

// Tokenizers: of letters, of pairs of letters, of all the text in one, of anything at all.
Ids of_letters(std::string_view text) {
  return {text.begin(), text.end()};
}

Ids of_pairs(std::string_view text) {
  Ids ids;
  for (size_t i = 0; i < text.size(); i += 2) ids.push_back(text[i] * 256 + text[text.size() - 1]);
  return ids;
}

Ids of_one(std::string_view text) {
  return text.empty() ? Ids{} : Ids{1};
}

Ids of_anything(std::string_view text) {
  Draw draw(static_cast<unsigned>(std::hash<std::string_view>()(text)));
  Ids ids(below(draw, text.size() + 2));
  for (int32_t &id : ids) id = static_cast<int32_t>(below(draw, 3));
  return ids;
}

// As of_letters, but for texts that have a hash like that: some parts do not fit the whole.
Ids of_most_letters(std::string_view text) {
  return std::hash<std::string_view>()(text) % 5 == 0 ? of_anything(text) : of_letters(text);
}

void check(const std::string &text, size_t prefix, size_t tokens,
           const std::vector<bitheads::WordTokens> &words) {
  size_t token = 0;
  size_t at = 0;
  for (const bitheads::WordTokens &word : words) {
    if (word.num_tokens < 1 || word.first_token < token ||
        word.first_token + word.num_tokens > tokens || word.place.start < at ||
        word.place.end <= word.place.start || word.place.end > text.size() - prefix) {
      std::fprintf(stderr, "words that cannot be in '%s'\n", text.c_str());
      std::exit(1);
    }
    token = word.first_token + word.num_tokens;
    at = word.place.end;
  }
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  Draw draw(0);
  size_t num_words = 0;
  for (const auto &encode : {of_letters, of_pairs, of_one, of_anything, of_most_letters}) {
    for (const bool are_of_words : {false, true}) {
      bitheads::WordTokenFinder find(
          [&](const std::vector<std::string_view> &texts) {
            std::vector<Ids> all;
            for (const std::string_view text : texts) all.push_back(encode(text));
            return all;
          },
          {{' ', '\n', 1}, are_of_words});
      for (int i = 0; i < std::atoi(argv[1]); ++i) {
        std::vector<std::string> texts;
        std::vector<Ids> ids;
        for (int j = 0; j < 8; ++j) texts.push_back("of: " + random_text(draw));
        for (const std::string &text : texts) ids.push_back(encode(text));
        const size_t prefix = i % 2 == 0 ? 0 : i % 3 == 0 ? 3 : 4;
        std::vector<bitheads::EncodedText> given;
        for (size_t j = 0; j < texts.size(); ++j) given.push_back({texts[j], prefix, &ids[j]});
        const auto found = find(given);
        for (size_t j = 0; j < texts.size(); ++j) {
          check(texts[j], prefix, ids[j].size(), found[j]);
          num_words += found[j].size();
        }
      }
    }
  }
  std::printf("%zu words\n", num_words);
}
