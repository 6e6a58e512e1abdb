// railccl.hpp: railccl for C++20 programs: communicators, groups, streams and memory that free
// themselves, and collectives on whatever holds its elements side by side (std::vector, std::array,
// std::span), typed and with their sizes checked before the library is called.
//
// Header only, over nccl.h and railccl.h: link railccl (or, but for streams and id_at, any NCCL).
// Nothing throws unless asked to: calls return a Status; `.or_throw()` turns a failure into an
// exception. Buffers are the caller's. With a null stream a call is complete when it returns; with
// a stream it is queued, and its buffers must stay valid and untouched until the stream is
// synchronized; between Group() and Group::end() it is recorded. Thread-safety is nccl.h's: one
// thread at a time per communicator, but for abort(), which any thread may call.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "railccl/railccl.h"

namespace railccl {
inline namespace v1 {

/// How a call ended, with the library's account of a failure: which call, which rank, what to do.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(ncclResult_t code, std::string message) : code_(code), message_(std::move(message)) {}
  /// Of a call of nccl.h that has just returned on this thread.
  static Status of(ncclResult_t code, ncclComm_t comm = nullptr) {
    if (code == ncclSuccess || code == ncclInProgress) return {code, ""};
    std::string text = ncclGetErrorString(code);
    const char* detail = ncclGetLastError(comm);
    if (detail != nullptr && *detail != 0) text.append(": ").append(detail);
    return {code, std::move(text)};
  }

  /// Done, or, of a non-blocking communicator, begun.
  bool ok() const { return code_ == ncclSuccess || code_ == ncclInProgress; }
  ncclResult_t code() const { return code_; }
  const std::string& message() const { return message_; }
  /// Throws std::runtime_error with the message unless ok().
  void or_throw() const {
    if (!ok()) throw std::runtime_error(message_);
  }

 private:
  ncclResult_t code_ = ncclSuccess;
  std::string message_;
};

/// Which datatype of nccl.h an element is. Specialise it for types of your own:
///   template <> struct railccl::Datatype<MyHalf> { static constexpr auto value = ncclFloat16; };
template <typename T>
struct Datatype {
  static constexpr ncclDataType_t of() {
    constexpr bool is_signed = std::is_signed_v<T>;
    if constexpr (std::is_same_v<T, float>) {
      return ncclFloat32;
    } else if constexpr (std::is_same_v<T, double>) {
      return ncclFloat64;
    } else if constexpr (std::is_same_v<T, std::byte>) {
      return ncclUint8;
    } else {
      static_assert(std::is_integral_v<T> && !std::is_same_v<T, bool> && sizeof(T) != 2,
                    "specialise railccl::Datatype for this type");
      if constexpr (sizeof(T) == 1) return is_signed ? ncclInt8 : ncclUint8;
      if constexpr (sizeof(T) == 4) return is_signed ? ncclInt32 : ncclUint32;
      return is_signed ? ncclInt64 : ncclUint64;
    }
  }
  static constexpr ncclDataType_t value = of();
};

/// What holds its elements side by side and knows how many they are.
template <typename R>
concept Elements = std::ranges::contiguous_range<R> && std::ranges::sized_range<R>;
/// Of these, what can be written.
template <typename R>
concept WritableElements =
    Elements<R> && !std::is_const_v<std::remove_reference_t<std::ranges::range_reference_t<R>>>;
template <typename R>
using ElementOf = std::ranges::range_value_t<R>;
/// Elements of two buffers of one call.
template <typename In, typename Out>
concept SameElements =
    Elements<In> && WritableElements<Out> && std::is_same_v<ElementOf<In>, ElementOf<Out>>;

/// An ordered queue of calls (railcclStreamCreate). Empty until create().
class Stream {
 public:
  Stream() = default;
  Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  Stream& operator=(Stream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  /// Waits for what is queued.
  ~Stream() { (void)railcclStreamDestroy(stream_); }

  Status create() {
    Stream made;
    const Status status = Status::of(railcclStreamCreate(&made.stream_));
    if (status.ok()) *this = std::move(made);
    return status;
  }
  /// Waits until everything queued is done; the first failure since the last call.
  Status synchronize() { return Status::of(railcclStreamSynchronize(stream_)); }
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// `count` elements of memory that all ranks of a host reach directly (ncclMemAlloc): collectives
/// on it copy less. Zeroed by nobody. Empty until allocate().
template <typename T>
requires std::is_trivially_copyable_v<T>
class Memory {
 public:
  Memory() = default;
  Memory(Memory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  Memory& operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~Memory() {
    if (data_ != nullptr) (void)ncclMemFree(data_);
  }

  Status allocate(size_t count) {
    if (count > PTRDIFF_MAX / sizeof(T))
      return {ncclInvalidArgument, "railccl::Memory: more elements than an address space holds"};
    void* data = nullptr;
    const Status status = Status::of(ncclMemAlloc(&data, count * sizeof(T)));
    if (!status.ok()) return status;
    *this = Memory();
    data_ = static_cast<T*>(data);
    count_ = count;
    return status;
  }
  T* data() const { return data_; }
  size_t size() const { return count_; }
  T* begin() const { return data_; }
  T* end() const { return data_ + count_; }
  T& operator[](size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  size_t count_ = 0;
};

/// Calls between its making and end() are carried out together. Its end without end() ends it too,
/// and a failure is then only in ncclGetLastError.
class Group {
 public:
  Group() { open_ = ncclGroupStart() == ncclSuccess; }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
  ~Group() {
    if (open_) (void)ncclGroupEnd();
  }
  Status end() {
    if (!std::exchange(open_, false))
      return {ncclInvalidUsage, "railccl::Group: ended already, or never started"};
    return Status::of(ncclGroupEnd());
  }

 private:
  bool open_ = false;
};

/// A new meeting's id, for one rank to make and hand to all others.
inline Status make_id(ncclUniqueId* id) { return Status::of(ncclGetUniqueId(id)); }
/// The id of a meeting point that all ranks know; as railcclGetUniqueIdAt.
inline Status id_at(const std::string& host, int port, const std::string& secret,
                    ncclUniqueId* id) {
  return Status::of(railcclGetUniqueIdAt(host.c_str(), port, secret.c_str(), id));
}

/// One rank's end of a communicator. Empty until init() or another's split().
class Communicator {
 public:
  Communicator() = default;
  Communicator(Communicator&& other) noexcept
      : comm_(std::exchange(other.comm_, nullptr)), rank_(other.rank_), size_(other.size_) {}
  Communicator& operator=(Communicator&& other) noexcept {
    std::swap(comm_, other.comm_);
    std::swap(rank_, other.rank_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Communicator() {
    if (comm_ != nullptr) (void)ncclCommDestroy(comm_);
  }

  /// Meets the other `ranks` - 1 callers with the same id; returns when all are there.
  Status init(int ranks, const ncclUniqueId& id, int rank) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    return init(ranks, id, rank, config);
  }
  Status init(int ranks, const ncclUniqueId& id, int rank, ncclConfig_t config) {
    ncclComm_t comm = nullptr;
    return adopt(ncclCommInitRankConfig(&comm, ranks, id, rank, &config), &comm, rank, ranks);
  }
  /// A communicator of the ranks that gave the same color, in the order of key. With
  /// NCCL_SPLIT_NOCOLOR the caller is in none, and *child stays empty.
  Status split(int color, int key, Communicator* child) const {
    ncclComm_t comm = nullptr;
    const ncclResult_t result = ncclCommSplit(comm_, color, key, &comm, nullptr);
    if (result != ncclSuccess || comm == nullptr) {
      *child = Communicator();
      return Status::of(result, comm_);
    }
    int rank = 0, size = 0;
    if (ncclCommUserRank(comm, &rank) != ncclSuccess || ncclCommCount(comm, &size) != ncclSuccess)
      return Status::of(ncclInternalError, comm);
    return child->adopt(result, &comm, rank, size);
  }

  int rank() const { return rank_; }
  int size() const { return size_; }
  ncclComm_t handle() const { return comm_; }
  /// What went wrong in the background; ncclInProgress while a non-blocking call goes on.
  Status async_error() const {
    ncclResult_t state = ncclSuccess;
    const ncclResult_t result = ncclCommGetAsyncError(comm_, &state);
    return Status::of(result == ncclSuccess ? state : result, comm_);
  }
  /// Ends every call that waits, on this rank, and frees the communicator.
  Status abort() { return Status::of(ncclCommAbort(std::exchange(comm_, nullptr))); }

  /// `out` of every rank becomes the combination of `in` of all ranks.
  template <Elements In, WritableElements Out>
  requires SameElements<In, Out> Status all_reduce(const In& in, Out&& out,
                                                   ncclRedOp_t op = ncclSum,
                                                   cudaStream_t stream = nullptr)
  const {
    if (std::ranges::size(in) != std::ranges::size(out)) return unlike("all_reduce", in, out, "1");
    return of(ncclAllReduce(data(in), data(out), count(in), type(in), op, comm_, stream));
  }
  /// In place.
  template <WritableElements Out>
  Status all_reduce(Out&& data, ncclRedOp_t op = ncclSum, cudaStream_t stream = nullptr) const {
    return all_reduce(data, data, op, stream);
  }
  /// As all_reduce, to rank `root` alone; `out` of others may be empty.
  template <Elements In, WritableElements Out>
  requires SameElements<In, Out> Status reduce(const In& in, Out&& out, int root,
                                               ncclRedOp_t op = ncclSum,
                                               cudaStream_t stream = nullptr)
  const {
    if (rank_ == root && count(in) != count(out)) return unlike("reduce", in, out, "1");
    return of(ncclReduce(data(in), data(out), count(in), type(in), op, root, comm_, stream));
  }
  /// Rank r's `out` becomes the r-th of size() equal parts of the combination of all `in`.
  template <Elements In, WritableElements Out>
  requires SameElements<In, Out> Status reduce_scatter(const In& in, Out&& out,
                                                       ncclRedOp_t op = ncclSum,
                                                       cudaStream_t stream = nullptr)
  const {
    if (count(in) != ranks() * count(out)) return unlike("reduce_scatter", in, out, "ranks");
    return of(ncclReduceScatter(data(in), data(out), count(out), type(in), op, comm_, stream));
  }
  /// `out` becomes all ranks' `in`, one behind the other.
  template <Elements In, WritableElements Out>
  requires SameElements<In, Out> Status all_gather(const In& in, Out&& out,
                                                   cudaStream_t stream = nullptr)
  const {
    if (ranks() * count(in) != count(out)) return unlike("all_gather", in, out, "1/ranks");
    return of(ncclAllGather(data(in), data(out), count(in), type(in), comm_, stream));
  }
  /// `buffer` of every rank becomes that of `root`.
  template <WritableElements Out>
  Status broadcast(Out&& buffer, int root, cudaStream_t stream = nullptr) const {
    return of(ncclBroadcast(data(buffer), data(buffer), count(buffer), type(buffer), root, comm_,
                            stream));
  }
  /// The i-th of size() equal parts of `in` goes to rank i; rank i's part becomes the i-th of
  /// `out`.
  template <Elements In, WritableElements Out>
  requires SameElements<In, Out> Status all_to_all(const In& in, Out&& out,
                                                   cudaStream_t stream = nullptr)
  const {
    if (count(in) != count(out) || count(in) % ranks() != 0)
      return unlike("all_to_all", in, out, "1 and a multiple of the ranks");
    return of(ncclAlltoAll(data(in), data(out), count(in) / ranks(), type(in), comm_, stream));
  }
  /// As all_gather, to rank `root` alone; `out` of others may be empty.
  template <Elements In, WritableElements Out>
  requires SameElements<In, Out> Status gather(const In& in, Out&& out, int root,
                                               cudaStream_t stream = nullptr)
  const {
    if (rank_ == root && ranks() * count(in) != count(out))
      return unlike("gather", in, out, "1/ranks");
    return of(ncclGather(data(in), data(out), count(in), type(in), root, comm_, stream));
  }
  /// Rank r's `out` becomes the r-th of size() equal parts of `in` of `root`; `in` of others may be
  /// empty.
  template <Elements In, WritableElements Out>
  requires SameElements<In, Out> Status scatter(const In& in, Out&& out, int root,
                                                cudaStream_t stream = nullptr)
  const {
    if (rank_ == root && count(in) != ranks() * count(out))
      return unlike("scatter", in, out, "ranks");
    return of(ncclScatter(data(in), data(out), count(out), type(in), root, comm_, stream));
  }
  template <Elements In>
  Status send(const In& in, int peer, cudaStream_t stream = nullptr) const {
    return of(ncclSend(data(in), count(in), type(in), peer, comm_, stream));
  }
  template <WritableElements Out>
  Status recv(Out&& out, int peer, cudaStream_t stream = nullptr) const {
    return of(ncclRecv(data(out), count(out), type(out), peer, comm_, stream));
  }
  /// Returns when all ranks have called it.
  Status barrier() const {
    std::array<int32_t, 1> token{};
    return all_reduce(token);
  }

 private:
  Status adopt(ncclResult_t result, ncclComm_t* comm, int rank, int size) {
    Status status = Status::of(result, *comm);
    if (!status.ok()) return status;
    *this = Communicator();
    comm_ = *comm;
    rank_ = rank;
    size_ = size;
    return status;
  }
  Status of(ncclResult_t result) const { return Status::of(result, comm_); }
  size_t ranks() const { return static_cast<size_t>(size_); }
  template <typename R>
  static auto data(R& range) {
    return std::ranges::data(range);
  }
  template <typename R>
  static size_t count(const R& range) {
    return std::ranges::size(range);
  }
  template <typename R>
  static constexpr ncclDataType_t type(const R&) {
    return Datatype<ElementOf<R>>::value;
  }
  template <typename In, typename Out>
  Status unlike(const char* call, const In& in, const Out& out, const char* wanted) const {
    return {ncclInvalidArgument, std::string("railccl: ") + call + " with " +
                                     std::to_string(count(in)) + " elements in and " +
                                     std::to_string(count(out)) + " out on " +
                                     std::to_string(size_) + " ranks: the ratio must be " + wanted};
  }

  ncclComm_t comm_ = nullptr;
  int rank_ = 0;
  int size_ = 0;
};

}  // namespace v1
}  // namespace railccl
