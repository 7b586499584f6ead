// Threads that share out units of work.
#pragma once

#include <cstdint>

// How many threads work, and who starts them.
//
// `start` is the function of torch's OpenMP library that starts a team: `GOMP_parallel`. After an
// operation, torch's threads spin for about a millisecond in wait of the next one. Threads of
// another library would compete with them for the cores. Without it (null), threads are made anew.
//
// `values_per_task` is the least number of values in a task. To wake a thread costs about as much as
// 0.1 ms of work.
struct Team {
  void (*start)(void (*member)(void*), void* data, unsigned threads, unsigned flags);
  int64_t threads;
  int64_t values_per_task;
};

// Let `threads` threads, this one among them, each call `member(data)` once.
extern "C" void rankseg_start(const Team* team, void (*member)(void*), void* data, int64_t threads);

namespace {

template <class Job>
struct Work {
  const Job& job;
  int64_t units, tasks, next;
  int status;

  static void go_through(void* data) {
    Work& work = *static_cast<Work*>(data);
    for (;;) {
      const int64_t task = __atomic_fetch_add(&work.next, 1, __ATOMIC_RELAXED);
      if (task >= work.tasks) return;
      const int status = work.job(work.units * task / work.tasks, work.units * (task + 1) / work.tasks);
      if (status != 0) __atomic_store_n(&work.status, status, __ATOMIC_RELAXED);
    }
  }
};

// Call `job(first, last)` for ranges of units, on as many threads as pay for `values` values.
//
// A unit is done by one thread. `job` returns a `Status`, and so does this function: that of a range
// that failed, if one did.
template <class Job>
int share_out(const Team* team, int64_t units, int64_t values, const Job& job) {
  int64_t tasks = 4 * team->threads;
  if (units < tasks) tasks = units;
  if (values / team->values_per_task < tasks) tasks = values / team->values_per_task;
  if (tasks <= 1 || team->threads <= 1) return units > 0 ? job(0, units) : 0;
  Work<Job> work{job, units, tasks, 0, 0};
  rankseg_start(team, &Work<Job>::go_through, &work, tasks < team->threads ? tasks : team->threads);
  return work.status;
}

}  // namespace
