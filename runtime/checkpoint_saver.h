// Saves the checkpoints of a run, beside training or while training waits.
//
// Beside training, a save goes through three phases:
//   copy     at the step where it is due, this rank's share is copied (checkpoint_snapshot.h): all
//            that training waits for
//   write    a thread of each rank writes the copy into the temporary folder, and syncs it
//   publish  once every rank has, a thread of rank 0 writes the manifest, gives the folder its name
//            and removes checkpoints that are too old
// The threads call no collective. The ranks learn from the votes of training steps (StepVotes)
// that all are done with a phase, so that finding out costs no collective of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/flat_buffer.h"
#include "parallel/optimizer.h"
#include "parallel/process_mesh.h"
#include "runtime/background_work.h"
#include "runtime/checkpoint_folder.h"
#include "runtime/checkpoint_manifest.h"
#include "runtime/checkpoint_snapshot.h"
#include "runtime/status.h"

namespace hypermoe {

// For tests.
struct CheckpointSaverHooks {
  // Called on the threads before their work, with "write" or "publish".
  std::function<void(const std::string& phase)> before;
  CheckpointSnapshot::HostMemory memory = CheckpointSnapshot::NewHostMemory;
};

class CheckpointSaver {
 public:
  // Called on rank 0 with a line for people: "saved ...", warnings.
  using Note = std::function<void(const std::string&)>;

  // `info`: all but the step, which Save gives. `newest`: the step of the newest checkpoint there
  // is, 0 for none.
  CheckpointSaver(std::string run_dir, CheckpointInfo info, const ProcessMesh& mesh, int64_t newest,
                  Note note, CheckpointSaverHooks hooks = {});
  // Does not wait for a save that has not been waited for, so that it may be destroyed because of
  // an exception: what has been written of it the next save removes.
  ~CheckpointSaver() = default;

  // Starts to save the state after `step` steps, or saves it (checkpoint.asynchronous: false). A
  // save under way is waited for first. An error is that of this save or of the one before, and
  // with checkpoint.on_save_error `continue` a warning instead. Nothing for the step that is the
  // newest already. Collective over the world, the same result on every rank; on the gradients:
  // SaveCheckpoint.
  absl::Status Save(int64_t step, const std::vector<FlatBuffer>& buffers,
                    const Optimizer& optimizer);
  // The same for a state after which nothing will be tried again: waits until it is saved, without
  // a copy, and any error of it is one.
  absl::Status SaveLast(int64_t step, const std::vector<FlatBuffer>& buffers,
                        const Optimizer& optimizer);

  // Whether a thread of this rank is at work: its vote StepVotes::saving in the next step.
  bool working() const { return work_ != nullptr && !work_->done(); }
  // With the sum of these votes as the step has returned it: goes on to the next phase if no rank
  // is at work. The errors are those of Save. Collective if something is under way.
  absl::Status Advance(int64_t ranks_at_work);
  // Blocks until nothing is under way. Errors as Advance. Collective.
  absl::Status Wait();

  // The step whose checkpoint, there already or the next to be saved, is the best of the run, which
  // `best` is to name and nothing removes (checkpoint_folder.h); 0: there is none. It is named with
  // the next save, or now if it is the newest. The same on every rank; an error on rank 0 alone.
  absl::Status set_best(int64_t step);

  // The step of the newest checkpoint that is durable.
  int64_t newest() const { return newest_; }

 private:
  enum class Phase { kIdle, kWriting, kPublishing };

  absl::Status Begin(int64_t step, const std::vector<FlatBuffer>& buffers,
                     const Optimizer& optimizer);
  absl::Status SaveNow(int64_t step, const std::vector<FlatBuffer>& buffers,
                       const Optimizer& optimizer);
  // Ends the phase under way, waiting for this rank's thread.
  absl::Status EndPhase();
  void StartWriting();
  void StartPublishing(std::vector<std::string> parts);
  // The end of a save: says so, or cleans up. Returns `outcome` with its context.
  absl::Status Conclude(const absl::Status& outcome);
  // `status`, or a warning in its place where a later save will be tried.
  absl::Status Judge(const absl::Status& status) const;

  const std::string run_dir_;
  CheckpointInfo info_;  // of the save under way, or the last one
  const ProcessMesh mesh_;
  const bool first_rank_;
  const Note note_;
  const CheckpointSaverHooks hooks_;
  int64_t newest_;
  int64_t best_ = 0;
  Phase phase_ = Phase::kIdle;
  double began_ = 0;  // the save under way, by the steady clock
  // Shared with the threads, which may outlive this object.
  std::shared_ptr<CheckpointSnapshot> snapshot_;
  std::shared_ptr<ManifestPart> part_;     // what this rank's thread has written
  std::shared_ptr<absl::Status> removed_;  // how removing old checkpoints has gone, on rank 0
  std::unique_ptr<BackgroundWork> work_;   // of this rank in this phase
};

}  // namespace hypermoe
