// BA and TRNA: the scores of the masks of one class, given its probabilities, largest first.
//
// Let p_(1) >= p_(2) >= ... be the probabilities, phi the distribution of the volume, phi_-j the
// distribution without pixel j, and g `smooth`. The mask of the n likeliest pixels scores (RankSEG,
// JMLR 24(224), 2023):
//
//   BA   (13)  2 sum_{j<=n} p_(j) sum_l phi(l) / (n + l + g + 1)    + g sum_l phi(l) / (n + l + g)
//   TRNA (12)  2 sum_{j<=n} p_(j) sum_l phi_-j(l) / (n + l + g + 1) + g sum_l phi(l) / (n + l + g)
//
// The cost is not quadratic in pixels or volumes. The sums over l are smooth in n, so they are
// interpolated from a few n. phi_-j depends on j only by the number p_(j), and smoothly. So TRNA is
// a sum of a few terms like those of BA, and each term has a row of `distributions`.
#pragma once

#include <algorithm>

#include "exact.hpp"

// The volume of a class: its moments, the number `size` of pixels of the image, and the probability
// `eps` of the volumes that are left out, half of it in each tail.
struct Volume {
  double mean, variance, third;
  int64_t size;
  double eps;
};

namespace {

constexpr double PI = 3.14159265358979323846;

// Beyond this, the normal density is 0 in float64.
constexpr double FAR = 40.0;

// Least variance. With less variance the volume is certain, and the normal distribution is a step.
constexpr double CERTAIN = 1e-12;

// Least total probability to renormalise by: without the pixel of a node, little may be left.
constexpr double LEAST_TOTAL = 1e-9;

// A pixel with more than 1/16 of the variance gets a distribution of its own (TRNA). Fewer than 16
// pixels can have so much.
constexpr int64_t HEAVY = 16;

// Relative error of an interpolation, and the most nodes that it needs.
constexpr double PRECISION = 1e-16;
constexpr int64_t MOST_KNOTS = 64;

// Up to DIRECT counts n are computed without interpolation. In an interpolated range, n + first
// grows at most by the factor RATIO.
constexpr int64_t DIRECT = 24, RATIO = 4;

// F(x) of the refined normal, not clamped.
inline double refined_normal_cdf(double x, double skew) {
  const double near = most(least(x, FAR), -FAR);
  const double density = std::exp(-near * near / 2.0) / std::sqrt(2.0 * PI);
  const double tail = std::erfc(std::abs(near) / std::sqrt(2.0)) / 2.0;
  const double normal = near > 0.0 ? 1.0 - tail : tail;
  return normal + skew * (1.0 - near * near) * density / 6.0;
}

// Return a number within bounds; the lower one for NaN.
inline double within(double value, double low, double high) {
  return value > low ? least(value, high) : low;
}

// The moments that a volume of so many pixels can have: maps that were changed give any numbers.
inline Volume possible(const Volume& given) {
  const int64_t size = most<int64_t>(0, given.size);
  const double pixels = static_cast<double>(size);
  return {within(given.mean, 0.0, pixels), within(given.variance, 0.0, pixels / 4.0),
          within(given.third, -pixels, pixels), size, given.eps};
}

inline double sd_of(const Volume& volume) { return std::sqrt(most(volume.variance, CERTAIN)); }

// Return the number of steps from `start` on before F first exceeds a `probability` below 1/2.
//
// With |skew| > 3, F may fall below the probability again further right. So the steps end where F
// has surely exceeded the probability: at 0, or for negative skewness at -sqrt 3 or sqrt 3, where
// the last term of F has extrema.
inline int64_t number_before(double start, double step, double skew, double probability) {
  const double turn = -std::sqrt(3.0);
  const double negative = refined_normal_cdf(turn, skew) <= probability ? -turn : turn;
  const double end = skew < 0.0 ? negative : 0.0;
  int64_t number = 0;
  for (double x = start; x < end && refined_normal_cdf(x, skew) <= probability;
       x = start + static_cast<double>(number) * step) {
    number++;
  }
  return number;
}

// The smallest and the largest volume that sums run over.
struct Volumes {
  int64_t first, last;
};

// From floor(quantile(eps / 2)) - 1 to ceil(quantile(1 - eps / 2)), at least 0 and at most size,
// for the distribution F((y - mean) / sd).
inline Volumes volumes_of(const Volume& volume) {
  const double sd = sd_of(volume);
  const double reach = std::sqrt(2.0 * (std::log(2.0) - std::log(volume.eps))) + 4.0;
  const double lowest = std::floor(volume.mean - reach * sd) - 2.0;
  const double highest = std::ceil(volume.mean + reach * sd) + 2.0;
  const double skew = volume.third / (sd * sd) / sd;
  const int64_t before =
      number_before((lowest - volume.mean) / sd, 1.0 / sd, skew, volume.eps / 2.0);
  const int64_t after =
      number_before((volume.mean - highest) / sd, 1.0 / sd, -skew, volume.eps / 2.0);
  return {most<int64_t>(0, static_cast<int64_t>(lowest) + before - 2),
          least(volume.size, static_cast<int64_t>(highest) - after + 1)};
}

// Write the distribution of the volume without a pixel of probability p, for `width` volumes.
//
// The refined normal may be negative in a tail. Negative values are not clipped: clipping would
// bias the sums over volumes.
inline void write_without(const Volume& volume, double p, int64_t first, int64_t width,
                          double* out) {
  const double spread = p * (1.0 - p), variance = most(volume.variance - spread, CERTAIN);
  const double sd = std::sqrt(variance), mean = volume.mean - p;
  const double skew = (volume.third - spread * (1.0 - 2.0 * p)) / variance / sd;
  const double lowest = refined_normal_cdf((static_cast<double>(first) - 0.5 - mean) / sd, skew);
  double before = lowest;
  for (int64_t i = 0; i < width; i++) {
    const double here =
        refined_normal_cdf((static_cast<double>(first + i) + 0.5 - mean) / sd, skew);
    out[i] = here - before;
    before = here;
  }
  const double total = most(before - lowest, LEAST_TOTAL);
  for (int64_t i = 0; i < width; i++) out[i] /= total;
}

// Chebyshev nodes of the first kind, and the weights of the barycentric formula.
struct Interpolation {
  int64_t size = 0;
  double nodes[MOST_KNOTS], weights[MOST_KNOTS];

