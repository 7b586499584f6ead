// Rows of logits to rows of probabilities, in place.
//
// A probability is NaN if its logit is NaN or infinite. With softmax, all probabilities of a pixel
// are NaN if one of its logits is. The survey finds NaN.
#pragma once

#include <bit>

#include "base.hpp"

namespace {

// A byte stores the rounding error of a logarithm, as -STEPS to STEPS steps.
constexpr double STEPS = 127.0;

constexpr float LOG2_E = 1.44269504088896340736f;
constexpr float LOG_2_HIGH = 355.0f / 512.0f;  // of so few bits that its multiples are exact
constexpr float LOG_2_LOW = static_cast<float>(0.69314718055994530942 - 355.0 / 512.0);
constexpr float LEAST_EXPONENT = -87.0f;  // smaller exponents give 0 (e^-87 is 2e-38)

// Return e ** x of a float32 x <= 0, to a unit in the last place; vectorised.
inline float exponential(float x) {
  // The bounds make the conversion to int32 defined for NaN, too, and for x > 0. The caller passes
  // x <= 0, but another thread may change the logits in between.
  const float bounded = x > LEAST_EXPONENT ? (x < 0.0f ? x : 0.0f) : LEAST_EXPONENT;
  const float whole = static_cast<float>(static_cast<int32_t>(bounded * LOG2_E - 0.5f));
  const float r = (x - whole * LOG_2_HIGH) - whole * LOG_2_LOW;
  constexpr float C2 = 1.0f / 2, C3 = 1.0f / 6, C4 = 1.0f / 24, C5 = 1.0f / 120;
  constexpr float C6 = 1.0f / 720, C7 = 1.0f / 5040;
  const float tail = C2 + r * (C3 + r * (C4 + r * (C5 + r * (C6 + r * C7))));
  const float power = std::bit_cast<float>(static_cast<int32_t>((whole + 127.0f) * 8388608.0f));
  const float result = (1.0f + (r + r * r * tail)) * power;
  return x < LEAST_EXPONENT ? 0.0f : result;
}

inline double exponential(double x) { return std::exp(x); }

// Turn logits into exp(logit - log); `logs` and `rests` are those of `write_logs`.
template <class T>
void softmax_row(T* probs, const T* logs, const int8_t* rests, int64_t size) {
  const T scale = static_cast<T>(std::numeric_limits<T>::epsilon() / (2 * STEPS));
  for (int64_t i = 0; i < size; i++) {
    const T rest = static_cast<T>(rests[i]) * (std::abs(logs[i]) * scale);
    const T below = (probs[i] - logs[i]) - (sizeof(T) == 4 ? rest : T(0));
    probs[i] = exponential(below < T(0) || below != below ? below : T(0));
  }
}

// Turn logits into 1 / (1 + exp(-logit)).
template <class T>
void sigmoid_row(T* probs, int64_t size) {
  for (int64_t i = 0; i < size; i++) {
    const T rare = exponential(-std::abs(probs[i]));
    probs[i] = (probs[i] > T(0) ? T(1) : rare) / (T(1) + rare) + T(0) * probs[i];
  }
}

// Add the exponentials of one class to `totals`; NaN if a logit is not finite.
template <class T>
void add_exponentials(const T* probs, const T* tops, double* totals, int64_t size) {
  for (int64_t i = 0; i < size; i++) {
    totals[i] += static_cast<double>(exponential(probs[i] - tops[i]) + T(0) * probs[i]);
  }
}

// Write, for each pixel, the logarithm of the sum of the exponentials over classes to `logs`, and
// its rounding error to `rests`.
//
// `tops` are the largest logits; `totals` are the sums of exp(logit - top).
template <class T>
void write_logs(const T* tops, const double* totals, T* logs, int8_t* rests, int64_t size) {
  const double scale = static_cast<double>(std::numeric_limits<T>::epsilon()) / (2 * STEPS);
  for (int64_t i = 0; i < size; i++) {
    const double exact = static_cast<double>(tops[i]) + std::log(totals[i]);
    logs[i] = static_cast<T>(exact);
    const double step = std::abs(static_cast<double>(logs[i])) * scale;
    const double rest = step > 0 ? (exact - static_cast<double>(logs[i])) / step : 0.0;
    const double bounded = rest > STEPS ? STEPS : rest > -STEPS ? rest : -STEPS;  // NaN: -STEPS
    rests[i] = static_cast<int8_t>(std::nearbyint(bounded));
  }
}

}  // namespace
