#include "decision.h"

#include <cmath>
#include <stdexcept>

namespace bitheads {
namespace {

constexpr double kMostSize = 3e38;  // as a float, which is what it is compared as, still finite

std::string shown(const Json &value) {
  return value.dump(-1, ' ', true).substr(0, 60);
}

double read_number(const Json &value) {
  if (!value.is_number() || !(std::fabs(value.get<double>()) <= kMostSize)) {
    throw std::invalid_argument("its decision has " + shown(value) +
                                ", expected numbers up to 3e38");
  }
  return value.get<double>();
}

std::vector<float> read_numbers(const Json &list, const std::string &name) {
  if (!list.is_array() || list.empty()) {
    throw std::invalid_argument("its decision's " + name + " is " + shown(list) +
                                ", expected a list of numbers");
  }
  std::vector<float> numbers;
  for (const Json &value : list) numbers.push_back(static_cast<float>(read_number(value)));
  return numbers;
}

bool is_rising(const std::vector<float> &numbers) {
  for (size_t i = 1; i < numbers.size(); ++i) {
    if (!(numbers[i - 1] < numbers[i])) return false;
  }
  return true;
}

}  // namespace

Decision read_decision(const Json &json) {
  if (!json.is_object()) throw std::invalid_argument("its decision is no object");
  Decision decision;
  for (const auto &[name, value] : json.items()) {
    if (name == "thresholds") {
      decision.thresholds = read_numbers(value, name);
    } else if (name == "cuts") {
      decision.cuts = read_numbers(value, name);
      if (!is_rising(decision.cuts)) {
        throw std::invalid_argument("its cuts are " + shown(value) +
                                    ", expected each above the one before as float32");
      }
    } else if (name == "value_range") {
      const std::vector<float> range = read_numbers(value, name);
      if (range.size() != 2 || !is_rising(range)) {
        throw std::invalid_argument("its value_range is " + shown(value) +
                                    ", expected two numbers that rise as float32");
      }
      decision.value_range = {range[0], range[1]};
    } else if (name == "abstain_below") {
      const double least = read_number(value);
      if (!(least >= 0 && least <= 1)) {
        throw std::invalid_argument("its abstain_below is " + shown(value) + ", expected 0 to 1");
      }
      decision.abstain_below = static_cast<float>(least);
    } else if (name == "reject_above") {
      decision.reject_above = static_cast<float>(read_number(value));
    } else if (name == "reject_scale") {
      const double scale = read_number(value);
      if (!(scale > 0)) {
        throw std::invalid_argument("its reject_scale is " + shown(value) +
                                    ", expected a number above 0");
      }
      decision.reject_scale = static_cast<float>(scale);
    } else {
      throw std::invalid_argument("its decision has " + shown(name) +
                                  ", which this version does not know");
    }
  }
  if (json.contains("reject_above") != json.contains("reject_scale")) {
    throw std::invalid_argument(
        "its decision has reject_above or reject_scale, expected both or none");
  }
  return decision;
}

std::vector<std::string> settings_of(const Decision &decision) {
  std::vector<std::string> names;
  if (decision.abstain_below) names.emplace_back("abstain_below");
  if (!decision.cuts.empty()) names.emplace_back("cuts");
  if (!decision.thresholds.empty()) names.emplace_back("thresholds");
  if (decision.value_range) names.emplace_back("value_range");
  return names;
}

}  // namespace bitheads
