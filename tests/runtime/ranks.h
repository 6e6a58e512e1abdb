// Ranks as threads: the harness of the communicator tests.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "free_port.h"
#include "runtime/communicator.h"
#include "values.h"

namespace railccl::test {

using runtime::Call;
using runtime::Communicator;
using runtime::Config;
using CommunicatorPtr = std::shared_ptr<Communicator>;

/// Default settings with `overrides` ("NAME=value") in place of the environment, and without
/// measuring the machine, which would take most of a test's time.
inline Settings settings_with(const std::vector<std::string>& overrides = {}) {
  auto settings = Settings::load([&](const char* name) -> const char* {
    const std::string prefix = std::string(name) + "=";
    for (const std::string& row : overrides)
      if (row.compare(0, prefix.size(), prefix) == 0) return row.c_str() + prefix.size();
    return prefix == "RAILCCL_MEASURE=" ? "off" : nullptr;
  });
  EXPECT_TRUE(settings.is_ok()) << settings.status().text();
  return settings.value();
}

inline void on_threads(int ranks, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; r++) threads.emplace_back([&, r] { body(r); });
  for (std::thread& thread : threads) thread.join();
}

/// Runs `body` on `ranks` threads, each with its rank of one new communicator.
inline void with_communicator(int ranks, const Settings& settings,
                              const std::function<void(CommunicatorPtr)>& body,
                              const Config& config = {}) {
  auto id = runtime::make_unique_id(settings);
  ASSERT_TRUE(id.is_ok()) << id.status().text();
  on_threads(ranks, [&](int r) {
    auto joined = Communicator::join(*id, r, ranks, config, settings);
    ASSERT_TRUE(joined.is_ok()) << joined.status().text();
    body(std::move(joined).value());
  });
}

inline Call call_of(const Request& request, const Buffers& buffers) {
  Call call;
  call.request = request;
  call.input = buffers.input;
  call.output = buffers.output;
  call.factor = factor_of(request);
  return call;
}

inline Call send_of(int peer, const void* data, uint64_t count,
                    Datatype datatype = Datatype::int32) {
  Call call;
  call.kind = Call::Kind::send;
  call.request.datatype = datatype;
  call.request.count = count;
  call.peer = peer;
  call.input = data;
  return call;
}

inline Call recv_of(int peer, void* data, uint64_t count, Datatype datatype = Datatype::int32) {
  Call call = send_of(peer, nullptr, count, datatype);
  call.kind = Call::Kind::recv;
  call.output = data;
  return call;
}

/// Runs `request` on a blocking communicator and compares with the model.
inline void expect_exact(Communicator& communicator, const Request& request,
                         runtime::Stream* stream = nullptr) {
  Buffers buffers(request, communicator.size(), communicator.rank());
  Status status = communicator.start(call_of(request, buffers), stream);
  if (stream != nullptr && status.is_ok()) status = stream->synchronize();
  ASSERT_TRUE(status.is_ok()) << plan::text_of(request) << ": " << status.text();
  ASSERT_EQ(buffers.first_wrong(), -1)
      << plan::text_of(request) << " on rank " << communicator.rank() << " of "
      << communicator.size() << " by " << communicator.last_choice().algorithm;
}

inline Request sum_request(uint64_t count, Collective collective = Collective::all_reduce) {
  Request request;
  request.collective = collective;
  request.op = reduces(collective) ? Reduction::sum : Reduction::none;
  request.count = count;
  return request;
}

}  // namespace railccl::test
