// What a program may do around the library: in_a_program SITUATION ARGUMENT...
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <bitheads/bitheads.hpp>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <locale>
#include <optional>
#include <thread>

namespace {

using bitheads::Engine;
using bitheads::Options;
using bitheads::Text;

constexpr int kPatienceS = 60;  // what takes longer hangs: the alarm ends it

std::vector<Text> make_texts(int count) {
  std::vector<Text> texts;
  for (int i = 0; i < count; ++i) {
    texts.emplace_back("The tide was out, " + std::to_string(i) + ".5 sailors " +
                       std::string(static_cast<size_t>(i) % 40, 'x') + " came home.");
  }
  return texts;
}

Options in_fp32(int threads = 0) {
  Options options;
  options.precision = "fp32";
  options.threads = threads;
  options.max_batch_tokens = 128;  // many batches, so lanes
  return options;
}

std::string error_of(const std::function<void()> &work) {
  try {
    work();
  } catch (const bitheads::Error &error) {
    return "status " + std::to_string(static_cast<int>(error.status())) + ": " + error.what();
  }
  return "no error";
}

template <class Value>
void print_bytes(const char *what, const std::vector<Value> &values) {
  std::printf("%s", what);
  const auto *bytes = reinterpret_cast<const unsigned char *>(values.data());
  for (size_t i = 0; i < values.size() * sizeof(Value); ++i) {
    std::printf("%s%02x", i % 64 == 0 ? "\n  " : "", static_cast<unsigned>(bytes[i]));
  }
  std::printf("\n");
}

// locale NAME PRECISION BUNDLE DAMAGED...: all that the library reads and says, where the C
// library's locale and that of C++ are NAME.
void in_locale(char **arguments) {
  const std::string name = arguments[0];
  if (std::setlocale(LC_ALL, name.c_str()) == nullptr) {
    throw std::runtime_error("no locale " + name);
  }
  std::locale::global(std::locale(name));
  Options options = in_fp32();
  options.precision = arguments[1];
  const Engine engine = Engine::load(arguments[2], options);
  const bitheads::PackedFeatures features = engine.encode(make_texts(40));
  std::printf("%s %s\n", features.spec_id.c_str(), engine.backend().c_str());
  print_bytes("codes", features.codes);
  for (const bitheads::Prediction &prediction : engine.predict_features(features)) {
    print_bytes(prediction.task.c_str(), prediction.logits);
    print_bytes("probabilities", prediction.probabilities());
  }
  bitheads::Tokens unknown;
  unknown.ids = {2, 1234567, 3};
  std::puts(error_of([&] { engine.encode_tokens({unknown}); }).c_str());
  options.threads = -1234567;
  std::puts(error_of([&] { Engine::load(arguments[2], options); }).c_str());
  for (char **damaged = arguments + 3; *damaged != nullptr; ++damaged) {
    std::puts(error_of([&] { Engine::load(*damaged); }).c_str());
  }
}

// In a child.
void expect_forked(Engine &engine, const std::vector<Text> &texts, const std::string &bundle) {
  const bitheads::PackedFeatures none;
  const std::vector<std::function<void()>> calls = {
      [&] { engine.encode(texts); },           [&] { engine.encode_tokens({}); },
      [&] { engine.predict(texts); },          [&] { engine.predict_features(none); },
      [&] { engine.predict_pairs(none, {}); }, [&] { engine.tasks(); },
      [&] { engine.add_head(bundle); },        [&] { engine.remove_head("none"); }};
  for (const auto &call : calls) std::puts(error_of(call).c_str());
  std::puts(engine.spec_id().c_str());
}

// A child of a process whose engine has lanes, and is at work in another thread.
void fork_with(const Options &options, const std::string &bundle) {
  const std::vector<Text> texts = make_texts(200);
  std::vector<Engine> engines;
  engines.push_back(Engine::load(bundle, options));
  std::optional<bitheads::Pending<bitheads::PackedFeatures>> pending;
  if (options.share_batches) pending = engines[0].encode_later(make_texts(20000));
  const std::vector<uint8_t> codes = engines[0].encode(texts).codes;
  std::atomic<bool> is_done{false};
  std::thread works([&] {
    while (!is_done) engines[0].encode(texts);
  });
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(kPatienceS);
    if (pending) {
      std::puts(error_of([&] { pending->get(); }).c_str());
      std::puts(error_of([&] { pending->cancel(); }).c_str());
      std::puts(error_of([&] { engines[0].encode_later(texts); }).c_str());
      std::puts(error_of([&] { engines[0].predict_later(texts); }).c_str());
    }
    expect_forked(engines[0], texts, bundle);
    engines[0] = Engine::load(bundle, options);
    std::puts(engines[0].encode(texts).codes == codes ? "its own engine works" : "other codes");
    engines.clear();
    std::exit(0);  // as programs end: what is static goes, too
  }
  int status = 0;
  waitpid(child, &status, 0);
  is_done = true;
  works.join();
  std::printf("child ended with %d\n", status);
}

// fork BUNDLE
void forked(char **arguments) {
  fork_with(in_fp32(2), arguments[0]);
}

// fork-shared BUNDLE: the same with an engine whose callers share batches.
void forked_shared(char **arguments) {
  Options options = in_fp32(2);
  options.share_batches = true;
  options.max_queue_tokens = int64_t{1} << 40;
  fork_with(options, arguments[0]);
}

