// Page: the shared file through which the driver of compare_host commands the processes of one
// contender and reads what they measured.
//
// One file per group of processes (one launch of one library at one setting), mapped by all of
// them. While it is another group's turn, a group's processes sleep in futex waits, so they take no
// processor time whatever their library would do while idle. Inside a turn the ranks meet at a
// barrier of their own on the same page, the same for all libraries, so that none starts a call
// with more skew than another. The driver owns the file and removes its name once all are attached.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace railccl::compare {

inline constexpr int kRanksMax = 16;
inline constexpr int kSamplesMax = 2048;
inline constexpr uint32_t kPageMagic = 0x52434d31;

enum class Operation : uint32_t {
  all_reduce,
  reduce_scatter,
  all_gather,
  broadcast,
  all_to_all,
};
inline constexpr int kOperationCount = 5;
enum class Type : uint32_t { float32, bfloat16, float16 };
inline constexpr int kTypeCount = 3;

const char* name_of(Operation operation);
const char* name_of(Type type);
size_t size_of(Type type);
/// busbw / algbw; `bytes` of a cell is the larger of a rank's two buffers.
double bus_factor(Operation operation, int ranks);

/// What the ranks of a group do in one turn.
struct Turn {
  Operation operation = Operation::all_reduce;
  Type type = Type::float32;
  uint64_t bytes = 0;            // the larger of a rank's two buffers
  uint32_t registered = 0;       // buffers from the library's own allocator
  uint32_t calls_per_block = 1;  // back to back, buffers untouched in between
  uint32_t blocks = 1;           // timed samples; buffers are rewritten before each
  uint32_t warmup_blocks = 1;    // the same, not timed
  uint32_t finish = 0;           // no turn: disconnect and exit
  char variant[32] = "";         // what the library calls the algorithm, where it can be asked for
};

/// One rank's answer to a turn.
struct Answer {
  uint64_t wrong;            // elements that differ after the last block
  double processor_us;       // used by this process during the turn
  uint32_t failed;           // with the reason in `text`
  char text[244];            // ends in 0
  float us[kSamplesMax];     // per block: time inside the calls
  std::atomic<int> process;  // its id, so that a stuck one can be ended
  std::atomic<int> ready;    // connected, or failed to
};

/// The whole file. The words that one side spins or sleeps on have a cache line each.
struct Page {
  uint32_t magic;
  int32_t driver;  // process id: who is gone ends the others
  int32_t ranks;
  int32_t pin;                   // 1: rank r on the r-th allowed core (modulo), 0: free
  int32_t crowded;               // more ranks than cores: waiting must let others run
  unsigned char shared_id[256];  // rank 0's gift to the others, guarded by id_ready
  alignas(64) std::atomic<uint32_t> id_ready;
  alignas(64) std::atomic<uint32_t> turn_number;  // the driver counts it up to start a turn
  alignas(64) std::atomic<uint32_t> answers;      // ranks that are done, counted over all turns
  alignas(64) std::atomic<uint32_t> arrived;      // of the ranks' barrier
  alignas(64) std::atomic<uint32_t> passed;
  alignas(64) Turn turn;
  Answer answer[kRanksMax];
};

/// Owner of one mapping of a page file.
class PageFile {
 public:
  PageFile() = default;
  ~PageFile();
  PageFile(const PageFile&) = delete;
  PageFile& operator=(const PageFile&) = delete;

  /// The driver's side: makes a fresh file at `path`. False with errno set on failure.
  bool create(const std::string& path, int ranks, bool pin, bool crowded);
  /// A worker's side. False when there is no such file or it is not a page.
  bool attach(const std::string& path);
  Page* operator->() const { return page_; }
  Page& operator*() const { return *page_; }

 private:
  bool map(int file);
  Page* page_ = nullptr;
};

/// Sleeps while `*word` is `seen`, at most `timeout_ms`.
void sleep_while(std::atomic<uint32_t>* word, uint32_t seen, int timeout_ms);
void wake_all(std::atomic<uint32_t>* word);

/// All ranks of the page meet; spins a while, then lets others run. False when the driver died.
bool meet(Page& page);

double now_us();
/// 0 for no values.
double median(std::vector<double> values);

}  // namespace railccl::compare
