#include "devices.h"

#include <stdbool.h>
#include <string.h>

/* The longest variable that is told; all of them have to fit into a message. */
enum { LONGEST = 1024 };

static bool begins(const char *entry, const char *name) {
  size_t len = strlen(name);
  return strncmp(entry, name, len) == 0 && entry[len] == '=';
}

/* Names like CUDA_VISIBLE_DEVICES, also those that a site makes up. */
static bool is_visible_devices(const char *entry) {
  static const char suffix[] = "_VISIBLE_DEVICES";
  const char *equals = strchr(entry, '=');
  size_t len = sizeof(suffix) - 1;
  return equals != NULL && (size_t)(equals - entry) > len &&
         strncmp(equals - len, suffix, len) == 0;
}

static bool matters(const char *entry) {
  static const char *const names[] = {
      "SLURM_STEP_GPUS", "SLURM_JOB_GPUS",  "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK",
      "SLURM_NODEID",    "BERTH_MPI_CHECK", "PMIX_NAMESPACE",     "SLURM_STEP_NUM_TASKS",
      "PMI_FD",          "PMIX_RANK",
  };
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
    if (begins(entry, names[i]))
      return true;
  return is_visible_devices(entry);
}

void devices_tell(spank_t sp, struct wire_writer *w) {
  char **env = NULL;
  if (spank_get_item(sp, S_JOB_ENV, &env) != ESPANK_SUCCESS || env == NULL)
    return;
  for (; *env != NULL; env++)
    if (matters(*env) && strlen(*env) <= LONGEST)
      wire_add(w, "variable", *env);
}
