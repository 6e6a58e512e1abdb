// One rank's training loop.
#include "train.h"

#include <cblas.h>
#include <nccl.h>
#include <railccl/railccl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <vector>

#include "network.h"
#include "random.h"
#include "reducer.h"
#include "report.h"
#include "seconds.h"

namespace railccl::train {
namespace {

/// Owner of a communicator; null when one rank trains alone.
class Communicator {
 public:
  ~Communicator() {
    if (comm_ != nullptr) static_cast<void>(ncclCommDestroy(comm_));
  }
  /// False with a sentence in `error`.
  bool connect(launch::Job& job, std::string* error) {
    const launch::Place& place = job.place();
    if (place.processes == 1) return true;
    ncclUniqueId id;
    if (!job.unique_id(&id)) {
      *error = job.error();
      return false;
    }
    const ncclResult_t result = ncclCommInitRank(&comm_, place.processes, id, place.process);
    if (result == ncclSuccess) return true;
    *error = describe(result, nullptr, "ncclCommInitRank");
    comm_ = nullptr;
    return false;
  }
  /// Frees without waiting for other ranks, which may be gone.
  void abort() {
    if (comm_ != nullptr) static_cast<void>(ncclCommAbort(comm_));
    comm_ = nullptr;
  }
  /// After a failure: a communicator of the ranks that are left. False with a sentence in `error`.
  bool recover(std::string* error) {
    if (comm_ == nullptr) return false;
    const ncclResult_t result = railcclCommRecover(&comm_, RAILCCL_RECOVER_WITHOUT_CALLS, nullptr);
    if (result != ncclSuccess) *error = describe(result, nullptr, "railcclCommRecover");
    return result == ncclSuccess;
  }
  ncclComm_t get() const { return comm_; }

 private:
  ncclComm_t comm_ = nullptr;
};

/// Pixels to floats of mean 0 and variance 1 over the training images.
class Normaliser {
 public:
  explicit Normaliser(const Samples& samples) {
    std::vector<size_t> histogram(256);
    for (const uint8_t pixel : samples.pixels) histogram[pixel]++;
    double sum = 0;
    double squares = 0;
    for (size_t value = 0; value < 256; value++) {
      const auto v = static_cast<double>(value);
      sum += v * static_cast<double>(histogram[value]);
      squares += v * v * static_cast<double>(histogram[value]);
    }
    const auto count = static_cast<double>(samples.pixels.size());
    const double mean = sum / count;
    const double deviation = std::sqrt(std::max(squares / count - mean * mean, 1.0));
    for (size_t value = 0; value < 256; value++)
      table_[value] = static_cast<float>((static_cast<double>(value) - mean) / deviation);
  }
  void operator()(const uint8_t* pixels, size_t count, float* out) const {
    for (size_t i = 0; i < count; i++) out[i] = table_[pixels[i]];
  }

 private:
  float table_[256];
};

class Trainer {
 public:
  Trainer(const Options& options, const Dataset& dataset, int rank, int ranks,
          Communicator& communicator)
      : options_(options),
        dataset_(dataset),
        normalise_(dataset.train),
        rank_(rank),
        ranks_(ranks),
        communicator_(communicator),
        // At worst this rank is the last one.
        batch_max_(options.batch),
        network_(small_convolutional(dataset.train.rows, dataset.train.columns, Dataset::kClasses),
                 batch_max_),
        momentum_(network_.parameters().size(), static_cast<float>(options.momentum)),
        reducer_(network_, communicator.get(), options.bucket_bytes),
        labels_(batch_max_),
        dlogits_(batch_max_ * Dataset::kClasses),
        report_(options.json, options.epochs) {
    train_count_ = dataset.train.count;
    if (options.train_samples > 0) train_count_ = std::min(train_count_, options.train_samples);
    steps_per_epoch_ = (train_count_ + options.batch - 1) / options.batch;
  }
  const std::string& error() const { return error_; }
  size_t parameters() { return network_.parameters().size(); }
  size_t train_count() const { return train_count_; }
  Report& report() { return report_; }

  /// Every rank starts from rank 0's weights.
  bool initialise() {
    network_.initialise(options_.seed);
    if (comm() == nullptr) return true;
    auto& w = network_.parameters();
    return check(ncclBroadcast(w.data(), w.data(), w.size(), ncclFloat, 0, comm(), nullptr),
                 "ncclBroadcast");
  }

