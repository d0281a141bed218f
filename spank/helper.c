#include "helper.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "child.h"
#include "failure.h"

#define REMEDY_ADMIN "this is for the cluster's admin: slurmd's log on this node says more"

/* A hung helper must not hang a task that is still root and not yet killable. */
enum { SEND_TIMEOUT_S = 20 };

static int make_control(int pair[2]) {
  struct timeval limit = {.tv_sec = SEND_TIMEOUT_S};
  int room = (int)(4 * WIRE_MAX);
  int on = 1;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return -1;
  setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
  /* The kernel vouches for who sends. Set here: a message that is sent before
   * the helper could ask for it would come without. */
  setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
  return 0;
}

static void add_groups(spank_t sp, struct wire_writer *w) {
  gid_t *groups = NULL;
  int count = 0;
  char text[16 * 1024] = "";
  if (spank_get_item(sp, S_JOB_SUPPLEMENTARY_GIDS, &groups, &count) != ESPANK_SUCCESS)
    return;
  for (int i = 0, n = 0; i < count && n < (int)sizeof(text) - 16; i++)
    n += snprintf(text + n, sizeof(text) - (size_t)n, "%s%u", i == 0 ? "" : ",", groups[i]);
  wire_add(w, "groups", text);
}

static void add_number(spank_t sp, struct wire_writer *w, const char *key, spank_item_t item) {
  uint32_t value = 0;
  if (spank_get_item(sp, item, &value) == ESPANK_SUCCESS)
    wire_add_number(w, key, value);
}

/* Slurm says 0 for the batch step, which runs on one node. */
static void add_nodes(spank_t sp, struct wire_writer *w) {
  uint32_t nodes = 0;
  if (spank_get_item(sp, S_JOB_NNODES, &nodes) == ESPANK_SUCCESS)
    wire_add_number(w, "nodes", nodes == 0 ? 1 : nodes);
}

/* In MiB; nothing where the job's memory has no limit. */
static void add_memory(spank_t sp, struct wire_writer *w) {
  uint64_t memory = 0;
  if (spank_get_item(sp, S_JOB_ALLOC_MEM, &memory) == ESPANK_SUCCESS && memory > 0 &&
      memory <= UINT32_MAX)
    wire_add_number(w, "memory", memory);
}

static void add_version(spank_t sp, struct wire_writer *w) {
  char *version = NULL;
  if (spank_get_item(sp, S_SLURM_VERSION, &version) == ESPANK_SUCCESS && version != NULL)
    wire_add(w, "slurm_version", version);
}

static void encode(spank_t sp, const struct request *r, struct wire_writer *w) {
  uid_t uid = (uid_t)-1;
  gid_t gid = (gid_t)-1;
  add_number(sp, w, "job", S_JOB_ID);
  add_number(sp, w, "step", S_JOB_STEPID);
  if (spank_get_item(sp, S_JOB_UID, &uid) == ESPANK_SUCCESS)
    wire_add_number(w, "uid", uid);
  if (spank_get_item(sp, S_JOB_GID, &gid) == ESPANK_SUCCESS)
    wire_add_number(w, "gid", gid);
  add_groups(sp, w);
  add_number(sp, w, "tasks", S_JOB_LOCAL_TASK_COUNT);
  add_number(sp, w, "node", S_JOB_NODEID);
  add_nodes(sp, w);
  add_memory(sp, w);
  add_version(sp, w);
  request_encode(r, w);
}

static int start(const char *create, int control) {
  char *argv[] = {(char *)create, "step", NULL};
  struct child c = {
      .path = create,
      .argv = argv,
      .env = child_root_env,
      .fds = {-1, -1, -1, control},
      .as_root = true,
      .own_session = true,
      .orphan = true, /* slurmstepd's wait must not meet it */
  };
  return child_start(&c);
}

int helper_start(spank_t sp, const char *create, const struct request *r) {
  static char message[WIRE_MAX];
  struct wire_writer w;
  int pair[2];
  wire_start(&w, message, sizeof(message));
  encode(sp, r, &w);
  if (w.failed) {
    failure_keep("give fewer or shorter --container-mounts",
                 "the container's options are too long");
    return -1;
  }
  if (make_control(pair) < 0) {
    failure_keep(REMEDY_ADMIN, "cannot make a socket: %s", strerror(errno));
    return -1;
  }
  int started = start(create, pair[1]);
  int why = errno;
  close(pair[1]);
  if (started == 0 && send(pair[0], w.buf, w.len, MSG_NOSIGNAL) >= 0)
    return pair[0];
  if (started == 0)
    failure_keep(REMEDY_ADMIN, "the container helper does not take the request: %s",
                 strerror(errno));
  else
    failure_keep(REMEDY_ADMIN, "cannot start %s: %s", create, strerror(why));
  close(pair[0]);
  return -1;
}
