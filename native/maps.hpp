// Probability maps in memory, of any strides and of four types: no layout needs a copy.
#pragma once

#include "base.hpp"
#include "exponential.hpp"
#include "threads.hpp"

// The type of the values in memory, and what they are: probabilities or logits.
enum Type : int64_t { FLOAT32, FLOAT64, FLOAT16, BFLOAT16 };
enum Content : int64_t { PROBABILITIES, SOFTMAX, SIGMOID };

// Where the maps (batch, classes, *spatial) lie. Mirrored by `Source` in `native_library.py`.
struct Source {
  const void* values;  // the first value
  int64_t type;
  int64_t direct;  // the pixels of a class lie one after the other, and may be read as they are
  int64_t batch, classes, pixels;
  int64_t batch_stride, class_stride;
  int64_t axes;  // spatial axes, merged where memory allows
  const int64_t* sizes;
  const int64_t* strides;
  const uint8_t* valid;  // (batch, pixels), or null
  int64_t content;
  const void* logs;     // (batch, pixels) for softmax: `write_logs`
  const int8_t* rests;  // and their rounding errors
};

// Results of the survey for every block, (batch, classes, blocks) each.
struct Tables {
  double* mass;
  void* low;
  void* peak;
};

namespace {

inline int64_t blocks_of(const Source& s) { return divided_up(s.pixels, BLOCK); }
inline int64_t groups_of(const Source& s) { return divided_up(blocks_of(s), GROUP); }
inline int64_t values_of(const Source& s) { return s.batch * s.classes * s.pixels; }

// The tables as arrays of the type of the values.
template <class T>
struct Blocks {
  int64_t classes, blocks;
  double* mass;
  T* low;
  T* peak;

  Blocks(const Source& s, const Tables* t)
      : classes(s.classes),
        blocks(blocks_of(s)),
        mass(t->mass),
        low(static_cast<T*>(t->low)),
        peak(static_cast<T*>(t->peak)) {}