  bool run_epoch(int epoch) {
    const std::vector<uint32_t> order = shuffled(train_count_, options_.seed, epoch);
    const double begin = seconds_now();
    const double exposed_before = reducer_.exposed_seconds();
    loss_ = counted_ = 0;
    for (size_t at = 0; at < train_count_; at += options_.batch) {
      if (rank_ == 0) report_.progress(epoch, at, train_count_);
      const size_t batch = std::min(options_.batch, train_count_ - at);
      if (!surviving([&] { return step(order.data() + at, batch); })) return false;
    }
    const double seconds = seconds_now() - begin;
    const double exposed = reducer_.exposed_seconds() - exposed_before;
    if (!surviving([&] { return sum_up(seconds, exposed); })) return false;
    EpochResult result;
    result.epoch = epoch;
    // Of what a rank that died had seen before, nobody knows the losses.
    result.train_loss = sums_[0] / std::max(sums_[3], 1.0);
    result.test_loss = sums_[1] / static_cast<double>(dataset_.test.count);
    result.test_accuracy = sums_[2] / static_cast<double>(dataset_.test.count);
    result.seconds = sums_[4];
    result.samples_per_s = static_cast<double>(train_count_) / sums_[4];
    result.exposed_comm_seconds = sums_[5];
    if (rank_ == 0) report_.epoch(result, ranks_);
    return true;
  }

 private:
  /// Runs `part`, which all ranks go through together, until it is done: again after each failure
  /// that leaves ranks who have not finished it, and nobody who has.
  template <typename Part>
  bool surviving(const Part& part) {
    while (!part()) {
      const size_t wanted = parts_ + 1;
      if (!recover()) return false;
      if (parts_ == wanted) return true;
    }
    parts_++;
    return true;
  }

  /// Until the ranks that are left agree on a state; which may be one step ahead of this rank's.
  bool recover() {
    const double begin = seconds_now();
    const int ranks_before = ranks_;
    do {
      const std::string failure = error_;
      if (!communicator_.recover(&error_)) {
        if (error_.empty()) error_ = failure;
        return false;
      }
      reducer_.restart(comm());
      if (ncclCommUserRank(comm(), &rank_) != ncclSuccess ||
          ncclCommCount(comm(), &ranks_) != ncclSuccess)
        return false;
    } while (!catch_up());
    error_.clear();
    if (rank_ == 0) report_.recovered(steps_, ranks_before, ranks_, seconds_now() - begin);
    return true;
  }

  /// Who is behind takes the state of the first that is not.
  bool catch_up() {
    std::vector<uint64_t> parts(static_cast<size_t>(ranks_));
    const uint64_t mine = parts_;
    if (!check(ncclAllGather(&mine, parts.data(), 1, ncclUint64, comm(), nullptr), "ncclAllGather"))
      return false;
    const auto first = std::max_element(parts.begin(), parts.end());
    if (*std::min_element(parts.begin(), parts.end()) == *first) return true;
    const int root = static_cast<int>(first - parts.begin());
    uint64_t steps = steps_;
    std::array<double, 6> sums = sums_;
    for (std::vector<float>* state : {&network_.parameters(), &momentum_.velocity()}) {
      // Into memory of its own: should this fail as well, the old state is still whole.
      incoming_.assign(state->begin(), state->end());
      if (!check(ncclBroadcast(incoming_.data(), incoming_.data(), incoming_.size(), ncclFloat,
                               root, comm(), nullptr),
                 "ncclBroadcast"))
        return false;
      incoming_.swap(state == &network_.parameters() ? new_parameters_ : new_velocity_);
    }
    if (!check(ncclBroadcast(&steps, &steps, 1, ncclUint64, root, comm(), nullptr),
               "ncclBroadcast") ||
        !check(
            ncclBroadcast(sums.data(), sums.data(), sums.size(), ncclDouble, root, comm(), nullptr),
            "ncclBroadcast"))
      return false;
    if (parts_ == *first) return true;
    network_.parameters().swap(new_parameters_);
    momentum_.velocity().swap(new_velocity_);
    if (steps > steps_) count_loss();  // the step had this rank's samples
    steps_ = steps;
    sums_ = sums;
    parts_ = *first;
    return true;
  }

  /// One global batch, of which this rank takes its piece.
  bool step(const uint32_t* order, size_t batch) {
    const Piece piece = piece_of(batch, rank_, ranks_);
    load(dataset_.train, order + piece.begin, piece.size());
    const float* logits = network_.forward(piece.size());
    size_t correct = 0;
    step_loss_ = cross_entropy(logits, labels_.data(), piece.size(), Dataset::kClasses,
                               1.0f / static_cast<float>(batch), dlogits_.data(), &correct);
    step_samples_ = piece.size();
    network_.backward(dlogits_.data(), piece.size(),
                      [this](size_t layer) { reducer_.layer_done(layer); });
    if (!reducer_.wait()) {
      error_ = reducer_.error();
      return false;
    }
    const double total =
        static_cast<double>(steps_per_epoch_) * static_cast<double>(options_.epochs);
    const double rate = options_.rate * (1 - static_cast<double>(steps_) / total);
    momentum_.step(network_.parameters(), network_.gradients(), static_cast<float>(rate));
    steps_++;
    count_loss();
    return true;
  }

  void count_loss() {
    loss_ += step_loss_;
    counted_ += static_cast<double>(step_samples_);
  }

