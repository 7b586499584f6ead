// The cuts of classes by Dinkelbach's iteration, and the masks above them.
//
// The iteration raises a cut. Few values lie between the cut and its upper bound: they are copied
// to a buffer, with the indices of their pixels.
#pragma once

#include "survey.hpp"

namespace {

// Size of the buffer for the values that a rising cut may still pass. It fits in the cache.
constexpr int64_t KEPT = 16 * BLOCK;

// The most steps by which a cut is raised.
constexpr int MOST_STEPS = 1000;

// Work arrays of a thread for one class of an image.
template <class T>
struct Space {
  T block[BLOCK];
  int32_t picked[BLOCK];
  T kept[KEPT];
  int64_t places[KEPT];  // the pixel of each value kept
};

// List the places of the values in (low, high] in a block; return their number.
template <class T>
int64_t list_between(const T* probs, int64_t size, T low, T high, int32_t* picked) {
  return list_where(size, picked, [&](int64_t i) { return (probs[i] > low) & (probs[i] <= high); });
}

struct Collected {
  int64_t size;         // values in the buffer
  CountAndSum spilled;  // count and sum of the values that found no room
};

// Keep the values in (low, high] of a class as long as there is room; count and sum the others.
//
// The pixels above `low` are marked in `mask`, which must be all 0. `mask` may be null.
template <class T>
Collected collect(const Source& s, const Blocks<T>& tables, int64_t image, int64_t label, T low,
                  T high, uint8_t* mask, Space<T>& space) {
  Collected found{0, {0, 0.0}};
  const int64_t at = tables.at(image, label);
  for (int64_t b = 0; b < tables.blocks; b++) {
    if (tables.peak[at + b] <= low) continue;
    const Range range = block_range(s, b);
    if (tables.low[at + b] > high) {
      if (mask) std::memset(mask + range.first, 1, static_cast<size_t>(range.size));
      continue;
    }
    const T* probs = read_row(s, image, label, range, space.block);
    if (mask) mark_above(probs, range.size, low, mask + range.first);
    if (found.spilled.count == 0 && found.size + range.size <= KEPT) {
      const int64_t number = list_between(probs, range.size, low, high, space.picked);
      for (int64_t k = 0; k < number; k++) {
        space.kept[found.size + k] = probs[space.picked[k]];
        space.places[found.size + k] = range.first + space.picked[k];
      }
      found.size += number;
    } else {
      const CountAndSum here = sum_between(probs, range.size, low, high);
      found.spilled.count += here.count;
      found.spilled.sum += here.sum;
    }
  }
  return found;
}

// The survey of one class of one image.
struct RowSurvey {
  double volume, peak, likely_count, likely_mass;
  bool sound;
};

template <class T>
RowSurvey survey_row(const Source& s, const Blocks<T>& tables, T highest, int64_t image,
                     int64_t label, T* scratch) {
  GroupSurvey all;
  for (int64_t group = 0; group < groups_of(s); group++) {
    add(all, survey_group(s, tables, highest, image, label, group, scratch));
  }
  return {all.mass, peak_of(tables, image, label), static_cast<double>(all.likely_count),
          all.likely_mass, all.sound};
}

template <class T>
struct Raised {
  double cut;
  T marked;      // the cut above which `mask` was marked
  int64_t kept;  // number of values in the buffer if all in (marked, cut] are there; else -1
};

// Raise a cut to the largest (mass + bonus) / (count + offset) of any mask.
//
// The next cut is the fraction of the mask above the current cut. Cuts hardly ever exceed 1/2, and
// the survey has counted and summed the values above 1/2. The buffer usually has room for all
// values between the first cut and 1/2. One pass then copies them, and later steps read only the
// buffer. The first pass also marks the pixels above the first cut in `mask`, if it is not null.
template <class T>
Raised<T> raise_cut(const Source& s, const Blocks<T>& tables, int64_t image, int64_t label,
                    double cut, double likely_count, double likely_mass, double bonus,
                    double offset, uint8_t* mask, Space<T>& space) {
  T high = T(0.5);
  const T marked = round_down<T>(cut);
  Collected found{0, {0, 0.0}};
  int passes = 0;
  bool all_kept = false;
  for (int step = 0; step < MOST_STEPS; step++) {
    if (cut >= static_cast<double>(high)) {
      high = std::numeric_limits<T>::infinity();
      likely_count = likely_mass = 0.0;
      all_kept = false;
    }
    const T low = round_down<T>(cut);
    if (!all_kept) {
      found = collect(s, tables, image, label, low, high, mask, space);
      all_kept = found.spilled.count == 0;
      passes++;
      mask = nullptr;
    }
    const CountAndSum inside = sum_above(space.kept, found.size, low);
    const double count =
        likely_count + static_cast<double>(found.spilled.count) + static_cast<double>(inside.count);
    const double mass = inside.sum + (likely_mass + found.spilled.sum + bonus);
    const double fraction = mass / (count + offset);
    if (!(fraction > cut)) return {cut, marked, all_kept && passes == 1 ? found.size : -1};
    cut = fraction;
  }
  return {cut, marked, -1};
}

// What the best mask of a class maximises: (mass + bonus) / (count + volume + offset).
//
// `keep_peak` keeps the likeliest pixel in the mask even if the fraction rounds to its probability.
struct Fraction {
  double bonus, offset;
  bool keep_peak;
};

// The cut that the iteration starts from: the largest fraction of three masks that need no scan.
inline double first_cut(const RowSurvey& row, double bonus, double offset) {
  const double cut = most(bonus / offset, (row.peak + bonus) / (1.0 + offset));
  return most(cut, (row.likely_mass + bonus) / (row.likely_count + offset));
}

template <class T>
void mask_row(const Source& s, const Blocks<T>& tables, int64_t image, int64_t label, T cut,
              uint8_t* mask, T* scratch) {
  for (int64_t group = 0; group < groups_of(s); group++) {
    mask_group(s, tables, image, label, group, cut, mask, scratch);
  }
}

// Mark the best mask of a class; `mask` must be all 0.
template <class T>
void own_mask(const Source& s, const Blocks<T>& tables, int64_t image, int64_t label,
              const Fraction& fraction, const RowSurvey& row, uint8_t* mask, Space<T>& space) {
  const double bonus = fraction.bonus, offset = row.volume + fraction.offset;
  const Raised<T> raised = raise_cut(s, tables, image, label, first_cut(row, bonus, offset),
                                     row.likely_count, row.likely_mass, bonus, offset, mask, space);
  const double cut = fraction.keep_peak ? least(raised.cut, next_below(row.peak)) : raised.cut;
  const T low = round_down<T>(cut);
  if (raised.kept >= 0 && raised.marked <= low) {
    for (int64_t k = 0; k < raised.kept; k++) {
      if (space.kept[k] <= low) mask[space.places[k]] = 0;
    }
  } else {
    std::memset(mask, 0, static_cast<size_t>(s.pixels));
    mask_row(s, tables, image, label, low, mask, space.block);
  }
}

template <class T>
int own_masks(const Team* team, const Source& s, const Tables* t, double highest,
              const Fraction& fraction, double pruning_prob, uint8_t* sound, uint8_t* out) {
  const Blocks<T> tables(s, t);
  return share_out(team, s.batch * s.classes, values_of(s), [&](int64_t first, int64_t last) {
    const Buffer<Space<T>> space(1);
    if (!space.ok()) return OUT_OF_MEMORY;
    for (int64_t unit = first; unit < last; unit++) {
      const int64_t image = unit / s.classes, label = unit % s.classes;
      const RowSurvey row =
          survey_row(s, tables, static_cast<T>(highest), image, label, space[0].block);
      sound[unit] = row.sound;
      if (row.sound && row.peak > pruning_prob) {
        own_mask(s, tables, image, label, fraction, row, out + unit * s.pixels, space[0]);
      }
    }
    return DONE;
  });
}

template <class T>
int raise_cuts(const Team* team, const Source& s, const Tables* t, const double* likely_count,
               const double* likely_mass, const double* bonus, const double* offset,
               const uint8_t* active, double* cuts) {
  const Blocks<T> tables(s, t);
  return share_out(team, s.batch * s.classes, values_of(s), [&](int64_t first, int64_t last) {
    const Buffer<Space<T>> space(1);
    if (!space.ok()) return OUT_OF_MEMORY;
    for (int64_t row = first; row < last; row++) {
      if (!active[row]) continue;
      cuts[row] = raise_cut(s, tables, row / s.classes, row % s.classes, cuts[row],
                            likely_count[row], likely_mass[row], bonus[row], offset[row],
                            static_cast<uint8_t*>(nullptr), space[0])
                      .cut;
    }
    return DONE;
  });
}

template <class T>
int between(const Team* team, const Source& s, const Tables* t, const double* low,
            const double* high, const int64_t* rows, int64_t number, int64_t width, double* out) {
  const Blocks<T> tables(s, t);
  return share_out(team, number, values_of(s), [&](int64_t first, int64_t last) {
    T scratch[BLOCK];
    int32_t picked[BLOCK];
    for (int64_t unit = first; unit < last; unit++) {
      const int64_t image = rows[2 * unit], label = rows[2 * unit + 1];
      const T above = round_down<T>(low[unit]), up_to = round_down<T>(high[unit]);
      const int64_t at = tables.at(image, label);
      int64_t size = 0;
      for (int64_t b = 0; b < tables.blocks; b++) {
        if (tables.peak[at + b] <= above || tables.low[at + b] > up_to) continue;
        const Range range = block_range(s, b);
        const T* probs = read_row(s, image, label, range, scratch);
        int64_t found = list_between(probs, range.size, above, up_to, picked);
        found = least(found, width - size);  // the maps may have changed since they were counted
        for (int64_t k = 0; k < found; k++) {
          out[unit * width + size + k] = static_cast<double>(probs[picked[k]]);
        }
        size += found;
      }
    }
    return DONE;
  });
}

}  // namespace