  // The index of the first block of a class of an image.
  int64_t at(int64_t image, int64_t label) const { return (image * classes + label) * blocks; }
};

// A range of pixels of an image, usually those of a block.
struct Range {
  int64_t first, size;
};

inline Range block_range(const Source& s, int64_t block) {
  const int64_t first = block * BLOCK;
  return {first, least(BLOCK, s.pixels - first)};
}

inline float widened16(uint16_t half) {
  const uint32_t magnitude = half & 0x7FFFu, sign = (half & 0x8000u) << 16;
  const float small = static_cast<float>(magnitude) * 0x1p-24f;  // subnormal
  const float normal = std::bit_cast<float>((magnitude << 13) + (112u << 23));
  const float value = magnitude < 0x0400u ? small : normal;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}

// Copy float16 or bfloat16 as float32.
//
// Infinity and NaN of float16 become finite values of at least 65536 in magnitude. The survey
// refuses them as probabilities; in logits, `mark_not_finite` replaces them by NaN.
inline void copy(const uint16_t* values, int64_t step, Type type, float* probs, int64_t size) {
  if (type == FLOAT16) {
    for (int64_t i = 0; i < size; i++) probs[i] = widened16(values[i * step]);
  } else {
    for (int64_t i = 0; i < size; i++) {
      probs[i] = std::bit_cast<float>(static_cast<uint32_t>(values[i * step]) << 16);
    }
  }
}

template <class T>
inline void copy(const T* values, int64_t step, Type, T* probs, int64_t size) {
  if (step == 1) {
    std::memcpy(probs, values, static_cast<size_t>(size) * sizeof(T));
  } else {
    for (int64_t i = 0; i < size; i++) probs[i] = values[i * step];
  }
}

// Copy the values of a range of pixels, run by run along the innermost axis.
//
// `start` is the position in memory of pixel 0 of the class.
template <class Stored, class T>
void load(const Source& s, int64_t start, Range range, T* probs) {
  const Stored* values = static_cast<const Stored*>(s.values);
  const int64_t inner = s.sizes[s.axes - 1], step = s.strides[s.axes - 1];
  for (int64_t done = 0; done < range.size;) {
    int64_t outer = (range.first + done) / inner;
    const int64_t first = (range.first + done) % inner;
    int64_t position = start + first * step;
    for (int64_t axis = s.axes - 2; axis >= 0; axis--) {
      position += outer % s.sizes[axis] * s.strides[axis];
      outer /= s.sizes[axis];
    }
    const int64_t run = least(range.size - done, inner - first);
    copy(values + position, step, static_cast<Type>(s.type), probs + done, run);
    done += run;
  }
}

inline void load_row(const Source& s, int64_t start, Range range, double* probs) {
  load<double>(s, start, range, probs);
}

inline void load_row(const Source& s, int64_t start, Range range, float* probs) {
  if (s.type == FLOAT32) {
    load<float>(s, start, range, probs);
  } else {
    load<uint16_t>(s, start, range, probs);
  }
}

// Replace infinity and NaN of float16 by NaN: `copy` made them finite.
template <class T>
void mark_not_finite(const Source& s, T* probs, int64_t size) {
  if (s.type != FLOAT16) return;
  for (int64_t i = 0; i < size; i++) {
    probs[i] = std::abs(probs[i]) <= T(65504) ? probs[i] : std::numeric_limits<T>::quiet_NaN();
  }
}

// Write 0 to the pixels that are not valid.
template <class T>
void blank(const Source& s, int64_t image, Range range, T* probs) {
  if (s.valid == nullptr) return;
  const uint8_t* valid = s.valid + image * s.pixels + range.first;
  for (int64_t i = 0; i < range.size; i++) probs[i] = valid[i] ? probs[i] : T(0);
}

// Return the probabilities of a class in a range of at most BLOCK pixels; 0 if not valid.
//
// `scratch` has room for BLOCK values. The result points to `scratch`, or to the maps themselves.
template <class T>
const T* read_row(const Source& s, int64_t image, int64_t label, Range range, T* scratch) {
  const int64_t start = image * s.batch_stride + label * s.class_stride;
  if (s.direct) return static_cast<const T*>(s.values) + start + range.first;
  load_row(s, start, range, scratch);
  if (s.content != PROBABILITIES) {
    mark_not_finite(s, scratch, range.size);
    if (s.content == SOFTMAX) {
      const int64_t at = image * s.pixels + range.first;
      softmax_row(scratch, static_cast<const T*>(s.logs) + at, s.rests + at, range.size);
    } else {
      sigmoid_row(scratch, range.size);
    }
  }
  blank(s, image, range, scratch);
  return scratch;
}

// Call `function(T())` with the type in which the kernels read the values: float or double.
template <class Function>
int by_type(const Source* s, Function function) {
  return s->type == FLOAT64 ? function(double()) : function(float());
}

// Write what `write_logs` says for every pixel.
//
// Each block passes all classes twice: first for the largest logit, then for the sum.
template <class T>
int log_sums(const Team* team, const Source& s, T* logs, int8_t* rests) {
  const int64_t groups = groups_of(s), blocks = blocks_of(s);
  return share_out(team, s.batch * groups, values_of(s), [&](int64_t first, int64_t last) {
    T row[BLOCK], tops[BLOCK];
    double totals[BLOCK];
    for (int64_t unit = first; unit < last; unit++) {
      const int64_t image = unit / groups, group = unit % groups;
      for (int64_t b = group * GROUP; b < least(blocks, (group + 1) * GROUP); b++) {
        const Range range = block_range(s, b);
        for (int64_t i = 0; i < BLOCK; i++) {
          tops[i] = -std::numeric_limits<T>::infinity();
          totals[i] = 0.0;
        }
        for (int64_t step = 0; step < 2 * s.classes; step++) {
          const int64_t start = image * s.batch_stride + step % s.classes * s.class_stride;
          load_row(s, start, range, row);
          mark_not_finite(s, row, range.size);
          blank(s, image, range, row);
          if (step < s.classes) {
            for (int64_t i = 0; i < range.size; i++) tops[i] = most(tops[i], row[i]);
          } else {
            add_exponentials(row, tops, totals, range.size);
          }
        }
        const int64_t at = image * s.pixels + range.first;
        write_logs(tops, totals, logs + at, rests + at, range.size);
      }
    }
    return DONE;
  });
}

}  // namespace

// Write `logs` and `rests` of `Source`, for softmax.
RANKSEG_EXPORT(log_sums)(const Team* team, const Source* s, void* logs, int8_t* rests) {
  return by_type(
      s, [&](auto zero) { return log_sums(team, *s, static_cast<decltype(zero)*>(logs), rests); });
}
