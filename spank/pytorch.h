/*
 * pytorch: the variables by which the processes of a PyTorch program find each
 * other (torch.distributed, init_method env://), for steps whose image sets
 * PYTORCH_VERSION, as NVIDIA's and others do.
 *
 *   RANK, LOCAL_RANK, WORLD_SIZE   the task's number in the step, on its node,
 *                                  and how many tasks the step has
 *   MASTER_ADDR                    the first node of the step
 *   MASTER_PORT                    20000 to 29999, by the job's and step's numbers
 *
 * The first three are the step's also where the environment of srun has others,
 * of a rank that started it; the last two stay what the job has set.
 */
#ifndef BERTH_PYTORCH_H
#define BERTH_PYTORCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "join.h"

/*
 * pytorch_set sets them for a task, once join_set_environment has been called
 * with the same arguments: of what is there and what the user keeps
 * (env->keep) nothing is lost. Returns 0, or -1 if one could not be set.
 */
int pytorch_set(const struct join_result *result, const struct join_environment *env, uint32_t job,
                uint32_t step);

/*
 * pytorch_first_host writes the first name of a list of hosts as Slurm writes
 * them ("n[1-3,7],m"); false if it has none, or none that fits.
 */
bool pytorch_first_host(const char *list, char *host, size_t size);

/* pytorch_port is the port for a step. Steps that follow each other differ. */
unsigned pytorch_port(uint32_t job, uint32_t step);

#endif
