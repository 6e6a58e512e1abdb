// Network: a chain of layers with all parameters in one array and all gradients in another, so that
// a gradient bucket is a plain range of floats.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "layers.h"

namespace railccl::train {

/// Not thread-safe.
class Network {
 public:
  /// `batch_max` bounds the batch of the calls below.
  Network(std::vector<std::unique_ptr<Layer>> layers, size_t batch_max);

  size_t inputs() const { return layers_.front()->inputs(); }
  size_t outputs() const { return layers_.back()->outputs(); }
  size_t layers() const { return layers_.size(); }
  std::vector<float>& parameters() { return parameters_; }
  std::vector<float>& gradients() { return gradients_; }
  /// First parameter of layer i; offset(layers()) is their number.
  size_t offset(size_t layer) const { return offsets_[layer]; }

  void initialise(uint64_t seed);
  /// The memory that the input of the next forward() is to be written to.
  float* input() { return activations_.front().data(); }
  /// Outputs for the first `batch` inputs; valid until the next call.
  const float* forward(size_t batch);
  /// From the gradient of the outputs the gradients of all parameters, last layer first; calls
  /// done(layer) as soon as that layer's are final. `batch` as in the forward() before.
  void backward(const float* doutputs, size_t batch, const std::function<void(size_t)>& done);

 private:
  std::vector<std::unique_ptr<Layer>> layers_;
  std::vector<size_t> offsets_;
  std::vector<float> parameters_;
  std::vector<float> gradients_;
  std::vector<std::vector<float>> activations_;  // [i] is layer i's input
  std::vector<float> dnext_;  // gradients of one layer's output, and of its input
  std::vector<float> dprevious_;
};

/// Two convolutions and two dense layers: about 206,000 parameters for 28x28 images.
std::vector<std::unique_ptr<Layer>> small_convolutional(size_t rows, size_t columns,
                                                        size_t classes);

/// Stochastic gradient descent with momentum: v = momentum v + g, w -= rate v.
class Momentum {
 public:
  Momentum(size_t parameters, float momentum) : momentum_(momentum), velocity_(parameters) {}
  void step(std::vector<float>& parameters, const std::vector<float>& gradients, float rate);
  std::vector<float>& velocity() { return velocity_; }

 private:
  float momentum_;
  std::vector<float> velocity_;
};

}  // namespace railccl::train
