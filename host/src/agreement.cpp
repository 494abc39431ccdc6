#include "agreement.h"

#include <cmath>

#include "error.h"
#include "json.h"

namespace bitheads {
namespace {

// Share of signs that every build holds bf16 to, and fp32 to more; not every machine has bf16.
constexpr double kFloatingPoint = 0.997;

// Share of signs that the build found of this host's sessions in a precision.
double share_of(const Manifest &manifest, const std::string &precision, double unmeasured) {
  for (const auto &[name, share] : manifest.sign_agreement) {
    if (name == "openvino " + precision) return share;
  }
  return unmeasured;
}

// As Python writes it.
std::string shown(double asked) {
  if (std::isnan(asked)) return "nan";
  if (std::isinf(asked)) return asked > 0 ? "inf" : "-inf";
  return python_float(asked);
}

std::string shares_of(const Manifest &manifest) {
  std::string shares;
  for (const auto &[name, share] : manifest.sign_agreement) {
    const auto millionths = std::llround(share * 1e5);  // as no locale writes it: "%.5f"
    const std::string digits = std::to_string(100000 + millionths % 100000).substr(1);
    shares += (shares.empty() ? "" : ", ") + std::to_string(millionths / 100000) + "." + digits +
              " " + name;
  }
  return shares;
}

}  // namespace

void check_min_sign_agreement(const Options &options) {
  if (!options.min_sign_agreement) return;
  const double asked = *options.min_sign_agreement;
  if (!(asked > 0 && asked <= 1)) {
    fail(Status::invalid_input, "min_sign_agreement: got ", shown(asked),
         ", expected a share of signs over 0 and up to 1, such as 0.99, or none: floating point, "
         "which keeps ",
         python_float(kFloatingPoint), ".");
  }
  if (options.precision != "auto") {
    fail(Status::invalid_input, "min_sign_agreement: got ", shown(asked), " with precision '",
         options.precision,
         "', expected one of them: it chooses among precisions. Leave either out.");
  }
}

std::vector<std::string> precisions_within(const Manifest &manifest, double asked, bool has_bf16) {
  if (manifest.sign_agreement.empty()) {
    fail(Status::backend, "min_sign_agreement: got ", shown(asked), ", but the bundle of ",
         manifest.spec.encoder,
         " says of none of its sessions how many signs agree. Build it again, which measures it, "
         "or name a precision.");
  }
  const double unmeasured = asked <= kFloatingPoint ? kFloatingPoint : 0.0;
  std::vector<std::string> found;
  for (const char *precision : {"bf16", "fp32"}) {
    const bool is_here = has_bf16 || precision == std::string("fp32");
    if (is_here && share_of(manifest, precision, unmeasured) >= asked) found.push_back(precision);
  }
  for (const std::string &precision : manifest.quantized()) {
    if (share_of(manifest, precision, 0.0) >= asked) found.push_back(precision);
  }
  if (found.empty()) {
    fail(Status::backend, "min_sign_agreement: got ", shown(asked),
         ", but nothing that this machine has agrees so well. When the bundle was built, the "
         "shares were: ",
         shares_of(manifest), ". Ask for less, or name a precision.");
  }
  return found;
}

}  // namespace bitheads
