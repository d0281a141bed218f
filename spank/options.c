#include "options.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "cmdline.h"

enum layer { COMMAND_LINE, JOB, ENVIRONMENT, CARRIED, LAYER_COUNT };

static struct request layers[LAYER_COUNT];

/*
 * An option. Two that set one field, such as --container-readonly and
 * --container-writable, contradict each other.
 */
struct option {
  char *name;
  char *arg; /* what its argument is called; NULL: it has none */
  char *help;
  size_t field;         /* of struct request */
  const char *value;    /* what it sets, without an argument */
  const char *variable; /* BERTH_CONTAINER_… stands for it; NULL: the opposite's does */
  bool (*check)(const char *value, char error[CHECK_ERROR_SIZE]);
  bool list; /* NAME[,NAME]: all uses count */
};

#define FIELD(name) .field = offsetof(struct request, name)

/* clang-format off */
static const struct option options[] = {
    {"container-image", "REF|PATH",
     "run in this container image: [USER@][REGISTRY/]NAME[:TAG|@DIGEST], or a path on the node "
     "that begins with . or /",
     FIELD(image), .variable = "IMAGE", .check = check_image},
    {"container-mounts", "SRC:DST[:FLAGS][,...]",
     "also show these paths in the container; may be repeated. SRC alone means SRC:SRC; FLAGS are "
     "joined by +, such as ro+nosuid; tmpfs:DST and umount:DST work too",
     FIELD(mounts), .variable = "MOUNTS", .check = check_mounts, .list = true},
    {"container-workdir", "PATH", "start in this folder of the container (default: the image's)",
     FIELD(workdir), .variable = "WORKDIR", .check = check_workdir},
    {"container-mount-home", NULL, "show the home folder in the container",
     FIELD(home), .value = "1", .variable = "MOUNT_HOME"},
    {"no-container-mount-home", NULL, "do not show the home folder in the container",
     FIELD(home), .value = "0"},
    {"container-readonly", NULL, "make the container's root file system read-only",
     FIELD(root), .value = "readonly", .variable = "READONLY"},
    {"container-writable", NULL, "make the container's root file system writable",
     FIELD(root), .value = "writable", .variable = "WRITABLE"},
    {"container-remap-root", NULL, "appear as root in the container",
     FIELD(remap), .value = "1", .variable = "REMAP_ROOT"},
    {"no-container-remap-root", NULL, "do not appear as root in the container",
     FIELD(remap), .value = "0"},
    {"container-slurm", NULL,
     "make srun, squeue, scancel and others of Slurm's commands work in the container",
     FIELD(slurm), .value = "1", .variable = "SLURM"},
    {"no-container-slurm", NULL, "do not make Slurm's commands work in the container",
     FIELD(slurm), .value = "0"},
    {"container-pin", "yes|no|require",
     "turn the image's tag into a digest when the job is submitted: yes (the default), require "
     "(refuse the job if the registry does not answer), or no (each node takes what the tag means "
     "to it)",
     FIELD(pin), .variable = "PIN", .check = check_pin},
    {"container-env", "NAME[,NAME]",
     "keep the job's value of these variables although the image sets them; may be repeated",
     FIELD(env), .variable = "ENV", .check = check_env, .list = true},
    {"container-device", "DEVICE[,DEVICE]",
     "give the container these devices, as berth devices lists them on the node: "
     "vendor/class=name, vendor/class=all, or a path below /dev; may be repeated",
     FIELD(device), .variable = "DEVICE", .check = check_device, .list = true},
    {"container-host-mpi", NULL,
     "use the node's MPI in place of the image's, as the site has set it up",
     FIELD(host_mpi), .value = "1", .variable = "HOST_MPI"},
    {"container-unshare", "NS[,NS]",
     "give the container namespaces of its own: net (a network with nothing but a loopback), ipc, "
     "uts (a host name)",
     FIELD(unshare), .variable = "UNSHARE", .check = check_unshare, .list = true},
    {"container-name", "NAME[:MODE]",
     "keep what is changed in the container under this name, and go on with it later on the same "
     "node. MODE: auto (the default: join it if it runs in this job, else start or make it), "
     "create (it must not exist), exec (it must run), no_exec (do not join). JOB.STEP is the "
     "container of that step",
     FIELD(name), .variable = "NAME", .check = check_name},
    {"container-save", "PATH|docker://REF",
     "write what the container has become to this squashfs file, or push it to this registry, when "
     "the tasks have ended; for steps on one node. The container is writable, unless "
     "--container-readonly is given",
     FIELD(save), .variable = "SAVE", .check = check_save},
    {"container-entrypoint", NULL,
     "run the image's entrypoint before the tasks, once per container, and give them its variables",
     FIELD(entrypoint), .value = "1", .variable = "ENTRYPOINT"},
    {"no-container-entrypoint", NULL, "do not run the image's entrypoint",
     FIELD(entrypoint), .value = "0"},
    {"container-entrypoint-log", NULL, "show what the image's entrypoint prints",
     FIELD(entrypoint_log), .value = "1", .variable = "ENTRYPOINT_LOG"},
};
/* clang-format on */

enum { OPTION_COUNT = sizeof(options) / sizeof(options[0]), IMAGE = 0 };

