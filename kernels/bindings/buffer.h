// An array of the caller, through the buffer protocol: any byte strides, read-only and unaligned
// memory, no copy. (DLPack would refuse strides that are no multiple of the item.)
#ifndef BITHEADS_BINDINGS_BUFFER_H
#define BITHEADS_BINDINGS_BUFFER_H

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>
#include <vector>

namespace bitheads {

namespace nb = nanobind;

// "name: got ..., expected ..."; the expectation ends with the fix.
inline std::string message(const std::string &name, const std::string &got,
                           const std::string &expected) {
  return name + ": got " + got + ", expected " + expected;
}

[[noreturn]] inline void raise_value(const std::string &name, const std::string &got,
                                     const std::string &expected) {
  throw nb::value_error(message(name, got, expected).c_str());
}

[[noreturn]] inline void raise_type(const std::string &name, const std::string &got,
                                    const std::string &expected) {
  throw nb::type_error(message(name, got, expected).c_str());
}

class Buffer {
 public:
  Buffer(nb::handle array, std::string name, bool writable = false) : name_(std::move(name)) {
    if (!PyObject_CheckBuffer(array.ptr())) {
      raise_type(name_, nb::type_name(array.type()).c_str(), "a NumPy array");
    }
    const int flags = writable ? PyBUF_RECORDS : PyBUF_RECORDS_RO;
    if (PyObject_GetBuffer(array.ptr(), &view_, flags) == 0) return;
    PyErr_Clear();
    if (writable && PyObject_GetBuffer(array.ptr(), &view_, PyBUF_RECORDS_RO) == 0) {
      PyBuffer_Release(&view_);
      raise_value(name_, "a read-only array", "a writable one");
    }
    PyErr_Clear();
    raise_type(name_, "a dtype without a buffer format",
               "a plain dtype; view bfloat16 as uint16 and say bfloat16=True");
  }
  ~Buffer() { PyBuffer_Release(&view_); }
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;

  const std::string &name() const { return name_; }
  void *data() const { return view_.buf; }
  int64_t shape(int axis) const { return view_.shape[axis]; }
  int64_t stride_bytes(int axis) const { return view_.strides[axis]; }

  // The struct-module letter of the items, or '?' for byte-swapped and compound ones.
  char format() const {
    const char *letters = view_.format == nullptr ? "B" : view_.format;
    if (*letters == '@' || *letters == '=' || *letters == '<') ++letters;
    return letters[0] != '\0' && letters[1] == '\0' ? letters[0] : '?';
  }

  std::string shape_text() const {
    std::string text = "shape [";
    for (int axis = 0; axis < view_.ndim; ++axis) {
      text += (axis == 0 ? "" : ", ") + std::to_string(shape(axis));
    }
    return text + "]";
  }

  // Each dimension must be the one given; -1 stands for any.
  void require_shape(const std::vector<int64_t> &expected, const char *dimensions) const {
    bool same = view_.ndim == static_cast<int>(expected.size());
    for (int axis = 0; same && axis < view_.ndim; ++axis) {
      same = expected[axis] < 0 || shape(axis) == expected[axis];
    }
    if (same) return;
    std::string wanted = std::string("[") + dimensions + "] = [";
    for (size_t axis = 0; axis < expected.size(); ++axis) {
      const std::string size = expected[axis] < 0 ? "any" : std::to_string(expected[axis]);
      wanted += (axis == 0 ? "" : ", ") + size;
    }
    raise_value(name_, shape_text(), wanted + "]");
  }

  void require_contiguous() const {
    if (PyBuffer_IsContiguous(&view_, 'C') != 0) return;
    raise_value(name_, "a strided array", "a C-contiguous one; pass np.ascontiguousarray(...)");
  }

  // A contiguous vector of `size` aligned items, ready for C.
  template <class Item>
  const Item *vector(int64_t size, const char *dimension, const char *formats,
                     const char *dtype) const {
    if (std::string(formats).find(format()) == std::string::npos ||
        view_.itemsize != static_cast<Py_ssize_t>(sizeof(Item))) {
      raise_type(name_, std::string("format '") + (view_.format ? view_.format : "B") + "'",
                 std::string("a ") + dtype + " array; convert it with astype");
    }
    require_shape({size}, dimension);
    require_contiguous();
    if (reinterpret_cast<uintptr_t>(data()) % alignof(Item) != 0 && size > 0) {
      raise_value(name_, "an unaligned array", "an aligned one; pass a copy");
    }
    return static_cast<const Item *>(data());
  }

 private:
  Py_buffer view_{};
  std::string name_;
};

}  // namespace bitheads

#endif
