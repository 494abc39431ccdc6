// A bundle's encoder, on the backend that was asked for or on the best that there is.
#ifndef BITHEADS_HOST_OPEN_ENCODER_H
#define BITHEADS_HOST_OPEN_ENCODER_H

#include <memory>
#include <openvino/openvino.hpp>
#include <string>

#include "encoder.h"

namespace bitheads {

struct OpenedEncoder {
  std::unique_ptr<Encoder> encoder;
  std::string why_not_gpu;  // where `auto` took the CPU; else empty
};

// Throws Error(backend), Error(bundle), Error(device_memory) or Error(invalid_input).
OpenedEncoder open_encoder(ov::Core &core, const fs::path &folder, const Manifest &manifest,
                           const Options &options);

}  // namespace bitheads

#endif
