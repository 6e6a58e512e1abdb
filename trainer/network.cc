// The chain, the network that is trained, and its optimiser.
#include "network.h"

#include <algorithm>
#include <cassert>

namespace railccl::train {

Network::Network(std::vector<std::unique_ptr<Layer>> layers, size_t batch_max)
    : layers_(std::move(layers)) {
  size_t widest = 0;
  offsets_.push_back(0);
  for (size_t i = 0; i < layers_.size(); i++) {
    const Layer& layer = *layers_[i];
    assert(i == 0 || layers_[i - 1]->outputs() == layer.inputs());
    offsets_.push_back(offsets_.back() + layer.parameters());
    activations_.emplace_back(batch_max * layer.inputs());
    widest = std::max({widest, layer.inputs(), layer.outputs()});
  }
  activations_.emplace_back(batch_max * outputs());
  parameters_.resize(offsets_.back());
  gradients_.resize(offsets_.back());
  dnext_.resize(batch_max * widest);
  dprevious_.resize(batch_max * widest);
}

void Network::initialise(uint64_t seed) {
  Random random(seed);
  for (size_t i = 0; i < layers_.size(); i++)
    layers_[i]->initialise(parameters_.data() + offsets_[i], random);
}

const float* Network::forward(size_t batch) {
  for (size_t i = 0; i < layers_.size(); i++)
    layers_[i]->forward(activations_[i].data(), parameters_.data() + offsets_[i], batch,
                        activations_[i + 1].data());
  return activations_.back().data();
}

void Network::backward(const float* doutputs, size_t batch,
                       const std::function<void(size_t)>& done) {
  std::copy(doutputs, doutputs + batch * outputs(), dnext_.begin());
  for (size_t i = layers_.size(); i-- > 0;) {
    layers_[i]->backward(activations_[i].data(), parameters_.data() + offsets_[i], dnext_.data(),
                         batch, gradients_.data() + offsets_[i],
                         i > 0 ? dprevious_.data() : nullptr);
    done(i);
    std::swap(dnext_, dprevious_);
  }
}

std::vector<std::unique_ptr<Layer>> small_convolutional(size_t rows, size_t columns,
                                                        size_t classes) {
  constexpr size_t kFirst = 16;
  constexpr size_t kSecond = 32;
  constexpr size_t kHidden = 128;
  constexpr size_t kWidth = 3;
  std::vector<std::unique_ptr<Layer>> layers;
  layers.push_back(make_convolution(1, kFirst, rows, columns, kWidth));
  layers.push_back(make_max_pool(kFirst, rows, columns));
  rows /= 2;
  columns /= 2;
  layers.push_back(make_rectifier(kFirst * rows * columns));
  layers.push_back(make_convolution(kFirst, kSecond, rows, columns, kWidth));
  layers.push_back(make_max_pool(kSecond, rows, columns));
  rows /= 2;
  columns /= 2;
  layers.push_back(make_rectifier(kSecond * rows * columns));
  layers.push_back(make_dense(kSecond * rows * columns, kHidden));
  layers.push_back(make_rectifier(kHidden));
  layers.push_back(make_dense(kHidden, classes));
  return layers;
}

void Momentum::step(std::vector<float>& parameters, const std::vector<float>& gradients,
                    float rate) {
  for (size_t i = 0; i < parameters.size(); i++) {
    velocity_[i] = momentum_ * velocity_[i] + gradients[i];
    parameters[i] -= rate * velocity_[i];
  }
}

}  // namespace railccl::train
