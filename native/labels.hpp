// Labels: one class for each pixel, from the maps of all classes of an image.
#pragma once

#include "profile.hpp"

namespace {

// Labels of pixels that are in no mask, or in several: `_formulas/records.py`.
constexpr int64_t UNASSIGNED = -1, CONTESTED = -2;

// Call `work(image, group, block, range)` for every block of every image.
//
// A unit is a group of blocks of one image.
template <class T, class Work>
int by_block(const Team* team, const Source& s, Work work) {
  const int64_t groups = groups_of(s), blocks = blocks_of(s);
  return share_out(team, s.batch * groups, values_of(s), [&](int64_t first, int64_t last) {
    for (int64_t unit = first; unit < last; unit++) {
      const int64_t image = unit / groups, group = unit % groups;
      for (int64_t b = group * GROUP; b < least(blocks, (group + 1) * GROUP); b++) {
        work(image, group, b, block_range(s, b));
      }
    }
    return DONE;
  });
}

// The number of pixels of each class and the sum of their probabilities, by group of blocks.
class Tally {
 public:
  explicit Tally(const Source& s)
      : s_(s), groups_(groups_of(s)), found_(s.batch * groups_ * s.classes) {}
  bool ok() const { return found_.ok(); }

  void add(int64_t image, int64_t group, int64_t label, const CountAndSum& more) const {
    ::add(found_[(image * groups_ + group) * s_.classes + label], more);
  }

  // Add up the groups; write counts and sums, (batch, classes) each.
  void write(double* counts, double* sums) const {
    for (int64_t image = 0; image < s_.batch; image++) {
      for (int64_t label = 0; label < s_.classes; label++) {
        CountAndSum all{};
        for (int64_t group = 0; group < groups_; group++) {
          ::add(all, found_[(image * groups_ + group) * s_.classes + label]);
        }
        counts[image * s_.classes + label] = static_cast<double>(all.count);
        sums[image * s_.classes + label] = all.sum;
      }
    }
  }

 private:
  const Source& s_;
  int64_t groups_;
  Buffer<CountAndSum> found_;
};

// Cuts of every class, rounded to the type of the values.
template <class T>
class Rounded {
 public:
  Rounded(const Source& s, const double* cuts) : classes_(s.classes), cuts_(s.batch * s.classes) {
    if (!ok()) return;
    for (int64_t row = 0; row < s.batch * s.classes; row++) cuts_[row] = round_down<T>(cuts[row]);
  }
  bool ok() const { return cuts_.ok(); }
  T at(int64_t image, int64_t label) const { return cuts_[image * classes_ + label]; }

