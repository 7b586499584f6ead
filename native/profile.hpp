// The class profile: count and sum of the probabilities in each bin.
//
// Bins are narrow near 0 and near 1: there are 64 for every octave of p up to 1/2, and of 1 - p
// above 1/2. A bin includes its upper edge. `_formulas/bins.py` defines the bins.
#pragma once

#include "cuts.hpp"

namespace {

constexpr int OCTAVES = 23, OCTAVE_BITS = 6;
constexpr int64_t BINS = 2 * (1 + (OCTAVES << OCTAVE_BITS));
constexpr int32_t LAST_BIN = static_cast<int32_t>(BINS - 1);

// The upper edge of the first bin.
constexpr double LOWEST = 0x1p-24;

// Blocks that share one table of bins: so many that the table is small compared with their values.
constexpr int64_t CHUNK = 1 << 10;

// A bin of a profile.
struct Bin {
  double count, mass;
};

// Return the bin of a value; an arbitrary bin for NaN.
inline int32_t bin_of(double value) {
  constexpr int64_t LOWEST_BITS = ((1022 - OCTAVES) << OCTAVE_BITS) - 1;
  const bool upper = value > 0.5;
  const double distance = upper ? 1.0 - value : value;
  // With this bound, the bits minus 1 are positive for values in the end bins, also above 1.
  const double bounded = distance > 0x1p-25 ? distance : 0x1p-25;
  const int64_t bits = std::bit_cast<int64_t>(bounded) - !upper;
  const int64_t steps = most<int64_t>((bits >> (52 - OCTAVE_BITS)) - LOWEST_BITS, 0);
  const int32_t bin = static_cast<int32_t>(least<int64_t>(steps, LAST_BIN));
  return upper ? LAST_BIN - bin : bin;
}

// Codes of float32: the high bits hold the bin, the low bits the steps from the bin's lower edge.
//
// A value with n steps lies n + 1 steps above the lower edge. Each bin has a slot: an integer that
// adds up ONE and the code for each value of the bin. Count and steps can be told apart, since the
// steps of a chunk add up to less than ONE.
//
// Often most values are near 0 or 1, and an addition to a slot must wait for the previous addition
// to the same slot. So each end bin has SPARES slots, used in turn. They follow the slots of the
// bins, and their codes have no steps.
constexpr int STEP_BITS = 23 - OCTAVE_BITS;
constexpr uint64_t ONE = uint64_t(1) << 40;
constexpr int32_t SPARES = 64, FIRST_SPARE = static_cast<int32_t>(BINS);
constexpr int64_t SLOTS = BINS + 2 * SPARES;
static_assert((uint64_t(CHUNK * BLOCK) << STEP_BITS) < ONE);

// Values whose codes are computed at a time. With so few, the slots stay in the fastest cache.
constexpr int64_t PIECE = 256;

// Work arrays of a thread.
//
// The codes directly follow the slots: a read is slow if its address differs by a multiple of 4096
// bytes from an address written just before.
template <class T>
struct ProfileSpace {
  uint64_t slots[SLOTS];
  int32_t codes[PIECE];
  T block[BLOCK];
};

// Return the code of a value, without regard to spares; below 1 << STEP_BITS in the first bin.
inline int32_t code_of(float value) {
  constexpr int32_t LOWEST_BITS = (((126 - OCTAVES) << OCTAVE_BITS) - 1) << STEP_BITS;
  constexpr int32_t FIRST = 1 << STEP_BITS, LAST = LAST_BIN << STEP_BITS;
  const float rest = 1.0f - value, distance = rest > 0.0f ? rest : 0.0f;
  const int32_t bits = most(std::bit_cast<int32_t>(value), 0);  // -0.0 is 0
  const int32_t lower = bits - LOWEST_BITS - 1;
  const int32_t upper = LAST + LOWEST_BITS + (FIRST - 1) - std::bit_cast<int32_t>(distance);
  return value > 0.5f ? upper : lower;
}

inline void write_codes(const float* values, int64_t size, int32_t* codes) {
  constexpr int32_t FIRST = 1 << STEP_BITS, LAST = LAST_BIN << STEP_BITS;
  for (int32_t i = 0; i < static_cast<int32_t>(size); i++) {  // as wide as a code
    const int32_t code = code_of(values[i]);
    const int32_t spare = (FIRST_SPARE + (i & (SPARES - 1))) << STEP_BITS;
    const int32_t spared = code < FIRST ? spare : code;
    codes[i] = code >= LAST ? spare + (SPARES << STEP_BITS) : spared;
  }
}

// Write the bin of every value.
inline void write_bins(const float* values, int64_t size, int32_t* bins) {
  for (int64_t i = 0; i < size; i++) {
    bins[i] = least(most(code_of(values[i]) >> STEP_BITS, 0), LAST_BIN);
  }
}

inline void write_bins(const double* values, int64_t size, int32_t* bins) {
  for (int64_t i = 0; i < size; i++) bins[i] = bin_of(values[i]);
}

// Add the counts and sums of the slots to a table, and empty the slots. Slots hold exact values.
inline void unpack(uint64_t* slots, const double* edges, Bin* table) {
  for (int64_t slot = 0; slot < SLOTS; slot++) {
    if (slots[slot] == 0) continue;
    const uint64_t each = ONE + (static_cast<uint64_t>(slot) << STEP_BITS);
    // The steps add up to less than an eighth of ONE, so the quotient rounds to the count.
    const double count =
        std::floor(static_cast<double>(slots[slot]) / static_cast<double>(each) + 0.5);
    const double steps = static_cast<double>(
        static_cast<int64_t>(slots[slot] - static_cast<uint64_t>(count) * each));
    slots[slot] = 0;
    if (slot < BINS) {
      const double low = edges[slot], high = edges[slot + 1];
      table[slot].count += count;
      table[slot].mass += count * low + (steps + count) * (high - low) / (1 << STEP_BITS);
    } else if (slot < BINS + SPARES) {
      table[0].count += count;
    } else {  // no float32 lies between the last two edges
      table[LAST_BIN].count += count;
      table[LAST_BIN].mass += count;
    }
  }
}

// Add the codes of a block to the slots, and to the table the sums that codes do not hold.
inline void deposit(const float* probs, int64_t size, float low, float peak, Bin* table,
                    ProfileSpace<float>& space) {
  if (low <= static_cast<float>(LOWEST)) {  // the end bins have no steps
    table[0].mass += count_and_sum(probs, size, 1.0f, [](Double4 values) -> Mask4 {
                       return values <= Double4{} + LOWEST;
                     }).sum;
  }
  if (peak > 1.0f) {  // by rounding
    const CountAndSum beyond = sum_above(probs, size, 1.0f);
    table[LAST_BIN].mass += beyond.sum - static_cast<double>(beyond.count);
  }
  for (int64_t start = 0; start < size; start += PIECE) {
    const float* piece = probs + start;
    const int64_t number = least(PIECE, size - start);
    for (int64_t k = 0; k < number; k += 16) __builtin_prefetch(piece + BLOCK + k);
    write_codes(piece, number, space.codes);
#pragma GCC unroll 4
    for (int64_t i = 0; i < number; i++) {
      const uint64_t code = static_cast<uint32_t>(space.codes[i]);
      space.slots[code >> STEP_BITS] += ONE + code;
    }
  }
}

inline void deposit(const double* probs, int64_t size, double, double, Bin* table,
                    ProfileSpace<double>&) {
  for (int64_t i = 0; i < size; i++) {
    Bin& bin = table[bin_of(probs[i])];
    bin.count += 1.0;
    bin.mass += probs[i];
  }
}

// Add the counts and sums of one chunk of a class to the bins of a table.
template <class T>
void profile_chunk(const Source& s, const Blocks<T>& tables, int64_t image, int64_t label,
                   int64_t chunk, const double* edges, Bin* table, ProfileSpace<T>& space) {
  const int64_t at = tables.at(image, label);
  for (int64_t b = chunk * CHUNK; b < least(tables.blocks, (chunk + 1) * CHUNK); b++) {
    const Range range = block_range(s, b);
    if (tables.peak[at + b] <= static_cast<T>(LOWEST)) {
      table[0].count += static_cast<double>(range.size);
      table[0].mass += tables.mass[at + b];
      continue;
    }
    const T* probs = read_row(s, image, label, range, space.block);
    deposit(probs, range.size, tables.low[at + b], tables.peak[at + b], table, space);
  }
  unpack(space.slots, edges, table);
}

// Let `fill(chunks, tables)` write a table of `rows` rows for each chunk, and add them up in `out`.
template <class Fill>
int by_chunks(const Source& s, int64_t rows, Bin* out, Fill fill) {
  const int64_t chunks = divided_up(blocks_of(s), CHUNK);
  if (chunks == 1) return fill(chunks, out);
  const Buffer<Bin> tables(chunks * rows * BINS);
  if (!tables.ok()) return OUT_OF_MEMORY;
  const int status = fill(chunks, tables.get());
  for (int64_t chunk = 0; chunk < chunks; chunk++) {
    for (int64_t i = 0; i < rows * BINS; i++) {
      out[i].count += tables[chunk * rows * BINS + i].count;
      out[i].mass += tables[chunk * rows * BINS + i].mass;
    }
  }
  return status;
}

template <class T>
int profile(const Team* team, const Source& s, const Tables* t, const int64_t* rows, int64_t number,
            const double* edges, Bin* out) {
  const Blocks<T> tables(s, t);
  return by_chunks(s, number, out, [&](int64_t chunks, Bin* bins) {
    return share_out(team, number * chunks, number * s.pixels, [&](int64_t first, int64_t last) {
      const Buffer<ProfileSpace<T>> space(1);
      if (!space.ok()) return OUT_OF_MEMORY;
      for (int64_t unit = first; unit < last; unit++) {
        const int64_t row = unit / chunks, chunk = unit % chunks;
        profile_chunk(s, tables, rows[2 * row], rows[2 * row + 1], chunk, edges,
                      bins + (chunk * number + row) * BINS, space[0]);
      }
      return DONE;
    });
  });
}

// The smallest and the largest label of some pixels.
struct Labels {
  int64_t low, high;
};

inline Labels extremes_of(const int64_t* labels, int64_t size) {
  Labels found{labels[0], labels[0]};
  for (int64_t i = 1; i < size; i++) {
    found.low = least(found.low, labels[i]);
    found.high = most(found.high, labels[i]);
  }
  return found;
}

// Add the pixels that have only the label of a class; subtract those that are only in its mask.
template <class T>
void exchange_row(const T* probs, const int64_t* labels, int64_t size, int64_t label, T cut,
                  Bin* table) {
  int32_t picked[BLOCK];
  const int64_t number =
      list_where(size, picked, [&](int64_t i) { return (probs[i] > cut) != (labels[i] == label); });
  for (int64_t k = 0; k < number; k++) {
    const double value = static_cast<double>(probs[picked[k]]);
    const double sign = labels[picked[k]] == label ? 1.0 : -1.0;
    Bin& bin = table[bin_of(value)];
    bin.count += sign;
    bin.mass += sign * value;
  }
}

template <class T>
int exchange(const Team* team, const Source& s, const Tables* t, const int64_t* labels,
             const double* cuts, const int64_t* table_row, int64_t number, Bin* out) {
  const Blocks<T> tables(s, t);
  return by_chunks(s, number, out, [&](int64_t chunks, Bin* bins) {
    return share_out(team, s.batch * chunks, values_of(s), [&](int64_t first, int64_t last) {
      T scratch[BLOCK];
      for (int64_t unit = first; unit < last; unit++) {
        const int64_t image = unit / chunks, chunk = unit % chunks;
        for (int64_t b = chunk * CHUNK; b < least(tables.blocks, (chunk + 1) * CHUNK); b++) {
          const Range range = block_range(s, b);
          const int64_t* here = labels + image * s.pixels + range.first;
          const Labels ends = extremes_of(here, range.size);
          for (int64_t label = 0; label < s.classes; label++) {
            const int64_t row = table_row[image * s.classes + label];
            const int64_t at = tables.at(image, label) + b;
            const T cut = round_down<T>(cuts[image * s.classes + label]);
            const bool held = ends.low <= label && label <= ends.high;
            const bool alone = ends.low == label && label == ends.high;
            if (row < 0 || (tables.peak[at] <= cut && !held)) continue;
            if (tables.low[at] > cut && alone) continue;
            exchange_row(read_row(s, image, label, range, scratch), here, range.size, label, cut,
                         bins + (chunk * number + row) * BINS);
          }
        }
      }
      return DONE;
    });
  });
}

}  // namespace

// Write the profiles of `number` rows (image, class) to `out`, (number, BINS), which must be all 0.
RANKSEG_EXPORT(profile)(const Team* team, const Source* s, const Tables* t, const int64_t* rows,
                        int64_t number, const double* edges, double* out) {
  return by_type(s, [&](auto zero) {
    return profile<decltype(zero)>(team, *s, t, rows, number, edges, reinterpret_cast<Bin*>(out));
  });
}

// Write the profiles of the pixels labelled as a class minus those of its mask to `out`.
//
// `out` must be all 0. `table_row` holds the row of `out` for every image and class, or -1 if it
// has none.
RANKSEG_EXPORT(exchange)(const Team* team, const Source* s, const Tables* t, const int64_t* labels,
                         const double* cuts, const int64_t* table_row, int64_t number,
                         double* out) {
  return by_type(s, [&](auto zero) {
    return exchange<decltype(zero)>(team, *s, t, labels, cuts, table_row, number,
                                    reinterpret_cast<Bin*>(out));
  });
}
