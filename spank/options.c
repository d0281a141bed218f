#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "cmdline.h"

enum option_id {
  IMAGE,
  MOUNTS,
  WORKDIR,
  HOME,
  NO_HOME,
  READONLY,
  WRITABLE,
  REMAP,
  NO_REMAP,
  SLURM,
  NO_SLURM,
  PIN,
  ENV,
  DEVICE,
  HOST_MPI,
  UNSHARE,
  NAME,
  SAVE,
  ENTRYPOINT,
  NO_ENTRYPOINT,
  ENTRYPOINT_LOG,
  OPTION_COUNT,
};

enum layer { COMMAND_LINE, JOB, ENVIRONMENT, CARRIED, LAYER_COUNT };

static struct request layers[LAYER_COUNT];

static int callback(int val, const char *optarg, int remote);

static struct spank_option table[] = {
    {"container-image", "REF|PATH",
     "run in this container image: [USER@][REGISTRY/]NAME[:TAG|@DIGEST], or a path on the node "
     "that begins with . or /",
     1, IMAGE, callback},
    {"container-mounts", "SRC:DST[:FLAGS][,...]",
     "also show these paths in the container; may be repeated. SRC alone means SRC:SRC; FLAGS are "
     "joined by +, such as ro+nosuid; tmpfs:DST and umount:DST work too",
     1, MOUNTS, callback},
    {"container-workdir", "PATH", "start in this folder of the container (default: the image's)", 1,
     WORKDIR, callback},
    {"container-mount-home", NULL, "show the home folder in the container", 0, HOME, callback},
    {"no-container-mount-home", NULL, "do not show the home folder in the container", 0, NO_HOME,
     callback},
    {"container-readonly", NULL, "make the container's root file system read-only", 0, READONLY,
     callback},
    {"container-writable", NULL, "make the container's root file system writable", 0, WRITABLE,
     callback},
    {"container-remap-root", NULL, "appear as root in the container", 0, REMAP, callback},
    {"no-container-remap-root", NULL, "do not appear as root in the container", 0, NO_REMAP,
     callback},
    {"container-slurm", NULL,
     "make srun, squeue, scancel and others of Slurm's commands work in the container", 0, SLURM,
     callback},
    {"no-container-slurm", NULL, "do not make Slurm's commands work in the container", 0, NO_SLURM,
     callback},
    {"container-pin", "yes|no|require",
     "turn the image's tag into a digest when the job is submitted: yes (the default), require "
     "(refuse the job if the registry does not answer), or no (each node takes what the tag means "
     "to it)",
     1, PIN, callback},
    {"container-env", "NAME[,NAME]",
     "keep the job's value of these variables although the image sets them; may be repeated", 1,
     ENV, callback},
    {"container-device", "DEVICE[,DEVICE]",
     "give the container these devices, as berth devices lists them on the node: "
     "vendor/class=name, vendor/class=all, or a path below /dev; may be repeated",
     1, DEVICE, callback},
    {"container-host-mpi", NULL,
     "use the node's MPI in place of the image's, as the site has set it up", 0, HOST_MPI,
     callback},
    {"container-unshare", "NS[,NS]",
     "give the container namespaces of its own: net (a network with nothing but a loopback), ipc, "
     "uts (a host name)",
     1, UNSHARE, callback},
    {"container-name", "NAME[:MODE]",
     "keep what is changed in the container under this name, and go on with it later on the same "
     "node. MODE: auto (the default: join it if it runs in this job, else start or make it), "
     "create "
     "(it must not exist), exec (it must run), no_exec (do not join). JOB.STEP is the container of "
     "that step",
     1, NAME, callback},
    {"container-save", "PATH|docker://REF",
     "write what the container has become to this squashfs file, or push it to this registry, when "
     "the tasks have ended; for steps on one node. The container is writable, unless "
     "--container-readonly is given",
     1, SAVE, callback},
    {"container-entrypoint", NULL,
     "run the image's entrypoint before the tasks, once per container, and give them its variables",
     0, ENTRYPOINT, callback},
    {"no-container-entrypoint", NULL, "do not run the image's entrypoint", 0, NO_ENTRYPOINT,
     callback},
    {"container-entrypoint-log", NULL, "show what the image's entrypoint prints", 0, ENTRYPOINT_LOG,
     callback},
    SPANK_OPTIONS_TABLE_END,
};

