// The layers' arithmetic; matrix products by a BLAS.
#include "layers.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace railccl::train {
namespace {

/// c = op(a) op(b) + beta c in row-major order; m x k times k x n.
void multiply(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, const float* a,
              const float* b, float beta, float* c) {
  const auto im = static_cast<blasint>(m);
  const auto in = static_cast<blasint>(n);
  const auto ik = static_cast<blasint>(k);
  cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
              transpose_b ? CblasTrans : CblasNoTrans, im, in, ik, 1.0f, a, transpose_a ? im : ik,
              b, transpose_b ? ik : in, beta, c, in);
}

void initialise_weights(float* w, size_t weights, size_t biases, size_t fan_in, Random& random) {
  const float limit = std::sqrt(6.0f / static_cast<float>(fan_in));
  for (size_t i = 0; i < weights; i++) w[i] = random.symmetric(limit);
  std::fill(w + weights, w + weights + biases, 0.0f);
}

class Dense final : public Layer {
 public:
  Dense(size_t inputs, size_t outputs) : inputs_(inputs), outputs_(outputs) {}
  const char* name() const override { return "dense"; }
  size_t inputs() const override { return inputs_; }
  size_t outputs() const override { return outputs_; }
  size_t parameters() const override { return (inputs_ + 1) * outputs_; }
  void initialise(float* w, Random& random) const override {
    initialise_weights(w, inputs_ * outputs_, outputs_, inputs_, random);
  }
  void forward(const float* x, const float* w, size_t batch, float* y) override {
    if (batch == 0) return;
    const float* bias = w + inputs_ * outputs_;
    for (size_t i = 0; i < batch; i++) std::copy(bias, bias + outputs_, y + i * outputs_);
    multiply(false, true, batch, outputs_, inputs_, x, w, 1, y);
  }
  void backward(const float* x, const float* w, const float* dy, size_t batch, float* dw,
                float* dx) override {
    std::fill(dw, dw + parameters(), 0.0f);
    if (batch == 0) return;
    multiply(true, false, outputs_, inputs_, batch, dy, x, 0, dw);
    float* db = dw + inputs_ * outputs_;
    for (size_t i = 0; i < batch; i++)
      for (size_t o = 0; o < outputs_; o++) db[o] += dy[i * outputs_ + o];
    if (dx != nullptr) multiply(false, false, batch, inputs_, outputs_, dy, w, 0, dx);
  }

 private:
  size_t inputs_;
  size_t outputs_;
};

/// As a matrix product per sample: kernels (out x in*width*width) times patches (in*width*width x
/// pixels), where a patch matrix holds, for each kernel position, the image shifted by it. One
/// sample's patches stay in cache, so they are made again going backward instead of being kept.
class Convolution final : public Layer {
 public:
  Convolution(size_t in_channels, size_t out_channels, size_t rows, size_t columns, size_t width)
      : in_(in_channels),
        out_(out_channels),
        rows_(rows),
        columns_(columns),
        width_(width),
        taps_(in_channels * width * width),
        patches_(taps_ * rows * columns),
        dpatches_(patches_.size()) {}
  const char* name() const override { return "convolution"; }
  size_t inputs() const override { return in_ * pixels(); }
  size_t outputs() const override { return out_ * pixels(); }
  size_t parameters() const override { return out_ * (taps_ + 1); }
  void initialise(float* w, Random& random) const override {
    initialise_weights(w, out_ * taps_, out_, taps_, random);
  }
  void forward(const float* x, const float* w, size_t batch, float* y) override {
    const float* bias = w + out_ * taps_;
    for (size_t i = 0; i < batch; i++, x += inputs(), y += outputs()) {
      for (size_t o = 0; o < out_; o++) std::fill_n(y + o * pixels(), pixels(), bias[o]);
      make_patches(x);
      multiply(false, false, out_, pixels(), taps_, w, patches_.data(), 1, y);
    }
  }
  void backward(const float* x, const float* w, const float* dy, size_t batch, float* dw,
                float* dx) override {
    std::fill(dw, dw + parameters(), 0.0f);
    float* db = dw + out_ * taps_;
    for (size_t i = 0; i < batch; i++, x += inputs(), dy += outputs()) {
      make_patches(x);
      multiply(false, true, out_, taps_, pixels(), dy, patches_.data(), 1, dw);
      for (size_t o = 0; o < out_; o++)
        for (size_t p = 0; p < pixels(); p++) db[o] += dy[o * pixels() + p];
      if (dx == nullptr) continue;
      multiply(true, false, taps_, pixels(), out_, w, dy, 0, dpatches_.data());
      add_patches(dx);
      dx += inputs();
    }
  }

 private:
  size_t pixels() const { return rows_ * columns_; }