  explicit Interpolation(int64_t number) : size(most<int64_t>(1, least(number, MOST_KNOTS))) {
    for (int64_t k = 0; k < size; k++) {
      const double angle = static_cast<double>(2 * k + 1) * (PI / static_cast<double>(2 * size));
      nodes[k] = std::cos(angle);
      weights[k] = std::sin(angle) * static_cast<double>(1 - 2 * (k % 2));
    }
  }

  // Write the weight of every node at a point of [-1, 1].
  void write_shares(double point, double* shares) const {
    double total = 0.0;
    for (int64_t k = 0; k < size; k++) {
      const double distance = point - nodes[k];
      shares[k] = weights[k] / (distance != 0.0 ? distance : 1e-300);
      total += shares[k];
    }
    for (int64_t k = 0; k < size; k++) shares[k] /= total;
  }
};

// Return how many nodes an interpolation needs, if each node divides its error by exp(rate).
inline int64_t nodes_needed(double rate) {
  return 1 + static_cast<int64_t>(std::ceil(-std::log(PRECISION) / rate));
}

// The counts n from `start` to `stop - 1`, whose sums over volumes are interpolated from `knots`.
struct Counts {
  int64_t start, stop;
  bool direct;  // a knot for each count
  double middle = 0.0, reach = 1.0;
  Interpolation knots;
  double at[MOST_KNOTS];  // the counts of the knots

