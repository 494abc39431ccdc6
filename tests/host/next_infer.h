// For programs whose own ov::InferRequest::infer stands before OpenVINO's.
#ifndef BITHEADS_TESTS_NEXT_INFER_H
#define BITHEADS_TESTS_NEXT_INFER_H

#include <dlfcn.h>

#include <openvino/openvino.hpp>

inline void next_infer(ov::InferRequest *request) {
  using Infer = void (*)(ov::InferRequest *);
  static const auto next =
      reinterpret_cast<Infer>(dlsym(RTLD_NEXT, "_ZN2ov12InferRequest5inferEv"));
  next(request);
}

inline bool is_tokenizer(ov::InferRequest *request) {
  const auto model = request->get_compiled_model();
  return model.inputs().front().get_element_type() == ov::element::string;
}

#endif
