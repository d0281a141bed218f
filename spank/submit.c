#include "submit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "cmdline.h"
#include "options.h"
#include "request.h"
#include "resolve.h"

__attribute__((noreturn)) static void refuse(const char *why) {
  slurm_error("berth: %s", why);
  exit(1);
}

static const char *without(const char *line, const char *lead) {
  size_t len = strlen(lead);
  return strncmp(line, lead, len) == 0 ? line + len : line;
}

/*
 * Prints what berth wrote, line by line. What does not stop the job is not
 * called an error.
 */
static void say_lines(char *text, bool is_error) {
  char *rest = NULL;
  for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
    const char *words = without(line, "berth: ");
    slurm_spank_log("berth: %s", is_error ? words : without(words, "error: "));
  }
}

static bool is_pin(const struct request *r, const char *word) {
  return r->pin != NULL && strcmp(r->pin, word) == 0;
}

static void resolve(const struct config *config, struct request *r) {
  bool required = is_pin(r, "require");
  struct resolve_answer answer;
  switch (resolve_reference(config->berth, r->image, &answer)) {
  case RESOLVE_PINNED:
    r->digest = strdup(answer.digest);
    return;
  case RESOLVE_REFUSED:
    say_lines(answer.why, true);
    exit(1);
  case RESOLVE_UNREACHABLE:
    say_lines(answer.why, required);
    if (required)
      refuse("--container-pin=require: without a digest the job is not submitted");
    slurm_spank_log("berth: %s is not pinned: the job runs what the tag names when it starts",
                    r->image);
  }
}

/*
 * A step with its job's image takes its job's digest, also if that is none:
 * another attempt from a compute node would cost each step three seconds.
 */
static void pin(const struct config *config, bool in_job, struct request *r) {
  const char *job_image = getenv("SLURM_BERTH_IMAGE");
  const char *job_pin = getenv("SLURM_BERTH_DIGEST");
  if (check_image_is_path(r->image) || is_pin(r, "no"))
    return;
  if (in_job && job_pin != NULL && (r->digest = request_pinned(job_pin, r->image)) != NULL)
    return;
  if (in_job && job_image != NULL && strcmp(job_image, r->image) == 0 && !is_pin(r, "require"))
    return;
  resolve(config, r);
}

/*
 * Slurm hands --task-prolog to slurmstepd, but not to its plugins, and does not
 * say that the command is what --bcast has copied.
 */
static void find_files(struct request *r) {
  struct cmdline c;
  cmdline_read(&c);
  if (cmdline_count(&c, "bcast") > 0 || getenv("SLURM_BCAST") != NULL)
    r->bcast = strdup("1");
  const char *path = cmdline_value(&c, "task-prolog");
  if (path == NULL)
    path = getenv("SLURM_TASK_PROLOG");
  r->task_prolog = path == NULL ? NULL : realpath(path, NULL);
  cmdline_free(&c);
}

static void set_environment(void *context, const char *name, const char *value) {
  (void)context;
  if (value == NULL)
    unsetenv(name);
  else
    setenv(name, value, 1);
}

static void set_control(void *context, const char *name, const char *value) {
  spank_t sp = context;
  if (value == NULL)
    spank_job_control_unsetenv(sp, name);
  else if (spank_job_control_setenv(sp, name, value, 1) != ESPANK_SUCCESS)
    slurm_error("berth: cannot hand %s to the prolog", name);
}

/*
 * Slurm's transport keeps the last use of a repeated option only. It has been
 * written by now; put all uses there, for an srun inside the job.
 */
static void repair_transport(spank_t sp, const char *option, const char *value) {
  if (value == NULL)
    return;
  setenv(option, value, 1);
  set_control(sp, option, value);
}

/*
 * The request to save is for one container: sbatch's is that of the batch
 * script, not those of its steps, and salloc, which has none, hands it on to
 * the steps that are started in it. false with a line in error.
 */
static bool place_save(bool is_srun, struct request *r, char *error) {
  struct cmdline c;
  if (r->save == NULL)
    return true;
  cmdline_read(&c);
  bool components = cmdline_has(&c, ":");
  cmdline_free(&c);
  if (components) {
    snprintf(error, CHECK_ERROR_SIZE,
             "--container-save is for one component of a step; start it by its own srun "
             "--het-group=N");
    return false;
  }
  if (is_srun)
    return true;
  unsetenv("BERTH_CONTAINER_SAVE");
  unsetenv("PYXIS_CONTAINER_SAVE");
  if (strcmp(program_invocation_short_name, "salloc") == 0) {
    setenv("BERTH_CONTAINER_SAVE", r->save, 1);
    r->save = NULL;
  }
  return true;
}

void submit_request(spank_t sp, const struct config *config, const char *config_error) {
  char error[512];
  struct request r;
  bool is_srun = spank_context() == S_CTX_LOCAL;
  bool in_job = is_srun && getenv("SLURM_JOB_ID") != NULL;
  if (!options_merge(in_job, &r, error))
    refuse(error);
  const struct request *given = options_command_line();
  if (!request_wants(&r)) {
    if (options_given())
      slurm_spank_log("berth: no --container-image: the other --container options are ignored");
    memset(&r, 0, sizeof(r));
  } else {
    if (config_error[0] != '\0')
      refuse(config_error);
    if (r.image != NULL)
      pin(config, in_job, &r);
    if (!place_save(is_srun, &r, error))
      refuse(error);
    if (is_srun)
      find_files(&r);
  }
  repair_transport(sp, "_SLURM_SPANK_OPTION_berth_container_mounts", given->mounts);
  repair_transport(sp, "_SLURM_SPANK_OPTION_berth_container_env", given->env);
  repair_transport(sp, "_SLURM_SPANK_OPTION_berth_container_unshare", given->unshare);
  request_export(&r, "BERTH_", set_control, sp);
  request_export(&r, "SLURM_BERTH_", set_environment, NULL);
  request_export(&r, "SLURM_SPANK_BERTH_", set_environment, NULL); /* not the outer job's */
  free(r.digest);
}