void options_register(spank_t sp) {
  for (struct spank_option *o = table; o->name != NULL; o++)
    if (spank_option_register(sp, o) != ESPANK_SUCCESS)
      slurm_error("berth: cannot register the option --%s", o->name);
}

/* The name that Slurm gives the option in its own transport. */
static void transport_name(char *buf, size_t size, const char *prefix, const char *option) {
  int n = snprintf(buf, size, "%s_SLURM_SPANK_OPTION_berth_", prefix);
  for (char *p = buf + n; *option != '\0' && p < buf + size - 1; option++) {
    *p++ = (char)(*option == '-' ? '_' : *option);
    *p = '\0';
  }
}

/*
 * In an srun inside a job, Slurm calls each option's callback with the job's
 * value first, taken from SLURM_SPANK__SLURM_SPANK_OPTION_…, and tells nobody.
 * It passes getenv's pointer on (spank_process_env_options in plugstack.c of
 * 21.08 and 22.05, spank.c of 23.11 to 26.05), so the pointer tells.
 */
static bool from_job(int val, const char *optarg) {
  char name[256];
  transport_name(name, sizeof(name), "SLURM_SPANK_", table[val].name);
  return optarg != NULL && optarg == getenv(name);
}

static bool check(int val, const char *value, char *error) {
  switch (val) {
  case IMAGE:
    return check_image(value, error);
  case MOUNTS:
    return check_mounts(value, error);
  case WORKDIR:
    return check_workdir(value, error);
  case ENV:
    return check_env(value, error);
  case PIN:
    return check_pin(value, error);
  case DEVICE:
    return check_device(value, error);
  case UNSHARE:
    return check_unshare(value, error);
  case NAME:
    return check_name(value, error);
  case SAVE:
    return check_save(value, error);
  default:
    return true;
  }
}

static char **slot(struct request *r, int val) {
  char **slots[] = {
      [IMAGE] = &r->image,
      [MOUNTS] = &r->mounts,
      [WORKDIR] = &r->workdir,
      [HOME] = &r->home,
      [NO_HOME] = &r->home,
      [READONLY] = &r->root,
      [WRITABLE] = &r->root,
      [REMAP] = &r->remap,
      [NO_REMAP] = &r->remap,
      [SLURM] = &r->slurm,
      [NO_SLURM] = &r->slurm,
      [PIN] = &r->pin,
      [ENV] = &r->env,
      [DEVICE] = &r->device,
      [HOST_MPI] = &r->host_mpi,
      [UNSHARE] = &r->unshare,
      [NAME] = &r->name,
      [SAVE] = &r->save,
      [ENTRYPOINT] = &r->entrypoint,
      [NO_ENTRYPOINT] = &r->entrypoint,
      [ENTRYPOINT_LOG] = &r->entrypoint_log,
  };
  return slots[val];
}

/* What the option stands for: its argument, or the value a flag sets. */
static const char *meaning(int val, const char *optarg) {
  static const char *const flags[] = {
      [HOME] = "1",     [NO_HOME] = "0",    [READONLY] = "readonly", [WRITABLE] = "writable",
      [REMAP] = "1",    [NO_REMAP] = "0",   [SLURM] = "1",           [NO_SLURM] = "0",
      [HOST_MPI] = "1", [ENTRYPOINT] = "1", [NO_ENTRYPOINT] = "0",   [ENTRYPOINT_LOG] = "1"};
  return table[val].has_arg ? optarg : flags[val];
}

static void replace(char **slot, const char *value) {
  char *copy = strdup(value);
  free(*slot);
  *slot = copy;
}

static bool list_has(const char *list, const char *entry, size_t len) {
  while (list != NULL && *list != '\0') {
    size_t n = strcspn(list, ",");
    if (n == len && memcmp(list, entry, len) == 0)
      return true;
    list += n;
    list += *list == ',';
  }
  return false;
}

