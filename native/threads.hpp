// Share out units of work to threads.
#pragma once

#include <cstdint>

// How many threads work, and who starts them.
//
// `start` is the function of torch's OpenMP library that starts a team: `GOMP_parallel`. After an
// operation, torch's threads spin for about a millisecond while they wait for the next operation.
// Threads of another library would compete with torch's threads for the cores. If `start` is null,
// each call creates new threads.
//
// `values_per_task` is the least number of values in a task. Waking a thread costs about as much as
// 0.1 ms of work.
struct Team {
  void (*start)(void (*member)(void*), void* data, unsigned threads, unsigned flags);
  int64_t threads;
  int64_t values_per_task;
};

// Call `member(data)` once on each of `threads` threads, one of which is the calling thread.
//
// There are fewer calls if the system starts no more threads.
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
      const int status =
          work.job(work.units * task / work.tasks, work.units * (task + 1) / work.tasks);
      if (status != 0) __atomic_store_n(&work.status, status, __ATOMIC_RELAXED);
    }
  }
};

// Call `job(first, last)` for ranges of units, on as many threads as `values` values are worth.
//
// One thread does a unit. `job` returns a `Status`. The result is the status of a range that
// failed, or 0 if none failed.
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
