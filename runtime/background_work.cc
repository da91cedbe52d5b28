#include "runtime/background_work.h"

#include <chrono>
#include <utility>

namespace hypermoe {
namespace {

constexpr auto kPatience = std::chrono::seconds(3);

}  // namespace

BackgroundWork::BackgroundWork(std::function<absl::Status(const std::stop_token&)> work) {
  std::packaged_task<absl::Status()> task(
      [work = std::move(work), stop = stop_.get_token()] { return work(stop); });
  outcome_ = task.get_future();
  thread_ = std::thread(std::move(task));
}

BackgroundWork::~BackgroundWork() {
  if (!thread_.joinable()) return;
  stop_.request_stop();
  if (outcome_.wait_for(kPatience) == std::future_status::ready) {
    thread_.join();
  } else {
    thread_.detach();
  }
}

bool BackgroundWork::done() const {
  return outcome_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

absl::Status BackgroundWork::Take() {
  outcome_.wait();
  thread_.join();
  return outcome_.get();
}

}  // namespace hypermoe