  // 1 / (n + l) is smooth in (n + first - middle) / (n + first + middle), which maps the range to
  // [-reach, reach] with its nearest singularity at infinity.
  static Counts from(int64_t start, int64_t size, int64_t first) {
    const int64_t length = most(DIRECT, (RATIO - 1) * (start + first));
    const int64_t stop = least(start + length, size + 1);
    const double lowest = static_cast<double>(start + first);
    const double highest = static_cast<double>(stop - 1 + first);
    const double middle = std::sqrt(lowest * highest);
    const double reach = (highest - middle) / (highest + middle);
    const bool direct = stop - start <= DIRECT;
    Counts counts{start,
                  stop,
                  direct,
                  middle,
                  direct ? 1.0 : reach,
                  Interpolation(direct ? stop - start : nodes_needed(std::acosh(1.0 / reach))),
                  {}};
    for (int64_t k = 0; k < counts.knots.size; k++) {
      const double node = counts.reach * counts.knots.nodes[k];
      const double count = middle * (1.0 + node) / (1.0 - node) - static_cast<double>(first);
      counts.at[k] = direct ? static_cast<double>(start + k) : count;
    }
    return counts;
  }

  // Write the weight of every knot at a count.
  void write_shares(int64_t count, int64_t first, double* shares) const {
    if (!direct) {
      const double total = static_cast<double>(count + first);
      knots.write_shares((total - middle) / (total + middle) / reach, shares);
      return;
    }
    for (int64_t k = 0; k < knots.size; k++) shares[k] = count - start == k ? 1.0 : 0.0;
  }

  // Write sum_l phi(l) / (n + l + shift) for every knot n.
  void write_sums(const double* phi, int64_t width, double shift, double* out) const {
    for (int64_t k = 0; k < knots.size; k++) out[k] = 0.0;
    for (int64_t i = 0; i < width; i++) {
      const double shifted = static_cast<double>(i) + shift;
      for (int64_t k = 0; k < knots.size; k++) out[k] += phi[i] / (shifted + at[k]);
    }
  }
};

// The rows of `distributions`, and which of them a pixel uses.
//
// BA has one row for all pixels. TRNA interpolates between rows for a light pixel: p <= limit or
// p >= 1 - limit. Each of the `number` heavy pixels, from rank `heavy` on, has its own row.
struct Rows {
  bool truncated;
  double limit = 0.5;
  int64_t heavy = 0, number = 0;
  Interpolation doubt;

  static Rows of(const Volume& volume, const double* values, int64_t size, bool truncated) {
    if (!truncated) return {false, 0.5, 0, 0, Interpolation(1)};
    const double share = 4.0 * most(volume.variance, CERTAIN) / static_cast<double>(HEAVY);
    const double limit = share >= 1.0 ? 0.5 : share / (1.0 + std::sqrt(1.0 - share)) / 2.0;
    int64_t heavy = 0;
    while (heavy < size && least(values[heavy], 1.0) >= 1.0 - limit) heavy++;
    // The nearest singularity is where the remaining variance is 0.
    const double spread = most(sd_of(volume), std::sqrt(static_cast<double>(HEAVY)) / 2.0);
    return {true, limit, heavy, limit < 0.5 ? HEAVY : 0,
            Interpolation(nodes_needed(std::asinh(4.0 * spread)))};
  }

  int64_t count() const { return truncated ? 2 * doubt.size + number : 1; }

  void write_distributions(const Volume& volume, const double* values, int64_t size, int64_t first,
                           int64_t width, double* out) const {
    if (!truncated) {
      write_without(volume, 0.0, first, width, out);
      return;
    }
    for (int64_t k = 0; k < doubt.size; k++) {
      const double p = limit * (1.0 + doubt.nodes[k]) / 2.0;
      write_without(volume, 1.0 - p, first, width, out + k * width);
      write_without(volume, p, first, width, out + (doubt.size + number + k) * width);
    }
    for (int64_t k = 0; k < number; k++) {
      const double p = least(values[least(heavy + k, size - 1)], 1.0);
      write_without(volume, p, first, width, out + (doubt.size + k) * width);
    }
  }

