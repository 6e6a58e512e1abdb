// Facts as text: a version line, the host's records, and one "place" record for the rank itself.
#include "topology/facts.h"

#include "topology/host_records.h"
#include "topology/records.h"

namespace railccl::topology {

namespace {
constexpr std::string_view kHeader = "railccl-facts";
constexpr int kVersion = 1;
}  // namespace

std::string encode(const Facts& facts) {
  std::string text = RecordWriter(kHeader).integer("version", kVersion).line() + '\n';
  write_host(facts.host, text);
  RecordWriter place("place");
  place.id("process", facts.process);
  if (facts.numa >= 0) place.integer("numa", facts.numa);
  if (facts.cache >= 0) place.integer("cache", facts.cache);
  if (!facts.cpus.empty()) place.text("cpus", facts.cpus);
  if (facts.gpu >= 0) place.integer("gpu", facts.gpu);
  return text + place.line() + '\n';
}

Result<Facts> decode(std::string_view text) {
  if (text.size() > kFactsTextMax)
    return Status(Code::invalid_argument, "facts of {} bytes: more than the {} allowed",
                  text.size(), kFactsTextMax);
  Facts facts;
  bool header = false, host = false, place = false;
  RAILCCL_CHECK(for_each_line(text, [&](std::string_view line, int number) -> Status {
    RAILCCL_TRY(RecordReader record, RecordReader::parse(line, number));
    const std::string& word = record.word();
    if (word.empty()) return ok();
    if (!header) {
      int version = 0;
      if (word != kHeader) return record.error("not railccl facts");
      record.integer("version", version, kVersion, kVersion);
      header = true;
      return record.finish();
    }
    if (word == "host" && !host) {
      RAILCCL_TRY(facts.host, read_host(record));
      host = true;
      return ok();
    }
    if (is_host_part(word) && host && !place) return read_host_part(record, kRailsMax, facts.host);
    if (word == "place" && host && !place) {
      place = true;
      record.id("process", facts.process);
      record.integer("numa", facts.numa, -1, static_cast<int>(facts.host.numas.size()) - 1);
      record.integer("cache", facts.cache, -1, kCpuMax);
      record.text("cpus", facts.cpus);
      record.integer("gpu", facts.gpu, -1, static_cast<int>(facts.host.gpus.size()) - 1);
      return record.finish();
    }
    return record.error(fmt::format("\"{}\" is unknown or out of place here", word.substr(0, 40)));
  }));
  if (!place) return Status(Code::invalid_argument, "the facts end before their place record");
  return facts;
}

}  // namespace railccl::topology
