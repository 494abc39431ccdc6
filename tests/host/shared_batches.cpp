// Callers that share batches: shared_batches SITUATION BUNDLE. What is wrong is said, and is
// another line than the test expects. Also built with the thread sanitizer.
#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <bitheads/bitheads.hpp>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
// OpenVINO's threads open a library of theirs in a way that sanitizers refuse.
extern "C" __attribute__((visibility("default"))) void *dlopen(const char *name, int mode) {
  using Open = void *(*)(const char *, int);
  static const auto next = reinterpret_cast<Open>(dlsym(RTLD_NEXT, "dlopen"));
  return next(name, mode & ~RTLD_DEEPBIND);
}
#endif

namespace {

using bitheads::Engine;
using bitheads::Error;
using bitheads::Options;
using bitheads::PackedFeatures;
using bitheads::Pending;
using bitheads::Prediction;
using bitheads::Status;
using bitheads::Text;

constexpr int kPatienceS = 120;  // what takes longer hangs: the alarm ends it
constexpr size_t kThreads = 12;

// Of all lengths, and many the same.
std::vector<Text> make_texts(size_t count, size_t seed = 0) {
  std::vector<Text> texts;
  for (size_t i = seed; i < seed + count; ++i) {
    std::string text = "The tide was out, " + std::to_string(i % 97);
    for (size_t word = 0; word < 7 * i % 40; ++word) text += " and a sailor";
    texts.emplace_back(text);
  }
  return texts;
}

Options shared(int threads = 2) {
  Options options;
  options.precision = "fp32";
  options.threads = threads;
  options.max_batch_tokens = 128;  // many batches
  options.share_batches = true;
  options.max_queue_tokens = int64_t{1} << 40;
  return options;
}

// Holds who calls it, as no program should hold the engine's threads, until it is opened.
class Gate {
 public:
  void hold() {
    std::unique_lock<std::mutex> lock(lock_);
    ++num_arrived_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return is_open_; });
  }

  void wait_for(size_t num_arrived) {
    std::unique_lock<std::mutex> lock(lock_);
    changed_.wait(lock, [&] { return num_arrived_ == num_arrived; });
  }

  void open() {
    const std::lock_guard<std::mutex> lock(lock_);
    is_open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  size_t num_arrived_ = 0;
  bool is_open_ = false;
};

Status status_of(const std::function<void()> &work) {
  try {
    work();
  } catch (const Error &error) {
    return error.status();
  }
  return Status::ok;
}

const char *name_of(Status status) {
  switch (status) {
    case Status::ok:
      return "ok";
    case Status::invalid_input:
      return "invalid_input";
    case Status::queue_full:
      return "queue_full";
    case Status::cancelled:
      return "cancelled";
    case Status::closed:
      return "closed";
    default:
      return "another status";
  }
}

void on_threads(size_t count, const std::function<void(size_t)> &work) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i) threads.emplace_back([&, i] { work(i); });
  for (std::thread &thread : threads) thread.join();
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

// Every thread asks in another way, again and again; one asks what cannot be answered.
void mixed_with(const Options &options, const std::string &bundle) {
  Options alone = shared();
  alone.share_batches = false;
  const Engine expected = Engine::load(bundle, alone);
  auto owned = std::make_unique<Engine>(Engine::load(bundle, options));
  const Engine &engine = *owned;
  std::atomic<int> num_wrong{0};
  std::atomic<int> num_refused{0};
  std::atomic<int> num_told{0};
  on_threads(kThreads, [&](size_t i) {
    const std::vector<Text> texts = make_texts(1 + 5 * (i % 4), 11 * i);
    const PackedFeatures codes = expected.encode(texts);
    // Kept by who is told, which may be after the answer was had here.
    const auto answers = std::make_shared<const std::vector<Prediction>>(expected.predict(texts));
    for (int turn = 0; turn < 10; ++turn) {
      bool is_right = true;
      if (i % 4 == 0) {
        is_right = same(engine.encode(texts), codes);
      } else if (i % 4 == 1) {
        is_right = same(engine.predict(texts), *answers);
      } else if (i % 4 == 2) {
        const auto pending = engine.predict_later(
            texts, {}, [&num_told, answers](const Pending<std::vector<Prediction>> &ended) {
              num_told += ended.is_done() && same(ended.get(), *answers) ? 1 : 0;
            });
        is_right = same(pending.get(), *answers);
      } else {
        std::vector<Text> broken = texts;
        broken[0].first = "\xff";
        const Status status = status_of([&] { engine.encode(broken); });
        num_refused += status == Status::invalid_input ? 1 : 0;
        is_right = same(engine.encode_later(texts).get(), codes);
      }
      num_wrong += is_right ? 0 : 1;
    }
  });
  owned.reset();  // after which everybody was told
  std::printf("%d wrong, %d refused, %d told\n", num_wrong.load(), num_refused.load(),
              num_told.load());
}

void mixed(const std::string &bundle) {
  mixed_with(shared(), bundle);
}

// The same with a cache that has room for some of the texts.
void kept(const std::string &bundle) {
  Options options = shared();
  options.cache_bytes = 40000;
  mixed_with(options, bundle);
}

