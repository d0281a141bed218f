/*
 * options: the plugin's command-line options, the same in srun, sbatch and
 * salloc, their environment forms, and which of several values counts.
 *
 * A value can come from four places; the nearest counts, for each value alone:
 *   1. the command line (with #SBATCH lines);
 *   2. the options of the job, in an srun inside it (Slurm hands them on);
 *   3. BERTH_CONTAINER_<NAME>, else PYXIS_CONTAINER_<NAME>; empty is unset;
 *   4. what the job was asked for by way of 3, in an srun inside it.
 */
#ifndef BERTH_OPTIONS_H
#define BERTH_OPTIONS_H

#include <slurm/spank.h>
#include <stdbool.h>

#include "request.h"

/* options_register must run in slurm_spank_init of every process of Slurm's. */
void options_register(spank_t sp);

/*
 * options_merge fills r, at submit. in_job: this is an srun inside a job. It
 * returns false with a line for the user in error.
 */
bool options_merge(bool in_job, struct request *r, char error[512]);

/* What the command line alone said: on the submit host. */
const struct request *options_command_line(void);

/* Whether the command line has any of the options, whatever its value. */
bool options_given(void);

/* What Slurm transported: on the node. The last call of a callback wins. */
const struct request *options_transported(void);

/* options_prolog_image returns --container-image in job_prolog, or NULL. */
const char *options_prolog_image(spank_t sp);

#endif
