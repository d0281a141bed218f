/*
 * entrypoint: the image's entrypoint, run by one task of a container before
 * the others begin, and its variables for all of them (variables.h says how
 * that is kept). The task is in the container by then, as the user; a signal
 * that ends it ends the entrypoint.
 */
#ifndef BERTH_ENTRYPOINT_H
#define BERTH_ENTRYPOINT_H

#include <stdbool.h>

#include "join.h"

/* What the task has to do with it. */
struct entrypoint_task {
  bool runs;        /* if nobody has: local task 0 of a step */
  bool log;         /* what it prints is shown as it comes, not only if it fails */
  char *const *env; /* the task's environment, as the entrypoint gets it */
};

/*
 * entrypoint_take waits until the container's entrypoint has run, or runs it,
 * and sets what it changed in env. Returns 0, also for a container without one;
 * or -1 with err filled.
 */
int entrypoint_take(const struct join_result *result, const struct join_environment *env,
                    const struct entrypoint_task *task, struct join_error *err);

#endif
