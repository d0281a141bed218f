/*
 * task: makes the calling process a command in a container, for berth-join and
 * for what joins a container that stands ready. Runs as the user who owns the
 * container's namespaces.
 */
#ifndef BERTH_TASK_H
#define BERTH_TASK_H

#include "join.h"

enum {
  EXIT_USAGE = 64,
  EXIT_BUG = 70,
  EXIT_SITE = 75,
  EXIT_CANNOT_RUN = 126,
  EXIT_NOT_FOUND = 127
};

struct task {
  struct join_namespaces ns;
  int result;
  int pid;           /* a descriptor, or one of pid.h's words */
  const char **keep; /* names of variables that keep the host's value: comma lists */
  size_t keep_count;
  const char *cwd; /* where the command starts if the container has that folder; NULL for none */
  bool hold;       /* stay in the container and run nothing; see berth-join/main.c */
  char **command;
};

/*
 * task_run joins, gives the process's environment the image's variables, closes
 * the task's own descriptors and becomes the command. It returns only when that
 * fails: the exit status, with the reason printed.
 */
int task_run(const struct task *t);

#endif
