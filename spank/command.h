#ifndef BERTH_COMMAND_H
#define BERTH_COMMAND_H

#include <slurm/spank.h>

/*
 * Says why Slurm will not be able to start the step's command in the container
 * that this task has joined, if that can be told: there is none of that name,
 * it is not executable, or its interpreter is missing. Slurm fails every task
 * with an errno; this is the line that tells the user what to do. prologs are
 * the task prologs that Slurm starts first, or NULLs.
 */
void command_explain(spank_t sp, const char *const prologs[2]);

#endif