/* Adds the entries of a comma list that are not there yet. */
static void accumulate(char **slot, const char *list) {
  while (*list != '\0') {
    size_t len = strcspn(list, ",");
    if (!list_has(*slot, list, len)) {
      char *longer;
      const char *old = *slot == NULL ? "" : *slot;
      if (asprintf(&longer, "%s%s%.*s", old, *slot == NULL ? "" : ",", (int)len, list) < 0)
        return;
      free(*slot);
      *slot = longer;
    }
    list += len;
    list += list[0] == ',';
  }
}

/* The option that contradicts a flag, or the option itself. */
static int opposite(int val) {
  static const int opposites[] = {
      IMAGE,    MOUNTS,  WORKDIR,  NO_HOME, HOME,          WRITABLE,   READONLY,
      NO_REMAP, REMAP,   NO_SLURM, SLURM,   PIN,           ENV,        DEVICE,
      HOST_MPI, UNSHARE, NAME,     SAVE,    NO_ENTRYPOINT, ENTRYPOINT, ENTRYPOINT_LOG};
  return opposites[val];
}

/*
 * Two different values are an error on one command line; but the command line
 * replaces a #SBATCH line, which Slurm reads first.
 */
static bool may_replace(int val) {
  struct cmdline c;
  cmdline_read(&c);
  int uses = cmdline_count(&c, table[val].name);
  if (opposite(val) != val)
    uses += cmdline_count(&c, table[opposite(val)].name);
  cmdline_free(&c);
  return uses == 1;
}

/*
 * Slurm calls plugins' options for all components of a step, and keeps one value
 * for all.
 */
static bool has_components(void) {
  struct cmdline c;
  cmdline_read(&c);
  bool has = cmdline_has(&c, ":");
  cmdline_free(&c);
  return has;
}

static bool conflict(int val, char *error) {
  if (has_components())
    snprintf(error, CHECK_ERROR_SIZE,
             "all components of a step have one image and the same --container options, but "
             "--%s differs; start each by its own srun --het-group=N",
             table[val].name);
  else if (opposite(val) == val)
    snprintf(error, CHECK_ERROR_SIZE, "--%s is given twice with different values", table[val].name);
  else
    snprintf(error, CHECK_ERROR_SIZE, "--%s and --%s contradict each other; give one of them",
             table[val].name, table[opposite(val)].name);
  return false;
}

static bool take_command_line(int val, const char *value, char *error) {
  char **s = slot(&layers[COMMAND_LINE], val);
  if (val == MOUNTS || val == ENV || val == DEVICE || val == UNSHARE) {
    accumulate(s, value);
    return true;
  }
  if (*s != NULL && strcmp(*s, value) != 0 && !may_replace(val))
    return conflict(val, error);
  replace(s, value);
  return true;
}

static int callback(int val, const char *optarg, int remote) {
  char error[CHECK_ERROR_SIZE];
  const char *value = meaning(val, optarg);
  if (value == NULL)
    return -1;
  if (remote || from_job(val, optarg)) {
    replace(slot(&layers[JOB], val), value);
    return 0;
  }
  if (check(val, value, error) && take_command_line(val, value, error))
    return 0;
  slurm_error("berth: %s", error);
  return -1;
}

/* Returns the environment form of an option and, in name, the variable used. */
static const char *environment_form(const char *suffix, char name[64]) {
  static const char *const prefixes[] = {"BERTH_CONTAINER_", "PYXIS_CONTAINER_"};
  for (int i = 0; i < 2; i++) {
    snprintf(name, 64, "%s%s", prefixes[i], suffix);
    const char *value = getenv(name);
    if (value != NULL && value[0] != '\0')
      return value;
  }
  return NULL;
}

static bool take_string(int val, const char *suffix, char *error) {
  char name[64], why[CHECK_ERROR_SIZE];
  const char *value = environment_form(suffix, name);
  if (value == NULL)
    return true;
  replace(slot(&layers[ENVIRONMENT], val), value);
  if (check(val, value, why))
    return true;
  snprintf(error, CHECK_ERROR_SIZE, "%.64s in the environment: %.400s", name, why);
  return false;
}

/* yes and no are what the flag stands for when it is on and off; no is NULL
 * where off is what it is without the variable. */
