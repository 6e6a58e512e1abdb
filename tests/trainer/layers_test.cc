// Shows that each layer's gradients are those of what it computes: against central differences of a
// random weighting of the outputs, for parameters and inputs; and small cases worked out by hand.
#include "layers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "network.h"
#include "random.h"

namespace railccl::train {
namespace {

std::vector<float> random_vector(size_t count, Random& random) {
  std::vector<float> values(count);
  for (float& value : values) value = random.symmetric(1);
  return values;
}

/// All values at least 1/256 apart and none near zero, so that a small step changes neither a
/// maximum's place nor a sign.
std::vector<float> spread_vector(size_t count, Random& random) {
  std::vector<float> values(count);
  const std::vector<uint32_t> order = shuffled(count, random.next() % 1000, 0);
  for (size_t i = 0; i < count; i++)
    values[i] = (static_cast<float>(order[i]) + 0.5f) / 256 - static_cast<float>(count / 2) / 256;
  return values;
}

double weighted(Layer& layer, const std::vector<float>& x, const std::vector<float>& w,
                const std::vector<float>& weights, size_t batch) {
  std::vector<float> y(batch * layer.outputs());
  layer.forward(x.data(), w.data(), batch, y.data());
  double sum = 0;
  for (size_t i = 0; i < y.size(); i++)
    sum += static_cast<double>(y[i]) * static_cast<double>(weights[i]);
  return sum;
}

/// Layers here are linear in x and in w (or linear near any x): differences have no truncation
/// error, and what is left is float32 rounding, far below the tolerance.
void check_gradients(Layer& layer) {
  constexpr size_t kBatch = 3;
  constexpr float kStep = 1.0f / 1024;
  SCOPED_TRACE(layer.name());
  Random random(11);
  std::vector<float> x = spread_vector(kBatch * layer.inputs(), random);
  std::vector<float> w = random_vector(layer.parameters(), random);
  const std::vector<float> weights = random_vector(kBatch * layer.outputs(), random);
  // Stale values must not survive.
  std::vector<float> dw(w.size(), 1e9f);
  std::vector<float> dx(x.size(), 1e9f);
  layer.backward(x.data(), w.data(), weights.data(), kBatch, dw.data(), dx.data());
  for (const bool of_inputs : {true, false}) {
    std::vector<float>& values = of_inputs ? x : w;
    const std::vector<float>& gradients = of_inputs ? dx : dw;
    for (size_t i = 0; i < values.size(); i++) {
      const float kept = values[i];
      values[i] = kept + kStep;
      const double above = weighted(layer, x, w, weights, kBatch);
      values[i] = kept - kStep;
      const double below = weighted(layer, x, w, weights, kBatch);
      values[i] = kept;
      const double slope = (above - below) / (2 * static_cast<double>(kStep));
      ASSERT_NEAR(static_cast<double>(gradients[i]), slope, 4e-3 * (1 + std::abs(slope)))
          << (of_inputs ? "input " : "parameter ") << i;
    }
  }
}

TEST(Gradients, Dense) { check_gradients(*make_dense(7, 5)); }
TEST(Gradients, ConvolutionOfWidth3) { check_gradients(*make_convolution(2, 3, 5, 4, 3)); }
TEST(Gradients, ConvolutionOfWidth5) { check_gradients(*make_convolution(1, 2, 6, 7, 5)); }
TEST(Gradients, ConvolutionWiderThanImage) { check_gradients(*make_convolution(2, 2, 2, 2, 5)); }
TEST(Gradients, Rectifier) { check_gradients(*make_rectifier(30)); }
TEST(Gradients, MaxPool) { check_gradients(*make_max_pool(2, 4, 6)); }
TEST(Gradients, MaxPoolOfOddSize) { check_gradients(*make_max_pool(2, 5, 7)); }

TEST(Gradients, CrossEntropy) {
  Random random(3);
  std::vector<float> logits = random_vector(4 * 10, random);
  const uint8_t labels[] = {0, 9, 4, 4};
  constexpr float kScale = 0.25f;
  constexpr float kStep = 1.0f / 256;
  std::vector<float> gradients(logits.size());
  size_t correct = 0;
  cross_entropy(logits.data(), labels, 4, 10, kScale, gradients.data(), &correct);
  for (size_t i = 0; i < logits.size(); i++) {
    const float kept = logits[i];
    logits[i] = kept + kStep;
    const double above = cross_entropy(logits.data(), labels, 4, 10, 1, nullptr, &correct);
    logits[i] = kept - kStep;
    const double below = cross_entropy(logits.data(), labels, 4, 10, 1, nullptr, &correct);
    logits[i] = kept;
    const double slope = (above - below) / (2 * static_cast<double>(kStep));
    ASSERT_NEAR(static_cast<double>(gradients[i]), slope * static_cast<double>(kScale), 1e-4) << i;
  }
}

TEST(Layers, ConvolutionByHand) {
  // 3x3 image, kernel that adds left neighbour and twice the one above, bias 10.
  const float x[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  const float w[] = {0, 2, 0, 1, 0, 0, 0, 0, 0, 10};
  float y[9];
  make_convolution(1, 1, 3, 3, 3)->forward(x, w, 1, y);
  const float expected[] = {10, 11, 12, 12, 18, 21, 18, 27, 30};
  for (int i = 0; i < 9; i++) EXPECT_EQ(y[i], expected[i]) << i;
}

TEST(Layers, CrossEntropyCountsAndScores) {
  const float logits[] = {0, 0, 5, 0};
  const uint8_t labels[] = {1, 0};
  size_t correct = 0;
  const double loss = cross_entropy(logits, labels, 2, 2, 1, nullptr, &correct);
  EXPECT_NEAR(loss, std::log(2.0) + std::log1p(std::exp(-5.0)), 1e-5);
  EXPECT_EQ(correct, 2u);  // a tie counts for the label
}

// The sum of two uneven pieces' gradients is the whole batch's: what data-parallel training needs.
TEST(Network, PiecesAddUp) {
  constexpr size_t kBatch = 7;
  Network network(small_convolutional(8, 8, 10), kBatch);
  network.initialise(5);
  Random random(6);
  const std::vector<float> x = random_vector(kBatch * network.inputs(), random);
  const uint8_t labels[kBatch] = {1, 2, 3, 4, 5, 6, 7};
  const auto gradients = [&](size_t begin, size_t end) {
    std::copy(x.begin() + static_cast<ptrdiff_t>(begin * network.inputs()),
              x.begin() + static_cast<ptrdiff_t>(end * network.inputs()), network.input());
    const float* logits = network.forward(end - begin);
    std::vector<float> dlogits((end - begin) * 10);
    size_t correct = 0;
    cross_entropy(logits, labels + begin, end - begin, 10, 1.0f / kBatch, dlogits.data(), &correct);
    size_t next = network.layers();
    network.backward(dlogits.data(), end - begin, [&](size_t layer) { EXPECT_EQ(layer, --next); });
    EXPECT_EQ(next, 0u);
    return network.gradients();
  };
  const std::vector<float> whole = gradients(0, kBatch);
  const std::vector<float> left = gradients(0, 2);
  const std::vector<float> right = gradients(2, kBatch);
  const std::vector<float> nothing = gradients(0, 0);
  for (size_t i = 0; i < whole.size(); i++) {
    ASSERT_NEAR(left[i] + right[i], whole[i], 1e-5f + 1e-4f * std::abs(whole[i])) << i;
    ASSERT_EQ(nothing[i], 0.0f);
  }
}

TEST(Network, MomentumByHand) {
  Momentum momentum(1, 0.5f);
  std::vector<float> w = {1};
  momentum.step(w, {2}, 0.1f);  // v = 2
  EXPECT_FLOAT_EQ(w[0], 0.8f);
  momentum.step(w, {2}, 0.1f);  // v = 3
  EXPECT_FLOAT_EQ(w[0], 0.5f);
}

TEST(Random, ShufflesDependOnSeedAndEpoch) {
  EXPECT_EQ(shuffled(100, 1, 1), shuffled(100, 1, 1));
  EXPECT_NE(shuffled(100, 1, 1), shuffled(100, 1, 2));
  EXPECT_NE(shuffled(100, 1, 1), shuffled(100, 2, 1));
  std::vector<uint32_t> order = shuffled(100, 3, 4);
  std::sort(order.begin(), order.end());
  for (uint32_t i = 0; i < 100; i++) ASSERT_EQ(order[i], i);
}

}  // namespace
}  // namespace railccl::train
