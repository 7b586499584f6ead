// Start threads, and find out which instructions the processor has.
//
// This file is compiled with instructions that every processor has.
#include "threads.hpp"

#include <pthread.h>

#include <cstdlib>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace {

struct Member {
  void (*work)(void*);
  void* data;
};

void* enter(void* member) {
  const Member& self = *static_cast<Member*>(member);
  self.work(self.data);
  return nullptr;
}

}  // namespace

// POSIX threads instead of std::thread: the library then needs no C++ runtime. The process may have
// loaded another version of that runtime. The compiler that `pip install` brings would also need
// two minutes to compile a runtime.
extern "C" __attribute__((visibility("hidden"))) void rankseg_start(const Team* team,
                                                                    void (*member)(void*),
                                                                    void* data, int64_t threads) {
  if (team->start != nullptr) {
    team->start(member, data, static_cast<unsigned>(threads), 0);
    return;
  }
  Member self{member, data};
  auto* others = static_cast<pthread_t*>(calloc(static_cast<size_t>(threads), sizeof(pthread_t)));
  int64_t started = 0;
  if (others != nullptr) {  // if no more threads start, those that did do all the work
    while (started + 1 < threads && pthread_create(&others[started], nullptr, enter, &self) == 0) {
      ++started;
    }
  }
  member(data);
  while (started > 0) pthread_join(others[--started], nullptr);
  free(others);
}

#if defined(__x86_64__)
namespace {

bool has(unsigned word, unsigned bits) { return (word & bits) == bits; }

// Return which registers the system saves when it switches threads: one bit for each kind.
unsigned saved_registers() {
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

}  // namespace
#endif

// Return the best level of instructions that this processor has.
extern "C" __attribute__((visibility("default"))) const char* rankseg_level() {
#if defined(__x86_64__)
  unsigned a, b, c, d;
  constexpr unsigned FMA_MOVBE_XSAVE_AVX_F16C =
      1u << 12 | 1u << 22 | 1u << 27 | 1u << 28 | 1u << 29;
  constexpr unsigned BMI1_AVX2_BMI2 = 1u << 3 | 1u << 5 | 1u << 8;
  constexpr unsigned AVX512_F_DQ_CD_BW_VL = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, FMA_MOVBE_XSAVE_AVX_F16C)) return "v1";
  const unsigned saved = saved_registers();
  if (!has(saved, 0x06)) return "v1";
  if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !has(c, 1u << 5)) return "v1";  // LZCNT
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, BMI1_AVX2_BMI2)) return "v1";
  return has(b, AVX512_F_DQ_CD_BW_VL) && has(saved, 0xe6) ? "v4" : "v3";
#elif defined(__aarch64__)
  return "neon";
#else
  return "any";
#endif
}
