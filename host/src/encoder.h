// What makes codes of token ids, on a CPU or on a GPU: one interface. engine/encoder.py is the same
// seam in Python.
#ifndef BITHEADS_HOST_ENCODER_H
#define BITHEADS_HOST_ENCODER_H

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bundle.h"
#include "heads.h"
#include "table_rows.h"

namespace bitheads {

// May be called from many threads: they take turns, batch by batch.
class Encoder {
 public:
  Encoder(const Manifest &manifest, TableRows rows) : manifest_(manifest), rows_(rows) {}
  virtual ~Encoder() = default;
  Encoder(const Encoder &) = delete;
  Encoder &operator=(const Encoder &) = delete;

  // Backend and precision, such as "openvino bf16".
  virtual const std::string &name() const = 0;
  // Bound on a call's tokens, padding included.
  virtual int64_t max_batch_tokens() const = 0;
  // What a call costs beside its tokens, in tokens.
  virtual int64_t call_tokens() const = 0;
  // The lengths that texts are padded to at least.
  virtual std::vector<int64_t> pad_lengths(const std::vector<int64_t> &lengths) const = 0;

  // Rows of the table of token types; 0: they are not read, or it is not known.
  int64_t token_types() const;
  // Throws Error(invalid_input) for texts that the encoder does not read.
  void check(const std::vector<Tokens> &texts) const;

  // Codes of all texts, in their order, and their embeddings if they are asked for. Throws as
  // `check` does, and Error(backend) or Error(device_memory).
  virtual PackedFeatures encode(const std::vector<Tokens> &texts, bool embeddings) = 0;
  // The same of one chunk of texts after the other, until there is none: the features of each. The
  // next chunk is asked for by one thread at a time, when no batch of those before waits.
  using NextChunk = std::function<std::shared_ptr<const std::vector<Tokens>>()>;
  virtual std::vector<PackedFeatures> encode_chunks(const NextChunk &next, bool embeddings);

  // Opens the lanes, for who decides batch by batch what runs; returns how many, or 0: there are
  // none. Throws Error(backend).
  virtual size_t open_lanes() = 0;
  // Codes of checked texts, in their order, as one batch: on a lane, or with all threads. Throws
  // Error(backend) or Error(device_memory).
  virtual PackedFeatures encode_together(const std::vector<const Tokens *> &texts, bool on_lane,
                                         bool embeddings) = 0;

  // Where heads run, if not on the processor's cores; else null. They then are not to be laid out
  // for these.
  virtual HeadRunner *head_runner() { return nullptr; }
  // What heads that read no words make of each text, of an encoder that has a head runner: codes
  // do not come back. Nothing if it has none. Throws as `encode`.
  virtual std::optional<Outputs> encode_and_predict(const std::vector<Tokens> & /*texts*/,
                                                    const Heads & /*heads*/) {
    return std::nullopt;
  }

 protected:
  // Features of these lengths, codes and embeddings not written yet.
  PackedFeatures make_features(const std::vector<int64_t> &lengths, bool embeddings) const;

  const Manifest &manifest_;

 private:
  TableRows rows_;
};

std::vector<int64_t> lengths_of(const std::vector<Tokens> &texts);
std::vector<int64_t> lengths_of(const std::vector<const Tokens *> &texts);

}  // namespace bitheads

#endif
