// Moments of the volume, power sums, and the scan of a sorted row by expected metric.
#pragma once

#include "winners.hpp"

namespace {

// How many power sums there are: of p^j for j from 1. From the second power on, probabilities up to
// NEGLIGIBLE_PROB are left out: their powers would be subnormal, and very slow.
constexpr int64_t POWERS = 12;
constexpr double NEGLIGIBLE_PROB = 1e-16;

// Relative error of an integral that is allowed when the values of a block are taken as equal.
constexpr double NEGLIGIBLE = 1e-12;

// Mean, variance and third central moment of a volume of independent labels.
struct VolumeMoments {
  double mean, variance, third;
};

template <class T>
VolumeMoments moments_of(const T* probs, int64_t size) {
  Double4 mean{}, variance{}, third{};
  by_fours(probs, size, T(0), [&](int, Double4 values) {
    const Double4 one = Double4{} + 1.0;
    const Double4 p = values < one ? values : one;
    const Double4 spread = p * (one - p);
    mean += p;
    variance += spread;
    third += spread * (one - 2.0 * p);
  });
  return {total(mean), total(variance), total(third)};
}

inline void add(VolumeMoments& to, const VolumeMoments& more) {
  to.mean += more.mean;
  to.variance += more.variance;
  to.third += more.third;
}

template <class T>
int moments(const Team* team, const Source& s, const Tables* t, const uint8_t* active,
            double* means, double* variances, double* thirds) {
  const Blocks<T> tables(s, t);
  const auto scan = [&](int64_t row, int64_t group) {
    T scratch[BLOCK];
    VolumeMoments found{};
    if (!active[row]) return found;
    for (int64_t b = group * GROUP; b < least(tables.blocks, (group + 1) * GROUP); b++) {
      if (tables.peak[row * tables.blocks + b] == T(0)) continue;
      const Range range = block_range(s, b);
      add(found,
          moments_of(read_row(s, row / s.classes, row % s.classes, range, scratch), range.size));
    }
    return found;
  };
  return by_group<VolumeMoments>(team, s, scan, [&](int64_t row, const VolumeMoments& all) {
    means[row] = all.mean;
    variances[row] = all.variance;
    thirds[row] = all.third;
  });
}

// The numbers of values above and in a `Bracket`, and power sums of those above and below.
struct Split {
  int64_t above, between;  // numbers of values
  double sums_above[POWERS], sums_below[POWERS];
};

// How to split the values of a class: above `high`, in (low, high], and up to `low`.
//
// Power sums go up to `degree`. If all values of a block are above `high` or all are up to `low`,
// and their variance is at most `spread`, they are taken as equal.
template <class T>
struct Bracket {
  T low, high;
  int64_t degree;
  double spread;
};

// Add the power sums of the values for which `inside` is true to `sums`; return their number.
template <class T, class Inside>
int64_t add_powers_of(const T* probs, int64_t size, int64_t degree, double* sums, Inside inside) {
  Double4 powers[POWERS] = {};
  Mask4 number = {};
  by_sixteens(probs, size, [&](const Double4* row16, const Mask4* there) {
    Double4 values[4], terms[4];
    for (int k = 0; k < 4; k++) {
      const Mask4 mask = inside(row16[k]) & there[k];
      number += mask;
      terms[k] = only(mask, row16[k]);
      values[k] = only(row16[k] > Double4{} + NEGLIGIBLE_PROB, terms[k]);
    }
    powers[0] += (terms[0] + terms[1]) + (terms[2] + terms[3]);
    for (int k = 0; k < 4; k++) terms[k] = values[k];
    for (int64_t power = 1; power < degree; power++) {
      for (int k = 0; k < 4; k++) terms[k] *= values[k];
      powers[power] += (terms[0] + terms[1]) + (terms[2] + terms[3]);
    }
  });
  for (int64_t power = 0; power < degree; power++) sums[power] += total(powers[power]);
  return -total(number);
}

// Add the power sums of `count` values that are all equal to `mean`.
inline void add_equal(double count, double mean, int64_t degree, double* sums) {
  double term = count;
  for (int64_t power = 0; power < degree; power++) {
    term *= mean;
    sums[power] += term;
  }
}

template <class T>
void split_group(const Source& s, const Blocks<T>& tables, int64_t image, int64_t label,
                 int64_t group, const Bracket<T>& bracket, Split& to) {
  T scratch[BLOCK];
  const T low = bracket.low, high = bracket.high;
  for (int64_t b = group * GROUP; b < least(tables.blocks, (group + 1) * GROUP); b++) {
    const int64_t at = tables.at(image, label) + b;
    const Range range = block_range(s, b);
    const double smallest = static_cast<double>(tables.low[at]);
    const double largest = static_cast<double>(tables.peak[at]);
    const bool is_above = tables.low[at] > high;
    if (is_above || tables.peak[at] <= low) {
      double* sums = is_above ? to.sums_above : to.sums_below;
      to.above += is_above ? range.size : 0;
      const double mean = tables.mass[at] / static_cast<double>(range.size);
      // No values in [smallest, largest] of this mean have a larger variance.
      if ((largest - mean) * (mean - smallest) <= bracket.spread) {
        add_equal(static_cast<double>(range.size), mean, bracket.degree, sums);
      } else {
        add_powers_of(read_row(s, image, label, range, scratch), range.size, bracket.degree, sums,
                      [](Double4) { return Mask4{} - 1; });
      }
      continue;
    }
    const T* probs = read_row(s, image, label, range, scratch);
    const Double4 lows = Double4{} + static_cast<double>(low);
    const Double4 highs = Double4{} + static_cast<double>(high);
    int64_t above = 0;
    if (largest > static_cast<double>(high)) {
      above = add_powers_of(probs, range.size, bracket.degree, to.sums_above,
                            [&](Double4 values) -> Mask4 { return values > highs; });
    }
    const int64_t below = add_powers_of(probs, range.size, bracket.degree, to.sums_below,
                                        [&](Double4 values) -> Mask4 { return values <= lows; });
    to.above += above;
    to.between += range.size - above - below;
  }
}

inline void add(Split& to, const Split& group) {
  to.above += group.above;
  to.between += group.between;
  for (int64_t power = 0; power < POWERS; power++) {
    to.sums_above[power] += group.sums_above[power];
    to.sums_below[power] += group.sums_below[power];
  }
}

template <class T>
int split(const Team* team, const Source& s, const Tables* t, const double* low, const double* high,
          const int64_t* degrees, const double* spreads, double* counts, double* sums) {
  const Blocks<T> tables(s, t);
  const auto scan = [&](int64_t row, int64_t group) {
    Split found{};
    if (degrees[row] <= 0) return found;
    const Bracket<T> bracket{round_down<T>(low[row]), round_down<T>(high[row]),
                             least(degrees[row], POWERS), spreads[row]};
    split_group(s, tables, row / s.classes, row % s.classes, group, bracket, found);
    return found;
  };
  return by_group<Split>(team, s, scan, [&](int64_t row, const Split& all) {
    counts[2 * row] = static_cast<double>(all.above);
    counts[2 * row + 1] = static_cast<double>(all.between);
    for (int64_t power = 0; power < POWERS; power++) {
      sums[2 * row * POWERS + power] = all.sums_above[power];
      sums[(2 * row + 1) * POWERS + power] = all.sums_below[power];
    }
  });
}

}  // namespace

