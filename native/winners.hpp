// The classes that are the likeliest in some pixel: those that argmax predicts.
//
// Each class is tested first in the pixel where its own probability is largest. If another class
// wins that pixel, the class is in doubt, and the blocks in which it could still win are read. In
// real maps these blocks are few.
#pragma once

#include "labels.hpp"

namespace {

// If the probabilities of no pixel add up to more than 1, and on average over a block to 1 within
// NEAR_ONE, they add up to at least LEAST_SUM in every pixel of the block.
constexpr double LEAST_SUM = 0.5;
constexpr double NEAR_ONE = LEAST_SUM / BLOCK;

// Return the place of the largest of `size` numbers that lie `step` apart: the first one if tied.
template <class T>
int64_t largest(const T* values, int64_t size, int64_t step = 1) {
  int64_t place = 0;
  for (int64_t i = 1; i < size; i++) {
    if (values[i * step] > values[place * step]) place = i;
  }
  return place;
}

// Return the first pixel with the largest peak as its value; -1 if the map has changed.
template <class T>
int64_t likeliest_pixel(const Source& s, const Blocks<T>& tables, int64_t image, int64_t label,
                        T* scratch) {
  const T* peaks = tables.peak + tables.at(image, label);
  const int64_t block = largest(peaks, tables.blocks);
  const Range range = block_range(s, block);
  const T* probs = read_row(s, image, label, range, scratch);
  for (int64_t i = 0; i < range.size; i++) {
    if (probs[i] == peaks[block]) return range.first + i;
  }
  return -1;
}

// Return whether no other class is likelier in a pixel; of equal classes the first wins.
//
// The comparison begins with `first_rival`, which may be any class.
template <class T>
bool wins(const Source& s, int64_t image, int64_t label, int64_t pixel, int64_t first_rival,
          T* scratch) {
  const T value = read_row(s, image, label, {pixel, 1}, scratch)[0];
  for (int64_t step = 0; step < s.classes; step++) {
    const int64_t other = (first_rival + step) % s.classes;
    if (other == label) continue;
    const T rival = read_row(s, image, other, {pixel, 1}, scratch)[0];
    if (rival > value || (rival == value && other < label)) return false;
  }
  return true;
}

// Mark the classes that win the pixel in which they are likeliest. A unit is a class of an image.
template <class T>
int mark_peak_winners(const Team* team, const Source& s, const Tables* t, const double* mass,
                      const double* peak, uint8_t* won) {
  const Blocks<T> tables(s, t);
  return share_out(team, s.batch * s.classes, values_of(s), [&](int64_t first, int64_t last) {
    T scratch[BLOCK];
    for (int64_t unit = first; unit < last; unit++) {
      if (peak[unit] <= 0.0) continue;
      const int64_t image = unit / s.classes, label = unit % s.classes;
      const int64_t pixel = likeliest_pixel(s, tables, image, label, scratch);
      const int64_t main = largest(mass + image * s.classes, s.classes);
      won[unit] = pixel >= 0 && wins(s, image, label, pixel, main, scratch);
    }
    return DONE;
  });
}

// Return a value that the largest probability reaches in every pixel of a block.
template <class T>
double least_winner(const Blocks<T>& tables, int64_t image, int64_t block, double pixels) {
  double sum = 0.0, surest = 0.0;
  for (int64_t label = 0; label < tables.classes; label++) {
    const int64_t at = tables.at(image, label) + block;
    sum += tables.mass[at];
    surest = most(surest, static_cast<double>(tables.low[at]));
  }
  const bool exclusive = std::abs(sum - pixels) <= NEAR_ONE * pixels;
  return exclusive ? most(surest, LEAST_SUM / static_cast<double>(tables.classes)) : surest;
}

// Set and read marks that several threads set.
inline void mark(uint8_t* marks, int64_t at) { __atomic_store_n(marks + at, 1, __ATOMIC_RELAXED); }
inline bool is_marked(const uint8_t* marks, int64_t at) {
  return __atomic_load_n(marks + at, __ATOMIC_RELAXED) != 0;
}

// Return whether a class that is not marked yet could win a pixel of a block.
//
// It must reach the main class there: the class with the largest sum in the block.
template <class T>
bool in_doubt(const Source& s, const Blocks<T>& tables, const uint8_t* won, int64_t image,
              int64_t block, double reached) {
  const Range range = block_range(s, block);
  const int64_t at = tables.at(image, 0) + block;
  const int64_t main = largest(tables.mass + at, s.classes, tables.blocks);
  T scratch[BLOCK], kept[BLOCK];
  const T* best = nullptr;
  for (int64_t label = 0; label < s.classes; label++) {
    if (is_marked(won, image * s.classes + label)) continue;
    if (static_cast<double>(tables.peak[at + label * tables.blocks]) < reached) continue;
    if (label == main) return true;
    if (best == nullptr) best = read_row(s, image, main, range, kept);
    const T* probs = read_row(s, image, label, range, scratch);
    bool reaches = false;
    for (int64_t i = 0; i < range.size; i++) reaches |= probs[i] >= best[i];
    if (reaches) return true;
  }
  return false;
}

// Mark the winner of every valid pixel, in each block where a class not marked yet could win.
template <class T>
int mark_all_winners(const Team* team, const Source& s, const Tables* t, uint8_t* won) {
  const Blocks<T> tables(s, t);
  return by_block<T>(team, s, [&](int64_t image, int64_t, int64_t b, Range range) {
    const double reached = least_winner(tables, image, b, static_cast<double>(range.size));
    if (!in_doubt(s, tables, won, image, b, reached)) return;
    T scratch[BLOCK], best[BLOCK];
    int32_t winner[BLOCK] = {};
    for (int64_t i = 0; i < range.size; i++) best[i] = T(-1);
    for (int64_t label = 0; label < s.classes; label++) {
      if (static_cast<double>(tables.peak[tables.at(image, label) + b]) < reached) continue;
      const T* probs = read_row(s, image, label, range, scratch);
      for (int64_t i = 0; i < range.size; i++) {
        const bool above = probs[i] > best[i];
        best[i] = above ? probs[i] : best[i];
        winner[i] = above ? static_cast<int32_t>(label) : winner[i];
      }
    }
    for (int64_t i = 0; i < range.size; i++) {
      if (is_valid(s, image, range.first + i)) mark(won, image * s.classes + winner[i]);
    }
  });
}

template <class T>
int winners(const Team* team, const Source& s, const Tables* t, const double* mass,
            const double* peak, uint8_t* won) {
  const int status = mark_peak_winners<T>(team, s, t, mass, peak, won);
  int64_t number = 0;
  for (int64_t row = 0; row < s.batch * s.classes; row++) number += won[row];
  return status != DONE || number == s.batch * s.classes ? status
                                                         : mark_all_winners<T>(team, s, t, won);
}

}  // namespace

// Mark the classes that are the likeliest in some valid pixel. Ties go to the first class.
RANKSEG_EXPORT(winners)(const Team* team, const Source* s, const Tables* t, const double* mass,
                        const double* peak, uint8_t* won) {
  return by_type(s,
                 [&](auto zero) { return winners<decltype(zero)>(team, *s, t, mass, peak, won); });
}
