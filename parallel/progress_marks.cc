#include "parallel/progress_marks.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace hypermoe {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr size_t kGroupWords = sizeof(Progress::group) / sizeof(uint64_t);

// Apart from what other threads write, so that a mark does not wait for a cache line.
struct alignas(64) Marks {
  std::atomic<int64_t> marks{0};
  std::atomic<int64_t> step{0};
  std::atomic<const char*> phase{""};
  std::atomic<int64_t> collectives{0};
  std::atomic<int64_t> collective{0};
  std::atomic<const char*> kind{""};
  std::array<std::atomic<uint64_t>, kGroupWords> group{};
  std::atomic<int> depth{0};  // a communicator may hand a collective to another
  std::atomic<ProgressHook> hook{nullptr};
};
Marks process;

void CallHook(const char* what) {
  if (const ProgressHook hook = process.hook.load(kRelaxed)) hook(what);
}

// By value: the group may end while its name is read.
void StoreGroup(const std::string& name) {
  std::array<uint64_t, kGroupWords> words = {};
  std::memcpy(words.data(), name.data(), std::min(name.size(), sizeof(words) - 1));
  for (size_t i = 0; i < kGroupWords; ++i) process.group[i].store(words[i], kRelaxed);
}

}  // namespace

void MarkProgress() { process.marks.fetch_add(1, kRelaxed); }

void MarkStep(int64_t step) {
  process.step.store(step, kRelaxed);
  MarkProgress();
}

void MarkPhase(const char* phase) {
  process.phase.store(phase, kRelaxed);
  MarkProgress();
  CallHook(phase);
}

CollectiveMark::CollectiveMark(const char* kind, const std::string& group)
    : CollectiveMark(kind, group, process.collectives.fetch_add(1, kRelaxed) + 1, true) {
  MarkProgress();
  CallHook(kind);
}

CollectiveMark::CollectiveMark(const char* kind, const std::string& group, int64_t number)
    : CollectiveMark(kind, group, number, false) {}

CollectiveMark::CollectiveMark(const char* kind, const std::string& group, int64_t number,
                               bool counts)
    : number_(number), counts_(counts) {
  process.collective.store(number, kRelaxed);
  process.kind.store(kind, kRelaxed);
  StoreGroup(group);
  process.depth.fetch_add(1, kRelaxed);
}

CollectiveMark::~CollectiveMark() {
  process.depth.fetch_sub(1, kRelaxed);
  if (counts_) MarkProgress();
}

Progress ReadProgress() {
  Progress progress;
  progress.marks = process.marks.load(kRelaxed);
  progress.step = process.step.load(kRelaxed);
  progress.phase = process.phase.load(kRelaxed);
  progress.collectives = process.collectives.load(kRelaxed);
  progress.collective = process.collective.load(kRelaxed);
  progress.kind = process.kind.load(kRelaxed);
  for (size_t i = 0; i < kGroupWords; ++i) {
    const uint64_t word = process.group[i].load(kRelaxed);
    std::memcpy(progress.group.data() + i * sizeof(word), &word, sizeof(word));
  }
  progress.inside = process.depth.load(kRelaxed) > 0;
  return progress;
}

void SetProgressHook(ProgressHook hook) { process.hook.store(hook, kRelaxed); }

}  // namespace hypermoe
