/*
 * failure: what went wrong on this node, kept until a task can say it.
 *
 * A hook of slurmstepd that fails drains the node, or ends the step with exit
 * code 0 although nothing ran. So hooks keep their failure and return success,
 * and task_init ends every task with exit code 1. Of all tasks of the step on
 * this node, the first one that fails speaks.
 */
#ifndef BERTH_FAILURE_H
#define BERTH_FAILURE_H

#include <stdbool.h>

/*
 * failure_share makes tasks forked from now on know whether one of them has
 * spoken. Without it (no memory) each speaks.
 */
void failure_share(void);

/* failure_keep remembers the first failure: a cause, and a remedy or NULL. */
__attribute__((format(printf, 2, 3))) void failure_keep(const char *remedy, const char *cause, ...);

bool failure_kept(void);

/*
 * failure_end prints the failure that was kept on stderr, if no other task of
 * this node has, and ends the calling task with exit code 1. It does not
 * return an error to Slurm: under `optional` in plugstack.conf Slurm would
 * ignore that and run the task on the host.
 */
__attribute__((noreturn)) void failure_end(void);

/* failure_progress prints one line of progress on stderr. */
void failure_progress(const char *text);

#endif
