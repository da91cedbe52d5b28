#include "runtime/step_profiler.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "parallel/steady_seconds.h"

namespace hypermoe {
StepProfiler::StepProfiler(const ProfiledSteps& steps, const std::string& run_dir,
                           const ProcessMesh& mesh, Trainer& trainer)
    : steps_(steps), run_dir_(run_dir), mesh_(mesh), trainer_(trainer) {}

StepProfiler::~StepProfiler() { StopObserving(); }

absl::Status StepProfiler::Begin() {
  if (file_ == nullptr) {
    const std::string path = absl::StrFormat("%s/traces/steps_%d-%d.rank_%05d.json", run_dir_,
                                             steps_.first, steps_.last, mesh_.world->rank());
    mesh_.world->Barrier();
    ASSIGN_OR_RETURN(file_, TraceFile::Create(path, mesh_.world->rank(), SteadySeconds()));
    Observe();
  }
  step_begin_ = SteadySeconds();
  return absl::OkStatus();
}

absl::Status StepProfiler::End(int64_t step) {
  file_->Add({TraceEvent::Category::kPhase,
              absl::StrCat("step ", step),
              step_begin_,
              SteadySeconds(),
              {},
              ""});
  if (step < steps_.last) return absl::OkStatus();
  StopObserving();
  return std::exchange(file_, nullptr)->Close();
}

void StepProfiler::Observe() {
  trainer_.set_phase_observer([this](const char* phase, double begin, double end) {
    file_->Add({TraceEvent::Category::kPhase, phase, begin, end, {}, ""});
  });
  for (Communicator* group : {mesh_.world.get(), mesh_.expert.get(), mesh_.expert_data.get()}) {
    group->set_observer([this](const CollectiveEvent& event) {
      const char* suffix = event.goes_on ? " (goes on)" : "";
      file_->Add({TraceEvent::Category::kCollective,
                  absl::StrCat(CollectiveName(event.kind), suffix), event.begin, event.end,
                  event.bytes, event.group});
    });
  }
}

void StepProfiler::StopObserving() {
  trainer_.set_phase_observer({});
  for (Communicator* group : {mesh_.world.get(), mesh_.expert.get(), mesh_.expert_data.get()}) {
    group->set_observer({});
  }
}

}  // namespace hypermoe