// A long call is there: others are answered all the same, one as long is refused, and once it is
// cancelled there is room again. The engine's only thread is held, so the caller encodes.
void bounded(const std::string &bundle) {
  std::atomic<int> num_told{0};
  {
    Options options = shared(1);
    options.max_queue_tokens = 2000;
    const Engine engine = Engine::load(bundle, options);
    const std::vector<Text> few = make_texts(2);
    const PackedFeatures expected = engine.encode(few);
    const auto tell = [&](const Pending<PackedFeatures> &) { ++num_told; };
    Gate gate;
    const auto held = engine.encode_later(few, false, [&](const auto &) { gate.hold(); });
    gate.wait_for(1);
    const auto is_long = engine.encode_later(make_texts(100), false, tell);
    const Status refused = status_of([&] { engine.encode_later(make_texts(100), false, tell); });
    std::puts(name_of(refused));
    std::puts(same(engine.encode(few), expected) ? "the same" : "wrong");
    std::puts(is_long.is_done() ? "done before the others" : "still there");
    is_long.cancel();
    is_long.cancel();
    std::puts(name_of(status_of([&] { is_long.get(); })));
    std::puts(same(engine.encode(few), expected) ? "the same" : "wrong");
    gate.open();
    const auto after = engine.encode_later(make_texts(100), false, tell);
    std::puts(name_of(status_of([&] { after.get(); })));
  }
  std::printf("%d told\n", num_told.load());
}

// All cancel, from other threads, what may wait, run, or have ended.
void cancelled(const std::string &bundle) {
  auto owned = std::make_unique<Engine>(Engine::load(bundle, shared()));
  const Engine &engine = *owned;
  const std::vector<Text> texts = make_texts(30);
  const PackedFeatures expected = engine.encode(texts);
  std::atomic<int> num_wrong{0};
  std::atomic<int> num_told{0};
  on_threads(kThreads, [&](size_t i) {
    for (size_t turn = 0; turn < 20; ++turn) {
      const auto pending =
          engine.encode_later(texts, false, [&](const Pending<PackedFeatures> &) { ++num_told; });
      pending.wait_for(std::chrono::microseconds(300 * ((i + turn) % 7)));
      std::thread other([&] { pending.cancel(); });
      const Status status = status_of([&] { num_wrong += same(pending.get(), expected) ? 0 : 1; });
      num_wrong += status == Status::ok || status == Status::cancelled ? 0 : 1;
      other.join();
    }
  });
  std::puts(same(engine.encode(texts), expected) ? "the same" : "wrong");
  owned.reset();
  std::printf("%d wrong, %d told\n", num_wrong.load(), num_told.load());
}

// No batch can be packed: all calls of every batch end, also those that have texts in others, and
// the next ones are taken.
void failing(const std::string &bundle) {
  const Engine engine = Engine::load(bundle, shared());
  std::atomic<int> num_failed{0};
  on_threads(kThreads, [&](size_t i) {
    const std::vector<Text> texts = make_texts(1 + 20 * (i % 3));
    for (int turn = 0; turn < 5; ++turn) {
      const auto pending = engine.encode_later(texts);
      num_failed += status_of([&] { engine.encode(texts); }) == Status::backend ? 1 : 0;
      num_failed += status_of([&] { pending.get(); }) == Status::backend ? 1 : 0;
    }
  });
  std::printf("%d failed\n", num_failed.load());
}

// The engine goes while calls wait. Its threads' calls end, and so do those that go on by
// themselves, which are asked afterwards. Both lanes' threads are held, so nothing is encoded.
void closed(const std::string &bundle) {
  auto engine = std::make_unique<Engine>(Engine::load(bundle, shared()));
  const Engine &called = *engine;
  Gate gate;
  for (size_t i = 1; i < 3; ++i) {
    called.encode_later(make_texts(1), false, [&](const auto &) { gate.hold(); });
    gate.wait_for(i);
  }
  std::atomic<int> num_told{0};
  std::vector<Pending<PackedFeatures>> pending;
  for (size_t i = 0; i < 4; ++i) {
    pending.push_back(
        called.encode_later(make_texts(40), false, [&](const Pending<PackedFeatures> &ended) {
          num_told += status_of([&] { ended.get(); }) == Status::closed ? 1 : 0;
        }));
  }
  std::atomic<size_t> num_in{0};
  std::atomic<int> num_closed{0};
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      const std::vector<Text> texts = make_texts(40);
      ++num_in;
      num_closed += status_of([&] { called.predict(texts); }) == Status::closed ? 1 : 0;
    });
  }
  while (num_in < kThreads) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::seconds(1));  // for calls that are just beginning
  threads.emplace_back([&] {
    pending.back().wait_for(std::chrono::seconds(kPatienceS));
    gate.open();
  });
  engine.reset();
  for (std::thread &thread : threads) thread.join();
  for (const auto &call : pending) {
    std::puts(name_of(status_of([&] { call.get(); })));
    call.cancel();
  }
  std::printf("%d closed, %d told\n", num_closed.load(), num_told.load());
}

}  // namespace

int main(int argc, char **argv) {
  const std::vector<std::pair<const char *, void (*)(const std::string &)>> situations = {
      {"mixed", mixed},     {"kept", kept},           {"failing", failing},
      {"bounded", bounded}, {"cancelled", cancelled}, {"closed", closed}};
  alarm(kPatienceS);
  for (const auto &[name, run] : situations) {
    if (argc == 3 && std::strcmp(argv[1], name) == 0) {
      try {
        run(argv[2]);
        std::fflush(stdout);
        _exit(0);  // what OpenVINO has of its own threads at the end is none of this program's
      } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
      }
    }
  }
  return 2;
}
