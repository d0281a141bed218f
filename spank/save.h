/*
 * save: --container-save. Local task 0 splits in two before it enters the
 * container: the process that Slurm started becomes `berth save-step`, outside,
 * and a child of it goes on as the task. When the child and the node's other
 * tasks have ended, berth saves the container and ends with the task's exit
 * code, or with one of its own if the container could not be saved.
 *
 * So Slurm waits for it as for any task: it is signalled, limited, accounted
 * and killed with the step, and no hook of slurmstepd's waits for a disk or a
 * registry.
 */
#ifndef BERTH_SAVE_H
#define BERTH_SAVE_H

#include <stdbool.h>
#include <stddef.h>

enum { SAVE_FDS_MAX = 3 };

/* What the helper answered: a message in wire.h's format. */
struct save_said {
  const char *data;
  size_t len;
};

struct save {
  const char *berth;  /* the program */
  const char *target; /* --container-save */
  char **env;         /* the job's */
  int tasks;          /* of the step on this node */
  bool batch;         /* the task is a batch script */
  int mount;          /* the container's mount namespace */
  /* The records of the answer whose keys begin with "save" are handed on, with
   * their descriptors. */
  struct save_said said;
  int fds[SAVE_FDS_MAX];
  int fd_count;
};

/*
 * save_count runs in user_init: it makes what tasks are counted with. A
 * failure is kept.
 */
void save_count(void);

/* save_joined counts a task of the node's that is in the container. */
void save_joined(void);

/* save_ended runs in slurmstepd and counts a task that has ended: of the node's, all but the
 * first. */
void save_ended(void);

/*
 * save_split returns true in the child, which is the task from then on; false
 * with the failure kept. The child dies, and berth says why, if there is no
 * hope that the container can be saved.
 */
bool save_split(const struct save *s);

#endif
