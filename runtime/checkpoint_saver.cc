#include "runtime/checkpoint_saver.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "parallel/progress_marks.h"
#include "parallel/steady_seconds.h"
#include "runtime/agreement.h"
#include "runtime/checkpoint.h"
#include "runtime/checkpoint_files.h"

namespace hypermoe {
namespace {

// Tensors in memory that cannot be read any more once a stop is requested, so that writing them
// ends.
class StoppableTensors final : public TensorSource {
 public:
  StoppableTensors(const std::vector<NamedTensor>& tensors, std::stop_token stop)
      : tensors_(tensors), stop_(std::move(stop)) {}
  const std::map<std::string, TensorEntry>& entries() const override { return tensors_.entries(); }
  absl::StatusOr<at::Tensor> Read(const std::string& name) const override {
    if (stop_.stop_requested()) return InternalError("saving a checkpoint was given up");
    return tensors_.Read(name);
  }

 private:
  TensorsInMemory tensors_;
  std::stop_token stop_;
};

// `previous`: the step of the checkpoint that was the newest before that of `info`.
absl::Status RemoveTooOld(const std::string& run_dir, int64_t previous, const CheckpointInfo& info,
                          int64_t best) {
  const int32_t keep = info.config.checkpoint().keep();
  return keep == 0 ? absl::OkStatus()
                   : RemoveOldCheckpoints(run_dir, previous, info.step, keep, best);
}

absl::Status NameBest(const std::string& run_dir, int64_t best) {
  return best == 0 ? absl::OkStatus() : PointToBest(run_dir, best);
}

}  // namespace

CheckpointSaver::CheckpointSaver(std::string run_dir, CheckpointInfo info, const ProcessMesh& mesh,
                                 int64_t newest, Note note, CheckpointSaverHooks hooks)
    : run_dir_(std::move(run_dir)),
      info_(std::move(info)),
      mesh_(mesh),
      first_rank_(mesh.world->rank() == 0),
      note_(std::move(note)),
      hooks_(std::move(hooks)),
      newest_(newest) {}

absl::Status CheckpointSaver::Save(int64_t step, const std::vector<FlatBuffer>& buffers,
                                   const Optimizer& optimizer) {
  RETURN_IF_ERROR(Wait());
  if (step == newest_) return absl::OkStatus();
  return Judge(info_.config.checkpoint().asynchronous() ? Begin(step, buffers, optimizer)
                                                        : SaveNow(step, buffers, optimizer));
}

absl::Status CheckpointSaver::SaveLast(int64_t step, const std::vector<FlatBuffer>& buffers,
                                       const Optimizer& optimizer) {
  RETURN_IF_ERROR(Wait());
  return step == newest_ ? absl::OkStatus() : SaveNow(step, buffers, optimizer);
}

absl::Status CheckpointSaver::SaveNow(int64_t step, const std::vector<FlatBuffer>& buffers,
                                      const Optimizer& optimizer) {
  info_.step = step;
  began_ = SteadySeconds();
  absl::Status saved = SaveCheckpoint(run_dir_, info_, buffers, optimizer, mesh_);
  if (saved.ok() && first_rank_) {
    saved = NameBest(run_dir_, best_);
    removed_ = std::make_shared<absl::Status>(RemoveTooOld(run_dir_, newest_, info_, best_));
  }
  // No rank goes on while files still change.
  return Conclude(Agree(*mesh_.world, saved));
}

absl::Status CheckpointSaver::Begin(int64_t step, const std::vector<FlatBuffer>& buffers,
                                    const Optimizer& optimizer) {
  info_.step = step;
  began_ = SteadySeconds();
  const CheckpointFolder folder(run_dir_, step);
  const absl::Status begun = Agree(*mesh_.world, first_rank_ ? folder.Begin() : absl::OkStatus());
  if (!begun.ok()) return Conclude(begun);
  if (snapshot_ == nullptr) snapshot_ = std::make_shared<CheckpointSnapshot>(hooks_.memory);
  snapshot_->Take(buffers, optimizer, mesh_);
  StartWriting();
  return absl::OkStatus();
}

void CheckpointSaver::StartWriting() {
  phase_ = Phase::kWriting;
  part_ = std::make_shared<ManifestPart>();
  work_ = std::make_unique<BackgroundWork>(
      [folder = CheckpointFolder(run_dir_, info_.step), file = RankFile(mesh_.world->rank()),
       snapshot = snapshot_, part = part_, before = hooks_.before](const std::stop_token& stop) {
        if (before) before("write");
        const StoppableTensors tensors(snapshot->tensors(), stop);
        std::vector<std::string> names;
        for (const auto& [name, entry] : tensors.entries()) names.push_back(name);
        return WriteTensors(folder, file, names, tensors, part.get());
      });
}

void CheckpointSaver::StartPublishing(std::vector<std::string> parts) {
  phase_ = Phase::kPublishing;
  if (!first_rank_) return;
  removed_ = std::make_shared<absl::Status>();
  work_ = std::make_unique<BackgroundWork>([run_dir = run_dir_, info = info_, previous = newest_,
                                            best = best_, steps = snapshot_->optimizer_steps(),
                                            parts = std::move(parts), removed = removed_,
                                            before = hooks_.before](const std::stop_token&) {
    if (before) before("publish");
    RETURN_IF_ERROR(PublishParts(CheckpointFolder(run_dir, info.step), info, steps, parts));
    RETURN_IF_ERROR(NameBest(run_dir, best));
    *removed = RemoveTooOld(run_dir, previous, info, best);
    return absl::OkStatus();
  });
}

absl::Status CheckpointSaver::set_best(int64_t step) {
  best_ = step;
  return first_rank_ && step == newest_ ? NameBest(run_dir_, step) : absl::OkStatus();
}

absl::Status CheckpointSaver::Advance(int64_t ranks_at_work) {
  if (phase_ == Phase::kIdle || ranks_at_work > 0) return absl::OkStatus();
  return Judge(EndPhase());
}

absl::Status CheckpointSaver::Wait() {
  if (phase_ != Phase::kIdle) MarkPhase("save");
  while (phase_ != Phase::kIdle) RETURN_IF_ERROR(Judge(EndPhase()));
  return absl::OkStatus();
}

absl::Status CheckpointSaver::EndPhase() {
  absl::Status own;
  // Out of the object first: Take may throw.
  if (const std::unique_ptr<BackgroundWork> work = std::move(work_)) own = work->Take();
  const absl::Status status = Agree(*mesh_.world, own);
  if (!status.ok() || phase_ == Phase::kPublishing) return Conclude(status);
  StartPublishing(mesh_.world->AllGatherText(ManifestPartText(*part_)));
  return absl::OkStatus();
}

absl::Status CheckpointSaver::Conclude(const absl::Status& outcome) {
  phase_ = Phase::kIdle;
  const CheckpointFolder folder(run_dir_, info_.step);
  if (!outcome.ok()) {
    if (first_rank_) folder.Discard();
    return {outcome.code(), absl::StrCat("the checkpoint of step ", info_.step,
                                         " could not be saved: ", outcome.message(),
                                         " (those of earlier steps are as they were)")};
  }
  newest_ = info_.step;
  if (!first_rank_) return absl::OkStatus();
  note_(absl::StrFormat("saved %s, %.1f s after step %d", folder.path(), SteadySeconds() - began_,
                        info_.step));
  if (!removed_->ok()) {
    note_(absl::StrCat("warning: old checkpoints stay: ", removed_->message()));
  }
  return absl::OkStatus();
}

absl::Status CheckpointSaver::Judge(const absl::Status& status) const {
  const bool go_on = info_.config.checkpoint().on_save_error() == CheckpointConfig::continue_;
  if (status.ok() || !go_on) return status;
  if (first_rank_) {
    note_(absl::StrCat("warning: ", status.message(), "; another is tried when the next is due"));
  }
  return absl::OkStatus();
}

}  // namespace hypermoe
