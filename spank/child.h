/*
 * child: starts one of Berth's programs from a process of Slurm's. The child
 * gets the descriptors it is given and no other, no blocked signals, and the
 * environment it is given. Between fork and exec it makes only
 * async-signal-safe calls: slurmstepd, srun and sbatch have threads.
 */
#ifndef BERTH_CHILD_H
#define BERTH_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct child {
  const char *path;
  char *const *argv;
  char *const *env;
  /* Descriptors of the caller that become 0 to 3; -1: /dev/null (for 3: none). */
  int fds[4];
  /* All ids become 0. The caller's real or saved user id is 0 already. */
  bool as_root;
  /* A session of its own, the root folder, umask 022. */
  bool own_session;
  /* The same, but in the caller's folder and with its umask. */
  bool in_place;
  /* Not our child but init's, so that nobody here has to wait for it. */
  bool orphan;
  /* The signal that it gets when this process, which has one thread, ends; 0: none. */
  int ends_with_us;
};

/* What is read from one end of a pipe; -1 once that is at its end. */
struct child_output {
  int fd;
  char *buf;
  size_t cap; /* one more than what fits; the rest is read and dropped */
  size_t len;
  bool over; /* there was more than fits */
};

/* The environment of every program that runs as root. */
extern char *const child_root_env[];

/*
 * child_start returns once the program runs: its process id (0 for an
 * orphan), or -1 with errno set, also if it can't be executed.
 */
pid_t child_start(const struct child *c);

/*
 * child_wait waits at most timeout_ms for a child and returns true with its
 * wait status, or -1 as the status where Slurm has collected it. It returns
 * false if the child still runs.
 */
bool child_wait(pid_t pid, int timeout_ms, int *status);

/*
 * child_end waits as child_wait does and then kills the child, with its
 * process group if it has its own session. Returns what child_wait returned.
 */
bool child_end(pid_t pid, bool own_session, int timeout_ms, int *status);

/* child_collect reads until all ends are closed, or the deadline (child_clock_ms). */
void child_collect(struct child_output *out, int count, long long deadline);

/* Milliseconds of a clock that nobody sets. */
long long child_clock_ms(void);

#endif
