/*
 * devices: the variables of a task that say which devices its container gets.
 */
#ifndef BERTH_DEVICES_H
#define BERTH_DEVICES_H

#include <slurm/spank.h>

#include "wire.h"

/*
 * devices_tell adds a record variable=NAME=VALUE for each variable of the
 * task's environment that tells of devices or of MPI, in task_init. All of it
 * is the user's word. Long ones are left out.
 */
void devices_tell(spank_t sp, struct wire_writer *w);

#endif
