#include "parallel/adamw.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

namespace hypermoe {

AdamW::AdamW(const std::vector<FlatBuffer>& buffers, const std::vector<GradientBucket>& buckets,
             AdamWOptions options, bool sharded)
    : Optimizer(buffers, {kKinds[kFirst], kKinds[kSecond]}),
      buckets_(buckets),
      options_(options),
      sharded_(sharded) {
  std::vector<int64_t> kept(buffers.size(), 0);
  for (const GradientBucket& bucket : buckets_) {
    if (sharded_) {
      pieces_.push_back({bucket.buffer, bucket.OwnPart(), kept[bucket.buffer]});
      kept[bucket.buffer] += bucket.OwnPart().size();
    } else {
      pieces_.push_back({bucket.buffer, bucket.elements, bucket.elements.begin});
      kept[bucket.buffer] += bucket.elements.size();
    }
  }
  for (std::vector<at::Tensor>& arrays : moments_) {
    for (size_t i = 0; i < buffers.size(); ++i)
      arrays.push_back(at::zeros({kept[i]}, buffers[i].values().options()));
  }
}

std::optional<std::vector<int64_t>> AdamW::ShapeOf(const Parameter& parameter, size_t) const {
  return parameter.value.sizes().vec();
}

void AdamW::Update(double learning_rate, const at::Tensor& gradient_scale, const at::Tensor& skip) {
  const auto t = static_cast<double>(steps());
  AdamWFactors factors;
  factors.beta1 = options_.beta1;
  factors.beta2 = options_.beta2;
  factors.step_size = learning_rate / (1 - std::pow(options_.beta1, t));
  factors.second_correction = 1 / (1 - std::pow(options_.beta2, t));
  factors.epsilon = options_.epsilon;
  factors.device_gradient_scale = gradient_scale;
  factors.skip = skip;
  std::vector<AdamWPiece> pieces;
  for (const Piece& piece : pieces_) AppendPieces(piece, learning_rate, pieces);
  AdamWUpdate(pieces, factors);
  if (!sharded_) return;
  for (const GradientBucket& bucket : buckets_) {
    bucket.group->AllGatherParts(bucket.In(buffers()[bucket.buffer].values()));
  }
}

void AdamW::AppendPieces(const Piece& piece, double learning_rate,
                         std::vector<AdamWPiece>& pieces) const {
  const FlatBuffer& buffer = buffers()[piece.buffer];
  const auto append = [&](int64_t begin, int64_t end, double weight_decay) {
    if (begin >= end) return;
    const int64_t stored = piece.stored + begin - piece.elements.begin;
    pieces.push_back({buffer.values().slice(0, begin, end), buffer.gradients().slice(0, begin, end),
                      moments_[kFirst][piece.buffer].narrow(0, stored, end - begin),
                      moments_[kSecond][piece.buffer].narrow(0, stored, end - begin),
                      /*copy=*/{}, 1 - learning_rate * weight_decay});
  };
  const int64_t border =
      std::clamp(buffer.decayed_elements(), piece.elements.begin, piece.elements.end);
  append(piece.elements.begin, border, options_.weight_decay);
  append(border, piece.elements.end, 0.0);
}

int64_t AdamW::kept_elements() const {
  int64_t elements = 0;
  for (const std::vector<at::Tensor>& arrays : moments_)
    for (const at::Tensor& array : arrays) elements += array.numel();
  return elements;
}

at::Tensor AdamW::State(size_t buffer, size_t kind) const {
  if (!sharded_) return moments_[kind][buffer];
  const at::Tensor whole = at::empty_like(buffers()[buffer].gradients());
  GatherState(buffer, kind, whole);
  return whole;
}

void AdamW::GatherState(size_t buffer, size_t kind, const at::Tensor& whole) const {
  if (!sharded_) return Optimizer::GatherState(buffer, kind, whole);
  const at::NoGradGuard no_grad;
  const at::Tensor& kept = moments_[kind][buffer];
  for (size_t i = 0; i < buckets_.size(); ++i) {
    const Piece& piece = pieces_[i];
    if (piece.buffer != buffer) continue;
    const int64_t size = piece.elements.size();
    whole.narrow(0, piece.elements.begin, size).copy_(kept.narrow(0, piece.stored, size));
    buckets_[i].group->AllGatherParts(buckets_[i].In(whole));
  }
}

void AdamW::SetState(size_t buffer, size_t kind, int64_t offset, const at::Tensor& values) {
  const at::NoGradGuard no_grad;
  const at::Tensor flat = values.reshape({-1});
  for (const Piece& piece : pieces_) {
    const int64_t begin = std::max(piece.elements.begin, offset);
    const int64_t end = std::min(piece.elements.end, offset + flat.numel());
    if (piece.buffer != buffer || begin >= end) continue;
    moments_[kind][buffer]
        .narrow(0, piece.stored + begin - piece.elements.begin, end - begin)
        .copy_(flat.narrow(0, begin - offset, end - begin));
  }
}

}  // namespace hypermoe
