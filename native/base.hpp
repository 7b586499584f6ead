// What every kernel uses: the size of blocks, rows of values, sums in a fixed order.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>

// `kernels.cpp` is compiled once for each level of instructions (v1, v3, v4 or neon). The names of
// exported functions end in the level. All other functions are in an unnamed namespace: otherwise
// the linker might replace a function of one level by that of another level.
#define RANKSEG_JOIN(name, level) rankseg_##name##_##level
#define RANKSEG_NAMED(name, level) RANKSEG_JOIN(name, level)
#define RANKSEG_EXPORT(name) \
  extern "C" __attribute__((visibility("default"))) int RANKSEG_NAMED(name, RANKSEG_LEVEL)

namespace {

// Pixels of a block: 4 KiB of float32, so that a block stays in the first-level cache.
constexpr int64_t BLOCK = 1024;

// Blocks of a group. Most work is shared out by groups, and one thread sums a group in order.
constexpr int64_t GROUP = 16;

constexpr double INFINITE = std::numeric_limits<double>::infinity();

enum Status : int { DONE = 0, OUT_OF_MEMORY = 1 };

template <class T>
T least(T a, T b) {
  return b < a ? b : a;
}

template <class T>
T most(T a, T b) {
  return a < b ? b : a;
}

constexpr int64_t divided_up(int64_t number, int64_t by) { return (number + by - 1) / by; }

// Memory for work, all 0 at first. The allocation may fail: check `ok` before use.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size)
      : data_(static_cast<T*>(std::calloc(static_cast<size_t>(size > 0 ? size : 1), sizeof(T)))) {}
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  bool ok() const { return data_ != nullptr; }
  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_;
};

// Four values at a time. The compiler turns them into the instructions of the level.
using Double4 = double __attribute__((vector_size(32)));
using Float4 = float __attribute__((vector_size(16)));
using Mask4 = int64_t __attribute__((vector_size(32)));

inline Double4 load4(const double* from) {
  Double4 values;
  std::memcpy(&values, from, sizeof values);
  return values;
}

inline Double4 load4(const float* from) {
  Float4 values;
  std::memcpy(&values, from, sizeof values);
  return __builtin_convertvector(values, Double4);
}

inline Double4 only(Mask4 mask, Double4 values) { return (Double4)((Mask4)values & mask); }

inline double total(Double4 sum) { return (sum[0] + sum[1]) + (sum[2] + sum[3]); }
inline int64_t total(Mask4 sum) { return (sum[0] + sum[1]) + (sum[2] + sum[3]); }

// Call `add(k, values)` for every four values of an array, with `k` from 0 to 3 in turn.
//
// With one accumulator for each `k`, a sum depends on the array alone, not on the level. `padding`
// fills the array up to a multiple of sixteen values.
template <class T, class Add>
inline void by_fours(const T* probs, int64_t size, T padding, Add add) {
  int64_t i = 0;
  for (; i + 16 <= size; i += 16) {
    for (int k = 0; k < 4; k++) add(k, load4(probs + i + 4 * k));
  }
  if (i < size) {
    T rest[16];
    for (int64_t j = 0; j < 16; j++) rest[j] = i + j < size ? probs[i + j] : padding;
    for (int k = 0; k < 4; k++) add(k, load4(rest + 4 * k));
  }
}

// Call `add(values, there)` for every sixteen values of an array. Beyond the last value, `there` is
// false and `values` are 0.
template <class T, class Add>
inline void by_sixteens(const T* probs, int64_t size, Add add) {
  Double4 values[4] = {};
  Mask4 there[4] = {Mask4{} - 1, Mask4{} - 1, Mask4{} - 1, Mask4{} - 1};
  int64_t i = 0;
  for (; i + 16 <= size; i += 16) {
    for (int k = 0; k < 4; k++) values[k] = load4(probs + i + 4 * k);
    add(values, there);
  }
  if (i < size) {
    for (int64_t j = 0; j < 16; j++) {
      values[j / 4][j % 4] = i + j < size ? static_cast<double>(probs[i + j]) : 0.0;
      there[j / 4][j % 4] = i + j < size ? -1 : 0;
    }
    add(values, there);
  }
}