// How one more pixel changes the integrals: `Steps` in `_formulas/records.py`.
struct Steps {
  double per_hit, per_mass, per_count;
  int64_t outside;
};

namespace {

// The expected metric of a mask as a sum over nodes: `Integrals` in `_formulas/records.py`.
//
// The scan changes `weight` and `amount`; `products` is scratch. Arrays have room for `nodes`.
struct Quadrature {
  int64_t nodes;
  const double* decay;
  double* weight;
  double* amount;
  double* products;
};

// Add one pixel outside of the mask to the integrals.
inline void leave_out(double value, const Quadrature& q, double per_count) {
  const double missing = 1.0 - value;
  if (per_count == 0.0) {
    for (int64_t k = 0; k < q.nodes; k++) q.weight[k] *= missing + value * q.decay[k];
    return;
  }
  for (int64_t k = 0; k < q.nodes; k++) {
    const double left = missing + value * q.decay[k];
    q.weight[k] *= left;
    q.amount[k] -= per_count * value * q.decay[k] / left;
  }
}

// Move one pixel from outside into the mask; return the score of the new mask.
inline double take_in(double value, const Quadrature& q, const Steps& steps) {
  const double missing = 1.0 - value;
  const double gained = steps.per_mass * value - steps.per_count;
  for (int64_t k = 0; k < q.nodes; k++) {
    const double hit = q.decay[k] / (missing + value * q.decay[k]);
    q.weight[k] *= steps.outside ? hit : q.decay[k];
    q.amount[k] += steps.per_hit * value * hit + gained;
    q.products[k] = q.weight[k] * q.amount[k];
  }
  return sum(q.products, q.nodes);
}

// Return the number of pixels in the best mask, from `size` values sorted from the largest on.
//
// Each mask holds the largest values; the masks of all sizes are scored.
//
// Equal values are taken together or not at all. Of several best masks the smallest wins.
inline int64_t scan_row(const double* values, int64_t size, const Quadrature& q,
                        const Steps& steps) {
  for (int64_t i = 0; i < size; i++) leave_out(least(values[i], 1.0), q, steps.per_count);
  for (int64_t k = 0; k < q.nodes; k++) q.products[k] = q.weight[k] * q.amount[k];
  double best = sum(q.products, q.nodes);
  int64_t taken = 0;
  for (int64_t i = 0; i < size; i++) {
    const double score = take_in(least(values[i], 1.0), q, steps);
    const bool is_cut = i + 1 == size || values[i + 1] < values[i];
    if (score > best && is_cut) {
      best = score;
      taken = i + 1;
    }
  }
  return taken;
}

}  // namespace