  /// Calls use(patch row, image row, columns of both, length) for each run of pixels that a kernel
  /// position takes from the image.
  template <class Use>
  void for_each_run(const Use& use) const {
    const size_t reach = width_ / 2;
    for (size_t tap = 0; tap < taps_; tap++) {
      const size_t channel = tap / (width_ * width_);
      const size_t down = tap / width_ % width_;  // image row = patch row + down - reach
      const size_t right = tap % width_;
      const size_t first = right < reach ? reach - right : 0;
      const size_t last = std::min(columns_, columns_ + reach - right);
      for (size_t row = 0; row < rows_; row++) {
        if (row + down < reach || row + down - reach >= rows_) continue;
        const size_t image_row = channel * rows_ + row + down - reach;
        use(tap * pixels() + row * columns_ + first, image_row * columns_ + first + right - reach,
            last - first);
      }
    }
  }
  void make_patches(const float* x) {
    // What lies beyond the edges is zero since the vector was made, and is never written.
    for_each_run([&](size_t patch, size_t image, size_t length) {
      std::memcpy(&patches_[patch], x + image, length * sizeof(float));
    });
  }
  void add_patches(float* dx) const {
    std::fill(dx, dx + inputs(), 0.0f);
    for_each_run([&](size_t patch, size_t image, size_t length) {
      for (size_t i = 0; i < length; i++) dx[image + i] += dpatches_[patch + i];
    });
  }

  size_t in_;
  size_t out_;
  size_t rows_;
  size_t columns_;
  size_t width_;
  size_t taps_;
  std::vector<float> patches_;
  std::vector<float> dpatches_;
};

class Rectifier final : public Layer {
 public:
  explicit Rectifier(size_t size) : size_(size) {}
  const char* name() const override { return "rectifier"; }
  size_t inputs() const override { return size_; }
  size_t outputs() const override { return size_; }
  void forward(const float* x, const float*, size_t batch, float* y) override {
    for (size_t i = 0; i < batch * size_; i++) y[i] = std::max(x[i], 0.0f);
  }
  void backward(const float* x, const float*, const float* dy, size_t batch, float*,
                float* dx) override {
    if (dx == nullptr) return;
    for (size_t i = 0; i < batch * size_; i++) dx[i] = x[i] > 0 ? dy[i] : 0.0f;
  }

 private:
  size_t size_;
};

class MaxPool final : public Layer {
 public:
  MaxPool(size_t channels, size_t rows, size_t columns)
      : channels_(channels), rows_(rows), columns_(columns) {}
  const char* name() const override { return "max pool"; }
  size_t inputs() const override { return channels_ * rows_ * columns_; }
  size_t outputs() const override { return channels_ * (rows_ / 2) * (columns_ / 2); }
  void forward(const float* x, const float*, size_t batch, float* y) override {
    for_each_block(batch, [&](size_t out, size_t in) {
      y[out] =
          std::max(std::max(x[in], x[in + 1]), std::max(x[in + columns_], x[in + columns_ + 1]));
    });
  }
  void backward(const float* x, const float*, const float* dy, size_t batch, float*,
                float* dx) override {
    if (dx == nullptr) return;
    std::fill(dx, dx + batch * inputs(), 0.0f);
    for_each_block(batch, [&](size_t out, size_t in) {
      // The first of equal maxima gets the gradient.
      size_t best = in;
      for (const size_t other : {in + 1, in + columns_, in + columns_ + 1})
        if (x[other] > x[best]) best = other;
      dx[best] = dy[out];
    });
  }

 private:
  template <class Use>
  void for_each_block(size_t batch, const Use& use) const {
    const size_t out_rows = rows_ / 2;
    const size_t out_columns = columns_ / 2;
    for (size_t plane = 0; plane < batch * channels_; plane++)
      for (size_t row = 0; row < out_rows; row++)
        for (size_t column = 0; column < out_columns; column++)
          use((plane * out_rows + row) * out_columns + column,
              (plane * rows_ + 2 * row) * columns_ + 2 * column);
  }
  size_t channels_;
  size_t rows_;
  size_t columns_;
};

}  // namespace

std::unique_ptr<Layer> make_dense(size_t inputs, size_t outputs) {
  return std::make_unique<Dense>(inputs, outputs);
}
std::unique_ptr<Layer> make_convolution(size_t in_channels, size_t out_channels, size_t rows,
                                        size_t columns, size_t width) {
  return std::make_unique<Convolution>(in_channels, out_channels, rows, columns, width);
}
std::unique_ptr<Layer> make_rectifier(size_t size) { return std::make_unique<Rectifier>(size); }
std::unique_ptr<Layer> make_max_pool(size_t channels, size_t rows, size_t columns) {
  return std::make_unique<MaxPool>(channels, rows, columns);
}

double cross_entropy(const float* logits, const uint8_t* labels, size_t batch, size_t classes,
                     float scale, float* dlogits, size_t* correct) {
  double loss = 0;
  for (size_t i = 0; i < batch; i++, logits += classes) {
    const float largest = *std::max_element(logits, logits + classes);
    float sum = 0;
    for (size_t c = 0; c < classes; c++) sum += std::exp(logits[c] - largest);
    const size_t label = labels[i];
    loss += static_cast<double>(std::log(sum) - (logits[label] - largest));
    if (logits[label] == largest) (*correct)++;
    if (dlogits == nullptr) continue;
    for (size_t c = 0; c < classes; c++) {
      const float probability = std::exp(logits[c] - largest) / sum;
      dlogits[i * classes + c] = scale * (probability - (c == label ? 1.0f : 0.0f));
    }
  }
  return loss;
}

}  // namespace railccl::train
