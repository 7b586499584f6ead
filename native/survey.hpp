// The scan of all values, and passes that read a block only if their cut crosses it.
//
// The survey keeps the sum, the smallest and the largest value of every block of every class. A
// later pass reads a block only if the cut lies between the smallest and the largest value. In real
// maps most blocks lie wholly inside or wholly outside a mask.
//
// A unit of work is a group of blocks of one class of one image, or of all its classes. One thread
// does the blocks of a unit in order, so sums do not depend on the number of threads.
#pragma once

#include "maps.hpp"

namespace {

// The bits of a value as an unsigned integer. Values from 0 on have the order of their bits. The
// bits of negative values (-0.0, too) and of NaN are larger than those of 1.
template <class T>
using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
struct Extremes {
  Bits<T> low, high;
};

template <class T>
Extremes<T> extremes(const T* probs, int64_t size) {
  using Vector __attribute__((vector_size(32))) = Bits<T>;
  constexpr int64_t WIDTH = sizeof(Vector) / sizeof(T);
  Bits<T> first;
  std::memcpy(&first, probs, sizeof first);
  Vector low[2] = {Vector{} + first, Vector{} + first}, high[2] = {low[0], low[0]};
  int64_t i = 0;
  for (; i + 2 * WIDTH <= size; i += 2 * WIDTH) {
    for (int k = 0; k < 2; k++) {
      Vector bits;
      std::memcpy(&bits, probs + i + k * WIDTH, sizeof bits);
      low[k] = bits < low[k] ? bits : low[k];
      high[k] = bits > high[k] ? bits : high[k];
    }
  }
  Extremes<T> found{first, first};
  for (int k = 0; k < 2; k++) {
    for (int64_t j = 0; j < WIDTH; j++) {
      found.low = least(found.low, static_cast<Bits<T>>(low[k][j]));
      found.high = most(found.high, static_cast<Bits<T>>(high[k][j]));
    }
  }
  for (; i < size; i++) {
    const Bits<T> bits = std::bit_cast<Bits<T>>(probs[i]);
    found.low = least(found.low, bits);
    found.high = most(found.high, bits);
  }
  return found;
}

// Copy probabilities with 0.0 for -0.0, whose bits would look like those of a negative value.
template <class T>
void copy_without_negative_zeros(const T* probs, int64_t size, T* to) {
  for (int64_t i = 0; i < size; i++) to[i] = probs[i] != T(0) ? probs[i] : T(0);
}

// The survey of some blocks of a class.
struct GroupSurvey {
  double mass = 0.0, likely_mass = 0.0;  // sums of all values and of values above 1/2
  int64_t likely_count = 0;              // the number of values above 1/2
  bool sound = true;                     // all values are probabilities
};

// Return the sum of some probabilities; count and sum also the values above 1/2.
template <class T>
double sum_all(const T* probs, int64_t size, GroupSurvey& to) {
  Double4 sums[4] = {}, likely[4] = {};
  Mask4 counts[4] = {};
  by_fours(probs, size, T(0), [&](int k, Double4 values) {
    const Mask4 mask = values > Double4{} + 0.5;
    sums[k] += values;
    likely[k] += only(mask, values);
    counts[k] += mask;
  });
  to.likely_count -= total((counts[0] + counts[1]) + (counts[2] + counts[3]));
  to.likely_mass += total((likely[0] + likely[1]) + (likely[2] + likely[3]));
  return total((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// Survey a group of blocks; `highest` is the largest value accepted.
template <class T>
GroupSurvey survey_group(const Source& s, const Blocks<T>& tables, T highest, int64_t image,
                         int64_t label, int64_t group, T* scratch) {
  const Bits<T> half = std::bit_cast<Bits<T>>(T(0.5)), limit = std::bit_cast<Bits<T>>(highest);
  GroupSurvey found;
  const int64_t at = tables.at(image, label);
  for (int64_t b = group * GROUP; b < least(tables.blocks, (group + 1) * GROUP); b++) {
    const Range range = block_range(s, b);
    const T* probs = read_row(s, image, label, range, scratch);
    Extremes<T> ends = extremes(probs, range.size);
    if (ends.high > limit) {
      copy_without_negative_zeros(probs, range.size, scratch);
      probs = scratch;
      ends = extremes(probs, range.size);
      found.sound &= ends.high <= limit;
    }
    const double mass =
        ends.high >= half ? sum_all(probs, range.size, found) : sum(probs, range.size);
    tables.low[at + b] = std::bit_cast<T>(ends.low);
    tables.peak[at + b] = std::bit_cast<T>(ends.high);
    tables.mass[at + b] = mass;
    found.mass += mass;
  }
  return found;
}

inline void add(GroupSurvey& to, const GroupSurvey& group) {
  to.mass += group.mass;
  to.likely_count += group.likely_count;
  to.likely_mass += group.likely_mass;
  to.sound &= group.sound;
}

template <class T>
double peak_of(const Blocks<T>& tables, int64_t image, int64_t label) {
  T peak = 0;
  const T* peaks = tables.peak + tables.at(image, label);
  for (int64_t b = 0; b < tables.blocks; b++) peak = most(peak, peaks[b]);
  return static_cast<double>(peak);
}

// Let `scan(row, group)` look at every group of blocks of every row (image and class). Add up what
// it found in the groups of a row, and call `write(row, total)`.
template <class Found, class Scan, class Write>
int by_group(const Team* team, const Source& s, Scan scan, Write write) {
  const int64_t groups = groups_of(s), rows = s.batch * s.classes;
  const Buffer<Found> found(rows * groups);
  if (!found.ok()) return OUT_OF_MEMORY;
  const int status = share_out(team, rows * groups, values_of(s), [&](int64_t first, int64_t last) {
    for (int64_t unit = first; unit < last; unit++) {
      found[unit] = scan(unit / groups, unit % groups);
    }
    return DONE;
  });
  for (int64_t row = 0; row < rows; row++) {
    Found all{};
    for (int64_t group = 0; group < groups; group++) add(all, found[row * groups + group]);
    write(row, all);
  }
  return status;
}

template <class T>
int survey(const Team* team, const Source& s, const Tables* t, double highest, double* out,
           uint8_t* fault) {
  const Blocks<T> tables(s, t);
  const int64_t rows = s.batch * s.classes;
  bool sound = true;
  const auto scan = [&](int64_t row, int64_t group) {
    T scratch[BLOCK];
    return survey_group(s, tables, static_cast<T>(highest), row / s.classes, row % s.classes, group,
                        scratch);
  };
  const int status = by_group<GroupSurvey>(team, s, scan, [&](int64_t row, const GroupSurvey& all) {
    out[row] = all.mass;
    out[rows + row] = peak_of(tables, row / s.classes, row % s.classes);
    out[2 * rows + row] = static_cast<double>(all.likely_count);
    out[3 * rows + row] = all.likely_mass;
    sound &= all.sound;
  });
  *fault = !sound;
  return status;
}

// Write sum, smallest and largest value of some probabilities.
//
// Unlike `extremes`, this takes negative values and NaN. They occur if the maps were changed after
// the survey found them valid.
template <class T>
void survey_block(const T* probs, int64_t size, double* mass, T* low, T* peak) {
  *mass = sum(probs, size);
  *low = probs[0];
  *peak = probs[0];
  for (int64_t i = 1; i < size; i++) {
    *low = probs[i] < *low ? probs[i] : *low;
    *peak = probs[i] > *peak ? probs[i] : *peak;
  }
}

// Write the tables of active classes only. A unit is a class of an image.
template <class T>
int survey_active(const Team* team, const Source& s, const Tables* t, const uint8_t* active) {
  const Blocks<T> tables(s, t);
  return share_out(team, s.batch * s.classes, values_of(s), [&](int64_t first, int64_t last) {
    T scratch[BLOCK];
    for (int64_t unit = first; unit < last; unit++) {
      if (!active[unit]) continue;
      for (int64_t b = 0; b < tables.blocks; b++) {
        const Range range = block_range(s, b);
        const T* probs = read_row(s, unit / s.classes, unit % s.classes, range, scratch);
        const int64_t at = unit * tables.blocks + b;
        survey_block(probs, range.size, tables.mass + at, tables.low + at, tables.peak + at);
      }
    }
    return DONE;
  });
}

// Count and sum the values above a cut in a group of blocks.
template <class T>
CountAndSum group_above(const Source& s, const Blocks<T>& tables, int64_t image, int64_t label,
                        int64_t group, T cut, T* scratch) {
  CountAndSum found{0, 0.0};
  const int64_t at = tables.at(image, label);
  for (int64_t b = group * GROUP; b < least(tables.blocks, (group + 1) * GROUP); b++) {
    if (tables.peak[at + b] <= cut) continue;
    const Range range = block_range(s, b);
    CountAndSum here{range.size, tables.mass[at + b]};
    if (!(tables.low[at + b] > cut)) {
      here = sum_above(read_row(s, image, label, range, scratch), range.size, cut);
    }
    found.count += here.count;
    found.sum += here.sum;
  }
  return found;
}

inline void add(CountAndSum& to, const CountAndSum& group) {
  to.count += group.count;
  to.sum += group.sum;
}

template <class T>
int above(const Team* team, const Source& s, const Tables* t, const double* cuts,
          const uint8_t* active, double* counts, double* sums) {
  const Blocks<T> tables(s, t);
  const auto scan = [&](int64_t row, int64_t group) {
    T scratch[BLOCK];
    if (!active[row]) return CountAndSum{0, 0.0};
    return group_above(s, tables, row / s.classes, row % s.classes, group, round_down<T>(cuts[row]),
                       scratch);
  };
  return by_group<CountAndSum>(team, s, scan, [&](int64_t row, const CountAndSum& all) {
    counts[row] = static_cast<double>(all.count);
    sums[row] = all.sum;
  });
}

template <class T>
void mark_above(const T* probs, int64_t size, T cut, uint8_t* mask) {
  for (int64_t i = 0; i < size; i++) mask[i] = probs[i] > cut;
}

// Mark the pixels of one group above the cut, in a `mask` of all pixels.
template <class T>
void mask_group(const Source& s, const Blocks<T>& tables, int64_t image, int64_t label,
                int64_t group, T cut, uint8_t* mask, T* scratch) {
  const int64_t at = tables.at(image, label);
  for (int64_t b = group * GROUP; b < least(tables.blocks, (group + 1) * GROUP); b++) {
    if (tables.peak[at + b] <= cut) continue;
    const Range range = block_range(s, b);
    if (tables.low[at + b] > cut) {
      std::memset(mask + range.first, 1, static_cast<size_t>(range.size));
    } else {
      mark_above(read_row(s, image, label, range, scratch), range.size, cut, mask + range.first);
    }
  }
}

// Mark the pixels above the cut of their class in `out`, which must be all 0.
template <class T>
int masks(const Team* team, const Source& s, const Tables* t, const double* cuts, uint8_t* out) {
  const Blocks<T> tables(s, t);
  const int64_t groups = groups_of(s);
  return share_out(team, s.batch * s.classes * groups, values_of(s),
                   [&](int64_t first, int64_t last) {
                     T scratch[BLOCK];
                     for (int64_t unit = first; unit < last; unit++) {
                       const int64_t row = unit / groups;
                       mask_group(s, tables, row / s.classes, row % s.classes, unit % groups,
                                  round_down<T>(cuts[row]), out + row * s.pixels, scratch);
                     }
                     return DONE;
                   });
}

}  // namespace

// Scan every value once. Write the tables, the survey, and whether some value is no probability.
//
// The survey is (4, batch, classes): sum, peak, and number and sum of the values above 1/2.
RANKSEG_EXPORT(survey)(const Team* team, const Source* s, const Tables* t, double highest,
                       double* out, uint8_t* fault) {
  return by_type(
      s, [&](auto zero) { return survey<decltype(zero)>(team, *s, t, highest, out, fault); });
}

// Write the tables of active classes.
RANKSEG_EXPORT(survey_active)(const Team* team, const Source* s, const Tables* t,
                              const uint8_t* active) {
  return by_type(s, [&](auto zero) { return survey_active<decltype(zero)>(team, *s, t, active); });
}

// Write count and sum of the values above the cut of each active class, (batch, classes) each.
RANKSEG_EXPORT(above)(const Team* team, const Source* s, const Tables* t, const double* cuts,
                      const uint8_t* active, double* counts, double* sums) {
  return by_type(
      s, [&](auto zero) { return above<decltype(zero)>(team, *s, t, cuts, active, counts, sums); });
}

// Mark the pixels above the cut of their class in `out`, which must be all 0.
RANKSEG_EXPORT(masks)(const Team* team, const Source* s, const Tables* t, const double* cuts,
                      uint8_t* out) {
  return by_type(s, [&](auto zero) { return masks<decltype(zero)>(team, *s, t, cuts, out); });
}
