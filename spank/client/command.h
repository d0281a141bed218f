/* command: starts one of Slurm's commands on the node, as a call says. */
#ifndef BERTH_CLIENT_COMMAND_H
#define BERTH_CLIENT_COMMAND_H

#include <sys/types.h>

#include "channel.h"

/*
 * command_start starts the call that comes with these descriptors and returns
 * its process id, or -1. What goes wrong later is said on the caller's
 * standard error, and the exit status is a shell's (126, 127).
 *
 * The program is the one that this process finds in its own PATH, the node's;
 * the caller's environment, which is the container's, goes to it for the tasks
 * that it starts, but for what would load the image's libraries into it
 * (LD_*, GLIBC_TUNABLES): those are this process's own.
 */
pid_t command_start(const int fds[CHANNEL_FDS]);

#endif
