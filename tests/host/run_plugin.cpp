// Drives a plugin of encoder sessions by its table, on a device that is memory of this process and
// a stream that is a queue of functions. Commands come a line each on standard input, and each
// answers with a line: tests/host/plugin_build.py has what they are for.
#include <dlfcn.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bitheads/device_session.h"

namespace {

using Shape = std::pair<int64_t, int64_t>;
using Queue = std::vector<std::function<void()>>;

struct Host {
  std::map<uint64_t, size_t> allocations;
  size_t bytes_left = size_t{1} << 40;
  Queue queue;
  Queue *recorded = nullptr;  // where work goes in place of the queue
  bool is_eager = false;
  bool is_lost = false;
  bool is_at_work = false;  // in a thread of its own
  bool has_begun = false;   // the first of the queue
  std::mutex mutex;
  std::condition_variable changed;
  std::thread worker;

  void put(std::function<void()> work) {
    if (recorded != nullptr) {
      recorded->push_back(std::move(work));
    } else if (is_eager) {
      work();
    } else {
      const std::lock_guard<std::mutex> lock(mutex);
      queue.push_back(std::move(work));
      changed.notify_all();
    }
  }

  // Returns when a function without a target comes.
  void work() {
    for (std::unique_lock<std::mutex> lock(mutex);;) {
      changed.wait(lock, [&] { return !queue.empty(); });
      const std::function<void()> first = queue.front();
      if (first == nullptr) return;
      has_begun = true;
      changed.notify_all();
      lock.unlock();
      first();
      lock.lock();
      has_begun = false;
      queue.erase(queue.begin());
      changed.notify_all();
    }
  }
};

constexpr int32_t kOutOfMemory = 2;  // as CUDA numbers its errors
constexpr int32_t kIllegalAddress = 700;

int32_t allocate(void *host, size_t bytes, uint64_t *address) {
  auto &device = *static_cast<Host *>(host);
  void *memory = nullptr;
  if (bytes > device.bytes_left || posix_memalign(&memory, 256, bytes) != 0) return kOutOfMemory;
  device.bytes_left -= bytes;
  std::memset(memory, 0xA5, bytes);
  *address = reinterpret_cast<uint64_t>(memory);
  device.allocations[*address] = bytes;
  return 0;
}

void release(void *host, uint64_t address) {
  auto &device = *static_cast<Host *>(host);
  device.bytes_left += device.allocations.at(address);
  device.allocations.erase(address);
  std::free(reinterpret_cast<void *>(address));
}

int32_t enqueue_function(void *host, void (*function)(void *), void *argument) {
  auto &device = *static_cast<Host *>(host);
  if (device.is_lost) return kIllegalAddress;
  device.put([=] { function(argument); });
  return 0;
}

Host host;
bitheads_device device = {0, &host, &host, allocate, release, enqueue_function};
const bitheads_device_sessions *table = nullptr;
bitheads_device_session *session = nullptr;
std::vector<uint64_t> inputs;
std::vector<uint64_t> outputs;
size_t num_outputs = 0;
int64_t dim = 0;
std::map<Shape, Queue> graphs;

std::string read_file(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> split(const std::string &text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

std::vector<const char *> pointers(const std::vector<std::string> &texts) {
  std::vector<const char *> found;
  for (const std::string &text : texts) found.push_back(text.c_str());
  return found;
}

// "4x16"
void read_shape(const std::string &text, int64_t *shape) {
  std::sscanf(text.c_str(), "%ldx%ld", &shape[0], &shape[1]);
}

void answer(bitheads_device_status status) {
  if (status == BITHEADS_DEVICE_OK) {
    std::printf("ok\n");
    return;
  }
  std::string said = table->last_error();
  std::replace(said.begin(), said.end(), '\n', ' ');
  std::printf("failed %d %s\n", status, said.c_str());
}

void show_table() {
  std::printf("version %u", table->version);
  for (const char *const *name = table->backends; *name != nullptr; ++name) {
    std::printf(" backend %s", *name);
  }
  std::printf(" software %s", table->software_backend ? table->software_backend : "none");
  std::printf(" flavour %s\n", table->plan_flavour ? table->plan_flavour : "none");
}

void show_library() {
  const char *version = table->library_version();
  std::printf("%s\n", version != nullptr ? version : table->last_error());
}

// NAME=VALUE each: backend, graph, plan, profiles, inputs, outputs, dim, max_seq.
void open(std::istringstream &words) {
  std::map<std::string, std::string> given;
  for (std::string word; words >> word;) {
    const size_t at = word.find('=');
    given[word.substr(0, at)] = word.substr(at + 1);
  }
  // All of it goes when `open` has returned, as the table says.
  const std::string plan = given.count("plan") != 0 ? read_file(given["plan"]) : "";
  std::vector<bitheads_device_profile> profiles;
  for (const std::string &text : split(given["profiles"], ';')) {
    const std::vector<std::string> shapes = split(text, ',');
    profiles.emplace_back();
    read_shape(shapes[0], profiles.back().min);
    read_shape(shapes[1], profiles.back().opt);
    read_shape(shapes[2], profiles.back().max);
  }
  const std::vector<std::string> names = split(given["inputs"], ',');
  const std::vector<std::string> hidden = split(given["outputs"], ',');
  const std::vector<const char *> name_pointers = pointers(names);
  const std::vector<const char *> hidden_pointers = pointers(hidden);
  num_outputs = hidden.size();
  dim = std::atol(given["dim"].c_str());
  bitheads_device_model model = {};
  model.graph = given["graph"].c_str();
  if (given.count("plan") != 0) {
    model.plan_path = given["plan"].c_str();
    model.plan = plan.data();
    model.plan_bytes = plan.size();
    model.profiles = profiles.data();
    model.num_profiles = profiles.size();
    model.inputs = name_pointers.data();
    model.num_inputs = name_pointers.size();
  }
  model.outputs = hidden_pointers.data();
  model.num_outputs = hidden_pointers.size();
  model.dim = dim;
  model.max_seq = std::atol(given["max_seq"].c_str());
  model.backend = given["backend"].c_str();
  session = reinterpret_cast<bitheads_device_session *>(&host);  // which a failure takes back
  const auto status = table->open(&model, &device, &session);
  if (status != BITHEADS_DEVICE_OK && session != nullptr) {
    std::printf("it failed and left a session\n");
  } else {
    answer(status);
  }
}

void show_limits() {
  const bitheads_device_limits *limits = table->limits(session);
  std::printf("%s capturable %d tokens %ld seq %ld inputs", limits->precision,
              limits->is_capturable, limits->max_tokens, limits->max_seq);
  for (size_t i = 0; i < limits->num_inputs; ++i) std::printf(" %s", limits->inputs[i]);
  std::printf("\n");
}

size_t hidden_bytes(int64_t rows, int64_t seq) {
  const bool is_half = table->limits(session)->type == BITHEADS_DEVICE_FLOAT16;
  return static_cast<size_t>(rows * seq * dim) * (is_half ? 2 : 4);
}

size_t input_bytes(int64_t rows, int64_t seq) {
  return static_cast<size_t>(rows * seq) * sizeof(int64_t);
}

void release_buffers() {
  for (const uint64_t address : inputs) release(&host, address);
  for (const uint64_t address : outputs) release(&host, address);
  inputs.clear();
  outputs.clear();
}

// New buffers for calls of up to this shape.
void bind(int64_t rows, int64_t seq) {
  release_buffers();
  inputs.resize(table->limits(session)->num_inputs);
  outputs.resize(num_outputs);
  for (uint64_t &address : inputs) allocate(&host, input_bytes(rows, seq), &address);
  for (uint64_t &address : outputs) allocate(&host, hidden_bytes(rows, seq), &address);
  answer(table->bind(session, inputs.data(), outputs.data()));
}

void copy_in(const std::string &path, int64_t rows, int64_t seq) {
  const std::string bytes = read_file(path);
  const std::vector<uint64_t> to = inputs;
  const size_t each = input_bytes(rows, seq);
  host.put([=] {
    for (size_t i = 0; i < to.size(); ++i) {
      std::memcpy(reinterpret_cast<void *>(to[i]), bytes.data() + i * each, each);
    }
  });
}

void copy_out(const std::string &path, int64_t rows, int64_t seq) {
  const std::vector<uint64_t> from = outputs;
  const size_t each = hidden_bytes(rows, seq);
  host.put([=] {
    std::ofstream file(path, std::ios::binary);
    for (const uint64_t address : from) {
      file.write(reinterpret_cast<const char *>(address), static_cast<std::streamsize>(each));
    }
  });
}

void run_queue() {
  if (host.is_at_work) {
    std::unique_lock<std::mutex> lock(host.mutex);
    host.changed.wait(lock, [] { return host.queue.empty(); });
    return;
  }
  Queue queue;
  queue.swap(host.queue);
  for (const auto &work : queue) work();
}

void obey(const std::string &line) {
  std::istringstream words(line);
  std::string command;
  std::string from;
  std::string to;
  int64_t rows = 0;
  int64_t seq = 0;
  words >> command;
  if (command == "set") {
    words >> from >> to;
    setenv(from.c_str(), to.c_str(), 1);
    std::printf("ok\n");
  } else if (command == "table") {
    show_table();
  } else if (command == "library") {
    show_library();
  } else if (command == "memory") {
    words >> host.bytes_left;
    std::printf("ok\n");
  } else if (command == "eager" || command == "lose") {
    (command == "eager" ? host.is_eager : host.is_lost) = true;
    std::printf("ok\n");
  } else if (command == "work") {
    host.is_at_work = true;
    host.worker = std::thread([] { host.work(); });
    std::printf("ok\n");
  } else if (command == "begun") {
    std::unique_lock<std::mutex> lock(host.mutex);
    host.changed.wait(lock, [] { return host.has_begun || host.queue.empty(); });
    std::printf("ok\n");
  } else if (command == "open") {
    open(words);
  } else if (command == "limits") {
    show_limits();
  } else if (command == "max_rows") {
    words >> seq;
    std::printf("%ld\n", table->max_rows(session, seq));
  } else if (command == "bind") {
    words >> rows >> seq;
    bind(rows, seq);
  } else if (command == "call") {  // ROWS SEQ INPUTS OUTPUTS, or without files only enqueued
    words >> rows >> seq >> from >> to;
    if (!from.empty()) copy_in(from, rows, seq);
    const auto status = table->enqueue(session, rows, seq, 0);
    if (status == BITHEADS_DEVICE_OK && !to.empty()) copy_out(to, rows, seq);
    answer(status);
  } else if (command == "record") {
    words >> rows >> seq;
    host.recorded = &graphs[{rows, seq}];
    const auto status = table->enqueue(session, rows, seq, 1);
    host.recorded = nullptr;
    answer(status);
  } else if (command == "keep") {
    words >> rows >> seq;
    answer(table->enqueue(session, rows, seq, 1));
  } else if (command == "replay") {
    words >> rows >> seq >> from >> to;
    copy_in(from, rows, seq);
    for (const auto &work : graphs.at({rows, seq})) host.put(work);
    copy_out(to, rows, seq);
    std::printf("ok\n");
  } else if (command == "run") {
    run_queue();
    std::printf("ok\n");
  } else if (command == "forget") {
    words >> rows >> seq;
    graphs.erase({rows, seq});
    table->forget(session, rows, seq);
    std::printf("ok\n");
  } else if (command == "close") {
    graphs.clear();
    table->close(session);
    session = nullptr;
    release_buffers();
    std::printf("left %zu\n", host.allocations.size());
  } else {
    std::printf("no such command: %s\n", line.c_str());
  }
}

}  // namespace

// Where a fake library of NVIDIA's puts its work; the stream is the host.
extern "C" __attribute__((visibility("default"))) int cuLaunchHostFunc(void *stream,
                                                                       void (*function)(void *),
                                                                       void *argument) {
  return enqueue_function(stream, function, argument);
}

int main(int, char **arguments) {
  void *plugin = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  if (plugin == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  const auto sessions = reinterpret_cast<bitheads_device_sessions_function>(
      dlsym(plugin, "bitheads_device_sessions_v1"));
  table = sessions();
  for (std::string line; std::getline(std::cin, line);) obey(line);
  if (host.is_at_work) {
    host.put(nullptr);
    host.worker.join();
  }
  return 0;
}
