/* clang-format off */
/*
 * spank_berth.so: the hooks that Slurm calls, and nothing else that it can see.
 *
 * | hook                 | process                      | user (real/effective/saved) | what Berth does (file)       |
 * |----------------------|------------------------------|-----------------------------|------------------------------|
 * | init                 | srun, sbatch, salloc         | user                        | arguments, options           |
 * | init                 | slurmd                       | root                        | arguments (log only)         |
 * | init                 | slurmstepd, once per step    | root                        | arguments, options           |
 * | init_post_opt        | srun, sbatch, salloc         | user                        | check, pin, carry (submit)   |
 * | job_prolog           | a process of slurmd's        | root                        | berth node prepare (prolog)  |
 * | user_init            | slurmstepd, once per step    | root/user/root              | berth-create step (helper)   |
 * | task_init_privileged | forked task, one thread      | root                        | offer a socket (wait)        |
 * | task_init            | forked task, one thread      | user                        | wait, login, join (wait)     |
 * | task_post_fork       | slurmstepd, tasks are forked | root                        | close the control socket     |
 * | task_exit            | slurmstepd, for each task    | root                        | count it (save)              |
 * | job_epilog           | a process of slurmd's        | root                        | berth node cleanup (prolog)  |
 *
 * init is not called in the processes of job_prolog and job_epilog.
 *
 * A hook that fails on a node drains it, or ends the step with exit code 0
 * although nothing ran; only task_init fails well. So on a node every hook
 * returns success and keeps its failure (failure.h) for task_init.
 *
 * What Slurm does after task_init it does in the container: TaskProlog and
 * --task-prolog, mkdir of $TMPDIR, the look-up of the command in the PATH that
 * the image set (_build_path reads the environment that spank_setenv changed),
 * execve with that environment. exec_task in slurmstepd/task.c has the order.
 *
 * Every descriptor made here is close-on-exec; those that slurmstepd leaves
 * open for the task (PMI_FD) are not touched.
 */
/* clang-format on */
#include <slurm/spank.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "failure.h"
#include "helper.h"
#include "options.h"
#include "prolog.h"
#include "request.h"
#include "save.h"
#include "submit.h"
#include "wait.h"

#define EXPORT __attribute__((visibility("default")))

#pragma GCC visibility push(default)
SPANK_PLUGIN(berth, 1)
#pragma GCC visibility pop

static struct config config;
static char config_error[256];

/* The step's request and control socket, in slurmstepd and its tasks. */
static struct request request;
static int control = -1;

static bool is_submit(void) {
  spank_context_t c = spank_context();
  return c == S_CTX_LOCAL || c == S_CTX_ALLOCATOR;
}

static void read_config(int argc, char **argv) {
  if (!config_read(&config, argc, argv, config_error))
    slurm_error("berth: %s", config_error);
}

EXPORT int slurm_spank_init(spank_t sp, int argc, char **argv) {
  read_config(argc, argv);
  options_register(sp);
  return is_submit() && config_error[0] != '\0' ? -1 : 0;
}

EXPORT int slurm_spank_init_post_opt(spank_t sp, int argc, char **argv) {
  (void)argc;
  (void)argv;
  if (is_submit())
    submit_request(sp, &config, config_error);
  return 0;
}

EXPORT int slurm_spank_job_prolog(spank_t sp, int argc, char **argv) {
  read_config(argc, argv);
  prolog_prepare(sp, &config);
  return 0;
}

EXPORT int slurm_spank_job_epilog(spank_t sp, int argc, char **argv) {
  read_config(argc, argv);
  prolog_cleanup(sp, &config);
  return 0;
}

static char *job_variable(void *context, const char *name) {
  static char value[WIRE_MAX];
  if (spank_getenv(context, name, value, sizeof(value)) != ESPANK_SUCCESS || value[0] == '\0')
    return NULL;
  return strdup(value);
}

/*
 * Without our variables (sbatch --export-file) what Slurm itself carried
 * counts: its options, else the job control environment.
 */
static void read_request(spank_t sp) {
  request_import(&request, "SLURM_BERTH_", job_variable, sp);
  if (!request_wants(&request))
    request = *options_transported();
  if (!request_wants(&request))
    request_import(&request, "SLURM_SPANK_BERTH_", job_variable, sp);
}

EXPORT int slurm_spank_user_init(spank_t sp, int argc, char **argv) {
  (void)argc;
  (void)argv;
  read_request(sp);
  if (!request_wants(&request))
    return 0;
  failure_share();
  if (config_error[0] != '\0')
    failure_keep("this is for the cluster's admin", "%s", config_error);
  else
    control = helper_start(sp, config.create, &request);
  if (request.save != NULL)
    save_count();
  return 0;
}

EXPORT int slurm_spank_task_init_privileged(spank_t sp, int argc, char **argv) {
  (void)argc;
  (void)argv;
  if (control >= 0)
    wait_offer(sp, control);
  return 0;
}

EXPORT int slurm_spank_task_init(spank_t sp, int argc, char **argv) {
  (void)argc;
  (void)argv;
  if (request_wants(&request))
    wait_join(sp, &request, &config);
  return 0;
}

static void close_control(void) {
  if (control >= 0)
    close(control);
  control = -1;
}

/* Once no process of Slurm's has the socket, the helper knows that no task is missing. */
EXPORT int slurm_spank_task_post_fork(spank_t sp, int argc, char **argv) {
  (void)sp;
  (void)argc;
  (void)argv;
  close_control();
  return 0;
}

/* Local task 0 waits for the others before the container is saved. */
EXPORT int slurm_spank_task_exit(spank_t sp, int argc, char **argv) {
  int task = -1;
  (void)argc;
  (void)argv;
  if (request.save != NULL && spank_get_item(sp, S_TASK_ID, &task) == ESPANK_SUCCESS && task != 0)
    save_ended();
  return 0;
}

EXPORT int slurm_spank_exit(spank_t sp, int argc, char **argv) {
  (void)sp;
  (void)argc;
  (void)argv;
  close_control();
  return 0;
}
