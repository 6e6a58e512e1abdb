// Layers: what a network is made of. Each is a pure function of its input and parameters; the
// network owns all memory.
//
// Activations are float32, sample after sample; a sample of an image layer is channel after
// channel, row after row. `batch` may be 0. Gradients are written, not added to.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "random.h"

namespace railccl::train {

class Layer {
 public:
  virtual ~Layer() = default;
  virtual const char* name() const = 0;
  virtual size_t inputs() const = 0;   // floats per sample
  virtual size_t outputs() const = 0;  // floats per sample
  virtual size_t parameters() const { return 0; }
  /// Weights uniform with the variance of He et al., "Delving deep into rectifiers", 2015; biases
  /// 0.
  virtual void initialise(float* /*w*/, Random& /*random*/) const {}
  /// y = f(x, w).
  virtual void forward(const float* x, const float* w, size_t batch, float* y) = 0;
  /// From dy the gradients dw and dx. dx is null for a network's first layer.
  virtual void backward(const float* x, const float* w, const float* dy, size_t batch, float* dw,
                        float* dx) = 0;
};

/// y = W x + b. Parameters: W (outputs x inputs), then b.
std::unique_ptr<Layer> make_dense(size_t inputs, size_t outputs);

/// Cross-correlation with square kernels of odd width, zeros beyond the edges, so that rows and
/// columns stay. Parameters: kernels (out x in x width x width), then a bias per output channel.
std::unique_ptr<Layer> make_convolution(size_t in_channels, size_t out_channels, size_t rows,
                                        size_t columns, size_t width);

/// y = max(x, 0).
std::unique_ptr<Layer> make_rectifier(size_t size);

/// The maximum of each 2x2 block; an odd last row or column is dropped.
std::unique_ptr<Layer> make_max_pool(size_t channels, size_t rows, size_t columns);

/// Softmax and cross-entropy. `scale` multiplies the gradient (1 / global batch gives the mean's).
/// Returns the sum of losses; adds the number of samples whose largest logit is their label to
/// *correct. dlogits may be null.
double cross_entropy(const float* logits, const uint8_t* labels, size_t batch, size_t classes,
                     float scale, float* dlogits, size_t* correct);

}  // namespace railccl::train