 private:
  int64_t classes_;
  Buffer<T> cuts_;
};

// Mark the pixels that a class claims: those above its cut.
//
// The mark of a pixel is 0 for no claim, `classes + label` for one claim, and 2 * classes for
// several claims. A pixel above the `lower` cut of a class but not above its cut is marked as if
// there were several.
template <class T>
void add_claims(const T* probs, int64_t size, T cut, T lower, int32_t label, int32_t classes,
                int32_t* claims) {
  const int32_t claim = classes + label, several = 2 * classes;
  for (int64_t i = 0; i < size; i++) {
    const int32_t doubted = probs[i] > lower ? several : 0;
    claims[i] = least(claims[i] + (probs[i] > cut ? claim : doubted), several);
  }
}

// Label the pixels with one claim; write UNASSIGNED for no claim and CONTESTED for several.
inline void settle(const int32_t* claims, int64_t size, int32_t classes, int64_t* labels) {
  for (int64_t i = 0; i < size; i++) {
    const int32_t claim = claims[i];
    const int32_t unsettled = claim == 0 ? UNASSIGNED : CONTESTED;
    labels[i] = claim > 0 && claim < 2 * classes ? claim - classes : unsettled;
  }
}

template <class T>
int claim(const Team* team, const Source& s, const Tables* t, const double* cuts,
          const double* lower_cuts, int64_t* labels, double* counts, double* sums) {
  const Blocks<T> tables(s, t);
  const Rounded<T> cut(s, cuts), lower(s, lower_cuts);
  const Tally tally(s);
  if (!cut.ok() || !lower.ok() || !tally.ok()) return OUT_OF_MEMORY;
  const int32_t classes = static_cast<int32_t>(s.classes);
  const int status =
      by_block<T>(team, s, [&](int64_t image, int64_t group, int64_t b, Range range) {
        int64_t* here = labels + image * s.pixels + range.first;
        int64_t rivals = 0, only = 0;
        for (int64_t label = s.classes - 1; label >= 0; label--) {
          if (tables.peak[tables.at(image, label) + b] > lower.at(image, label)) {
            rivals++;
            only = label;
          }
        }
        const int64_t at = tables.at(image, only) + b;
        const bool whole = rivals == 1 && tables.low[at] > cut.at(image, only);
        if (rivals == 0 || whole) {
          for (int64_t i = 0; i < range.size; i++) here[i] = whole ? only : UNASSIGNED;
          if (whole) tally.add(image, group, only, {range.size, tables.mass[at]});
          return;
        }
        T scratch[BLOCK];
        int32_t claims[BLOCK] = {};
        for (int64_t label = only; label < s.classes; label++) {
          if (!(tables.peak[tables.at(image, label) + b] > lower.at(image, label))) continue;
          add_claims(read_row(s, image, label, range, scratch), range.size, cut.at(image, label),
                     lower.at(image, label), static_cast<int32_t>(label), classes, claims);
        }
        settle(claims, range.size, classes, here);
        for (int64_t label = only; label < s.classes; label++) {
          if (!(tables.peak[tables.at(image, label) + b] > lower.at(image, label))) continue;
          tally.add(image, group, label,
                    sum_marked(read_row(s, image, label, range, scratch), claims, range.size,
                               static_cast<int32_t>(classes + label)));
        }
      });
  tally.write(counts, sums);
  return status;
}

// Return whether a pixel is valid.
inline bool is_valid(const Source& s, int64_t image, int64_t pixel) {
  return s.valid == nullptr || s.valid[image * s.pixels + pixel] != 0;
}

inline void void_outside(const Source& s, int64_t image, Range range, int64_t void_index,
                         int64_t* labels) {
  if (s.valid == nullptr) return;
  for (int64_t i = 0; i < range.size; i++) {
    if (!is_valid(s, image, range.first + i)) labels[i] = void_index;
  }
}

// List the valid pixels without a label; return how many there are.
inline int64_t list_unsettled(const Source& s, int64_t image, Range range, const int64_t* labels,
                              int32_t* picked) {
  if (s.valid == nullptr) {
    return list_where(range.size, picked, [&](int64_t i) { return labels[i] < 0; });
  }
  const uint8_t* valid = s.valid + image * s.pixels + range.first;
  return list_where(range.size, picked,
                    [&](int64_t i) { return (labels[i] < 0) & (valid[i] != 0); });
}

// Count the valid pixels without a label, by group of blocks: (batch, groups).
inline int count_unsettled(const Team* team, const Source& s, const int64_t* labels,
                           int64_t* counts) {
  return by_block<float>(team, s, [&](int64_t image, int64_t group, int64_t, Range range) {
    int32_t picked[BLOCK];
    counts[image * groups_of(s) + group] +=
        list_unsettled(s, image, range, labels + image * s.pixels + range.first, picked);
  });
}

// Make the pixels without a label `void_index`, except those picked, whose indices ascend.
inline void void_others(const int32_t* picked, int64_t number, Range range, int64_t void_index,
                        int64_t* labels) {
  for (int64_t i = 0, next = 0; i < range.size; i++) {
    const bool is_picked = next < number && picked[next] == i;
    next += is_picked;
    if (labels[i] < 0 && !is_picked) labels[i] = void_index;
  }
}

// Copy the valid pixels without a label: their probabilities to `values`, their indices to
// `pixels`.
//
// `values` is (batch, classes, width) and `pixels` is (batch, width). `starts`, (batch, groups +
// 1), holds where the pixels of each group begin and where the last group ends. Only active classes
// are copied. Pixels that are not valid become `void_index`. So do pixels that were not counted:
// another thread may have changed `valid`.
template <class T>
int gather_unsettled(const Team* team, const Source& s, int64_t* labels, const uint8_t* active,
                     const int64_t* starts, int64_t void_index, int64_t width, int64_t* pixels,
                     T* values) {
  const int64_t groups = groups_of(s);
  const Buffer<int64_t> done(s.batch * groups);
  if (!done.ok()) return OUT_OF_MEMORY;
  return by_block<T>(team, s, [&](int64_t image, int64_t group, int64_t, Range range) {
    T scratch[BLOCK];
    int32_t picked[BLOCK];
    int64_t* here = labels + image * s.pixels + range.first;
    void_outside(s, image, range, void_index, here);
    const int64_t unit = image * groups + group, *ends = starts + image * (groups + 1) + group;
    const int64_t start = ends[0] + done[unit];
    const int64_t size = least(list_unsettled(s, image, range, here, picked), ends[1] - start);
    if (s.valid != nullptr) void_others(picked, size, range, void_index, here);
    done[unit] += size;
    for (int64_t j = 0; j < size; j++) pixels[image * width + start + j] = range.first + picked[j];
    for (int64_t label = 0; label < s.classes; label++) {
      if (!active[image * s.classes + label]) continue;
      const T* probs = read_row(s, image, label, range, scratch);
      T* to = values + (image * s.classes + label) * width + start;
      for (int64_t j = 0; j < size; j++) to[j] = probs[picked[j]];
    }
  });
}

}  // namespace