template <class T>
inline double sum(const T* probs, int64_t size) {
  Double4 sums[4] = {};
  by_fours(probs, size, T(0), [&](int k, Double4 values) { sums[k] += values; });
  return total((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

struct CountAndSum {
  int64_t count;
  double sum;
};

// Count and sum the values for which `inside` is true. It must be false for `padding`.
template <class T, class Inside>
inline CountAndSum count_and_sum(const T* probs, int64_t size, T padding, Inside inside) {
  Double4 sums[4] = {};
  Mask4 counts[4] = {};  // minus the counts: a true mask is -1
  by_fours(probs, size, padding, [&](int k, Double4 values) {
    const Mask4 mask = inside(values);
    sums[k] += only(mask, values);
    counts[k] += mask;
  });
  return {-total((counts[0] + counts[1]) + (counts[2] + counts[3])),
          total((sums[0] + sums[1]) + (sums[2] + sums[3]))};
}

template <class T>
inline CountAndSum sum_above(const T* probs, int64_t size, T cut) {
  const Double4 above = Double4{} + static_cast<double>(cut);
  return count_and_sum(probs, size, -std::numeric_limits<T>::infinity(),
                       [&](Double4 values) -> Mask4 { return values > above; });
}

template <class T>
inline CountAndSum sum_between(const T* probs, int64_t size, T low, T high) {
  const Double4 above = Double4{} + static_cast<double>(low);
  const Double4 up_to = Double4{} + static_cast<double>(high);
  return count_and_sum(
      probs, size, -std::numeric_limits<T>::infinity(),
      [&](Double4 values) -> Mask4 { return (values > above) & (values <= up_to); });
}

inline Mask4 load_marks(const int64_t* from) {
  Mask4 marks;
  std::memcpy(&marks, from, sizeof marks);
  return marks;
}

inline Mask4 load_marks(const int32_t* from) {
  using Int4 = int32_t __attribute__((vector_size(16)));
  Int4 marks;
  std::memcpy(&marks, from, sizeof marks);
  return __builtin_convertvector(marks, Mask4);
}

// Count and sum the values whose mark equals `chosen`.
template <class T, class Mark>
CountAndSum sum_marked(const T* probs, const Mark* marks, int64_t size, Mark chosen) {
  Double4 sums[2] = {};
  Mask4 counts[2] = {};
  const Mask4 wanted = Mask4{} + static_cast<int64_t>(chosen);
  int64_t i = 0;
  for (; i + 8 <= size; i += 8) {
    for (int k = 0; k < 2; k++) {
      const Mask4 mask = load_marks(marks + i + 4 * k) == wanted;
      sums[k] += only(mask, load4(probs + i + 4 * k));
      counts[k] += mask;
    }
  }
  CountAndSum found{-total(counts[0] + counts[1]), total(sums[0] + sums[1])};
  for (; i < size; i++) {
    found.count += marks[i] == chosen;
    found.sum += marks[i] == chosen ? static_cast<double>(probs[i]) : 0.0;
  }
  return found;
}

// List the places i < size for which `chosen(i)` is true; return their number. `size` <= BLOCK.
//
// Usually few places are chosen. So the marks are tested 32 at a time, and only groups of 32 with a
// mark are searched.
template <class Chosen>
int64_t list_where(int64_t size, int32_t* picked, Chosen chosen) {
  uint8_t marks[BLOCK];
  const int64_t end = divided_up(size, 32) * 32;
  for (int64_t i = 0; i < size; i++) marks[i] = chosen(i);
  for (int64_t i = size; i < end; i++) marks[i] = 0;
  int64_t number = 0;
  for (int64_t start = 0; start < end; start += 32) {
    uint64_t words[4];
    std::memcpy(words, marks + start, sizeof words);
    if ((words[0] | words[1] | words[2] | words[3]) == 0) continue;
    for (int64_t k = 0; k < 4; k++) {
      for (uint64_t word = words[k]; word != 0; word &= word - 1) {
        picked[number++] = static_cast<int32_t>(start + 8 * k + __builtin_ctzll(word) / 8);
      }
    }
  }
  return number;
}

// Round down to the type of the values: a T exceeds the result exactly if it exceeds `value`.
template <class T>
inline T round_down(double value) {
  const T rounded = static_cast<T>(value);
  return static_cast<double>(rounded) > value
             ? std::nextafter(rounded, -std::numeric_limits<T>::infinity())
             : rounded;
}

inline double next_below(double value) { return std::nextafter(value, -INFINITE); }

}  // namespace
