// Reading and putting together; see view.h.
#include "status/view.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

namespace railccl::status {
namespace {

using Json = nlohmann::json;

constexpr int kFormat = 1;
// What anybody may say who takes a process's name: enough for all that there is, and no more.
constexpr size_t kListMax = 1 << 17, kCommunicatorsMax = 1024;
constexpr int kRanksMax = 1 << 17;
constexpr int64_t kWaitsMs = 200;  // shorter ones are how ranks meet

/// Reads fields of an object; remembers whether all were as they have to be.
class Reader {
 public:
  Reader(const Json& json, bool* good) : json_(json), good_(good) {
    *good_ = *good_ && json.is_object();
  }
  void text(const char* key, std::string* value) {
    const Json* field = find(key, &Json::is_string);
    if (field == nullptr) return;
    *value = field->get<std::string>();
    // Shown in terminals, perhaps root's: nothing in it may move the cursor, or begin a line.
    for (char& c : *value)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  template <typename Integer>
  void integer(const char* key, Integer* value, int64_t low = 0,
               int64_t high = std::numeric_limits<int64_t>::max()) {
    const Json* field = find(key, &Json::is_number_integer);
    if (field == nullptr) return;
    // What does not fit into 63 bits is no count of anything.
    const bool fits =
        !field->is_number_unsigned() || field->get<uint64_t>() <= static_cast<uint64_t>(high);
    const int64_t found = field->get<int64_t>();
    if (!fits || found < low || found > high) {
      *good_ = false;
    } else {
      *value = static_cast<Integer>(found);
    }
  }
  template <typename Integer>
  void maybe(const char* key, std::optional<Integer>* value) {
    if (!*good_ || !json_.contains(key) || json_[key].is_null()) return;
    Integer found = 0;
    integer(key, &found);
    *value = found;
  }
  void maybe_text(const char* key, std::string* value) {
    if (*good_ && json_.contains(key)) text(key, value);
  }
  /// null: not known, so infinite.
  void number(const char* key, double* value) {
    if (*good_ && json_.contains(key) && json_[key].is_null()) {
      *value = std::numeric_limits<double>::infinity();
    } else if (const Json* field = find(key, &Json::is_number)) {
      *value = field->get<double>();
    }
  }
  void flag(const char* key, bool* value) {
    if (const Json* field = find(key, &Json::is_boolean)) *value = field->get<bool>();
  }
  template <typename Item, typename Read>
  void list(const char* key, std::vector<Item>* items, const Read& read) {
    const Json* field = find(key, &Json::is_array);
    if (field == nullptr) return;
    *good_ = *good_ && field->size() <= kListMax;
    for (const Json& one : *field) {
      if (!*good_) return;
      Reader reader(one, good_);
      Item item;
      if (*good_) read(reader, &item);
      items->push_back(std::move(item));
    }
  }
  template <typename Read>
  void object(const char* key, const Read& read) {
    const Json* field = find(key, &Json::is_object);
    if (field == nullptr) return;
    Reader reader(*field, good_);
    read(reader);
  }
  bool has(const char* key) const { return *good_ && json_.contains(key); }

 private:
  const Json* find(const char* key, bool (Json::*is)() const noexcept) {
    if (!*good_) return nullptr;
    const auto found = json_.find(key);
    *good_ = found != json_.end() && ((*found).*is)();
    return *good_ ? &*found : nullptr;
  }
  const Json& json_;
  bool* good_;
};

void read_operation(Reader& in, Operation* out) {
  in.integer("number", &out->number);
  in.text("kind", &out->kind);
  in.maybe("operation", &out->operation);
  in.text("call", &out->call);
  in.integer("bytes", &out->bytes);
  in.text("state", &out->state);
  in.integer("start_ns", &out->start_ns);
  in.flag("stamped", &out->stamped);
  in.maybe("end_ns", &out->end_ns);
  in.text("algorithm", &out->algorithm);
  in.text("transport", &out->transport);
  in.integer("channels", &out->channels, 0, 1 << 16);
  in.maybe_text("where", &out->where);
  if (in.has("for_ms")) in.integer("for_ms", &out->for_ms);
}

void read_network(Reader& in, Communicator* out) {
  in.list("rails", &out->rails, [](Reader& one, Rail* rail) {
    one.integer("rail", &rail->rail, 0, 1 << 16);
    one.text("nic", &rail->nic);
    one.number("bytes_per_s", &rail->bytes_per_s);
    one.flag("in_use", &rail->in_use);
  });
  in.list("paths", &out->paths, [](Reader& one, Path* path) {
    one.integer("peer", &path->peer, -1, kRanksMax);
    one.text("peer_host", &path->peer_host);
    one.integer("channel", &path->channel, -1, 1 << 16);
    one.text("nic", &path->nic);
    one.text("far", &path->far);
    one.flag("home", &path->home);
    one.text("state", &path->state);
    one.number("bytes_per_s", &path->bytes_per_s);
    one.integer("bytes_sent", &path->bytes_sent);
  });
  in.list("events", &out->events, [](Reader& one, Event* event) {
    one.integer("unix_ms", &event->unix_ms);
    one.text("text", &event->text);
  });
}

void read_communicator(Reader& in, Communicator* out) {
  in.text("id", &out->id);
  in.text("name", &out->name);
  in.text("host", &out->host);
  in.text("state", &out->state);
  in.integer("rank", &out->rank, -1, kRanksMax);
  in.integer("ranks", &out->ranks, 0, kRanksMax);
  in.integer("age_ms", &out->age_ms);
  in.integer("entered", &out->entered);
  in.integer("finished", &out->finished);
  in.integer("queued", &out->queued);
  in.integer("collectives", &out->collectives);
  in.integer("recorded", &out->recorded);
  in.integer("bytes", &out->bytes);
  in.object("rates", [&](Reader& rates) {
    rates.number("operations_per_s", &out->operations_per_s);
    rates.number("bytes_per_s", &out->bytes_per_s);
  });
  in.list("in_flight", &out->in_flight, read_operation);
  in.list("operations", &out->operations, read_operation);
  const auto rank_in = [&](Reader& reader, int* rank) {
    reader.integer("rank", rank, 0, out->ranks - 1);
  };
  if (in.has("verdict"))
    in.object("verdict", [&](Reader& verdict) {
      verdict.text("text", &out->verdict);
      verdict.list("suspects", &out->suspects, [&](Reader& one, Suspect* suspect) {
        rank_in(one, &suspect->rank);
        one.text("what", &suspect->what);
      });
    });
  in.list("news", &out->news, [&](Reader& one, News* news) {
    rank_in(one, &news->rank);
    one.maybe("left_after", &news->left_after);
    one.maybe("waits_in", &news->waits_in);
    one.maybe_text("call", &news->call);
    if (one.has("since_ms")) one.integer("since_ms", &news->since_ms);
  });
  if (!in.has("members")) return;  // it is still being made
  in.list("members", &out->members, [](Reader& one, Place* place) {
    one.text("host", &place->host);
    one.integer("pid", &place->process, 0, std::numeric_limits<int>::max());
  });
  in.object("network", [out](Reader& network) { read_network(network, out); });
}

}  // namespace

Result<Process> parse_process(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded() || !json.is_object())
    return Status(Code::invalid_argument, "what it says is no JSON object");
  const auto format = json.find("format");
  if (format == json.end() || !format->is_number_integer())
    return Status(Code::invalid_argument, "what it says is not a process's status");
  if (*format != kFormat)
    return Status(Code::unsupported, "it speaks form {} of the status, this program form {}",
                  format->dump(), kFormat);
  bool good = true;
  Process process;
  Reader in(json, &good);
  in.text("railccl", &process.version);
  in.text("host", &process.host);
  in.integer("pid", &process.process, 0, std::numeric_limits<int>::max());
  in.integer("unix_ns", &process.unix_ns);
  in.integer("left_out", &process.left_out);
  in.list("communicators", &process.communicators, read_communicator);
  if (!good || process.communicators.size() > kCommunicatorsMax)
    return Status(Code::invalid_argument, "a field of what it says is not as it should be");
  return process;
}

std::vector<Together> put_together(const std::vector<Process>& processes) {
  std::vector<Together> all;
  for (const Process& process : processes)
    for (const Communicator& one : process.communicators) {
      auto known = std::find_if(all.begin(), all.end(), [&](const Together& other) {
        return !one.id.empty() && other.id == one.id && other.ranks == one.ranks &&
               !other.here.contains(one.rank);
      });
      if (known == all.end()) {
        all.emplace_back();
        known = all.end() - 1;
        known->id = one.id;
        known->name = one.name;
        known->ranks = one.ranks;
      }
      known->here[one.rank] = {&process, &one};
    }
  for (Together& communicator : all) {
    // The latest operation in which somebody waits.
    std::map<int, News> told;
    const auto wait_in = [&](uint64_t operation, const std::string& call) {
      if (communicator.operation && *communicator.operation >= operation) return;
      communicator.operation = operation;
      communicator.call = call;
    };
    for (const auto& [rank, view] : communicator.here) {
      for (const Operation& operation : view.second->in_flight)
        if (operation.operation && operation.for_ms >= kWaitsMs)
          wait_in(*operation.operation, operation.call);
      for (const News& news : view.second->news) {
        told[news.rank] = news;
        if (news.waits_in) wait_in(*news.waits_in, news.call);
      }
    }
    if (!communicator.operation) continue;
    for (int rank = 0; rank < communicator.ranks; rank++) {
      if (const auto here = communicator.here.find(rank); here != communicator.here.end()) {
        if (here->second.second->entered <= *communicator.operation)
          communicator.stragglers.push_back(rank);
      } else if (const auto news = told.find(rank); news == told.end()) {
        communicator.unheard.push_back(rank);
      } else if (news->second.waits_in && *news->second.waits_in < *communicator.operation) {
        communicator.stragglers.push_back(rank);
      }
    }
  }
  return all;
}

}  // namespace railccl::status
