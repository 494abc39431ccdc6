// tokenize_ahead BUNDLE: later texts are tokenized while the first are encoded. The program's own
// ov::InferRequest::infer stands before OpenVINO's: the first batch waits for the second chunk of
// texts, and the last chunk for the first batch. Neither a host that tokenizes all texts first nor
// one that does it in between would ever end.
#include <unistd.h>

#include <bitheads/bitheads.hpp>
#include <condition_variable>
#include <cstdio>
#include <mutex>

#include "next_infer.h"

namespace {

constexpr int kPatienceS = 60;  // what takes longer hangs: the alarm ends it

std::mutex lock;
std::condition_variable changed;
size_t num_chunks = 0;  // of the call; 0: nothing waits
size_t tokenized = 0;   // chunks that have begun
size_t encoded = 0;     // batches that have begun
bool fails = false;     // the next chunk but one does

}  // namespace

void ov::InferRequest::infer() {
  const bool is_of_texts = is_tokenizer(this);
  {
    std::unique_lock<std::mutex> hold(lock);
    ++(is_of_texts ? tokenized : encoded);
    changed.notify_all();
    if (fails && is_of_texts && tokenized == 3) throw std::runtime_error("no chunk but these");
    if (is_of_texts && num_chunks > 0 && tokenized == num_chunks) {
      changed.wait(hold, [] { return encoded > 0; });
    }
    if (!is_of_texts && num_chunks > 0) changed.wait(hold, [] { return tokenized > 1; });
  }
  next_infer(this);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  alarm(kPatienceS);
  std::vector<bitheads::Text> texts;
  for (size_t i = 0; i < 600; ++i) {
    std::string text = "The tide was out, " + std::to_string(i);
    for (size_t word = 0; word < 7 * i % 40; ++word) text += " and a sailor";
    texts.emplace_back(text);
  }
  bitheads::Options options;
  options.precision = "fp32";
  options.max_batch_tokens = 64;
  const bitheads::Engine engine = bitheads::Engine::load(argv[1], options);
  tokenized = encoded = 0;
  const bitheads::PackedFeatures free = engine.encode(texts);
  num_chunks = tokenized;
  std::printf("%s\n", num_chunks > 4 ? "several chunks" : "too few chunks");
  for (const bool predicts : {false, true}) {
    tokenized = encoded = 0;
    if (predicts) {
      const auto answers = engine.predict(texts, {"averages"});
      std::printf("%s\n", answers.front().size() == texts.size() ? "answers" : "no answers");
    } else {
      std::printf("%s\n", engine.encode(texts).codes == free.codes ? "codes" : "other codes");
    }
  }
  num_chunks = tokenized = encoded = 0;
  fails = true;
  try {
    engine.encode(texts);
    std::printf("no error\n");
  } catch (const bitheads::Error &error) {
    const bool is_known = error.status() == bitheads::Status::backend && tokenized == 3;
    std::printf("%s\n", is_known ? "the error of a chunk" : error.what());
  }
  fails = false;
  std::printf("%s\n", engine.encode(texts).codes == free.codes ? "codes" : "other codes");
}
