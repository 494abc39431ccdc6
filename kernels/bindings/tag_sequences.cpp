// Tags of words for Python: the likeliest sequence, and how likely words are of spans.
#include <nanobind/nanobind.h>

#include "arguments.h"
#include "bitheads/kernels.h"
#include "buffer.h"

namespace bitheads {
namespace {

// The words of a call, what keeps them alive, and the most that a text has.
class Words {
 public:
  Words(nb::handle logits, nb::handle offsets) : buffer(logits, "logits") {
    of.logits = buffer.items<float>({-1, -1}, "words, 1 + 2 * labels", "f", "float32");
    of.words = buffer.shape(0);
    const int64_t tags = buffer.shape(1);
    of.labels = (tags - 1) / 2;
    if (tags % 2 == 0 || of.labels < 1 || of.labels > BH_MAX_SPAN_LABELS) {
      raise_value(
          "logits", buffer.shape_text(),
          "1 + 2 * labels a word, of 1 to " + std::to_string(BH_MAX_SPAN_LABELS) + " labels");
    }
    take_offsets(Buffer(offsets, "offsets"));
  }

  const Buffer buffer;
  bh_word_logits of{};
  int64_t longest = 0;

  void require_apart(const Buffer &written) const {
    Overlaps overlaps;
    overlaps.add(buffer, false);
    overlaps.add(written, true);
    overlaps.require_none();
  }

 private:
  // As they are now, whatever other threads do to them later.
  void take_offsets(const Buffer &offsets) {
    offsets.require_shape({-1}, "texts + 1");
    offsets_ = offsets.copied<int64_t>(offsets.shape(0), "texts + 1", "lq", "int64");
    if (offsets_.empty()) raise_value("offsets", "none", "one more than there are texts");
    of.offsets = offsets_.data();
    of.texts = static_cast<int64_t>(offsets_.size()) - 1;
    if (offsets_.front() != 0 || offsets_.back() != of.words) {
      raise_value("offsets",
                  std::to_string(offsets_.front()) + " to " + std::to_string(offsets_.back()),
                  "0 to " + std::to_string(of.words) + ", the words of logits");
    }
    for (size_t text = 1; text < offsets_.size(); ++text) {
      if (offsets_[text] < offsets_[text - 1]) {
        raise_value("offsets[" + std::to_string(text) + "]", std::to_string(offsets_[text]),
                    "at least the one before, " + std::to_string(offsets_[text - 1]));
      }
      longest = std::max(longest, offsets_[text] - offsets_[text - 1]);
    }
  }

  std::vector<int64_t> offsets_;
};

void best_tags(nb::object logits, nb::object offsets, nb::object tags) {
  const Words words(logits, offsets);
  const Buffer to(tags, "tags", true);
  to.vector<int64_t>(words.of.words, "words", "lq", "int64");
  words.require_apart(to);
  std::vector<double> sums(static_cast<size_t>(1 + 2 * words.of.labels));
  std::vector<uint16_t> came_from(static_cast<size_t>(words.longest * (1 + words.of.labels)));
  bh_status status;
  {
    const nb::gil_scoped_release unlocked;
    status =
        bh_best_tags(&words.of, static_cast<int64_t *>(to.data()), sums.data(), came_from.data());
  }
  if (status != BH_OK) raise_value("best_tags", "a refusal", bh_status_message(status));
}

void label_probabilities(nb::object logits, nb::object offsets, nb::object probabilities) {
  const Words words(logits, offsets);
  const int64_t labels = words.of.labels;
  const Buffer to(probabilities, "probabilities", true);
  to.items<float>({words.of.words, labels}, "words, labels", "f", "float32");
  words.require_apart(to);
  std::vector<double> workspace(static_cast<size_t>(words.longest * (2 + 3 * labels) + 1 + labels));
  bh_status status;
  {
    const nb::gil_scoped_release unlocked;
    status = bh_label_probabilities(&words.of, static_cast<float *>(to.data()), workspace.data());
  }
  if (status != BH_OK) raise_value("label_probabilities", "a refusal", bh_status_message(status));
}

}  // namespace

void define_tag_sequences(nb::module_ &m) {
  m.def("best_tags", best_tags, nb::arg("logits"), nb::arg("offsets"), nb::arg("tags"));
  m.def("label_probabilities", label_probabilities, nb::arg("logits"), nb::arg("offsets"),
        nb::arg("probabilities"));
}

}  // namespace bitheads