// Engines are loaded by several threads at once, and each one's first call is made by several.
void on_threads(char **arguments) {
  const std::vector<Text> texts = make_texts(60);
  std::vector<std::vector<uint8_t>> codes(12);
  std::vector<std::thread> loading;
  for (size_t i = 0; i < 4; ++i) {
    loading.emplace_back([&, i] {
      const Engine engine = Engine::load(arguments[0], in_fp32(static_cast<int>(i % 3)));
      std::vector<std::thread> calling;
      for (size_t j = 0; j < 3; ++j) {
        calling.emplace_back([&, j] { codes[3 * i + j] = engine.encode(texts).codes; });
      }
      for (std::thread &thread : calling) thread.join();
    });
  }
  for (std::thread &thread : loading) thread.join();
  for (const auto &got : codes) std::puts(got == codes[0] && !got.empty() ? "same" : "different");
}

// kinds BUNDLE: what heads there are, and what is said where they have no such answer.
void of_kinds(char **arguments) {
  const Engine engine = Engine::load(arguments[0], in_fp32());
  for (const bitheads::TaskInfo &info : engine.tasks()) {
    std::printf("%s %s %d\n", info.task.c_str(), info.kind.c_str(), info.can_refuse ? 1 : 0);
    const bitheads::Prediction answer = engine.predict(make_texts(2), {info.task}).front();
    std::puts(error_of([&] { answer.top(1); }).c_str());
    std::puts(answer.value(1) ? "a value" : "no value");
    std::puts(answer.out_of_domain(1) ? "a reject output" : "no reject output");
    try {
      answer.accepted(2);
    } catch (const std::out_of_range &error) {
      std::puts(error.what());
    }
  }
}

// spans BUNDLE TASK TEXT: its spans, by their bytes; what is said of words that are none.
void and_spans(char **arguments) {
  const Engine engine = Engine::load(arguments[0], in_fp32());
  const std::vector<std::string> tasks = {arguments[1]};
  const std::string text = arguments[2];
  bitheads::PackedFeatures features = engine.encode({text}, true);
  const bitheads::Prediction answer = engine.predict_features(features, tasks).front();
  for (const bitheads::Span &span : answer.spans(0)) {
    std::printf("%zu %zu %s %s\n", span.start, span.end, answer.labels[span.label].c_str(),
                text.substr(span.start_byte, span.end_byte - span.start_byte).c_str());
  }
  std::puts(answer.truncated_at(0) || answer.truncated_at_byte(0) ? "cut" : "whole");
  std::printf("%zu labels, %zu texts\n", answer.selected(0).size(), answer.size());
  std::puts(answer.value(0) || answer.best(0) || answer.out_of_domain(0) ? "more" : "no more");
  std::puts(answer.accepted(0) ? "accepted" : "not accepted");
  std::puts(error_of([&] { answer.top(0); }).c_str());
  try {
    answer.spans(1);
  } catch (const std::out_of_range &error) {
    std::puts(error.what());
  }
  bitheads::Words words = *features.words;
  const auto ask = [&] {
    features.words = std::make_shared<const bitheads::Words>(words);
    std::puts(error_of([&] { engine.predict_features(features, tasks); }).c_str());
  };
  words.table.back().num_tokens += 100;
  ask();
  words.table.pop_back();
  ask();
  words.offsets.push_back(0);
  ask();
}

long resident_kb() {
  long found = 0;
  char line[256];
  std::FILE *file = std::fopen("/proc/self/status", "r");
  while (std::fgets(line, sizeof line, file) != nullptr) std::sscanf(line, "VmRSS: %ld", &found);
  std::fclose(file);
  return found;
}

// memory BUNDLE: resident kilobytes, used and after the engine has gone, three times.
void and_its_memory(char **arguments) {
  for (int turn = 0; turn < 3; ++turn) {
    {
      const Engine engine = Engine::load(arguments[0], in_fp32(2));
      engine.predict(make_texts(200));
      std::printf("%ld ", resident_kb());
    }
    std::printf("%ld\n", resident_kb());
  }
}

// busy BUNDLE THREADS: encodes, until it is killed.
void keep_busy(char **arguments) {
  const Engine engine = Engine::load(arguments[0], in_fp32(std::atoi(arguments[1])));
  const std::vector<Text> texts = make_texts(200);
  for (bool is_first = true;; is_first = false) {
    engine.encode(texts);
    if (is_first) {
      std::puts("busy");
      std::fflush(stdout);
    }
  }
}

}  // namespace

int main(int argc, char **argv) {
  const std::vector<std::pair<const char *, void (*)(char **)>> situations = {
      {"locale", in_locale},   {"fork", forked},
      {"threads", on_threads}, {"memory", and_its_memory},
      {"busy", keep_busy},     {"kinds", of_kinds},
      {"spans", and_spans},    {"fork-shared", forked_shared},
  };
  for (const auto &[name, run] : situations) {
    if (argc > 2 && std::strcmp(argv[1], name) == 0) {
      if (run != keep_busy) alarm(kPatienceS);
      try {
        run(argv + 2);
        return 0;
      } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
      }
    }
  }
  return 2;
}