  // Add a pixel of probability p to `taken`: the sum of the probabilities of the pixels by row.
  void take(double p, int64_t rank, double* taken) const {
    const bool sure = p >= 1.0 - limit, faint = p <= limit;
    if (!truncated) {
      taken[0] += p;
    } else if (sure || faint) {
      double shares[MOST_KNOTS];
      const double rest = least(least(p, 1.0 - p), limit);
      doubt.write_shares(2.0 * rest / limit - 1.0, shares);
      double* to = taken + (sure ? 0 : doubt.size + number);
      for (int64_t k = 0; k < doubt.size; k++) to[k] += p * shares[k];
    } else if (rank >= heavy && rank - heavy < number) {
      taken[doubt.size + rank - heavy] += p;
    }
  }
};

// Return sum_k values[k] weights[k].
inline double dot(const double* values, const double* weights, int64_t size) {
  double total = 0.0;
  for (int64_t k = 0; k < size; k++) total += values[k] * weights[k];
  return total;
}

// Write the scores of the masks of 1 to `size` pixels minus that of the empty mask.
//
// The difference is computed directly: with large smoothing all scores round to 1.
inline int write_gains(const double* values, int64_t size, const Volume& given, double smooth,
                       bool truncated, double* gains) {
  if (size <= 0) return DONE;
  const Volume volume = possible(given);
  const Volumes volumes = volumes_of(volume);
  const int64_t first = volumes.first, width = most<int64_t>(1, volumes.last - first + 1);
  const Rows rows = Rows::of(volume, values, size, truncated);
  const Buffer<double> distributions(rows.count() * width), taken(rows.count());
  const Buffer<double> sums(rows.count() * MOST_KNOTS), lost(smooth > 0.0 ? width : 0);
  if (!distributions.ok() || !taken.ok() || !sums.ok() || !lost.ok()) return OUT_OF_MEMORY;
  rows.write_distributions(volume, values, size, first, width, distributions.get());
  if (smooth > 0.0) {
    write_without(volume, 0.0, first, width, lost.get());
    for (int64_t i = 0; i < width; i++)
      lost[i] *= smooth / (static_cast<double>(first + i) + smooth);
  }
  const double shift = static_cast<double>(first) + smooth;
  double shares[MOST_KNOTS], lost_sums[MOST_KNOTS];
  for (int64_t start = 1; start <= size;) {
    const Counts counts = Counts::from(start, size, first);
    for (int64_t row = 0; row < rows.count(); row++) {
      counts.write_sums(distributions.get() + row * width, width, shift + 1.0,
                        sums.get() + row * MOST_KNOTS);
    }
    if (smooth > 0.0) counts.write_sums(lost.get(), width, shift, lost_sums);
    for (int64_t count = start; count < counts.stop; count++) {
      rows.take(least(values[count - 1], 1.0), count - 1, taken.get());
      counts.write_shares(count, first, shares);
      double gain = 0.0;
      for (int64_t row = 0; row < rows.count(); row++) {
        if (taken[row] == 0.0) continue;
        gain += 2.0 * taken[row] * dot(sums.get() + row * MOST_KNOTS, shares, counts.knots.size);
      }
      // The decrease of the second term of the score since the empty mask.
      if (smooth > 0.0)
        gain -= static_cast<double>(count) * dot(lost_sums, shares, counts.knots.size);
      gains[count - 1] = gain;
    }
    start = counts.stop;
  }
  return DONE;
}

}  // namespace

// Write the gains of the masks of the largest 1 to `size` values over the empty mask.
//
// The scores are those of TRNA if `truncated` is true, else those of BA.
RANKSEG_EXPORT(refined_gains)(const Team*, const double* values, int64_t size, const Volume* volume,
                              double smooth, int64_t truncated, double* gains) {
  return write_gains(values, size, *volume, smooth, truncated != 0, gains);
}
