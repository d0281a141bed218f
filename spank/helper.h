/*
 * helper: starts `berth-create step`, the process that makes the container of
 * this step on this node. It runs as root with a fixed environment, in a
 * session of its own, with the control socket as descriptor 3 and nothing
 * else of slurmstepd's.
 */
#ifndef BERTH_HELPER_H
#define BERTH_HELPER_H

#include <slurm/spank.h>

#include "request.h"

/*
 * helper_start runs in user_init: root as real and saved user id, the user as
 * the effective one. It returns our end of the control socket, or -1 with the
 * failure kept.
 */
int helper_start(spank_t sp, const char *create, const struct request *r);

#endif
