/*
 * commands: Slurm's own commands in the container (--container-slurm). The
 * task starts a helper of the user's before it enters, which runs them on the
 * node; client/ has both ends.
 */
#ifndef BERTH_COMMANDS_H
#define BERTH_COMMANDS_H

#include <slurm/spank.h>

enum { COMMANDS_NAME_SIZE = 64 };

/*
 * commands_serve starts the helper for this task: outside, as the user, in the
 * task's cgroup. name gets the name of its socket. Returns -1 with errno set.
 */
int commands_serve(spank_t sp, const char *program, char name[COMMANDS_NAME_SIZE]);

/* commands_offer tells the command that the task becomes, after the image's variables are set. */
int commands_offer(spank_t sp, const char *name);

#endif
