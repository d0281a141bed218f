#include "request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

/* The variable of each value but the digest, which carries its image along. */
static const struct {
  const char *name;
  size_t offset;
} variables[] = {
    {"IMAGE", offsetof(struct request, image)},
    {"MOUNTS", offsetof(struct request, mounts)},
    {"WORKDIR", offsetof(struct request, workdir)},
    {"HOME", offsetof(struct request, home)},
    {"ROOT", offsetof(struct request, root)},
    {"REMAP", offsetof(struct request, remap)},
    {"PIN", offsetof(struct request, pin)},
    {"SLURM", offsetof(struct request, slurm)},
    {"ENV", offsetof(struct request, env)},
    {"DEVICE", offsetof(struct request, device)},
    {"HOST_MPI", offsetof(struct request, host_mpi)},
    {"UNSHARE", offsetof(struct request, unshare)},
    {"NAME", offsetof(struct request, name)},
    {"SAVE", offsetof(struct request, save)},
    {"ENTRYPOINT", offsetof(struct request, entrypoint)},
    {"ENTRYPOINT_LOG", offsetof(struct request, entrypoint_log)},
    {"TASK_PROLOG", offsetof(struct request, task_prolog)},
    {"BCAST", offsetof(struct request, bcast)},
};

enum { VARIABLE_COUNT = sizeof(variables) / sizeof(variables[0]), NAME_SIZE = 64 };

static char **field(const struct request *r, int i) {
  return (char **)((char *)r + variables[i].offset);
}

bool request_wants(const struct request *r) {
  return r->image != NULL || r->name != NULL;
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

static char *get_one(const char *prefix, const char *name, request_getenv *get, void *context) {
  char full[NAME_SIZE];
  snprintf(full, sizeof(full), "%s%s", prefix, name);
  return get(context, full);
}

void request_import(struct request *r, const char *prefix, request_getenv *get, void *context) {
  for (int i = 0; i < VARIABLE_COUNT; i++)
    *field(r, i) = get_one(prefix, variables[i].name, get, context);
  char *pin = get_one(prefix, "DIGEST", get, context);
  r->digest = pin == NULL || r->image == NULL ? NULL : request_pinned(pin, r->image);
  free(pin);
}

static void set_one(const char *prefix, const char *name, const char *value, request_setenv *set,
                    void *context) {
  char full[NAME_SIZE];
  snprintf(full, sizeof(full), "%s%s", prefix, name);
  set(context, full, value);
}

void request_export(const struct request *r, const char *prefix, request_setenv *set,
                    void *context) {
  for (int i = 0; i < VARIABLE_COUNT; i++)
    set_one(prefix, variables[i].name, *field(r, i), set, context);
  char *pin = r->digest == NULL ? NULL : request_pin(r->digest, r->image);
  set_one(prefix, "DIGEST", pin, set, context);
  free(pin);
}

static void encode_one(struct wire_writer *w, const char *key, const char *value) {
  if (value != NULL)
    wire_add(w, key, value);
}

/* One record per name: the helper need not know how names are separated. */
static void encode_names(struct wire_writer *w, const char *key, const char *list) {
  char name[1024];
  while (list != NULL && *list != '\0') {
    size_t len = strcspn(list, ",");
    snprintf(name, sizeof(name), "%.*s", (int)len, list);
    wire_add(w, key, name);
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
  encode_one(w, "remap", r->remap);
  encode_one(w, "pin", r->pin);
  encode_one(w, "slurm", r->slurm);
  encode_one(w, "host_mpi", r->host_mpi);
  encode_one(w, "name", r->name);
  encode_one(w, "save", r->save);
  encode_one(w, "entrypoint", r->entrypoint);
  encode_names(w, "env", r->env);
  encode_names(w, "device", r->device);
  encode_names(w, "unshare", r->unshare);
}