// What classes gain from one more pixel of probability p. Mirrored in `native_library.py`.
//
// `terms` is (rows, 1, 4) with the terms of `Gains`, or (rows, BINS, 2) with the lines of
// `GainCurves`. `pieces` is the second size. `table_row` holds the row of every image and class in
// the table, or -1 if it has none.
struct GainTable {
  const double* terms;
  int64_t pieces;
  const int64_t* table_row;
};

namespace {

// The gains of one row of a `GainTable`.
struct Gain {
  const double* terms;
  int64_t pieces;

  double at(double p) const { return pieces == 1 ? fraction(p) : line(bin_of(p), p); }

  // Write the gains of some probabilities; at most BLOCK.
  template <class T>
  void write(const T* probs, int64_t size, double* gains) const {
    if (pieces == 1) {
      for (int64_t j = 0; j < size; j++) gains[j] = fraction(static_cast<double>(probs[j]));
      return;
    }
    int32_t bins[BLOCK];
    write_bins(probs, size, bins);
    for (int64_t j = 0; j < size; j++) gains[j] = line(bins[j], static_cast<double>(probs[j]));
  }

 private:
  double fraction(double p) const { return (terms[0] * p - terms[1]) / (terms[2] - terms[3] * p); }
  double line(int32_t bin, double p) const { return terms[2 * bin] * p - terms[2 * bin + 1]; }
};

// Return the gains of a class of an image; `terms` is null if it has no row in the table.
inline Gain gain_of(const GainTable& gains, int64_t row) {
  const int64_t at = gains.table_row[row], terms = gains.pieces == 1 ? 4 : 2;
  return {at < 0 ? nullptr : gains.terms + at * gains.pieces * terms, gains.pieces};
}

// The pixels of a block without a label, and the class that gains most in each so far.
template <class T>
struct Undecided {
  int64_t size;
  int32_t pixels[BLOCK];
  double is_free[BLOCK];  // 1 if the pixel is unassigned, 0 if contested
  T probs[BLOCK];         // of one class
  double best[BLOCK];
  int64_t winner[BLOCK];
};

// Give one class the pixels in which it gains more than every class before it.
//
// The class can win an unassigned pixel only if its probability exceeds `least_free`, and a
// contested pixel only if its probability exceeds `least_contested`.
template <class T>
void bid(Undecided<T>& c, const Gain& gain, double least_free, double least_contested,
         int64_t label) {
  double gains[BLOCK];
  gain.write(c.probs, c.size, gains);
  for (int64_t j = 0; j < c.size; j++) {
    const double gained = gains[j], standing = c.best[j];
    const int64_t holder = c.winner[j];
    const double least = c.is_free[j] != 0.0 ? least_free : least_contested;
    const bool wins = (static_cast<double>(c.probs[j]) > least) & (gained > standing);
    c.best[j] = wins ? gained : standing;
    c.winner[j] = wins ? label : holder;
  }
}

template <class T>
int resolve(const Team* team, const Source& s, const Tables* t, int64_t* labels, const double* cuts,
            const GainTable& gains, const uint8_t* eligible, double floor, int64_t void_index) {
  const Blocks<T> tables(s, t);
  const Rounded<T> cut(s, cuts);
  if (!cut.ok()) return OUT_OF_MEMORY;
  return by_block<T>(team, s, [&](int64_t image, int64_t, int64_t b, Range range) {
    int64_t* here = labels + image * s.pixels + range.first;
    Undecided<T> c;
    c.size = list_where(range.size, c.pixels, [&](int64_t i) { return here[i] < 0; });
    if (c.size == 0) return;
    for (int64_t j = 0; j < c.size; j++) {
      const bool is_free = here[c.pixels[j]] == UNASSIGNED;
      c.is_free[j] = is_free;
      c.best[j] = is_free ? floor : -INFINITE;
      c.winner[j] = void_index;
    }
    // A gain that some eligible class lower_cuts in every pixel of the block. Gains rise with the
    // probability, so a class whose largest value gains less cannot win an unassigned pixel. The
    // factor 1e-9 covers rounding.
    double surest = -INFINITE;
    for (int64_t label = 0; label < s.classes; label++) {
      const int64_t row = image * s.classes + label;
      const Gain gain = gain_of(gains, row);
      if (!eligible[row] || gain.terms == nullptr) continue;
      const double sure = gain.at(static_cast<double>(tables.low[row * tables.blocks + b]));
      surest = sure > surest ? sure : surest;
    }
    surest -= 1e-9 * std::abs(surest);
    for (int64_t label = 0; label < s.classes; label++) {
      const int64_t row = image * s.classes + label;
      const Gain gain = gain_of(gains, row);
      if (gain.terms == nullptr) continue;
      const double peak = static_cast<double>(tables.peak[row * tables.blocks + b]);
      const bool hopeless = !eligible[row] || gain.at(peak) < surest;
      const double least_free = hopeless ? INFINITE : -1.0;
      const double least_contested = static_cast<double>(cut.at(image, label));
      if (peak <= least(least_free, least_contested)) continue;
      T scratch[BLOCK];
      const T* values = read_row(s, image, label, range, scratch);
      for (int64_t j = 0; j < c.size; j++) c.probs[j] = values[c.pixels[j]];
      bid(c, gain, least_free, least_contested, label);
    }
    for (int64_t j = 0; j < c.size; j++) here[c.pixels[j]] = c.winner[j];
    void_outside(s, image, range, void_index, here);
  });
}

// Classes that `tally_block` counts and sums at once, from class `first` on.
constexpr int64_t CLASSES_AT_ONCE = 256;

template <class T>
void tally_block(const Source& s, const int64_t* here, int64_t image, int64_t group, Range range,
                 int64_t first, const Tally& tally) {
  T scratch[BLOCK];
  uint8_t present[CLASSES_AT_ONCE] = {};
  const int64_t classes = least(CLASSES_AT_ONCE, s.classes - first);
  for (int64_t i = 0; i < range.size; i++) {
    const uint64_t label = static_cast<uint64_t>(here[i]) - static_cast<uint64_t>(first);
    if (label < static_cast<uint64_t>(classes)) present[label] = 1;
  }
  for (int64_t k = 0; k < classes; k++) {
    if (!present[k]) continue;
    const T* probs = read_row(s, image, first + k, range, scratch);
    tally.add(image, group, first + k, sum_marked(probs, here, range.size, first + k));
  }
}

template <class T>
int tally(const Team* team, const Source& s, const int64_t* labels, double* counts, double* sums) {
  const Tally tally(s);
  if (!tally.ok()) return OUT_OF_MEMORY;
  const int status = by_block<T>(team, s, [&](int64_t image, int64_t group, int64_t, Range range) {
    const int64_t* here = labels + image * s.pixels + range.first;
    for (int64_t first = 0; first < s.classes; first += CLASSES_AT_ONCE) {
      tally_block<T>(s, here, image, group, range, first, tally);
    }
  });
  tally.write(counts, sums);
  return status;
}

}  // namespace