// Raise the cut of every active class while the fraction of the mask above the cut exceeds the cut.
RANKSEG_EXPORT(raise_cuts)(const Team* team, const Source* s, const Tables* t,
                           const double* likely_count, const double* likely_mass,
                           const double* bonus, const double* offset, const uint8_t* active,
                           double* cuts) {
  return by_type(s, [&](auto zero) {
    return raise_cuts<decltype(zero)>(team, *s, t, likely_count, likely_mass, bonus, offset, active,
                                      cuts);
  });
}

// Survey each row, find its cut and write its mask, while its values are in the cache.
//
// A row is a class of an image. If its peak does not exceed `pruning_prob`, its mask is empty.
// `out` must be all 0. `sound` is true for each row whose values are all probabilities.
RANKSEG_EXPORT(own_masks)(const Team* team, const Source* s, const Tables* t, double highest,
                          double bonus, double offset, int64_t keep_peak, double pruning_prob,
                          uint8_t* sound, uint8_t* out) {
  return by_type(s, [&](auto zero) {
    return own_masks<decltype(zero)>(team, *s, t, highest, {bonus, offset, keep_peak != 0},
                                     pruning_prob, sound, out);
  });
}

// Write, for each of `number` rows (image, class), the values in (low, high], at most `width`.
RANKSEG_EXPORT(between)(const Team* team, const Source* s, const Tables* t, const double* low,
                        const double* high, const int64_t* rows, int64_t number, int64_t width,
                        double* out) {
  return by_type(s, [&](auto zero) {
    return between<decltype(zero)>(team, *s, t, low, high, rows, number, width, out);
  });
}
