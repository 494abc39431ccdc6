// Texts to token ids: the encoder's tokenizer as an OpenVINO graph, which `bitheads host-tokenizer`
// writes into the bundle; the tokenizer's own tokens and cutting are done here.
#ifndef BITHEADS_HOST_TOKENIZER_H
#define BITHEADS_HOST_TOKENIZER_H

#include <memory>
#include <mutex>
#include <openvino/openvino.hpp>
#include <string_view>
#include <vector>

#include "bundle.h"
#include "word_tokens.h"

namespace bitheads {

struct CutTokens {
  Tokens tokens;
  bool truncated = false;        // whether tokens were dropped to keep to the maximum length
  std::vector<Word> words = {};  // of a single text, if they were asked for
};

// Where a tokenizer puts its own tokens around one text, or around a pair.
struct Template {
  std::vector<Ids> own;  // [texts + 1]: before each text, and after the last
  std::vector<size_t> text_types;
  size_t num_own = 0;
  size_t num_own_second = 0;  // how many of its own tokens have the type id 1

  // Throws Json::exception or std::invalid_argument.
  static Template read(const Json &json, size_t texts);
  Tokens join(const std::vector<Ids> &parts) const;
};

class Tokenizer {
 public:
  // threads: 0 is all cores. Throws Error(bundle) for a damaged graph, Error(backend) for what
  // OpenVINO refuses.
  Tokenizer(ov::Core &core, const fs::path &folder, const Manifest &manifest, bool verify,
            int threads);

  // Token ids of every text, in order, and with `words` the words of single texts. May be called
  // from many threads. Throws Error(invalid_input) for texts that are not UTF-8, Error(bundle) for
  // words where the graph was written without what they take.
  std::vector<CutTokens> operator()(const std::vector<Text> &texts, bool words = false);

  // Throws Error(invalid_input) for a text that is not UTF-8.
  static void check(const std::vector<Text> &texts);

  // Whether the bundle has the tokenizer's graph.
  static bool is_in(const fs::path &folder);

 private:
  // What came out of the graph for one text.
  struct Encoded {
    Ids ids;
    std::string_view read;  // all of the text, or as much as can matter
  };
  // Of a text, or a pair.
  struct Item {
    std::vector<Encoded> parts;
    bool is_whole = true;
  };

  std::vector<Ids> run(const std::vector<std::string_view> &texts);
  Encoded encode_long(std::string_view text);
  bool fills(const Ids &ids, std::string_view beginning);
  void check_prefix(const Manifest &manifest);
  CutTokens join(const Item &item) const;
  void add_words(const std::vector<Item> &items, std::vector<CutTokens> &joined);

  std::string what_;  // for messages
  size_t max_length_;
  std::string prefix_;  // of every text; of a pair's first
  Template single_;
  Template pair_;
  std::mutex lock_;
  ov::InferRequest request_;
  std::unique_ptr<WordTokenFinder> word_tokens_;  // null: the graph was written without
};

// How many tokens of each of one or two texts are kept; as engine/texts/tokenize.py does it.
std::vector<size_t> cut_longest_first(const std::vector<size_t> &lengths, size_t budget);

}  // namespace bitheads

#endif
