// railccl-train: data-parallel training of a small convolutional network over real processes.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "train.h"

int main(int argc, char** argv) {
  using namespace railccl;
  train::Options options;
  int ranks = 0;

  CLI::App app(
      "Trains a small convolutional network on Fashion-MNIST, or data in the same format, with\n"
      "gradients summed over ranks by railccl while back-propagation continues. Start it with\n"
      "--ranks N, under mpirun or srun, or with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT "
      "set.\n"
      "When ranks die, those that are left finish the step and train on.",
      "railccl-train");
  app.set_version_flag("--version", "railccl-train " RAILCCL_VERSION);
  app.add_option("--data", options.data, "Folder with the four IDX files, plain or .gz")
      ->capture_default_str();
  app.add_option("--ranks", ranks, "Start so many processes here; without it, see above")
      ->check(CLI::Range(1, 1024));
  app.add_option("--epochs", options.epochs, "Passes over the training images")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--batch", options.batch, "Samples per step, over all ranks")
      ->check(CLI::Range(size_t{1}, size_t{1} << 20))
      ->capture_default_str();
  app.add_option("--lr", options.rate, "Learning rate at the beginning; falls linearly to zero")
      ->check(CLI::Range(0.0, 1000.0))
      ->capture_default_str();
  app.add_option("--momentum", options.momentum, "Momentum")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Seed of initial weights and order of samples")
      ->capture_default_str();
  app.add_option("--bucket-bytes", options.bucket_bytes,
                 "Gradients are reduced in buckets of at least this size")
      ->check(CLI::Range(size_t{1}, size_t{1} << 40))
      ->capture_default_str();
  app.add_option("--train-samples", options.train_samples,
                 "Train on the first so many images only; 0 is all")
      ->capture_default_str();
  app.add_flag("--json", options.json, "Print one JSON object per epoch instead of a table");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& stop) {
    return app.exit(stop) == 0 ? 0 : 2;
  }

  // Before any process is started, so that local ranks share one copy and one error message.
  std::string error;
  const auto dataset = train::load_dataset(options.data, &error);
  if (!dataset) {
    std::fprintf(stderr, "railccl-train: %s\n", error.c_str());
    return 2;
  }
  // Ranks that die do not end the training of those that are left.
  return launch::run(
      ranks, [&](launch::Job& job) { return train::train(options, *dataset, job); },
      launch::kNoGrace);
}