// Mean, variance and third central moment of the volume of active classes, (batch, classes) each.
RANKSEG_EXPORT(moments)(const Team* team, const Source* s, const Tables* t, const uint8_t* active,
                        double* means, double* variances, double* thirds) {
  return by_type(s, [&](auto zero) {
    return moments<decltype(zero)>(team, *s, t, active, means, variances, thirds);
  });
}

// Write the numbers of values above `high` and in (low, high] to `counts`, (batch, classes, 2).
//
// Write the power sums of the values above `high` and of those up to `low` to `sums`, (batch,
// classes, 2, POWERS).
RANKSEG_EXPORT(split)(const Team* team, const Source* s, const Tables* t, const double* low,
                      const double* high, const int64_t* degrees, const double* spreads,
                      double* counts, double* sums) {
  return by_type(s, [&](auto zero) {
    return split<decltype(zero)>(team, *s, t, low, high, degrees, spreads, counts, sums);
  });
}

// Write to `taken` how many of its largest values the best mask of each row holds.
//
// `values` is (rows, width); the first `sizes` of a row are used. `decay`, `weight` and `amount`
// are (rows, most_nodes); the first `nodes` of a row are used.
RANKSEG_EXPORT(scan)(const Team* team, const double* values, const int64_t* sizes, int64_t rows,
                     int64_t width, const double* decay, const double* weight, const double* amount,
                     const int64_t* nodes, int64_t most_nodes, const Steps* steps, int64_t* taken) {
  constexpr int64_t VALUES_PER_NODE = 4;  // a pixel at a node costs as much as a survey of 4
  return share_out(
      team, rows, VALUES_PER_NODE * rows * width * most_nodes, [&](int64_t first, int64_t last) {
        const Buffer<double> room(3 * most_nodes);
        if (!room.ok()) return OUT_OF_MEMORY;
        for (int64_t row = first; row < last; row++) {
          const int64_t used = most<int64_t>(0, least(nodes[row], most_nodes));
          const Quadrature q{used, decay + row * most_nodes, room.get(), room.get() + most_nodes,
                             room.get() + 2 * most_nodes};
          for (int64_t k = 0; k < used; k++) {
            q.weight[k] = weight[row * most_nodes + k];
            q.amount[k] = amount[row * most_nodes + k];
          }
          taken[row] = scan_row(values + row * width, least(sizes[row], width), q, *steps);
        }
        return DONE;
      });
}
