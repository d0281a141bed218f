#include "request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define PIN_VARIABLE "SLURM_BERTH_DIGEST"

/* The variable of each value but the digest, which carries its image along. */
static const struct {
  const char *name;
  size_t offset;
} variables[] = {
    {"SLURM_BERTH_IMAGE", offsetof(struct request, image)},
    {"SLURM_BERTH_MOUNTS", offsetof(struct request, mounts)},
    {"SLURM_BERTH_WORKDIR", offsetof(struct request, workdir)},
    {"SLURM_BERTH_HOME", offsetof(struct request, home)},
    {"SLURM_BERTH_ROOT", offsetof(struct request, root)},
    {"SLURM_BERTH_ENV", offsetof(struct request, env)},
    {"SLURM_BERTH_TASK_PROLOG", offsetof(struct request, task_prolog)},
};

enum { VARIABLE_COUNT = sizeof(variables) / sizeof(variables[0]) };

static char **field(const struct request *r, int i) {
  return (char **)((char *)r + variables[i].offset);
}

char *request_pin(const char *digest, const char *image) {
  char *pin;
  return asprintf(&pin, "%s=%s", digest, image) < 0 ? NULL : pin;
}

char *request_pinned(const char *pin, const char *image) {
  const char *equals = strchr(pin, '=');
  if (equals == NULL || strcmp(equals + 1, image) != 0)
    return NULL;
  char *digest = strndup(pin, (size_t)(equals - pin));
  if (digest == NULL || check_digest(digest))
    return digest;
  free(digest);
  return NULL;
}

void request_import(struct request *r, request_getenv *get, void *context) {
  for (int i = 0; i < VARIABLE_COUNT; i++)
    *field(r, i) = get(context, variables[i].name);
  char *pin = get(context, PIN_VARIABLE);
  r->digest = pin == NULL || r->image == NULL ? NULL : request_pinned(pin, r->image);
  free(pin);
}

static void export_one(const char *name, const char *value) {
  if (value == NULL)
    unsetenv(name);
  else
    setenv(name, value, 1);
}

void request_export(const struct request *r) {
  for (int i = 0; i < VARIABLE_COUNT; i++)
    export_one(variables[i].name, *field(r, i));
  char *pin = r->digest == NULL ? NULL : request_pin(r->digest, r->image);
  export_one(PIN_VARIABLE, pin);
  free(pin);
}

static void encode_one(struct wire_writer *w, const char *key, const char *value) {
  if (value != NULL)
    wire_add(w, key, value);
}

/* One record per name: the helper need not know how names are separated. */
static void encode_names(struct wire_writer *w, const char *list) {
  char name[1024];
  while (list != NULL && *list != '\0') {
    size_t len = strcspn(list, ",");
    snprintf(name, sizeof(name), "%.*s", (int)len, list);
    wire_add(w, "env", name);
    list += len;
    list += *list == ',';
  }
}

void request_encode(const struct request *r, struct wire_writer *w) {
  encode_one(w, "image", r->image);
  encode_one(w, "digest", r->digest);
  encode_one(w, "mounts", r->mounts);
  encode_one(w, "workdir", r->workdir);
  encode_one(w, "home", r->home);
  encode_one(w, "root", r->root);
  encode_names(w, r->env);
}