  /// The end of an epoch: tests, and sums over ranks.
  bool sum_up(double seconds, double exposed) {
    std::array<double, 6> sums = {loss_, 0, 0, counted_, seconds, exposed};
    test(&sums[1], &sums[2]);
    if (!combine(sums.data(), 4, ncclSum) || !combine(&sums[4], 2, ncclMax)) return false;
    sums_ = sums;
    return true;
  }

  /// This rank's piece of the test.
  void test(double* loss, double* correct) {
    const Samples& samples = dataset_.test;
    const Piece piece = piece_of(samples.count, rank_, ranks_);
    std::vector<uint32_t> order(batch_max_);
    size_t right = 0;
    for (size_t at = piece.begin; at < piece.end; at += batch_max_) {
      const size_t batch = std::min(batch_max_, piece.end - at);
      for (size_t i = 0; i < batch; i++) order[i] = static_cast<uint32_t>(at + i);
      load(samples, order.data(), batch);
      *loss += cross_entropy(network_.forward(batch), labels_.data(), batch, Dataset::kClasses, 1,
                             nullptr, &right);
    }
    *correct += static_cast<double>(right);
  }

  void load(const Samples& samples, const uint32_t* order, size_t batch) {
    const size_t pixels = samples.pixels_per_image();
    for (size_t i = 0; i < batch; i++) {
      normalise_(&samples.pixels[order[i] * pixels], pixels, network_.input() + i * pixels);
      labels_[i] = samples.labels[order[i]];
    }
  }

  bool combine(double* values, size_t count, ncclRedOp_t op) {
    if (comm() == nullptr) return true;
    return check(ncclAllReduce(values, values, count, ncclDouble, op, comm(), nullptr),
                 "ncclAllReduce");
  }

  bool check(ncclResult_t result, const char* call) {
    if (result == ncclSuccess) return true;
    error_ = describe(result, comm(), call);
    return false;
  }
  ncclComm_t comm() const { return communicator_.get(); }

  const Options& options_;
  const Dataset& dataset_;
  Normaliser normalise_;
  int rank_;
  int ranks_;
  Communicator& communicator_;
  size_t batch_max_;
  Network network_;
  Momentum momentum_;
  Reducer reducer_;
  std::vector<uint8_t> labels_;
  std::vector<float> dlogits_;
  Report report_;
  size_t train_count_ = 0;
  size_t steps_per_epoch_ = 0;
  size_t steps_ = 0;
  size_t parts_ = 0;               // steps and ends of epochs that are done
  double loss_ = 0, counted_ = 0;  // of this rank's samples in this epoch, and how many they are
  double step_loss_ = 0;           // of the last step, done or not
  size_t step_samples_ = 0;
  std::array<double, 6> sums_{};                                 // of the last epoch, over ranks
  std::vector<float> incoming_, new_parameters_, new_velocity_;  // while catching up
  std::string error_;
};

std::string introduction(const Options& options, const Dataset& dataset, Trainer& trainer,
                         const launch::Place& place) {
  char text[256];
  std::snprintf(text, sizeof text,
                "railccl-train %s: %zu training and %zu test images of %zux%zu, %zu parameters, "
                "%d rank%s (%s), global batch %zu",
                RAILCCL_VERSION, trainer.train_count(), dataset.test.count, dataset.train.rows,
                dataset.train.columns, trainer.parameters(), place.processes,
                place.processes == 1 ? "" : "s", place.how.c_str(), options.batch);
  return text;
}

}  // namespace

Piece piece_of(size_t count, int rank, int ranks) {
  const auto r = static_cast<size_t>(rank);
  const auto n = static_cast<size_t>(ranks);
  const size_t each = count / n;
  const size_t larger = count % n;  // the first so many ranks take one more
  const size_t begin = r * each + std::min(r, larger);
  return {begin, begin + each + (r < larger ? 1 : 0)};
}

int train(const Options& options, const Dataset& dataset, launch::Job& job) {
  // One thread per rank: ranks are how this program uses several processors.
  openblas_set_num_threads(1);
  const launch::Place& place = job.place();
  const auto fail = [&](const std::string& reason) {
    std::fprintf(stderr, "railccl-train: rank %d: %s\n", place.process, reason.c_str());
    return 1;
  };
  std::string error;
  Communicator communicator;
  if (!communicator.connect(job, &error)) return fail(error);
  {
    Trainer trainer(options, dataset, place.process, place.processes, communicator);
    if (place.process == 0)
      trainer.report().introduce(introduction(options, dataset, trainer, place));
    bool good = trainer.initialise();
    for (int epoch = 1; good && epoch <= options.epochs; epoch++) good = trainer.run_epoch(epoch);
    if (good) return 0;
    error = trainer.error();
    // Before the trainer's stream is drained, so that it cannot wait for ranks that are gone.
    communicator.abort();
  }
  return fail(error);
}

}  // namespace railccl::train
