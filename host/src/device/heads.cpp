#include "device/heads.h"

#include <algorithm>

#include "error.h"

namespace bitheads {
namespace {

// Throws for what the launch plans refuse: sizes that no bundle of ours has.
void require_planned(bh_status status, const char *what) {
  if (status != BH_OK) {
    fail(Status::head, what, ": the kernels refuse it (", bh_status_message(status),
         "): weights that are not finite, or more texts or heads than one launch can take. Ask for "
         "fewer tasks in a call.");
  }
}

template <class Pointee>
Pointee *at(DeviceAddress address) {
  return reinterpret_cast<Pointee *>(static_cast<uintptr_t>(address));
}

FoldedHeads folded(const Heads &heads) {
  FoldedHeads found;
  for (const auto &head : heads) found.push_back(head->folded);
  return found;
}

// Runs of heads of which min_block_texts texts fit the workspace.
std::vector<FoldedHeads> cut_by_tasks(const FoldedHeads &heads, const FeatureSpec &spec,
                                      const HeadLimits &limits) {
  const auto dim = static_cast<size_t>(spec.dim);
  const auto pooled_dim = static_cast<size_t>(bh_cuda_pooled_dim(spec.dim));
  std::vector<FoldedHeads> parts(1);
  size_t part_bytes = 0;
  for (const auto &head : heads) {
    const auto attention_heads = static_cast<size_t>(head->attention_heads);
    const size_t columns = std::max<size_t>(1, attention_heads);
    const size_t values = attention_heads > 0 ? dim : 0;
    const size_t head_bytes = 2 * (columns * pooled_dim + values + head->dense_bias.size());
    if (!parts.back().empty() &&
        part_bytes + head_bytes > limits.workspace_bytes / limits.min_block_texts) {
      parts.emplace_back();
      part_bytes = 0;
    }
    parts.back().push_back(head);
    part_bytes += head_bytes;
  }
  return parts;
}

}  // namespace

HeadPart::HeadPart(FoldedHeads heads, const FeatureSpec &spec, Arena &arena)
    : heads_(std::move(heads)),
      columns_(heads_, static_cast<size_t>(spec.dim)),
      pooled_dim_(static_cast<size_t>(bh_cuda_pooled_dim(spec.dim))),
      widths_{columns_.size() * pooled_dim_, 0, 0} {
  const auto columns = static_cast<int64_t>(columns_.size());
  std::vector<uint8_t> fragments(
      static_cast<size_t>(bh_cuda_query_bytes(columns, spec.dim, spec.quantization)));
  std::vector<float> column_scale(columns_.size());
  require_planned(bh_cuda_lay_out_queries(columns_.queries.data(), columns, spec.dim,
                                          spec.quantization, fragments.data(), column_scale.data()),
                  "heads");
  fragments_ = arena.add(fragments);
  column_scale_ = arena.add(column_scale);
  end_bias_ = arena.add(columns_.end_bias);
  for (const auto &head : heads_) {
    if (head->attention_heads > 0) widths_[1] += static_cast<size_t>(spec.dim);
    widths_[2] += head->dense_bias.size();
    num_outputs_ += num_text_outputs(*head);
    weights_.emplace_back();
    for (const Matrix &matrix : matrices_of(*head)) {
      std::vector<uint16_t> halves(static_cast<size_t>(matrix.n * bh_cuda_dense_row(matrix.k)));
      std::vector<float> scale(static_cast<size_t>(matrix.n));
      require_planned(
          bh_cuda_lay_out_dense(matrix.weights, matrix.n, matrix.k, halves.data(), scale.data()),
          head->task.c_str());
      Weights laid_out = {};
      laid_out.has_bias = matrix.bias != nullptr;
      if (laid_out.has_bias) {
        laid_out.bias = arena.add(matrix.bias, static_cast<size_t>(matrix.n) * sizeof(float));
      }
      laid_out.halves = arena.add(halves);
      laid_out.scale = arena.add(scale);
      weights_.back().push_back(laid_out);
    }
  }
}

void HeadPart::place(const HeadPlace &where, DeviceAddress base, DeviceAddress workspace,
                     size_t texts, DeviceAddress logits, size_t stride) {
  base_ = base;
  pooled_ = workspace;
  DeviceAddress values = pooled_ + 2 * texts * widths_[0];
  DeviceAddress hidden = values + 2 * texts * widths_[1];
  stages_.clear();
  for (const bh_dense_kind kind : {BH_DENSE_VALUE, BH_DENSE_HIDDEN, BH_DENSE_OUTPUT}) {
    stages_.push_back({kind});
  }
  // Where a stage's numbers are, and how many lie between those of two texts.
  struct Place {
    DeviceAddress address;
    size_t stride;
  };
  const auto add = [&](bh_dense_kind kind, const Weights &weights, const Matrix &matrix,
                       const Place &source, const Place &target) {
    bh_dense_group group = {};
    group.input = at<void>(source.address);
    group.weights = at<void>(base + weights.halves);
    group.scale = at<float>(base + weights.scale);
    group.bias = weights.has_bias ? at<float>(base + weights.bias) : nullptr;
    group.output = at<void>(target.address);
    group.input_stride = static_cast<int64_t>(source.stride);
    group.output_stride = static_cast<int64_t>(target.stride);
    group.n = static_cast<int32_t>(matrix.n);
    group.k = static_cast<int32_t>(matrix.k);
    stages_[kind].groups.push_back(group);
  };
  for (size_t i = 0; i < heads_.size(); ++i) {
    const std::vector<Matrix> matrices = matrices_of(*heads_[i]);
    const size_t num_values = matrices.size() - 2;
    Place source = {pooled_ + 2 * columns_.first[i] * pooled_dim_, widths_[0]};
    DeviceAddress target = values;
    for (size_t v = 0; v < num_values; ++v) {
      add(BH_DENSE_VALUE, weights_[i][v], matrices[v],
          {source.address + 2 * v * pooled_dim_, source.stride}, {target, widths_[1]});
      target += 2 * static_cast<size_t>(matrices[v].n);
    }
    if (num_values > 0) source = {values, widths_[1]};
    values = target;
    const Matrix &dense = matrices[num_values];
    const Matrix &output = matrices[num_values + 1];
    add(BH_DENSE_HIDDEN, weights_[i][num_values], dense, source, {hidden, widths_[2]});
    add(BH_DENSE_OUTPUT, weights_[i][num_values + 1], output, {hidden, widths_[2]},
        {logits, stride});
    hidden += 2 * static_cast<size_t>(dense.n);
    logits += 4 * static_cast<size_t>(output.n);
  }
  stages_.erase(std::remove_if(stages_.begin(), stages_.end(),
                               [](const Stage &stage) { return stage.groups.empty(); }),
                stages_.end());
  for (Stage &stage : stages_) {
    stage.table =
        upload(where.device, stage.groups.data(), stage.groups.size() * sizeof(bh_dense_group));
  }
}

void HeadPart::enqueue(const HeadPlace &where, DeviceAddress codes, DeviceAddress offsets,
                       size_t texts) const {
  bh_attention_pool_args pool = {};
  pool.codes = at<uint8_t>(codes);
  pool.offsets = at<int64_t>(offsets);
  pool.texts = static_cast<int64_t>(texts);
  pool.quantization = where.spec.quantization;
  pool.dim = where.spec.dim;
  pool.columns = static_cast<int64_t>(columns_.size());
  pool.queries = at<void>(base_ + fragments_);
  pool.column_scale = at<float>(base_ + column_scale_);
  pool.end_bias = at<float>(base_ + end_bias_);
  pool.pooled = at<void>(pooled_);
  bh_cuda_launch launch;
  require_planned(bh_cuda_plan_attention_pool(&pool, &launch), "heads");
  where.code.launch(launch, where.stream);
  for (const Stage &stage : stages_) {
    bh_grouped_dense_args dense = {};
    dense.groups = at<bh_dense_group>(stage.table.get());
    dense.num_groups = static_cast<int64_t>(stage.groups.size());
    for (const bh_dense_group &group : stage.groups) {
      dense.largest_n = std::max<int64_t>(dense.largest_n, group.n);
    }
    dense.texts = static_cast<int64_t>(texts);
    dense.kind = stage.kind;
    require_planned(bh_cuda_plan_grouped_dense(&dense, &launch), "heads");
    where.code.launch(launch, where.stream);
  }
}

HeadGroup::HeadGroup(const HeadPlace &where, const FoldedHeads &heads) : where_(where) {
  Arena arena;
  size_t largest = 1;
  for (FoldedHeads &part : cut_by_tasks(heads, where.spec, where.limits)) {
    parts_.emplace_back(std::move(part), where.spec, arena);
    largest = std::max(largest, parts_.back().text_bytes());
    num_outputs_ += parts_.back().num_outputs();
  }
  for (const auto &head : heads) sizes_.push_back(num_text_outputs(*head));
  block_texts_ =
      std::clamp<size_t>(where.limits.workspace_bytes / largest, 1, where.limits.max_block_texts);
  const std::vector<uint8_t> &content = arena.content();
  weights_ = upload(where.device, content.data(), content.size());
  workspace_ = allocate(where.device, largest * block_texts_);
  logits_ = allocate(where.device, sizeof(float) * num_outputs_ * block_texts_);
  DeviceAddress logits = logits_.get();
  for (HeadPart &part : parts_) {
    part.place(where, weights_.get(), workspace_.get(), block_texts_, logits, num_outputs_);
    logits += sizeof(float) * part.num_outputs();
  }
}

void HeadGroup::enqueue(DeviceAddress codes, DeviceAddress offsets, size_t num_texts,
                        float *logits) const {
  for (size_t start = 0; start < num_texts; start += block_texts_) {
    const size_t texts = std::min(block_texts_, num_texts - start);
    for (const HeadPart &part : parts_) {
      part.enqueue(where_, codes, offsets + sizeof(int64_t) * start, texts);
    }
    where_.device.check(where_.device.driver().copy_down_async(
        logits + start * num_outputs_, logits_.get(), texts * num_outputs_ * sizeof(float),
        where_.stream));
  }
}

void HeadGroup::split(const float *logits, size_t text, Outputs &outputs) const {
  for (size_t i = 0; i < sizes_.size(); ++i) {
    std::copy_n(logits, sizes_[i], outputs[i].begin() + static_cast<ptrdiff_t>(text * sizes_[i]));
    logits += sizes_[i];
  }
}

const HeadGroup &DeviceHeads::group(const Heads &heads) {
  const auto found = std::find_if(groups_.begin(), groups_.end(),
                                  [&](const Kept &kept) { return kept.heads == heads; });
  if (found != groups_.end()) {
    groups_.splice(groups_.begin(), groups_, found);
    return groups_.front().group;
  }
  forget(where_.limits.max_groups - 1);
  try {
    groups_.push_front({heads, HeadGroup(where_, folded(heads))});
  } catch (const Error &error) {
    if (error.status() != Status::device_memory) throw;
    forget(0);
    groups_.push_front({heads, HeadGroup(where_, folded(heads))});
  }
  return groups_.front().group;
}

void DeviceHeads::forget(size_t kept) {
  while (groups_.size() > kept) {
    where_.device.check(where_.device.driver().synchronize_stream(where_.stream));
    groups_.pop_back();
  }
}

Outputs DeviceHeads::outputs_of(const PackedFeatures &features, const Heads &heads) {
  Outputs outputs;
  for (const auto &head : heads) outputs.emplace_back(features.size() * head->block_outputs());
  if (heads.empty() || features.size() == 0) return outputs;
  const HeadGroup &chosen = group(heads);
  const HeadLimits &limits = where_.limits;
  const int64_t most_tokens = limits.max_block_codes / features.code_bytes;
  for (size_t start = 0; start < features.size();) {
    // A run of texts that go through the heads together.
    size_t stop = start + 1;
    while (stop < features.size() && stop - start < limits.max_block_texts &&
           features.offsets[stop + 1] - features.offsets[start] <= most_tokens) {
      ++stop;
    }
    std::vector<int64_t> offsets;
    for (size_t i = start; i <= stop; ++i) {
      offsets.push_back(features.offsets[i] - features.offsets[start]);
    }
    const DeviceMemory codes =
        upload(where_.device, features.codes.data() + features.offsets[start] * features.code_bytes,
               static_cast<size_t>(offsets.back() * features.code_bytes));
    const DeviceMemory offsets_there =
        upload(where_.device, offsets.data(), offsets.size() * sizeof(int64_t));
    std::vector<float> logits((stop - start) * chosen.num_outputs());
    const Driver &driver = where_.device.driver();
    try {
      chosen.enqueue(codes.get(), offsets_there.get(), stop - start, logits.data());
    } catch (...) {
      driver.synchronize_stream(where_.stream);  // before the memory goes
      throw;
    }
    where_.device.check(driver.synchronize_stream(where_.stream));
    for (size_t text = start; text < stop; ++text) {
      chosen.split(logits.data() + (text - start) * chosen.num_outputs(), text, outputs);
    }
    start = stop;
  }
  return outputs;
}

}  // namespace bitheads