// Label the pixels above the cut of one class and above the `lower` cut of no other class.
//
// Write counts and sums of these pixels, (batch, classes) each. The other pixels become UNASSIGNED
// or CONTESTED.
RANKSEG_EXPORT(claim)(const Team* team, const Source* s, const Tables* t, const double* cuts,
                      const double* lower_cuts, int64_t* labels, double* counts, double* sums) {
  return by_type(s, [&](auto zero) {
    return claim<decltype(zero)>(team, *s, t, cuts, lower_cuts, labels, counts, sums);
  });
}

// Count the valid pixels without a label, by group of blocks: (batch, groups).
RANKSEG_EXPORT(count_unsettled)(const Team* team, const Source* s, const int64_t* labels,
                                int64_t* counts) {
  return count_unsettled(team, *s, labels, counts);
}

// Copy the valid pixels without a label into smaller maps: see `gather_unsettled` above.
RANKSEG_EXPORT(gather_unsettled)(const Team* team, const Source* s, int64_t* labels,
                                 const uint8_t* active, const int64_t* starts, int64_t void_index,
                                 int64_t width, int64_t* pixels, void* values) {
  return by_type(s, [&](auto zero) {
    using T = decltype(zero);
    return gather_unsettled<T>(team, *s, labels, active, starts, void_index, width, pixels,
                               static_cast<T*>(values));
  });
}

// Give every valid pixel without a label to the class that gains most.
//
// A contested pixel goes to a class whose cut it exceeds, an unassigned pixel to an eligible class.
// An unassigned pixel in which no gain exceeds `floor` becomes `void_index`.
RANKSEG_EXPORT(resolve)(const Team* team, const Source* s, const Tables* t, int64_t* labels,
                        const double* cuts, const GainTable* gains, const uint8_t* eligible,
                        double floor, int64_t void_index) {
  return by_type(s, [&](auto zero) {
    return resolve<decltype(zero)>(team, *s, t, labels, cuts, *gains, eligible, floor, void_index);
  });
}

// Write number and summed probability of the pixels of every label, (batch, classes) each.
RANKSEG_EXPORT(tally)(const Team* team, const Source* s, const int64_t* labels, double* counts,
                      double* sums) {
  return by_type(s,
                 [&](auto zero) { return tally<decltype(zero)>(team, *s, labels, counts, sums); });
}