static int callback(int val, const char *optarg, int remote);

/* What Slurm knows of an option; callback gets its index. */
static struct spank_option for_slurm(int val) {
  const struct option *o = &options[val];
  return (struct spank_option){o->name, o->arg, o->help, o->arg != NULL, val, callback};
}

void options_register(spank_t sp) {
  for (int val = 0; val < OPTION_COUNT; val++) {
    struct spank_option o = for_slurm(val); /* Slurm copies it */
    if (spank_option_register(sp, &o) != ESPANK_SUCCESS)
      slurm_error("berth: cannot register the option --%s", o.name);
  }
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
static bool from_job(const struct option *o, const char *optarg) {
  char name[256];
  transport_name(name, sizeof(name), "SLURM_SPANK_", o->name);
  return optarg != NULL && optarg == getenv(name);
}

static char **slot(struct request *r, const struct option *o) {
  return (char **)((char *)r + o->field);
}

/* The option that contradicts o, or NULL. */
static const struct option *opposite(const struct option *o) {
  for (int val = 0; val < OPTION_COUNT; val++)
    if (options[val].field == o->field && &options[val] != o)
      return &options[val];
  return NULL;
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

/*
 * Two different values are an error on one command line; but the command line
 * replaces a #SBATCH line, which Slurm reads first.
 */
static bool may_replace(const struct option *o) {
  const struct option *other = opposite(o);
  struct cmdline c;
  cmdline_read(&c);
  int uses = cmdline_count(&c, o->name);
  if (other != NULL)
    uses += cmdline_count(&c, other->name);
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

static bool conflict(const struct option *o, char *error) {
  const struct option *other = opposite(o);
  if (has_components())
    snprintf(error, CHECK_ERROR_SIZE,
             "all components of a step have one image and the same --container options, but "
             "--%s differs; start each by its own srun --het-group=N",
             o->name);
  else if (other == NULL)
    snprintf(error, CHECK_ERROR_SIZE, "--%s is given twice with different values", o->name);
  else
    snprintf(error, CHECK_ERROR_SIZE, "--%s and --%s contradict each other; give one of them",
             o->name, other->name);
  return false;
}

static bool take_command_line(const struct option *o, const char *value, char *error) {
  char **s = slot(&layers[COMMAND_LINE], o);
  if (o->list) {
    accumulate(s, value);
    return true;
  }
  if (*s != NULL && strcmp(*s, value) != 0 && !may_replace(o))
    return conflict(o, error);
  replace(s, value);
  return true;
}

static int callback(int val, const char *optarg, int remote) {
  char error[CHECK_ERROR_SIZE];
  const struct option *o = &options[val];
  const char *value = o->arg != NULL ? optarg : o->value;
  if (value == NULL)
    return -1;
  if (remote || from_job(o, optarg)) {
    replace(slot(&layers[JOB], o), value);
    return 0;
  }
  if ((o->check == NULL || o->check(value, error)) && take_command_line(o, value, error))
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

static bool take_string(const struct option *o, const char *name, const char *value, char *error) {
  char why[CHECK_ERROR_SIZE];
  replace(slot(&layers[ENVIRONMENT], o), value);
  if (o->check(value, why))
    return true;
  snprintf(error, CHECK_ERROR_SIZE, "%.64s in the environment: %.400s", name, why);
  return false;
}

/* No is what the opposite sets; nothing, where off is what it is without the variable. */
static bool take_flag(const struct option *o, const char *name, const char *text, char *error) {
  const struct option *other = opposite(o);
  char **s = slot(&layers[ENVIRONMENT], o);
  int truth = check_bool(text);
  const char *value = truth == 1 ? o->value : other == NULL ? NULL : other->value;
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

static bool take_variable(const struct option *o, char *error) {
  char name[64];
  const char *text = o->variable == NULL ? NULL : environment_form(o->variable, name);
  if (text == NULL)
    return true;
  return o->arg != NULL ? take_string(o, name, text, error) : take_flag(o, name, text, error);
}

static bool take_environment(char *error) {
  for (int val = 0; val < OPTION_COUNT; val++) {
    char **s = slot(&layers[ENVIRONMENT], &options[val]);
    free(*s);
    *s = NULL;
  }
  for (int val = 0; val < OPTION_COUNT; val++)
    if (!take_variable(&options[val], error))
      return false;
  return true;
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
  for (int val = 0; val < OPTION_COUNT; val++)
    for (int l = 0; l < LAYER_COUNT && *slot(r, &options[val]) == NULL; l++)
      *slot(r, &options[val]) = *slot(&layers[l], &options[val]);
  leave_name(r);
  return true;
}

const struct request *options_command_line(void) {
  return &layers[COMMAND_LINE];
}

bool options_given(void) {
  for (int val = 0; val < OPTION_COUNT; val++)
    if (*slot(&layers[COMMAND_LINE], &options[val]) != NULL)
      return true;
  return false;
}

const struct request *options_transported(void) {
  return &layers[JOB];
}

const char *options_prolog_image(spank_t sp) {
  struct spank_option o = for_slurm(IMAGE);
  char *image = NULL;
  if (spank_option_getopt(sp, &o, &image) != ESPANK_SUCCESS)
    return NULL;
  return image;
}
