// Open buffers: the exchange of places, and how a place becomes an address.
#include "runtime/open_buffers.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/random.h"

namespace railccl::runtime {

using algorithms::Reach;

namespace {

constexpr int kChannel = 0;  // of the plan that follows, whose messages come behind ours
constexpr int kFlagShift = 56;
constexpr uint64_t kWhereMask = (uint64_t{1} << kFlagShift) - 1;

}  // namespace

OpenBuffers::OpenBuffers(Wires& wires, bool crowded)
    : wires_(wires),
      always_bytes_(crowded ? kAlwaysCrowdedBytes : kAlwaysBytes),
      talks_(static_cast<size_t>(wires.ranks())),
      peers_(static_cast<size_t>(wires.ranks())) {
  for (int r = 0; r < wires_.ranks(); r++) {
    talks_[static_cast<size_t>(r)].same_process = wires_.same_process(r);
    one_process_ = one_process_ && wires_.same_process(r);
  }
  // Without a word it says no when all ranks try: they decide together.
  if (!secret_bytes(&word_, sizeof word_)) word_ = 0;
  landmark_ = {transport::own_process(), reinterpret_cast<uintptr_t>(&word_), word_};
}

/// Ranks may differ in in_place, so it is left out.
OpenBuffers::Experience& OpenBuffers::experience(plan::Request request) {
  request.in_place = false;
  if (experience_.size() == kKindsMax && !experience_.contains(request)) experience_.clear();
  return experience_[request];
}

bool OpenBuffers::worth_asking(const plan::Request& request) {
  if (one_process_ || plan::bytes_of(request) >= always_bytes_) return true;
  Experience& its = experience(request);
  if (its.skip == 0) return true;
  its.skip--;
  return false;
}

/// Asks half as often with every closed call beyond the first few.
void OpenBuffers::learn() {
  if (one_process_) return;
  Experience& its = experience(question_.request);
  its.closed = reach_ == Reach::open ? 0 : its.closed + 1;
  its.skip = its.closed <= kClosedFew
                 ? 0
                 : std::min(kSkipMax, 1u << std::min(its.closed - kClosedFew, 16u));
}

Status OpenBuffers::begin(const Question& question) {
  assert(phase_ == Phase::done);
  question_ = question;
  reach_ = Reach::none;
  mismatch_.reset();
  for (int r = 0; r < wires_.ranks(); r++) {
    Talk& talk = talks_[static_cast<size_t>(r)];
    if (r == wires_.rank() || talk.wire != nullptr) continue;
    RAILCCL_TRY(talk.wire, wires_.wire(r, kChannel));
  }
  const uint64_t element = size_of(question.request.datatype);
  const int ranks = wires_.ranks(), rank = wires_.rank();
  input_ = describe(question.input, plan::input_elements(question.request, ranks, rank) * element);
  output_ =
      describe(question.output, plan::output_elements(question.request, ranks, rank) * element);
  phase_ = Phase::offering;
  return ok();
}

Outcome OpenBuffers::step() {
  Outcome outcome;
  const auto advance = [&]() -> Result<bool> {
    if (phase_ == Phase::offering) {
      RAILCCL_TRY(const bool input, offer(&input_));
      RAILCCL_TRY(const bool output, offer(&output_));
      if (!input || !output) return false;
      start_talk(Phase::describing);
    }
    RAILCCL_TRY(const bool finished, talk());
    if (!finished) return false;
    RAILCCL_CHECK(decide());
    outcome.progressed = true;
    if (phase_ == Phase::done) learn();
    return phase_ == Phase::done;
  };
  auto done = advance();
  if (done.is_ok()) {
    outcome.done = *done;
  } else {
    outcome.status = done.status();
  }
  return outcome;
}

/// Where a buffer of this rank is, with the file that holds it if there is one to be named.
OpenBuffers::Place OpenBuffers::describe(const void* buffer, uint64_t bytes) {
  if (bytes == 0) return {};
  Place place{0, 0, reinterpret_cast<uintptr_t>(buffer), kHeld};
  if (one_process_) return place;
  const Known* known = known_file(place.address, bytes, &place.offset);
  if (known == nullptr || known->refused) return place;
  place.file = known->id;
  if (!known->confirmed) place.flags |= kFresh;
  return place;
}

/// The file that holds all of [start, start + bytes), if it was not released; where in it they are.
OpenBuffers::Known* OpenBuffers::known_file(uintptr_t start, uint64_t bytes, uint64_t* offset) {
  const uint64_t now = transport::MemoryFile::generation();
  if (now != generation_) {
    std::erase_if(files_, [](const auto& entry) { return entry.second.file.expired(); });
    generation_ = now;
  }
  const auto holding = [&]() -> Known* {
    auto found = files_.upper_bound(start);
    if (found == files_.begin()) return nullptr;
    --found;
    if (start >= found->second.end || bytes > found->second.end - start) return nullptr;
    if (offset != nullptr) *offset = start - found->first;
    return &found->second;
  };
  if (Known* known = holding()) return known;
  const auto file = transport::MemoryFile::find(reinterpret_cast<const void*>(start), bytes);
  if (file == nullptr) return nullptr;
  const uintptr_t from = reinterpret_cast<uintptr_t>(file->data());
  files_[from] = {file, file->id(), from + file->size(), false, false};
  return holding();
}

/// Makes sure that peers have been sent the file that `place` names; false: not yet.
Result<bool> OpenBuffers::offer(Place* place) {
  if ((place->flags & kFresh) == 0) return true;
  Known* known = known_file(place->address, 1);
  const auto file = known == nullptr ? nullptr : known->file.lock();
  const transport::Offer offer =
      file == nullptr ? transport::Offer::impossible : wires_.offer(file);
  if (offer == transport::Offer::pending) {
    // Whoever waits for a peer must see that it is lost.
    for (const Talk& talk : talks_)
      if (talk.wire != nullptr) RAILCCL_CHECK(talk.wire->state());
    return false;
  }
  if (offer == transport::Offer::impossible) {
    if (known != nullptr) known->refused = true;
    place->file = 0;
    place->flags &= ~kFresh;
  }
  return true;
}

void OpenBuffers::start_talk(Phase phase) {
  phase_ = phase;
  const bool factors = question_.request.op == Reduction::pre_mul_sum;
  const uint64_t places = factors ? sizeof(Message) : may_fetch() ? kAddressBytes : kPlacesBytes;
  message_bytes_ = phase == Phase::describing    ? places
                   : phase == Phase::introducing ? sizeof(transport::Landmark)
                                                 : sizeof(uint64_t);
  const auto packed = [&](const Place& place, bool same_process) -> Message::Packed {
    const uint64_t where = same_process ? place.address : place.offset;
    return {place.file, (where & kWhereMask) | place.flags << kFlagShift};
  };
  for (Talk& talk : talks_) {
    talk.posted = talk.heard = false;
    talk.got = 0;
    if (phase != Phase::describing) continue;
    talk.out = {packed(input_, talk.same_process),
                packed(output_, talk.same_process),
                input_.address,
                static_cast<uint64_t>(question_.pre.kind),
                question_.pre.value,
                question_.pre.integer};
  }
}

Header OpenBuffers::header() const {
  return {MessageKind::buffers, static_cast<uint32_t>(question_.sequence), message_bytes_,
          question_.request};
}

/// What this phase sends.
const std::byte* OpenBuffers::outgoing(const Talk& talk) const {
  const void* from = phase_ == Phase::describing    ? static_cast<const void*>(&talk.out)
                     : phase_ == Phase::introducing ? static_cast<const void*>(&landmark_)
                                                    : &answer_;
  return static_cast<const std::byte*>(from);
}

/// Where what this phase receives goes.
std::byte* OpenBuffers::incoming(Talk& talk) const {
  void* to = phase_ == Phase::describing    ? static_cast<void*>(&talk.in)
             : phase_ == Phase::introducing ? static_cast<void*>(&talk.landmark)
                                            : &talk.answer;
  return static_cast<std::byte*>(to);
}

/// Sends and receives what is still to come; true when all is done.
Result<bool> OpenBuffers::talk() {
  bool finished = true;
  for (size_t r = 0; r < talks_.size(); r++) {
    Talk& talk = talks_[r];
    if (talk.wire == nullptr) continue;
    if (!talk.posted && !talk.wire->window_full()) {
      talk.wire->post(header(), outgoing(talk), nullptr);
      talk.posted = true;
    }
    if (!talk.wire->idle()) RAILCCL_CHECK(talk.wire->push().status());
    if (!talk.heard) {
      RAILCCL_TRY(talk.heard, hear(talk));
    }
    finished = finished && talk.posted && talk.heard && talk.wire->idle();
  }
  return finished;
}

Result<bool> OpenBuffers::hear(Talk& talk) {
  const Header mine = header();
  if (talk.got == 0) {
    RAILCCL_TRY(const bool arrived, talk.wire->header_arrived(mine.bytes));
    if (!arrived) return false;
    if (!(talk.wire->header() == mine))
      return calls_differ(wires_.rank(), talk.wire->peer(), mine, talk.wire->header(), &mismatch_);
  }
  RAILCCL_TRY(const size_t got,
              talk.wire->receive(incoming(talk) + talk.got, mine.bytes - talk.got));
  talk.got += got;
  if (talk.got < mine.bytes) return false;
  talk.wire->finish_message();
  return true;
}

Status OpenBuffers::look_aside() {
  if (phase_ == Phase::offering || phase_ == Phase::done) return ok();
  const Header mine = header();
  for (const Talk& talk : talks_) {
    if (talk.wire == nullptr || talk.heard || talk.got > 0) continue;
    const auto other = talk.wire->other_header(mine.bytes);
    if (other.is_ok() && (!*other || same_call(**other, mine))) continue;
    // What was asked for may have come just before; what a lost peer wrote was there before its
    // loss showed.
    RAILCCL_TRY(const bool arrived, talk.wire->header_arrived(mine.bytes));
    if (arrived) continue;
    return other.is_ok() ? calls_differ(wires_.rank(), talk.wire->peer(), mine, **other, &mismatch_)
                         : other.status();
  }
  return ok();
}

/// All messages of a phase are here: what follows from them? All ranks have the same ones.
Status OpenBuffers::decide() {
  switch (phase_) {
    case Phase::describing:
      return decide_by_places();
    case Phase::confirming:
      settle(all_agree());
      if (!all_agree()) return decide_otherwise();
      phase_ = Phase::done;
      reach_ = Reach::open;
      return ok();
    case Phase::introducing:
      answer_ = word_ != 0 ? 1 : 0;
      for (const Talk& talk : talks_)
        if (talk.wire != nullptr && !transport::can_read(talk.landmark)) answer_ = 0;
      start_talk(Phase::trying);
      return ok();
    case Phase::trying:
      fetching_ = all_agree() ? Fetching::works : Fetching::impossible;
      return decide_otherwise();
    case Phase::offering:
    case Phase::done:
      break;
  }
  return ok();
}

bool OpenBuffers::all_agree() const {
  return answer_ == 1 && std::all_of(talks_.begin(), talks_.end(), [](const Talk& talk) {
           return talk.wire == nullptr || talk.answer == 1;
         });
}

/// Is everything open, as far as the places say, and does everyone know the files?
Status OpenBuffers::decide_by_places() {
  bool open = true, fresh = false;
  const auto look = [&](uint64_t file, uint64_t flags) {
    if ((flags & kHeld) == 0) return;
    open = open && (file != 0 || one_process_);
    fresh = fresh || (flags & kFresh) != 0;
  };
  look(input_.file, input_.flags);
  look(output_.file, output_.flags);
  for (const Talk& talk : talks_) {
    if (talk.wire == nullptr) continue;
    look(talk.in.input.file, talk.in.input.where >> kFlagShift);
    look(talk.in.output.file, talk.in.output.where >> kFlagShift);
  }
  if (!open) return decide_otherwise();
  RAILCCL_TRY(const bool mapped, bind());
  if (fresh) {
    answer_ = mapped ? 1 : 0;
    start_talk(Phase::confirming);
    return ok();
  }
  if (!mapped)
    return Status(Code::remote, Scope::communicator,
                  "rank {}: a peer's buffer lies in memory that it has taken back", wires_.rank());
  phase_ = Phase::done;
  reach_ = Reach::open;
  return ok();
}

/// Not all buffers are open.
Status OpenBuffers::decide_otherwise() {
  if (may_fetch() && fetching_ == Fetching::untried) {
    start_talk(Phase::introducing);
    return ok();
  }
  phase_ = Phase::done;
  if (!may_fetch()) return ok();
  reach_ = Reach::fetched;
  bind_to_fetch();
  return ok();
}

/// Remembers for this rank's files whether everyone has mapped them.
void OpenBuffers::settle(bool mapped) {
  for (const Place* place : {&input_, &output_}) {
    if ((place->flags & kFresh) == 0) continue;
    Known* known = known_file(place->address, 1);
    if (known == nullptr) continue;
    known->confirmed = mapped;
    known->refused = !mapped;
  }
}

/// Fills peers_; false when a file is not mapped here.
Result<bool> OpenBuffers::bind() {
  const size_t me = static_cast<size_t>(wires_.rank());
  bind_own();
  bool all = true;
  for (size_t r = 0; r < talks_.size(); r++) {
    if (r == me) continue;
    RAILCCL_TRY(const bool bound, bind(static_cast<int>(r), talks_[r]));
    all = all && bound;
  }
  return all;
}

void OpenBuffers::bind_own() {
  peers_[static_cast<size_t>(wires_.rank())] = {static_cast<const std::byte*>(question_.input),
                                                static_cast<std::byte*>(question_.output),
                                                question_.pre, 0};
}

/// Fills peers_ with addresses in their processes. Whoever fetches moves inputs only.
void OpenBuffers::bind_to_fetch() {
  bind_own();
  for (size_t r = 0; r < talks_.size(); r++) {
    const Talk& talk = talks_[r];
    if (talk.wire == nullptr) continue;
    Execution::PeerBuffers& peer = peers_[r];
    peer.input = reinterpret_cast<const std::byte*>(talk.in.input_address);
    peer.output = nullptr;
    peer.process = talk.same_process ? 0 : talk.landmark.process;
  }
}

Result<bool> OpenBuffers::bind(int rank, Talk& talk) {
  Execution::PeerBuffers& peer = peers_[static_cast<size_t>(rank)];
  const uint64_t element = size_of(question_.request.datatype);
  const uint64_t in = plan::input_elements(question_.request, wires_.ranks(), rank) * element;
  const uint64_t out = plan::output_elements(question_.request, wires_.ranks(), rank) * element;
  RAILCCL_TRY(peer.input, reach(rank, talk.in.input, in, &talk.input_memory, &talk.input_file));
  RAILCCL_TRY(peer.output,
              reach(rank, talk.in.output, out, &talk.output_memory, &talk.output_file));
  peer.process = 0;
  peer.pre = question_.pre;
  if (question_.request.op == Reduction::pre_mul_sum) {
    if (talk.in.scale_kind > static_cast<uint64_t>(kernels::Scale::Kind::divide))
      return Status(Code::remote, Scope::communicator, "rank {} scales in an unknown way", rank);
    peer.pre = {static_cast<kernels::Scale::Kind>(talk.in.scale_kind), talk.in.scale_value,
                talk.in.scale_integer};
  }
  return (in == 0 || peer.input != nullptr) && (out == 0 || peer.output != nullptr);
}

Result<std::byte*> OpenBuffers::reach(int rank, const Message::Packed& packed, uint64_t bytes,
                                      std::shared_ptr<const Mapping>* memory, uint64_t* file) {
  if (bytes == 0) return static_cast<std::byte*>(nullptr);
  const uint64_t where = packed.where & kWhereMask;
  if (talks_[static_cast<size_t>(rank)].same_process)
    return reinterpret_cast<std::byte*>(static_cast<uintptr_t>(where));
  if (*memory == nullptr || *file != packed.file) {
    RAILCCL_TRY(*memory, wires_.offered(rank, packed.file));
    *file = packed.file;
  }
  if (*memory == nullptr) return static_cast<std::byte*>(nullptr);
  const uint64_t size = (*memory)->size();
  if (where > size || bytes > size - where)
    return Status(Code::remote, Scope::communicator,
                  "rank {} names {} bytes from {} on in a memory file of {}", rank, bytes, where,
                  size);
  return (*memory)->bytes() + where;
}

std::string OpenBuffers::waiting_for() const {
  if (phase_ == Phase::offering) return "peers to take in the file of a buffer";
  std::string text;
  for (const Talk& talk : talks_) {
    if (talk.wire == nullptr || talk.heard) continue;
    text += fmt::format("{}where rank {}'s buffers are ({})", text.empty() ? "" : "; ",
                        talk.wire->peer(), talk.wire->name());
  }
  return text.empty() ? "nothing" : text;
}

}  // namespace railccl::runtime
