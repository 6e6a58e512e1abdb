// PlanCache: the plans of recent requests, ready to run. Least recently used ones go first.
//
// A hit neither allocates nor locks. Entries stay valid until the next insertion or clear(). One
// thread at a time (that which runs the communicator's operations).
#pragma once

#include <list>
#include <memory>
#include <unordered_map>

#include "plan/plan.h"
#include "runtime/chooser.h"
#include "runtime/execute.h"
#include "runtime/recorder.h"

namespace railccl::runtime {

struct ReadyPlan {
  std::unique_ptr<Execution> execution;
  Chosen chosen;
  std::shared_ptr<const Subject> subject;  // for the recorder
};

class PlanCache {
 public:
  explicit PlanCache(size_t capacity) : capacity_(capacity) {}

  /// The plan of `request`, now the most recently used one, or null.
  ReadyPlan* find(const plan::Request& request) {
    // Most callers repeat themselves.
    if (!order_.empty() && order_.front().request == request) return &order_.front().plan;
    const auto found = index_.find(request);
    if (found == index_.end()) return nullptr;
    order_.splice(order_.begin(), order_, found->second);
    return &found->second->plan;
  }
  ReadyPlan* insert(const plan::Request& request, ReadyPlan plan) {
    if (order_.size() >= capacity_) {
      index_.erase(order_.back().request);
      order_.pop_back();
    }
    order_.push_front({request, std::move(plan)});
    index_[request] = order_.begin();
    return &order_.front().plan;
  }
  /// Forgets all plans; none may be running.
  void clear() {
    index_.clear();
    order_.clear();
  }
  size_t size() const { return order_.size(); }

 private:
  struct Row {
    plan::Request request;
    ReadyPlan plan;
  };
  struct Hash {
    size_t operator()(const plan::Request& request) const { return plan::hash_of(request); }
  };
  size_t capacity_;
  std::list<Row> order_;  // most recently used first
  std::unordered_map<plan::Request, std::list<Row>::iterator, Hash> index_;
};

}  // namespace railccl::runtime
