// One rank's training loop.
#include "train.h"

#include <cblas.h>
#include <nccl.h>

#include <algorithm>
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
  Trainer(const Options& options, const Dataset& dataset, int rank, int ranks, ncclComm_t comm)
      : options_(options),
        dataset_(dataset),
        normalise_(dataset.train),
        rank_(rank),
        ranks_(ranks),
        comm_(comm),
        piece_max_(piece_of(options.batch, 0, ranks).size()),
        network_(small_convolutional(dataset.train.rows, dataset.train.columns, Dataset::kClasses),
                 piece_max_),
        momentum_(network_.parameters().size(), static_cast<float>(options.momentum)),
        reducer_(network_, comm, options.bucket_bytes),
        labels_(piece_max_),
        dlogits_(piece_max_ * Dataset::kClasses) {
    train_count_ = dataset.train.count;
    if (options.train_samples > 0) train_count_ = std::min(train_count_, options.train_samples);
    steps_per_epoch_ = (train_count_ + options.batch - 1) / options.batch;
  }
  const std::string& error() const { return error_; }
  size_t parameters() { return network_.parameters().size(); }
  size_t train_count() const { return train_count_; }

  /// Every rank starts from rank 0's weights.
  bool initialise() {
    network_.initialise(options_.seed);
    if (comm_ == nullptr) return true;
    auto& w = network_.parameters();
    return check(ncclBroadcast(w.data(), w.data(), w.size(), ncclFloat, 0, comm_, nullptr),
                 "ncclBroadcast");
  }

  bool run_epoch(int epoch, Report* report, EpochResult* result) {
    const std::vector<uint32_t> order = shuffled(train_count_, options_.seed, epoch);
    const double begin = seconds_now();
    const double exposed_before = reducer_.exposed_seconds();
    double loss = 0;
    for (size_t at = 0; at < train_count_; at += options_.batch) {
      if (report != nullptr) report->progress(epoch, at, train_count_);
      const size_t batch = std::min(options_.batch, train_count_ - at);
      if (!step(order.data() + at, batch, &loss)) return false;
    }
    double longest[2] = {seconds_now() - begin, reducer_.exposed_seconds() - exposed_before};
    double sums[3] = {loss, 0, 0};
    test(&sums[1], &sums[2]);
    if (!combine(sums, 3, ncclSum) || !combine(longest, 2, ncclMax)) return false;
    result->epoch = epoch;
    result->train_loss = sums[0] / static_cast<double>(train_count_);
    result->test_loss = sums[1] / static_cast<double>(dataset_.test.count);
    result->test_accuracy = sums[2] / static_cast<double>(dataset_.test.count);
    result->seconds = longest[0];
    result->samples_per_s = static_cast<double>(train_count_) / longest[0];
    result->exposed_comm_seconds = longest[1];
    return true;
  }

 private:
  /// One global batch, of which this rank takes its piece.
  bool step(const uint32_t* order, size_t batch, double* loss) {
    const Piece piece = piece_of(batch, rank_, ranks_);
    load(dataset_.train, order + piece.begin, piece.size());
    const float* logits = network_.forward(piece.size());
    size_t correct = 0;
    *loss += cross_entropy(logits, labels_.data(), piece.size(), Dataset::kClasses,
                           1.0f / static_cast<float>(batch), dlogits_.data(), &correct);
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
    return true;
  }

  /// This rank's piece of the test.
  void test(double* loss, double* correct) {
    const Samples& samples = dataset_.test;
    const Piece piece = piece_of(samples.count, rank_, ranks_);
    std::vector<uint32_t> order(piece_max_);
    size_t right = 0;
    for (size_t at = piece.begin; at < piece.end; at += piece_max_) {
      const size_t batch = std::min(piece_max_, piece.end - at);
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
    if (comm_ == nullptr) return true;
    return check(ncclAllReduce(values, values, count, ncclDouble, op, comm_, nullptr),
                 "ncclAllReduce");
  }

  bool check(ncclResult_t result, const char* call) {
    if (result == ncclSuccess) return true;
    error_ = describe(result, comm_, call);
    return false;
  }

  const Options& options_;
  const Dataset& dataset_;
  Normaliser normalise_;
  int rank_;
  int ranks_;
  ncclComm_t comm_;
  size_t piece_max_;
  Network network_;
  Momentum momentum_;
  Reducer reducer_;
  std::vector<uint8_t> labels_;
  std::vector<float> dlogits_;
  size_t train_count_ = 0;
  size_t steps_per_epoch_ = 0;
  size_t steps_ = 0;
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
    Trainer trainer(options, dataset, place.process, place.processes, communicator.get());
    Report report(options.json, options.epochs);
    Report* const mine = place.process == 0 ? &report : nullptr;
    if (mine != nullptr) mine->introduce(introduction(options, dataset, trainer, place));
    bool good = trainer.initialise();
    for (int epoch = 1; good && epoch <= options.epochs; epoch++) {
      EpochResult result;
      good = trainer.run_epoch(epoch, mine, &result);
      if (good && mine != nullptr) mine->epoch(result, place.processes);
    }
    if (good) return 0;
    error = trainer.error();
    // Before the trainer's stream is drained, so that it cannot wait for ranks that are gone.
    communicator.abort();
  }
  return fail(error);
}

}  // namespace railccl::train
