#include "device/plan.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>
#include <stdexcept>

#include "bundle.h"
#include "error.h"

namespace bitheads {
namespace {

constexpr uint64_t kMaxMetadataBytes = 1 << 20;
constexpr size_t kMaxWord = 64;
constexpr size_t kShownDigits = 12;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_word(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool is_sha256(const std::string &text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// "10.14.1.48": a number, then one to five parts of letters and digits.
bool is_version(const std::string &text) {
  if (text.size() > kMaxWord || text.empty() || !is_digit(text[0])) return false;
  size_t parts = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '.') {
      if (++parts > 5 || i + 1 == text.size() || text[i + 1] == '.') return false;
    } else if (parts == 0 ? !is_digit(text[i]) : !is_word(text[i])) {
      return false;
    }
  }
  return parts > 0;
}

// "8.6" or "12.0".
bool is_capability(const std::string &text) {
  const size_t point = text.find('.');
  return (point == 1 || point == 2) && text.size() == point + 2 && is_digit(text[0]) &&
         is_digit(text[point - 1]) && is_digit(text[point + 1]);
}

void require(bool is_sound, const char *name, const std::string &got) {
  if (!is_sound) throw std::invalid_argument(std::string(name) + ": got " + got.substr(0, 80));
}

std::string join(const std::vector<std::string> &parts, const char *between) {
  std::string joined;
  for (const std::string &part : parts) joined += (joined.empty() ? "" : between) + part;
  return joined;
}

// As shlex.quote.
std::string quote(const std::string &text) {
  const auto is_plain = [](char c) {
    return is_word(c) || std::string_view("@%+=:,./-").find(c) != std::string_view::npos;
  };
  if (!text.empty() && std::all_of(text.begin(), text.end(), is_plain)) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\"'\"'") : std::string(1, c);
  return quoted + "'";
}

// What to type to make a bundle's plan again.
std::string rebuild_command(const fs::path &bundle, const std::string &flavour = "",
                            const std::vector<std::string> &compute_capabilities = {}) {
  std::string command = "bitheads plan --bundle " + quote(bundle.string());
  if (!flavour.empty()) command += " --plan " + flavour;
  if (flavour == "tensorrt-rtx" && !compute_capabilities.empty()) {
    command += " --plan-capabilities " + join(compute_capabilities, ",");
  }
  return command;
}

std::map<std::string, std::string> read_tensors(const Json &json) {
  std::map<std::string, std::string> tensors;
  for (const auto &[name, dtype] : json.items()) tensors[name] = dtype.get<std::string>();
  return tensors;
}

// Throws Json::exception or std::invalid_argument.
PlanInfo read_info(const Json &json) {
  static const std::set<std::string> known = {
      "format_version", "graph_sha256", "flavour", "version", "compute_capabilities",
      "precision",      "profiles",     "inputs",  "outputs", "plan_bytes",
      "plan_sha256",    "options"};
  for (const auto &[name, value] : json.items()) {
    require(known.count(name) > 0, "an unknown field", name);
  }
  PlanInfo info;
  info.graph_sha256 = json.at("graph_sha256").get<std::string>();
  info.flavour = json.at("flavour").get<std::string>();
  info.version = json.at("version").get<std::string>();
  info.precision = json.at("precision").get<std::string>();
  info.plan_sha256 = json.at("plan_sha256").get<std::string>();
  info.plan_bytes = static_cast<uint64_t>(
      whole_number(json.at("plan_bytes"), 1, std::numeric_limits<int64_t>::max()));
  for (const Json &capability : json.at("compute_capabilities")) {
    info.compute_capabilities.push_back(capability.get<std::string>());
    require(is_capability(info.compute_capabilities.back()), "compute_capabilities",
            info.compute_capabilities.back());
  }
  for (const Json &profile : json.at("profiles")) info.profiles.push_back(read_profile(profile));
  for (const auto &[name, dtype] : read_tensors(json.at("inputs"))) {
    const bool is_ours =
        name == "input_ids" || name == "attention_mask" || name == "token_type_ids";
    require(is_ours && dtype == "int64", "inputs", name + " of the type " + dtype);
    info.inputs.push_back(name);
  }
  info.outputs = read_tensors(json.at("outputs"));
  require(info.flavour == "tensorrt" || info.flavour == "tensorrt-rtx", "flavour", info.flavour);
  require(is_sha256(info.graph_sha256), "graph_sha256", info.graph_sha256);
  require(is_sha256(info.plan_sha256), "plan_sha256", info.plan_sha256);
  require(is_version(info.version), "version", info.version);
  require(info.precision == "fp16" || info.precision == "fp32", "precision", info.precision);
  require(!info.compute_capabilities.empty(), "compute_capabilities", "none");
  require(!info.profiles.empty(), "profiles", "none");
  require(!info.inputs.empty() && !info.outputs.empty(), "inputs, outputs", "none");
  return info;
}

std::string shown(const std::string &value) {
  return is_sha256(value) ? value.substr(0, kShownDigits) + "..." : value;
}

// Why a plan does not run here; nothing if it does.
std::string misfit(const Plan &plan, const std::map<std::string, std::string> &wanted,
                   const std::string &compute_capability) {
  const PlanInfo &info = plan.info;
  const std::map<std::string, std::string> got = {
      {"flavour", info.flavour}, {"version", info.version}, {"graph_sha256", info.graph_sha256}};
  std::vector<std::string> different;
  const bool is_of_flavour = info.flavour == wanted.at("flavour");
  for (const auto &[name, value] : wanted) {
    if (name == "version" && !is_of_flavour) continue;  // numbers of something else
    if (got.at(name) != value) {
      different.push_back(name + " is " + shown(got.at(name)) + ", expected " + shown(value));
    }
  }
  const auto &built_for = info.compute_capabilities;
  if (std::find(built_for.begin(), built_for.end(), compute_capability) == built_for.end()) {
    different.push_back("it is for compute capability " + join(built_for, ", ") + ", expected " +
                        compute_capability);
  }
  if (different.empty()) return "";
  return "plan " + plan.path.string() + ": " + join(different, "; ") + ".";
}

std::vector<fs::path> list_plans(const fs::path &folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const bool is_hidden = it->path().filename().string()[0] == '.';
    if (it->path().extension() == ".plan" && !is_hidden) paths.push_back(it->path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

std::string PlanInfo::name() const {
  std::string architectures;
  for (const std::string &capability : compute_capabilities) {
    architectures += architectures.empty() ? "sm_" : "+sm_";
    std::copy_if(capability.begin(), capability.end(), std::back_inserter(architectures), is_digit);
  }
  return "encoder." + graph_sha256.substr(0, 8) + "." + flavour + "-" + version + "." +
         architectures;
}

std::string Plan::read_bytes() const {
  const std::string what = "plan " + path.string();
  const std::string fix = " Type: " + rebuild_command(path.parent_path().parent_path(),
                                                      info.flavour, info.compute_capabilities);
  // Its size was compared when it was found: a file of another size is not read in full.
  std::string data = read_file(path, Status::backend, what);
  if (data.size() != info.plan_bytes) {
    fail(Status::backend, what, ": got ", data.size(), " bytes, expected ", info.plan_bytes,
         ". It was cut short or replaced.", fix);
  }
  if (const std::string got = sha256_of(data); got != info.plan_sha256) {
    fail(Status::backend, what, ": was changed: got sha256 ", shown(got), ", expected ",
         shown(info.plan_sha256), ".", fix);
  }
  return data;
}

Plan find_plan(const fs::path &bundle, const std::string &graph_sha256, const std::string &flavour,
               const std::string &version, const std::string &compute_capability) {
  const std::map<std::string, std::string> wanted = {
      {"flavour", flavour}, {"version", version}, {"graph_sha256", graph_sha256}};
  std::optional<Plan> found;
  fs::file_time_type written;
  std::string misfits;
  for (const fs::path &path : list_plans(bundle / "plans")) {
    std::string why;
    try {
      Plan plan = read_plan(path);
      why = misfit(plan, wanted, compute_capability);
      std::error_code ignored;
      const auto time = fs::last_write_time(path, ignored);
      if (why.empty() && (!found || time >= written)) {
        found = std::move(plan);
        written = time;
      }
    } catch (const Error &error) {
      why = error.what();
    }
    if (!why.empty()) misfits += "\n  " + why;
  }
  if (found) return *std::move(found);
  const std::string major = compute_capability.substr(0, compute_capability.find('.'));
  const bool is_for_tensorrt = major == "9" || major == "10";  // which TensorRT-RTX leaves out
  fail(Status::backend, "bundle ", bundle.string(), ": no plan for ", flavour, " ", version,
       ", compute capability ", compute_capability, ", graph ", graph_sha256.substr(0, 8), ".",
       misfits.empty() ? " There are none." : misfits, "\nType: ",
       is_for_tensorrt ? rebuild_command(bundle, "tensorrt")
                       : rebuild_command(bundle, flavour, {compute_capability}));
}

Plan read_plan(const fs::path &path) {
  const std::string what = "plan " + path.string();
  const fs::path beside = fs::path(path).replace_extension(".json");
  const std::string fix = "Type: " + rebuild_command(path.parent_path().parent_path());
  std::error_code error;
  const auto metadata_bytes = fs::file_size(beside, error);
  if (error) {
    fail(Status::backend, what, ": no ", beside.filename().string(),
         " beside it, which says what it is for. ", fix);
  }
  if (metadata_bytes > kMaxMetadataBytes) {
    fail(Status::backend, what, ": ", beside.filename().string(), " cannot be read (more than ",
         kMaxMetadataBytes, " bytes). ", fix);
  }
  const Json content = read_hashed_json(beside, what, fix);
  Plan plan;
  plan.path = path;
  try {
    plan.info = read_info(content);
  } catch (const std::exception &malformed) {
    fail(Status::backend, what, ": ", beside.filename().string(), " is malformed (",
         malformed.what(), "). ", fix);
  }
  if (plan.info.name() != path.stem().string()) {
    fail(Status::backend, what, ": got this name, expected ", plan.info.name(), ".plan. ", fix);
  }
  const auto bytes = fs::file_size(path, error);
  if (error || bytes != plan.info.plan_bytes) {
    fail(Status::backend, what, ": got ", error ? 0 : bytes, " bytes, expected ",
         plan.info.plan_bytes, ". It was cut short or replaced. ", fix);
  }
  return plan;
}

}  // namespace bitheads
