// Writes the JSON of communicators; see picture_text.h.
#include "runtime/picture_text.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "base/clock.h"
#include "base/json_text.h"
#include "base/random.h"
#include "runtime/path_text.h"

namespace railccl::runtime {
namespace {

constexpr size_t kMembersMax = 4096;  // whose places are told
constexpr size_t kCommunicatorsMax = 1024;
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

const char* name_of(Record::Kind kind) {
  switch (kind) {
    case Record::Kind::collective:
      return "collective";
    case Record::Kind::transfers:
      return "transfers";
    case Record::Kind::weighing:
      return "weighing";
    case Record::Kind::commit:
      return "commit";
  }
  return "?";
}

bool has_number(const Record& record) { return record.kind != Record::Kind::transfers; }

const char* state_of(const Picture& picture, const Record& record) {
  switch (record.state) {
    case Record::State::done:
      return "done";
    case Record::State::failed:
      return "failed";
    case Record::State::running:
      break;
  }
  if (has_number(record) && record.number < picture.finished) return "done";
  if (!picture.failure.is_ok()) return "failed";
  return has_number(record) && record.subject.algorithm == nullptr ? "entered" : "running";
}

bool in_flight(std::string_view state) { return state == "running" || state == "entered"; }

/// The members of one operation's object, which the caller opens and ends.
void add_operation(const Picture& picture, const Picture::Operation& operation, int64_t unix_offset,
                   JsonText* json) {
  const Record& record = operation.record;
  const Subject& subject = record.subject;
  json->field("number", record.number).field("kind", name_of(record.kind)).key("operation");
  has_number(record) ? json->value(record.number) : json->null();
  json->field("call", has_number(record)
                          ? plan::text_of(subject.request)
                          : fmt::format("{} sends and receives", subject.request.count))
      .field("bytes", subject.bytes)
      .field("state", state_of(picture, record))
      .field("start_ns", record.start_ns + unix_offset)
      .field("stamped", record.stamped)
      .key("end_ns");
  record.end_ns != 0 ? json->value(record.end_ns + unix_offset) : json->null();
  json->field("algorithm", subject.algorithm == nullptr ? "" : subject.algorithm->name)
      .field("transport", operation.transport)
      .field("channels", subject.channels);
  if (!operation.where.empty()) json->field("where", operation.where);
}

struct Rate {
  double operations_per_s = 0, bytes_per_s = 0;
};

/// What the numbered operations, or the transfers, of the last second amount to; `ever`: how many
/// of them there were.
Rate recent_rate(const Picture& picture, bool are_numbered, uint64_t ever) {
  const int64_t horizon_ns = picture.taken_ns - kRateNs;
  uint64_t known = 0;
  int64_t first_ns = picture.taken_ns;
  Rate rate;
  for (const Picture::Operation& operation : picture.operations) {
    const Record& record = operation.record;
    if (has_number(record) != are_numbered) continue;
    known++;
    first_ns = std::min(first_ns, record.start_ns);
    if (record.start_ns < horizon_ns || std::string_view(state_of(picture, record)) != "done")
      continue;
    rate.operations_per_s++;
    rate.bytes_per_s += static_cast<double>(record.subject.bytes);
  }
  // Where more happened in the last second than is remembered, what is remembered took less.
  const bool all = known == ever || first_ns < horizon_ns;
  const double seconds =
      static_cast<double>(all ? kRateNs : std::max<int64_t>(picture.taken_ns - first_ns, 1)) * 1e-9;
  rate.operations_per_s /= seconds;
  rate.bytes_per_s /= seconds;
  return rate;
}

void add_news(const Picture& picture, JsonText* json) {
  json->key("news").array();
  for (const RankNews& news : picture.news) {
    // An operation that is over here has been entered by all, and most likely left.
    if (!news.left && news.number < picture.finished) continue;
    json->object().field("rank", news.rank);
    if (news.left) {
      json->field("left_after", news.number);
    } else {
      json->field("waits_in", news.number)
          .field("call", news.call)
          .field("since_ms", (picture.taken_ns - news.told_ns) / 1'000'000);
    }
    json->end();
  }
  json->end();
}

void add_verdict(const Picture& picture, JsonText* json) {
  json->key("verdict")
      .object()
      .field("code", name_of(picture.failure.code()))
      .field("text", picture.failure.text())
      .key("suspects")
      .array();
  for (const Suspect& suspect : picture.suspects)
    json->object().field("rank", suspect.rank).field("what", suspect.what).end();
  json->end().end();
}

/// What fits into about `bytes_max` of a communicator; its last operations first. Empty: not even
/// what there is besides them.
std::string communicator_text(const Picture& picture, size_t operations, size_t bytes_max) {
  const int64_t unix_offset = unix_ns() - now_ns();
  const Rate collectives = recent_rate(picture, true, picture.entered);
  const Rate transfers = recent_rate(picture, false, picture.transfers);
  JsonText json;
  json.object()
      .field("id", id_of(picture.job))
      .field("name", picture.name)
      .field("rank", picture.rank)
      .field("ranks", picture.ranks)
      .field("host", picture.host)
      .field("state", picture.state)
      .field("age_ms", (picture.taken_ns - picture.made_ns) / 1'000'000)
      .field("entered", picture.entered)
      .field("finished", picture.finished)
      .field("queued", picture.queued)
      .field("collectives", picture.collectives)
      .field("recorded", picture.entered + picture.transfers)
      .field("bytes", picture.bytes)
      .key("rates")
      .object()
      .field("operations_per_s", collectives.operations_per_s + transfers.operations_per_s)
      .field("bytes_per_s", collectives.bytes_per_s + transfers.bytes_per_s)
      .end()
      .key("in_flight")
      .array();
  for (const Picture::Operation& operation : picture.operations) {
    if (!in_flight(state_of(picture, operation.record))) continue;
    json.object();
    add_operation(picture, operation, unix_offset, &json);
    json.field("for_ms", (picture.taken_ns - operation.record.start_ns) / 1'000'000).end();
  }
  json.end();
  if (!picture.failure.is_ok()) add_verdict(picture, &json);
  add_news(picture, &json);
  if (picture.topology != nullptr) {
    json.key("members").array();
    for (size_t rank = 0; rank < std::min(picture.processes.size(), kMembersMax); rank++)
      json.object()
          .field("host", picture.topology->host_of(static_cast<int>(rank)).name)
          .field("pid", picture.processes[rank])
          .end();
    json.end().key("network").raw(text_of(picture.paths, *picture.topology, picture.rank));
  }
  std::vector<std::string> list;
  size_t bytes = json.text().size();
  if (bytes > bytes_max) return {};
  for (auto operation = picture.operations.rbegin();
       operation != picture.operations.rend() && list.size() < operations; ++operation) {
    JsonText one;
    one.object();
    add_operation(picture, *operation, unix_offset, &one);
    list.push_back(one.end().take());
    bytes += list.back().size() + 1;
    if (bytes > bytes_max) break;
  }
  json.key("operations").array();
  for (auto one = list.rbegin(); one != list.rend(); ++one) json.raw(*one);
  return json.end().end().take();
}

}  // namespace

std::string process_text(const std::vector<Picture>& pictures, size_t operations,
                         size_t bytes_max) {
  char host[256] = "?";
  ::gethostname(host, sizeof host - 1);
  JsonText json;
  json.object()
      .field("railccl", RAILCCL_VERSION)
      .field("format", kPictureFormat)
      .field("host", static_cast<const char*>(host))
      .field("pid", ::getpid())
      .field("unix_ns", unix_ns())
      .key("communicators")
      .array();
  size_t told = 0, left = bytes_max;
  for (size_t i = 0; i < pictures.size(); i++) {
    // Each one gets its share of what those before it have left.
    if (told == kCommunicatorsMax) break;
    const std::string one =
        communicator_text(pictures[i], operations, left / (pictures.size() - i));
    if (one.empty()) continue;
    json.raw(one);
    left -= std::min(left, one.size());
    told++;
  }
  return json.end().field("left_out", pictures.size() - told).end().take() + "\n";
}

}  // namespace railccl::runtime
