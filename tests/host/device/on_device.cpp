// The device's side of the host without OpenVINO, so that it can run under the sanitizers: with
// limits that a bundle of tests comes up to, in random orders, and with calls of the driver that
// fail. test_host_device_memory.py runs it.
//
//     on_device BUNDLE PLUGINS DEVICE_CODE DRIVER KERNELS
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "device/encoder.h"
#include "error.h"
#include "head_file.h"

namespace {

using namespace bitheads;

// The software driver's own functions.
struct Driver {
  explicit Driver(const char *path) : library(dlopen(path, RTLD_NOW | RTLD_GLOBAL)) {
    if (library == nullptr) throw std::runtime_error(dlerror());
  }
  template <class Function>
  Function *find(const char *name) const {
    return reinterpret_cast<Function *>(dlsym(library, name));
  }
  void fail(const char *name, uint64_t after, uint64_t times, int status) const {
    find<void(const char *, uint64_t, uint64_t, int)>("soft_fail")(name, after, times, status);
  }
  void *library;
};

void require(bool holds, const char *what) {
  if (!holds) throw std::runtime_error(what);
}

struct Case {
  fs::path folder;
  Manifest manifest;
  DeviceOptions options;
  std::vector<Tokens> texts;
  Heads heads;

  DeviceOptions with(const DeviceLimits &limits) const {
    DeviceOptions wanted = options;
    wanted.limits = limits;
    return wanted;
  }
  TableRows rows() const { return {manifest.vocabulary, manifest.token_types}; }
};

std::vector<Tokens> draw_texts(const Manifest &manifest) {
  std::mt19937 random(7);
  std::vector<Tokens> texts;
  for (int i = 0; i < 20; ++i) {
    Tokens text;
    const auto size = 1 + random() % static_cast<uint32_t>(manifest.max_length);
    for (uint32_t t = 0; t < size; ++t) {
      text.ids.push_back(
          static_cast<int32_t>(random() % static_cast<uint32_t>(manifest.vocabulary)));
    }
    if (i % 3 == 0) text.num_first = random() % size;
    texts.push_back(text);
  }
  return texts;
}

Heads read_heads(const fs::path &folder) {
  Heads heads;
  for (const auto &file : fs::directory_iterator(folder / "heads")) {
    heads.push_back(keep_folded(read_head(file.path()), file.path().string()));
  }
  std::sort(heads.begin(), heads.end(),
            [](const auto &a, const auto &b) { return a->task < b->task; });
  return heads;
}

std::vector<DeviceLimits> unusual_limits() {
  std::vector<DeviceLimits> all(5);
  all[0].max_batch_tokens = 70;  // many batches
  all[1].max_graphs = 2;
  all[1].seq_step = 1;
  all[1].max_batch_tokens = 200;
  all[2].graph_tokens = 0;            // no graphs
  all[3].heads = {300, 1, 1, 64, 1};  // a head at a time, a text at a time
  all[4].heads = {20000, 4, 7, 1 << 12, 2};
  return all;
}

// Returns what was compared.
int compare(const Case &asked, const Driver &driver) {
  DeviceEncoder usual(asked.folder, asked.manifest, asked.rows(), asked.with(DeviceLimits{}));
  const PackedFeatures codes = usual.encode(asked.texts, true);
  require(!codes.embeddings.empty(), "no embeddings");
  const Outputs outputs = *usual.encode_and_predict(asked.texts, asked.heads);
  require(usual.outputs_of(codes, asked.heads) == outputs, "outputs of codes differ");
  int compared = 1;
  for (const DeviceLimits &limits : unusual_limits()) {
    DeviceEncoder encoder(asked.folder, asked.manifest, asked.rows(), asked.with(limits));
    for (uint64_t seed = 0; seed < 2; ++seed) {
      driver.find<void(uint64_t)>("soft_set_random")(seed);
      const PackedFeatures again = encoder.encode(asked.texts, true);
      require(again.codes == codes.codes, "codes differ");
      require(again.embeddings == codes.embeddings, "embeddings differ");
      require(*encoder.encode_and_predict(asked.texts, asked.heads) == outputs, "outputs differ");
      require(encoder.outputs_of(codes, asked.heads) == outputs, "outputs of codes differ");
      compared += 3;
    }
    driver.find<void(uint64_t)>("soft_set_random")(0);
  }
  return compared;
}

// Every entry of the driver fails once, at one call after the other, until a whole run meets none.
int fail_everywhere(const Case &asked, const Driver &driver) {
  constexpr int kOutOfMemory = 2;
  constexpr int kInvalidValue = 1;
  const std::vector<Tokens> few(asked.texts.begin(), asked.texts.begin() + 3);
  int failures = 0;
  for (const char *name :
       {"cuMemAlloc", "cuMemAllocHost", "cuMemcpyHtoD", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync",
        "cuLaunchKernel", "cuLaunchHostFunc", "cuEventRecord", "cuEventSynchronize",
        "cuStreamBeginCapture", "cuGraphInstantiateWithFlags", "cuGraphLaunch",
        "cuModuleGetFunction", "cuModuleLoadData", "cuStreamCreate", "cuEventCreate"}) {
    const int status = std::string(name).rfind("cuMemAlloc", 0) == 0 ? kOutOfMemory : kInvalidValue;
    for (uint64_t after = 0; after < 30; after += 1 + after / 2) {
      driver.fail(name, after, 1, status);
      try {
        DeviceLimits limits;
        limits.max_batch_tokens = 128;
        DeviceEncoder encoder(asked.folder, asked.manifest, asked.rows(), asked.with(limits));
        for (int round = 0; round < 2; ++round) {
          encoder.encode_and_predict(few, asked.heads);
          encoder.encode(few, true);
        }
      } catch (const Error &error) {
        require(error.status() == Status::backend || error.status() == Status::device_memory,
                error.what());
        ++failures;
      }
      driver.fail(name, 0, 1, 0);  // no more
    }
  }
  return failures;
}

std::string left_behind(const Driver &driver) {
  std::string left;
  std::string live = driver.find<const char *()>("soft_live")();
  for (size_t at = 0; at < live.size();) {
    const size_t end = live.find('\n', at);
    const std::string line = live.substr(at, end - at);
    if (line.size() < 2 || line.substr(line.size() - 2) != " 0") left += line + "; ";
    at = end + 1;
  }
  return left + driver.find<const char *()>("soft_take_errors")();
}

int run(char **arguments) {
  const Driver driver(arguments[4]);
  require(driver.find<int(const char *)>("soft_set_kernels")(arguments[5]) == 0, "no kernels");
  Case asked;
  asked.folder = arguments[1];
  asked.manifest = read_manifest(asked.folder);
  asked.options.plugin = load_plugin(fs::path(arguments[2]) / "libbitheads_formula.so");
  asked.options.backend = "formula";
  asked.options.code = arguments[3];
  asked.texts = draw_texts(asked.manifest);
  asked.heads = read_heads(asked.folder);
  std::printf("%d compared\n", compare(asked, driver));
  std::printf("%d failures\n", fail_everywhere(asked, driver));
  std::printf("left: %s\n", left_behind(driver).c_str());
  return 0;
}

}  // namespace

int main(int count, char **arguments) {
  try {
    return count == 6 ? run(arguments) : 2;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
