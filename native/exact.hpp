// Exact masks, row by row: a row is a class of an image.
//
// `solvers/exact.py` does one step of the search for all rows, then the next step. Here every row
// does all steps before the next row begins. The values of the row stay in the cache, and small
// maps save the cost of a call for every step. `_formulas/expectation.py` has the formulas.
#pragma once

#include <algorithm>

#include "moments.hpp"

// Dice or IoU with its `smooth`. `bonus` and `offset` are `fraction_at_infinity` of the RMA
// objective in `_formulas/objectives.py`. Mirrored in `native_library.py`.
struct Metric {
  int64_t dice;
  double smooth, bonus, offset;
  Steps steps;
};

namespace {

// Step and range of the trapezoidal rule.
constexpr double STEP = 0.25, FIRST = -3.6, END = 40.0;

// No integral needs more quadrature nodes, whatever the number of pixels.
constexpr int64_t MOST_NODES = 256;

// POWERS power sums replace any values if volume + smooth is at least MANY. Otherwise they replace
// only values up to FAINT.
constexpr double MANY = 100.0, FAINT = 1.0 / 16;

// Factor by which brackets are wider than guessed, and the most times that their width is doubled.
constexpr double MARGIN = 1.2;
constexpr int DOUBLINGS = 64;

// If RMA's cut is within NEAR of 1/2, too few values lie between the cut and 1/2 to guess their
// density. The half width of the bracket is then UNKNOWN.
constexpr double NEAR = 1e-3, UNKNOWN = 1.0 / 32;

// A mask is excluded only if its upper bound is below a known score by more than this.
constexpr double ROUNDING = 1e-15;

// Return the least volume + smooth at which j power sums suffice: (j! / 1e-14) ^ (1 / j).
inline double sufficient(int64_t powers) {
  double factorial = 1.0;  // not std::lgamma, which writes to a variable of all threads
  for (int64_t j = 2; j <= powers; j++) factorial *= static_cast<double>(j);
  return std::exp((std::log(factorial) - std::log(1e-14)) / static_cast<double>(powers));
}

// Return how many power sums replace values in a class of which `rate` is volume + smooth.
inline int64_t powers_needed(double rate) {
  if (rate < MANY) return POWERS;
  int64_t degree = 1;
  while (degree < POWERS && rate < sufficient(degree)) degree++;
  return degree;
}

// Return the largest value of RMA's objective, given the optimal cut.
inline double value_of(double cut, const Metric& metric) {
  return metric.dice ? 2.0 * cut : cut / (1.0 - cut);
}

// Guess the distance from RMA's cut to the ends of the bracket.
inline double half_width(double cut, const RowSurvey& row, const Metric& metric) {
  const double distance = 0.5 - cut;
  if (!(distance > NEAR)) return UNKNOWN;
  const double lost =
      cut * (row.likely_count + row.volume + metric.offset) - row.likely_mass - metric.bonus;
  return MARGIN * std::sqrt(4.0 * cut / most(2.0 * lost / (distance * distance), 1.0));
}

// Return whether the upper bound of the score of a mask reaches 1 - deficit, up to rounding.
inline bool may_be_best(double count, double mass, double volume, double deficit,
                        const Metric& metric) {
  const double gain = metric.dice ? 2.0 * mass : mass;
  const double rest = metric.dice ? volume : volume - mass;
  const double size = count + most(rest - 1.0, 0.0), whole = size + metric.smooth;
  return gain - size + deficit * whole >= -ROUNDING * whole;
}

// The cuts between which the best mask lies.
struct Ends {
  double low, high;
};

inline Ends first_ends(double cut, const RowSurvey& row, const Metric& metric) {
  const double width = most(least(half_width(cut, row, metric), cut / 2.0), NEGLIGIBLE_PROB);
  const double low = most(cut - width, 0.0);
  if (row.volume + metric.smooth < MANY) return {least(low, FAINT), INFINITE};  // sort all others
  const double empty = std::exp(-row.volume) + 2.0 * metric.smooth / row.volume;
  const bool may_be_empty = 0.0 < metric.smooth && metric.smooth < 1.0;
  if (may_be_empty && empty >= value_of(cut, metric)) return {low, INFINITE};
  return {low, cut + width};
}

// Return two cuts that enclose the cut of the best mask; write counts and power sums to `split`.
template <class T>
Ends enclose(const Source& s, const Blocks<T>& tables, int64_t image, int64_t label, double cut,
             const RowSurvey& row, const Metric& metric, int64_t degree, Split& split) {
  const double deficit = 1.0 - value_of(cut, metric), rate = row.volume + metric.smooth;
  const double spread = NEGLIGIBLE * rate * rate / static_cast<double>(s.pixels);
  Ends ends = first_ends(cut, row, metric);
  for (int doubled = 0; doubled < DOUBLINGS + 2; doubled++) {
    if (ends.high >= row.peak) ends.high = INFINITE;
    const Bracket<T> bracket{round_down<T>(ends.low), round_down<T>(ends.high), degree, spread};
    split = Split{};
    for (int64_t group = 0; group < groups_of(s); group++) {
      split_group(s, tables, image, label, group, bracket, split);
    }
    const double count = static_cast<double>(split.above);
    const double both = count + static_cast<double>(split.between);
    const bool down = ends.low > 0.0 && may_be_best(both, row.volume - split.sums_below[0],
                                                    row.volume, deficit, metric);
    const bool up = ends.high < INFINITE &&
                    may_be_best(count, split.sums_above[0], row.volume, deficit, metric);
    if (!down && !up) break;
    const bool again = doubled < DOUBLINGS;
    if (down) ends.low = again ? most(2.0 * ends.low - cut, 0.0) : 0.0;
    if (up) ends.high = again ? 2.0 * ends.high - cut : INFINITE;
  }
  return ends;
}

// Return how many quadrature nodes the integral of a row needs.
inline int64_t count_nodes(double rate, double count, double rest) {
  double end = END / most(count, 1.0);
  if (rest > 2.0 * END) end = least(end, -std::log1p(-END / rest));
  const double nodes = std::ceil((std::log(end * rate) - FIRST) / STEP) + 1.0;
  return nodes >= 1.0 ? static_cast<int64_t>(least(nodes, static_cast<double>(MOST_NODES))) : 1;
}

// Work arrays of a thread for one row, besides `Space`.
struct ExactSpace {
  Split split;
  double ranked[KEPT];
  double decay[MOST_NODES], weight[MOST_NODES], amount[MOST_NODES], products[MOST_NODES];
};

// Write the integrals of the smallest mask of the bracket; return how many nodes they have.
inline int64_t place_integrals(double volume, int64_t degree, const Metric& metric,
                               ExactSpace& space) {
  const double count = static_cast<double>(space.split.above);
  const double between = static_cast<double>(space.split.between);
  const double* above = space.split.sums_above;
  const double* below = space.split.sums_below;
  const double smooth = metric.smooth, mass = above[0];
  const double rate = count + between + volume + smooth + 1.0;
  const int64_t nodes = count_nodes(rate, count + smooth, metric.dice ? volume : volume - mass);
  for (int64_t k = 0; k < nodes; k++) {
    const double x = FIRST + STEP * static_cast<double>(k), falling = std::exp(-x);
    const double u = std::exp(x - falling) / rate, s = -std::expm1(-u);
    double rising = 1.0, log_inside = 0.0, log_outside = 0.0, hits_inside = 0.0, hits_outside = 0.0;
    for (int64_t j = 0; j < degree; j++) {
      hits_inside += above[j] * rising;
      hits_outside += below[j] * rising;
      rising *= s;
      log_inside -= above[j] * rising / static_cast<double>(j + 1);
      log_outside -= below[j] * rising / static_cast<double>(j + 1);
    }
    const double decay = std::exp(-u);
    hits_inside *= decay;
    hits_outside *= decay;
    const double log = metric.dice ? log_inside + log_outside : log_outside;
    double amount = metric.dice ? 2.0 * hits_inside : mass;
    if (smooth > 0.0) amount -= (metric.dice ? hits_inside + hits_outside : hits_outside) + count;
    space.decay[k] = decay;
    space.weight[k] = STEP * u * (1.0 + falling) * std::exp(log - (count + smooth) * u);
    space.amount[k] = amount;
  }
  return nodes;
}

struct Descending {
  bool operator()(double a, double b) const { return a > b; }
};

// Return the cut of the best mask, given RMA's cut; NaN if the bracket does not fit in the buffer.
template <class T>
double exact_cut(const Source& s, const Blocks<T>& tables, int64_t image, int64_t label, double cut,
                 const RowSurvey& row, const Metric& metric, Space<T>& space, ExactSpace& exact) {
  const int64_t degree = powers_needed(row.volume + metric.smooth);
  const Ends ends = enclose(s, tables, image, label, cut, row, metric, degree, exact.split);
  const Collected found = collect(s, tables, image, label, round_down<T>(ends.low),
                                  round_down<T>(ends.high), static_cast<uint8_t*>(nullptr), space);
  if (found.spilled.count > 0) return std::numeric_limits<double>::quiet_NaN();
  for (int64_t i = 0; i < found.size; i++) {  // NaN, if the maps were changed: no order to sort by
    exact.ranked[i] = space.kept[i] > T(0) ? static_cast<double>(space.kept[i]) : 0.0;
  }
  std::sort(exact.ranked, exact.ranked + found.size, Descending());
  const int64_t nodes = place_integrals(row.volume, degree, metric, exact);
  const Quadrature q{nodes, exact.decay, exact.weight, exact.amount, exact.products};
  const int64_t taken = scan_row(exact.ranked, found.size, q, metric.steps);
  return taken < found.size ? exact.ranked[taken] : ends.low;
}

template <class T>
int exact_masks(const Team* team, const Source& s, const Tables* t, double highest,
                const Metric& metric, double pruning_prob, uint8_t* sound, uint8_t* known,
                uint8_t* out) {
  const Blocks<T> tables(s, t);
  return share_out(team, s.batch * s.classes, values_of(s), [&](int64_t first, int64_t last) {
    const Buffer<Space<T>> space(1);
    const Buffer<ExactSpace> exact(1);
    if (!space.ok() || !exact.ok()) return OUT_OF_MEMORY;
    for (int64_t unit = first; unit < last; unit++) {
      const int64_t image = unit / s.classes, label = unit % s.classes;
      const RowSurvey row =
          survey_row(s, tables, static_cast<T>(highest), image, label, space[0].block);
      sound[unit] = row.sound;
      known[unit] = 1;
      if (!row.sound || !(row.peak > pruning_prob)) continue;
      const double bonus = metric.bonus, offset = row.volume + metric.offset;
      double cut =
          raise_cut(s, tables, image, label, first_cut(row, bonus, offset), row.likely_count,
                    row.likely_mass, bonus, offset, static_cast<uint8_t*>(nullptr), space[0])
              .cut;
      cut = exact_cut(s, tables, image, label, cut, row, metric, space[0], exact[0]);
      known[unit] = cut == cut;
      if (!known[unit]) continue;
      mask_row(s, tables, image, label, round_down<T>(cut), out + unit * s.pixels, space[0].block);
    }
    return DONE;
  });
}

}  // namespace

// Survey each row, find the cut of the mask with the largest expected metric, and write the mask.
//
// A row is a class of an image. `out` must be all 0. `known` is false for a row whose bracket holds
// too many values for the buffer; its mask is then not written.
RANKSEG_EXPORT(exact_masks)(const Team* team, const Source* s, const Tables* t, double highest,
                            const Metric* metric, double pruning_prob, uint8_t* sound,
                            uint8_t* known, uint8_t* out) {
  return by_type(s, [&](auto zero) {
    return exact_masks<decltype(zero)>(team, *s, t, highest, *metric, pruning_prob, sound, known,
                                       out);
  });
}