static bool take_flag(int val, const char *suffix, const char *yes, const char *no, char *error) {
  char name[64];
  const char *text = environment_form(suffix, name);
  if (text == NULL)
    return true;
  int truth = check_bool(text);
  char **s = slot(&layers[ENVIRONMENT], val);
  const char *value = truth == 1 ? yes : no;
  if (truth < 0) {
    snprintf(error, CHECK_ERROR_SIZE, "%s=%.64s in the environment is neither yes nor no", name,
             text);
    return false;
  }
  if (value == NULL)
    return true;
  if (*s != NULL && strcmp(*s, value) != 0) {
    snprintf(error, CHECK_ERROR_SIZE, "%s in the environment contradicts another variable", name);
    return false;
  }
  replace(s, value);
  return true;
}

static bool take_environment(char *error) {
  struct request *r = &layers[ENVIRONMENT];
  free(r->home);
  free(r->root);
  free(r->remap);
  free(r->slurm);
  free(r->host_mpi);
  free(r->entrypoint);
  free(r->entrypoint_log);
  r->home = r->root = r->remap = r->slurm = r->host_mpi = NULL;
  r->entrypoint = r->entrypoint_log = NULL;
  return take_string(IMAGE, "IMAGE", error) && take_string(MOUNTS, "MOUNTS", error) &&
         take_string(WORKDIR, "WORKDIR", error) && take_string(ENV, "ENV", error) &&
         take_string(DEVICE, "DEVICE", error) && take_string(PIN, "PIN", error) &&
         take_string(UNSHARE, "UNSHARE", error) && take_string(NAME, "NAME", error) &&
         take_string(SAVE, "SAVE", error) && take_flag(HOME, "MOUNT_HOME", "1", "0", error) &&
         take_flag(REMAP, "REMAP_ROOT", "1", "0", error) &&
         take_flag(SLURM, "SLURM", "1", "0", error) &&
         take_flag(HOST_MPI, "HOST_MPI", "1", NULL, error) &&
         take_flag(ENTRYPOINT, "ENTRYPOINT", "1", "0", error) &&
         take_flag(ENTRYPOINT_LOG, "ENTRYPOINT_LOG", "1", "0", error) &&
         take_flag(READONLY, "READONLY", "readonly", "writable", error) &&
         take_flag(WRITABLE, "WRITABLE", "writable", "readonly", error);
}

static char *own_variable(void *context, const char *name) {
  (void)context;
  const char *value = getenv(name);
  return value == NULL ? NULL : strdup(value);
}

/* A step with an image of its own does not go on with its job's container. */
static void leave_name(struct request *r) {
  const struct request *own = &layers[COMMAND_LINE];
  if (own->image == NULL || own->name != NULL)
    return;
  for (int l = JOB; l < LAYER_COUNT; l++)
    if (l != ENVIRONMENT && layers[l].image != NULL && strcmp(layers[l].image, own->image) != 0)
      r->name = NULL;
}

bool options_merge(bool in_job, struct request *r, char error[512]) {
  if (!take_environment(error))
    return false;
  if (in_job)
    request_import(&layers[CARRIED], "SLURM_BERTH_", own_variable, NULL);
  if (in_job) /* that the batch script's container is saved is not asked for its steps */
    layers[JOB].save = layers[CARRIED].save = NULL;
  memset(r, 0, sizeof(*r));
  for (int val = IMAGE; val < OPTION_COUNT; val++)
    for (int l = 0; l < LAYER_COUNT && *slot(r, val) == NULL; l++)
      *slot(r, val) = *slot(&layers[l], val);
  leave_name(r);
  return true;
}

const struct request *options_command_line(void) {
  return &layers[COMMAND_LINE];
}

bool options_given(void) {
  for (int val = IMAGE; val < OPTION_COUNT; val++)
    if (*slot(&layers[COMMAND_LINE], val) != NULL)
      return true;
  return false;
}

const struct request *options_transported(void) {
  return &layers[JOB];
}

const char *options_prolog_image(spank_t sp) {
  char *image = NULL;
  if (spank_option_getopt(sp, &table[IMAGE], &image) != ESPANK_SUCCESS)
    return NULL;
  return image;
}
