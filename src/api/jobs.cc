// Groups at the level of the API; see jobs.h.
#include "api/jobs.h"

#include <exception>
#include <system_error>
#include <thread>

namespace railccl::api {
namespace {

struct Group {
  std::vector<std::function<Status()>> jobs;
  std::vector<std::function<Status()>> writes, waits;  // one-sided
  std::vector<std::shared_ptr<runtime::Communicator>> nonblocking;
  std::vector<ncclComm_t> making;
};
thread_local Group group;

Status guarded(const std::function<Status()>& work) {
  try {
    return work();
  } catch (const std::exception& error) {
    return Status(Code::system, "{}", error.what());
  }
}

Status run_together(const std::vector<std::function<Status()>>& jobs) {
  if (jobs.empty()) return ok();
  std::vector<Status> outcomes(jobs.size());
  std::vector<std::thread> threads;
  // The caller runs none of them: its group is still open, and would only record what they call.
  for (size_t i = 0; i < jobs.size(); i++) {
    try {
      threads.emplace_back([&, i] { outcomes[i] = guarded(jobs[i]); });
    } catch (const std::system_error& error) {
      outcomes[i] = system_error(error.code().value(), "cannot start a thread for a rank");
    }
  }
  for (std::thread& thread : threads) thread.join();
  for (const Status& outcome : outcomes)
    if (!outcome.is_ok()) return outcome;
  return ok();
}

}  // namespace

Status run_job(std::function<Status()> work) {
  if (runtime::group_depth() == 0) return guarded(work);
  group.jobs.push_back(std::move(work));
  return ok();
}

void refuse_group(const Status& why) {
  if (runtime::group_depth() > 0) runtime::refuse(why);
}

void run_at_group_end(bool waits, std::function<Status()> work) {
  (waits ? group.waits : group.writes).push_back(std::move(work));
}

void note_nonblocking(const std::shared_ptr<runtime::Communicator>& communicator) {
  if (runtime::group_depth() > 0) group.nonblocking.push_back(communicator);
}

void note_making(ncclComm_t handle) { group.making.push_back(handle); }

void begin_group() { runtime::group_start(); }

Status end_group(bool* in_progress) {
  *in_progress = false;
  if (runtime::group_depth() != 1) return runtime::group_end();
  Group ending = std::exchange(group, {});
  const Status made = run_together(ending.jobs);
  if (!made.is_ok()) runtime::refuse(made);
  RAILCCL_CHECK(runtime::group_end());
  for (const auto& work : ending.writes) RAILCCL_CHECK(guarded(work));
  for (const auto& work : ending.waits) RAILCCL_CHECK(guarded(work));
  for (const auto& communicator : ending.nonblocking)
    *in_progress = *in_progress || communicator->in_progress();
  for (const ncclComm_t handle : ending.making) {
    const auto use = Use::of(handle);  // fails for those that were not to be made: another color
    *in_progress = *in_progress || (use.is_ok() && !use->communicator().config().blocking &&
                                    use->communicator().in_progress());
  }
  return ok();
}

Status simulate_group(double* estimate_s) {
  if (runtime::group_depth() == 1) group = {};
  RAILCCL_TRY(*estimate_s, runtime::group_simulate_end());
  return ok();
}

}  // namespace railccl::api
