// Loss and perplexity of a model over token windows.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "configs/run.pb.h"
#include "parallel/process_mesh.h"
#include "runtime/checkpoint_manifest.h"
#include "runtime/status.h"
#include "runtime/training_data.h"

namespace hypermoe {

struct EvaluateOptions {
  std::string checkpoint;  // run folder, checkpoint folder or model folder
  std::string data;        // prefix of a token file, all of it; "": the run's own validation tokens
  std::string dtype;       // "" as trained
};

struct EvaluateResult {
  double loss = 0;  // mean nats a token
  double perplexity = 0;
  int64_t tokens = 0;  // predictions counted
  int64_t step = 0;    // of the checkpoint
};

// The windows to evaluate the model of `options.checkpoint`, which `info` describes: of
// options.data or, without it, of the run's own validation tokens, checked to be those it was
// trained with. At least one prediction. Local.
absl::StatusOr<std::shared_ptr<const ValidationData>> OpenEvaluationWindows(
    const EvaluateOptions& options, const CheckpointInfo& info);

// Collective over the world; the same result on every rank.
absl::StatusOr<EvaluateResult> Evaluate(const EvaluateOptions& options,
                                        std::shared_ptr<Communicator> world, int expert_parallel);

}  // namespace hypermoe
