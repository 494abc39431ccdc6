#include "feature_spec.h"

#include <stdexcept>

#include "error.h"
#include "files.h"
#include "utf8.h"

namespace bitheads {
namespace {

template <class Value>
Value find_word(const std::string &word,
                std::initializer_list<std::pair<const char *, Value>> all) {
  for (const auto &[name, value] : all) {
    if (word == name) return value;
  }
  throw std::invalid_argument("unknown word '" + word + "'");
}

}  // namespace

FeatureSpec FeatureSpec::read(const Json &json) {
  static const char *const known[] = {
      "encoder",       "weights_sha256", "layers",
      "layer_pooling", "quantization",   "order",
      "dim",           "layer_weights",  "calibration_sha256",
  };
  if (!json.is_object()) throw std::invalid_argument("a feature spec that is no JSON object");
  Json typed = Json::object();  // the id is a hash of this
  for (const char *name : known) typed[name] = json.contains(name) ? json.at(name) : Json();
  for (const auto &[name, value] : json.items()) {
    if (!typed.contains(name) && name != "prefix") {
      throw std::invalid_argument("an unknown field in the feature spec, of a newer bitheads: " +
                                  name);
    }
  }
  FeatureSpec spec;
  spec.encoder = json.at("encoder").get<std::string>();
  spec.weights_sha256 = json.at("weights_sha256").get<std::string>();
  if (!json.at("layers").is_array() || json.at("layers").empty()) {
    throw std::invalid_argument("a feature spec without layers");
  }
  for (const Json &layer : json.at("layers")) {
    spec.layers.push_back(whole_number(layer, 0, 1 << 20));
  }
  spec.layer_pooling = json.at("layer_pooling").get<std::string>();
  find_word<int>(spec.layer_pooling, {{"last", 0}, {"mean", 0}, {"learned", 0}});
  spec.quantization_name = json.at("quantization").get<std::string>();
  spec.quantization = find_word<bh_quantization>(
      spec.quantization_name, {{"sign", BH_SIGN}, {"uint8", BH_UINT8}, {"float16", BH_HALF}});
  spec.order_name = json.at("order").get<std::string>();
  spec.order = find_word<bh_order>(spec.order_name, {{"pool_then_sign", BH_POOL_THEN_SIGN},
                                                     {"sign_then_vote", BH_SIGN_THEN_VOTE}});
  spec.dim = whole_number(json.at("dim"), 1, 1 << 24);
  if (!typed["layer_weights"].is_null()) {
    Json weights = Json::array();
    if (!json.at("layer_weights").is_array()) {
      throw std::invalid_argument("layer weights that are no list");
    }
    for (const Json &weight : json.at("layer_weights")) {
      if (!weight.is_number()) throw std::invalid_argument("a layer weight that is no number");
      weights.push_back(weight.get<double>());
      spec.layer_weights.push_back(weight.get<float>());
    }
    typed["layer_weights"] = weights;
    if (spec.layer_weights.size() != spec.layers.size()) {
      throw std::invalid_argument("a feature spec with other than one weight a layer");
    }
  }
  if (!typed["calibration_sha256"].is_null()) {
    spec.calibration_sha256 = json.at("calibration_sha256").get<std::string>();
  }
  if (json.contains("prefix")) {
    spec.prefix = json.at("prefix").get<std::string>();
    if (!spec.prefix.empty()) typed["prefix"] = spec.prefix;
  }
  spec.code_bytes = bh_code_bytes(spec.dim, spec.quantization);
  spec.id = sha256_of(python_json(typed, true)).substr(0, 16);
  return spec;
}

std::string FeatureSpec::shown() const {
  std::string text = id + " (" + encoder + ", layers " + std::to_string(layers.front()) + "-" +
                     std::to_string(layers.back()) + ", " + layer_pooling + ", " +
                     quantization_name;
  if (quantization == BH_SIGN) text += ", " + order_name;
  if (!calibration_sha256.empty()) text += ", calibration " + calibration_sha256.substr(0, 8);
  if (!prefix.empty()) text += ", prefix " + show_prefix(prefix);
  return text + ", dim " + std::to_string(dim) + ", weights " + weights_sha256.substr(0, 8) + ")";
}

std::string show_prefix(const std::string &prefix) {
  return python_json(std::string(first_chars(prefix, 60)));
}

void check_spec(const std::string &what, const FeatureSpec &got, const FeatureSpec &expected) {
  if (got.id != expected.id) {
    fail(Status::spec_mismatch, what, ": got feature spec ", got.shown(), ", expected ",
         expected.shown(),
         ". Its codes mean something else: train the head, or encode the texts, with the bundle at "
         "hand.");
  }
}

}  // namespace bitheads
