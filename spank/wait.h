/*
 * wait: a task's side of the start. The task sends the helper one end of a
 * socket pair while it is root, then, as the user, says what it needs, waits
 * for the container and joins it. Signals keep their default action, so
 * scancel and the time limit end the wait like any task.
 */
#ifndef BERTH_WAIT_H
#define BERTH_WAIT_H

#include <slurm/spank.h>

#include "config.h"
#include "request.h"

/* wait_offer runs in task_init_privileged. It closes control in this process. */
void wait_offer(spank_t sp, int control);

/*
 * wait_join runs in task_init. It returns in the container, or ends the
 * process with exit code 1. config names the programs that it may start: berth
 * for a login (login.h), and what serves Slurm's commands (commands.h).
 */
void wait_join(spank_t sp, const struct request *r, const struct config *config);

#endif
