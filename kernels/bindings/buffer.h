// An array of the caller, through the buffer protocol: any byte strides, read-only and unaligned
// memory, no copy. (DLPack would refuse strides that are no multiple of the item.)
//
// What an exporter says is not believed further than it has to be: ctypes gives no strides though
// they are asked for, and other threads may write to the memory while a kernel runs without the
// interpreter's lock. So strides are made where there are none, and what is compared with a limit
// is copied first (`copied`).
#ifndef BITHEADS_BINDINGS_BUFFER_H
#define BITHEADS_BINDINGS_BUFFER_H

#include <nanobind/nanobind.h>

#include <algorithm>
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

struct MemoryRange {
  uintptr_t first;
  uintptr_t last;  // one past the end
};

class Buffer {
 public:
  Buffer(nb::handle array, std::string name, bool writable = false) : name_(std::move(name)) {
    if (!PyObject_CheckBuffer(array.ptr())) {
      raise_type(name_, nb::type_name(array.type()).c_str(), "a NumPy array");
    }
    const int flags = writable ? PyBUF_RECORDS : PyBUF_RECORDS_RO;
    if (PyObject_GetBuffer(array.ptr(), &view_, flags) == 0) {
      read_dimensions();
      return;
    }
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
  int64_t shape(int axis) const { return shape_[static_cast<size_t>(axis)]; }
  int64_t stride_bytes(int axis) const { return strides_[static_cast<size_t>(axis)]; }
  int dimensions() const { return static_cast<int>(shape_.size()); }

  // The struct-module letter of the items, or '?' for byte-swapped and compound ones, and for items
  // that are not of the letter's size.
  char format() const {
    const char *letters = view_.format == nullptr ? "B" : view_.format;
    if (*letters == '@' || *letters == '=' || *letters == '<') ++letters;
    if (letters[0] == '\0' || letters[1] != '\0') return '?';
    const Py_ssize_t bytes = item_bytes(letters[0]);
    return bytes < 0 || bytes == view_.itemsize ? letters[0] : '?';
  }

  // The bytes that its items lie in; [0, 0) without any.
  MemoryRange range() const {
    auto first = reinterpret_cast<uintptr_t>(view_.buf);
    auto last = first + static_cast<uintptr_t>(view_.itemsize);
    for (int axis = 0; axis < dimensions(); ++axis) {
      if (shape(axis) == 0) return {0, 0};
      const int64_t reach = (shape(axis) - 1) * stride_bytes(axis);
      (reach < 0 ? first : last) += static_cast<uintptr_t>(reach);
    }
    return {first, last};
  }

  std::string shape_text() const {
    std::string text = "shape [";
    for (int axis = 0; axis < dimensions(); ++axis) {
      text += (axis == 0 ? "" : ", ") + std::to_string(shape(axis));
    }
    return text + "]";
  }

  // Each dimension must be the one given; -1 stands for any.
  void require_shape(const std::vector<int64_t> &expected, const char *dimensions) const {
    bool same = shape_.size() == expected.size();
    for (size_t axis = 0; same && axis < expected.size(); ++axis) {
      same = expected[axis] < 0 || shape_[axis] == expected[axis];
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
    int64_t stride = view_.itemsize;
    bool is_empty = false;
    bool same = true;
    for (int axis = dimensions() - 1; axis >= 0; --axis) {
      same = same && (shape(axis) <= 1 || stride_bytes(axis) == stride);
      is_empty = is_empty || shape(axis) == 0;
      stride *= shape(axis);
    }
    if (same || is_empty) return;
    raise_value(name_, "a strided array", "a C-contiguous one; pass np.ascontiguousarray(...)");
  }

  // A contiguous vector of `size` aligned items, ready for C.
  template <class Item>
  const Item *vector(int64_t size, const char *dimension, const char *formats,
                     const char *dtype) const {
    return items<Item>({size}, dimension, formats, dtype);
  }

  // A contiguous array of aligned items, of the dimensions given; -1 stands for any.
  template <class Item>
  const Item *items(const std::vector<int64_t> &expected, const char *dimensions,
                    const char *formats, const char *dtype) const {
    if (std::string(formats).find(format()) == std::string::npos ||
        view_.itemsize != static_cast<Py_ssize_t>(sizeof(Item))) {
      raise_type(name_, std::string("format '") + (view_.format ? view_.format : "B") + "'",
                 std::string("a ") + dtype + " array; convert it with astype");
    }
    require_shape(expected, dimensions);
    require_contiguous();
    const MemoryRange bytes = range();
    if (bytes.first != bytes.last && bytes.first % alignof(Item) != 0) {
      raise_value(name_, "an unaligned array", "an aligned one; pass a copy");
    }
    return static_cast<const Item *>(data());
  }

  // The same as it is now, whatever other threads do to it later.
  template <class Item>
  std::vector<Item> copied(int64_t size, const char *dimension, const char *formats,
                           const char *dtype) const {
    const Item *items = vector<Item>(size, dimension, formats, dtype);
    return std::vector<Item>(items, items + size);
  }

 private:
  // -1 for letters that no kernel takes.
  static Py_ssize_t item_bytes(char letter) {
    switch (letter) {
      case 'B':
        return 1;
      case 'e':
      case 'H':
        return 2;
      case 'f':
        return 4;
      case 'l':
        return static_cast<Py_ssize_t>(sizeof(long));
      case 'q':
        return 8;
      default:
        return -1;
    }
  }

  void read_dimensions() {
    // One that does not say its shape has so many bytes.
    if (view_.shape == nullptr && view_.ndim == 1 && view_.itemsize > 0) {
      shape_ = {view_.len / view_.itemsize};
    } else if (view_.shape != nullptr) {
      shape_.assign(view_.shape, view_.shape + view_.ndim);
    }
    if (view_.suboffsets != nullptr || static_cast<int>(shape_.size()) != view_.ndim) {
      PyBuffer_Release(&view_);
      raise_type(name_, "an array whose rows lie anywhere", "a NumPy array");
    }
    strides_.assign(shape_.size(), view_.itemsize);
    if (view_.strides != nullptr) {
      strides_.assign(view_.strides, view_.strides + view_.ndim);
      return;
    }
    for (int axis = dimensions() - 2; axis >= 0; --axis) {
      const auto at = static_cast<size_t>(axis);
      strides_[at] = strides_[at + 1] * shape_[at + 1];
    }
  }

  Py_buffer view_{};
  std::string name_;
  std::vector<int64_t> shape_;
  std::vector<int64_t> strides_;
};

// A kernel that writes over what it reads, or over what another array is to get, computes nonsense.
// Raises ValueError if a writable one of the arrays has bytes in common with any other.
class Overlaps {
 public:
  void add(const Buffer &buffer, bool writable) {
    const MemoryRange range = buffer.range();
    if (range.first != range.last) found_.push_back({range, &buffer, writable});
  }

  void require_none() {
    std::sort(found_.begin(), found_.end(),
              [](const Entry &a, const Entry &b) { return a.range.first < b.range.first; });
    const Entry *furthest = nullptr;          // of all before
    const Entry *furthest_written = nullptr;  // of those before that are written
    for (const Entry &entry : found_) {
      const Entry *before = entry.writable ? furthest : furthest_written;
      if (before != nullptr && before->range.last > entry.range.first) {
        const bool is_first = entry.writable;
        raise_value((is_first ? entry : *before).buffer->name(),
                    "memory of " + (is_first ? *before : entry).buffer->name(),
                    "an array of its own; pass a copy");
      }
      if (furthest == nullptr || entry.range.last > furthest->range.last) furthest = &entry;
      if (entry.writable &&
          (furthest_written == nullptr || entry.range.last > furthest_written->range.last)) {
        furthest_written = &entry;
      }
    }
  }

 private:
  struct Entry {
    MemoryRange range;
    const Buffer *buffer;
    bool writable;
  };
  std::vector<Entry> found_;
};

}  // namespace bitheads

#endif
