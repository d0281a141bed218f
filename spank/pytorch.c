#include "pytorch.h"

#include <stdio.h>
#include <string.h>

enum { HOST_SIZE = 256, FIRST_PORT = 20000, PORTS = 10000 };

bool pytorch_first_host(const char *list, char *host, size_t size) {
  size_t n = 0;
  for (const char *p = list; *p != '\0' && *p != ','; p++) {
    if (*p == '[') {
      for (p++; *p != '\0' && strchr("-,]", *p) == NULL; p++)
        if (n < size)
          host[n++] = *p;
      p = strchr(p, ']');
      if (p == NULL)
        return false;
    } else if (n < size) {
      host[n++] = *p;
    }
  }
  if (n == 0 || n >= size)
    return false;
  host[n] = '\0';
  return true;
}

unsigned pytorch_port(uint32_t job, uint32_t step) {
  return FIRST_PORT + (job + step * 4099U) % PORTS;
}

/* The value of a variable of the task's, or NULL. */
static const char *value_of(const struct join_environment *env, const char *name) {
  size_t len = strlen(name);
  const char *entry;
  for (size_t i = 0; (entry = env->entry(env->context, i)) != NULL; i++)
    if (strncmp(entry, name, len) == 0 && entry[len] == '=')
      return entry + len + 1;
  return NULL;
}

/* Sets a rank, which Slurm calls otherwise. The value moves when it is set. */
static int set_rank(const struct join_environment *env, const char *name, const char *slurm) {
  char copy[32];
  const char *value = value_of(env, slurm);
  size_t len = value == NULL ? sizeof(copy) : strlen(value);
  if (len >= sizeof(copy) ||
      (join_keeps(env, name) && env->has(env->context, name)))
    return 0;
  memcpy(copy, value, len + 1);
  return env->set(env->context, name, copy);
}

static int set_missing(const struct join_environment *env, const char *name, const char *value) {
  return env->has(env->context, name) ? 0 : env->set(env->context, name, value);
}

int pytorch_set(const struct join_result *result, const struct join_environment *env, uint32_t job,
                uint32_t step) {
  char host[HOST_SIZE], port[16];
  const char *nodes = value_of(env, "SLURM_STEP_NODELIST");
  if (!join_image_sets(result, "PYTORCH_VERSION") || nodes == NULL ||
      !pytorch_first_host(nodes, host, sizeof(host)))
    return 0;
  snprintf(port, sizeof(port), "%u", pytorch_port(job, step));
  if (set_rank(env, "RANK", "SLURM_PROCID") < 0 ||
      set_rank(env, "LOCAL_RANK", "SLURM_LOCALID") < 0 ||
      set_rank(env, "WORLD_SIZE", "SLURM_STEP_NUM_TASKS") < 0)
    return -1;
  return set_missing(env, "MASTER_ADDR", host) < 0 || set_missing(env, "MASTER_PORT", port) < 0 ? -1
                                                                                                : 0;
}
