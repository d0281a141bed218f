/*
 * submit: in srun, sbatch and salloc, as the user: the options become a
 * request, its image is pinned to a digest, and both go into the job's
 * environment and into the prolog's.
 */
#ifndef BERTH_SUBMIT_H
#define BERTH_SUBMIT_H

#include <slurm/spank.h>

#include "config.h"

/*
 * submit_request ends the program (exit code 1) where the job must not be
 * submitted: under `optional` in plugstack.conf Slurm ignores an error.
 * config_error: what is wrong with the plugin's arguments, or "".
 */
void submit_request(spank_t sp, const struct config *config, const char *config_error);

#endif
