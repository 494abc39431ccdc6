// join_texts SITUATION BUNDLE: which texts of callers that share batches are encoded, and whether
// each caller has his own codes and answers. The program's own ov::InferRequest::infer stands
// before OpenVINO's: it counts, and holds a batch until others have asked.
#include <unistd.h>

#include <atomic>
#include <bitheads/bitheads.hpp>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>

#include "next_infer.h"

namespace {

using bitheads::Engine;
using bitheads::Options;
using bitheads::PackedFeatures;
using bitheads::Pending;
using bitheads::Prediction;
using bitheads::Text;

constexpr int kPatienceS = 120;  // what takes longer hangs: the alarm ends it

std::atomic<size_t> rows{0};
std::mutex lock;
std::condition_variable changed;
bool is_held = false;
size_t num_held = 0;

void hold_next() {
  const std::lock_guard<std::mutex> hold(lock);
  is_held = true;
  num_held = 0;
}

void wait_for_one() {
  std::unique_lock<std::mutex> hold(lock);
  changed.wait(hold, [] { return num_held > 0; });
}

void let_go() {
  const std::lock_guard<std::mutex> hold(lock);
  is_held = false;
  changed.notify_all();
}

Options shared(int64_t cache_bytes = 0) {
  Options options;
  options.precision = "fp32";
  options.threads = 1;
  options.share_batches = true;
  options.cache_bytes = cache_bytes;
  return options;
}

bool same(const PackedFeatures &got, const PackedFeatures &expected) {
  return got.codes == expected.codes && got.offsets == expected.offsets;
}

bool same(const std::vector<Prediction> &got, const std::vector<Prediction> &expected) {
  bool is_same = got.size() == expected.size() && !got.empty();
  for (size_t i = 0; is_same && i < got.size(); ++i) {
    is_same = got[i].task == expected[i].task && got[i].logits == expected[i].logits;
  }
  return is_same;
}

void say(const char *what, const Engine &engine, bool is_right) {
  const auto found = engine.statistics();
  std::printf("%s: %zu rows, %d encoded, %d joined, %d cached, %s\n", what, rows.exchange(0),
              static_cast<int>(found.encoded_texts), static_cast<int>(found.joined_texts),
              static_cast<int>(found.cached_texts), is_right ? "right" : "wrong");
}

// Who asks for what is being encoded, and for what waits, among others who cancel.
void joined(const std::string &bundle) {
  Options alone = shared();
  alone.share_batches = false;
  const Engine by_itself = Engine::load(bundle, alone);
  const Engine engine = Engine::load(bundle, shared());
  const std::vector<Text> first = {"The tide was out.", "A boat, a boat."};
  const std::vector<Text> other = {"A sailor", "The tide was out.", "A sailor"};
  const PackedFeatures of_first = by_itself.encode(first);
  const PackedFeatures of_other = by_itself.encode(other);
  const auto answers = by_itself.predict(other);
  rows = 0;
  hold_next();
  std::vector<Pending<PackedFeatures>> calls = {engine.encode_later(first)};
  wait_for_one();
  std::vector<Pending<PackedFeatures>> cancelled;
  std::vector<Pending<std::vector<Prediction>>> asked;
  for (int turn = 0; turn < 5; ++turn) {
    calls.push_back(engine.encode_later(first));
    cancelled.push_back(engine.encode_later(turn % 2 ? first : other));
    asked.push_back(engine.predict_later(other));
  }
  for (const auto &call : cancelled) call.cancel();
  let_go();
  bool is_right = true;
  for (const auto &call : calls) is_right = is_right && same(call.get(), of_first);
  for (const auto &call : asked) is_right = is_right && same(call.get(), answers);
  say("joined", engine, is_right);
  say("again", engine, same(engine.encode(other), of_other));
}

// With a cache nothing is encoded twice; calls that want more than is there are mixed.
void cached(const std::string &bundle) {
  const Engine engine = Engine::load(bundle, shared(1 << 20));
  const std::vector<Text> first = {"The tide was out.", "A boat, a boat."};
  const PackedFeatures of_first = engine.encode(first);
  const auto answers = engine.predict(first);
  say("first", engine, true);
  const std::vector<Text> mixed = {"A boat, a boat.", "A sailor", "The tide was out.", "A sailor"};
  Options alone = shared();
  alone.share_batches = false;
  const Engine by_itself = Engine::load(bundle, alone);
  const PackedFeatures of_mixed = by_itself.encode(mixed);
  rows = 0;
  say("mixed", engine, same(engine.encode(mixed), of_mixed));
  std::atomic<int> num_wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int turn = 0; turn < 50; ++turn) {
        num_wrong += same(engine.encode(mixed), of_mixed) ? 0 : 1;
        num_wrong += same(engine.predict_later(first).get(), answers) ? 0 : 1;
        num_wrong += same(engine.encode_later(first).get(), of_first) ? 0 : 1;
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  say("many", engine, num_wrong == 0);
}

}  // namespace

void ov::InferRequest::infer() {
  if (!is_tokenizer(this)) {
    rows += get_input_tensor(0).get_shape()[0];
    std::unique_lock<std::mutex> hold(lock);
    ++num_held;
    changed.notify_all();
    changed.wait(hold, [] { return !is_held; });
  }
  next_infer(this);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  alarm(kPatienceS);
  try {
    if (std::strcmp(argv[1], "joined") == 0) joined(argv[2]);
    if (std::strcmp(argv[1], "cached") == 0) cached(argv[2]);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
