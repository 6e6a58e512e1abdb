// Writes the JSON of communicators; see picture_text.h.
#include "runtime/picture_text.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/random.h"
#include "runtime/path_text.h"

namespace railccl::runtime {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kRanksMax = 4096;  // whose places are told
constexpr int64_t kRateNs = 1'000'000'000;

int64_t unix_ns() {
  timespec time;
  ::clock_gettime(CLOCK_REALTIME, &time);
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

/// Equal on all ranks; the secret that it is made of cannot be found from it.
std::string id_of(uint64_t job) {
  return job == 0
             ? std::string()
             : fmt::format("{:08x}", static_cast<uint32_t>(hash_bytes(&job, sizeof job) >> 32));
}

const char* name_of(Subject::Kind kind) {
  switch (kind) {
    case Subject::Kind::collective:
      return "collective";
    case Subject::Kind::transfers:
      return "transfers";
    case Subject::Kind::weighing:
      return "weighing";
    case Subject::Kind::commit:
      return "commit";
  }
  return "?";
}

bool numbered(const Record& record) { return record.subject.kind != Subject::Kind::transfers; }

const char* state_of(const Picture& picture, const Record& record) {
  switch (record.state) {
    case Record::State::done:
      return "done";
    case Record::State::failed:
      return "failed";
    case Record::State::running:
      break;
  }
  if (numbered(record) && record.sequence < picture.finished) return "done";
  if (!picture.failure.is_ok()) return "failed";
  return numbered(record) && record.subject.algorithm == nullptr ? "entered" : "running";
}

uint64_t bytes_of(const Picture& picture, const Record& record) {
  if (!numbered(record)) return 0;
  const plan::Request& request = record.subject.request;
  return std::max(plan::input_elements(request, picture.ranks, picture.rank),
                  plan::output_elements(request, picture.ranks, picture.rank)) *
         size_of(request.datatype);
}

std::string call_of(const Record& record) {
  return numbered(record) ? plan::text_of(record.subject.request)
                          : fmt::format("{} sends and receives", record.subject.request.count);
}

Json json_of(const Picture& picture, const Picture::Operation& operation, int64_t unix_offset) {
  const Record& record = operation.record;
  Json json = {{"number", record.number},
               {"kind", name_of(record.subject.kind)},
               {"operation", nullptr},
               {"call", call_of(record)},
               {"bytes", bytes_of(picture, record)},
               {"state", state_of(picture, record)},
               {"start_ns", record.start_ns + unix_offset},
               {"end_ns", nullptr},
               {"algorithm", ""},
               {"transport", operation.transport},
               {"channels", record.subject.channels}};
  if (numbered(record)) json["operation"] = record.sequence;
  if (record.end_ns != 0) json["end_ns"] = record.end_ns + unix_offset;
  if (record.subject.algorithm != nullptr) json["algorithm"] = record.subject.algorithm->name;
  if (!operation.where.empty()) json["where"] = operation.where;
  return json;
}

/// What was done per second, of late, as far as it is remembered.
Json rates_of(const Picture& picture) {
  int64_t first_ns = picture.taken_ns;
  double operations = 0, bytes = 0;
  for (const Picture::Operation& operation : picture.operations) {
    const Record& record = operation.record;
    if (record.start_ns < picture.taken_ns - kRateNs) continue;
    first_ns = std::min(first_ns, record.start_ns);
    if (std::string_view(state_of(picture, record)) != "done") continue;
    operations++;
    bytes += static_cast<double>(bytes_of(picture, record));
  }
  // Where more happened in the last second than is remembered, what is remembered took less.
  const bool all = picture.recorded == picture.operations.size() ||
                   (!picture.operations.empty() &&
                    picture.operations.front().record.start_ns < picture.taken_ns - kRateNs);
  const double seconds =
      static_cast<double>(all ? kRateNs : std::max<int64_t>(picture.taken_ns - first_ns, 1)) * 1e-9;
  return {{"operations_per_s", operations / seconds}, {"bytes_per_s", bytes / seconds}};
}

/// The operations that this rank is in now.
Json in_flight(const Picture& picture, int64_t unix_offset) {
  Json list = Json::array();
  for (const Picture::Operation& operation : picture.operations) {
    const std::string_view state = state_of(picture, operation.record);
    if (state != "running" && state != "entered") continue;
    Json json = json_of(picture, operation, unix_offset);
    json["for_ms"] = (picture.taken_ns - operation.record.start_ns) / 1'000'000;
    list.push_back(std::move(json));
  }
  return list;
}

Json news_of(const Picture& picture) {
  Json list = Json::array();
  for (const RankNews& news : picture.news) {
    // An operation that is over here has been entered by all, and most likely left.
    if (!news.left && news.number < picture.finished) continue;
    Json json = {{"rank", news.rank}};
    if (news.left) {
      json["left_after"] = news.number;
    } else {
      json["waits_in"] = news.number;
      json["call"] = news.call;
      json["since_ms"] = (picture.taken_ns - news.told_ns) / 1'000'000;
    }
    list.push_back(std::move(json));
  }
  return list;
}

}  // namespace

Json json_of(const Picture& picture, size_t operations) {
  const int64_t unix_offset = unix_ns() - now_ns();
  Json json = {{"id", id_of(picture.job)},
               {"name", picture.name},
               {"rank", picture.rank},
               {"ranks", picture.ranks},
               {"host", picture.host},
               {"state", picture.state},
               {"age_ms", (picture.taken_ns - picture.made_ns) / 1'000'000},
               {"entered", picture.entered},
               {"finished", picture.finished},
               {"queued", picture.queued},
               {"collectives", picture.collectives},
               {"recorded", picture.recorded},
               {"bytes", picture.bytes},
               {"rates", rates_of(picture)},
               {"in_flight", in_flight(picture, unix_offset)}};
  if (!picture.failure.is_ok()) {
    Json suspects = Json::array();
    for (const Suspect& suspect : picture.suspects)
      suspects.push_back({{"rank", suspect.rank}, {"what", suspect.what}});
    json["verdict"] = {{"code", name_of(picture.failure.code())},
                       {"text", picture.failure.text()},
                       {"suspects", std::move(suspects)},
                       {"lost", picture.lost}};
  }
  json["news"] = news_of(picture);
  if (picture.topology != nullptr) {
    Json members = Json::array();
    for (size_t rank = 0; rank < std::min(picture.processes.size(), kRanksMax); rank++)
      members.push_back({{"host", picture.topology->host_of(static_cast<int>(rank)).name},
                         {"pid", picture.processes[rank]}});
    json["members"] = std::move(members);
    const Json paths = json_of(picture.paths, *picture.topology, picture.rank);
    for (const char* part : {"rails", "paths", "events"}) json[part] = paths[part];
  }
  Json list = Json::array();
  const size_t skipped =
      picture.operations.size() - std::min(operations, picture.operations.size());
  for (size_t i = skipped; i < picture.operations.size(); i++)
    list.push_back(json_of(picture, picture.operations[i], unix_offset));
  json["operations"] = std::move(list);
  return json;
}

std::string process_text(const std::vector<Picture>& pictures, size_t operations,
                         size_t bytes_max) {
  char host[256] = "?";
  ::gethostname(host, sizeof host - 1);
  // Names come from other machines: what is not UTF-8 is replaced, not thrown at the caller.
  const auto text_of = [](const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  const Json head = {{"railccl", RAILCCL_VERSION},
                     {"format", kPictureFormat},
                     {"host", host},
                     {"pid", ::getpid()},
                     {"unix_ns", unix_ns()}};
  std::string text = text_of(head);
  text.back() = ',';
  text += "\"communicators\":[";
  size_t told = 0;
  for (const Picture& picture : pictures) {
    const std::string one = text_of(json_of(picture, operations));
    if (text.size() + one.size() > bytes_max) break;
    if (told++ > 0) text += ",\n";
    text += one;
  }
  return text + fmt::format("],\"left_out\":{}}}\n", pictures.size() - told);
}

}  // namespace railccl::runtime
