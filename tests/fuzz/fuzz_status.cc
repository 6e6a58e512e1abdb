// fuzz-link: railccl_status railccl_runtime
// What railccl-status reads: answers of processes, the kernel's table of sockets, names, questions,
// requests of scrapers.
// Whatever is accepted can also be shown.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "status/gather.h"
#include "status/http.h"
#include "status/metrics.h"
#include "status/show.h"
#include "status/trace.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace railccl;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  for (const runtime::StatusName& name : status::names_in(bytes))
    if (runtime::parse_status_name(encode(name)) != name) std::abort();
  if (const auto name = runtime::parse_status_name(bytes); name && encode(*name) != bytes)
    std::abort();
  (void)runtime::parse_question(bytes);
  (void)status::parse_request(bytes);
  if (!status::parse_process(bytes).is_ok()) return 0;
  status::Answer answer;
  answer.outcome = status::Answer::Outcome::answered;
  answer.text = bytes;
  const status::Gathered gathered = status::read({answer, answer}, "host");
  if (text_of(gathered).empty() || json_of(gathered).empty()) std::abort();
  if (status::trace_of(gathered.processes).empty()) std::abort();
  if (status::metrics_of(gathered).empty()) std::abort();
  return 0;
}
