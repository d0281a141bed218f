#include "prolog.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "child.h"
#include "options.h"
#include "request.h"

/* cleanup keeps to a limit of its own (prolog.Cleanup); this is for one that hangs. */
enum { CLEANUP_WAIT_MS = 20000, MESSAGE_MAX = 16 * 1024 };

/* prepare returns by itself after prolog_wait; this is for one that hangs. */
enum { PREPARE_SLACK_MS = 2000 };

/* The message as a file, so that nobody blocks on a pipe. */
static int message_file(const struct wire_writer *w) {
  int fd = memfd_create("berth-request", MFD_CLOEXEC);
  if (fd >= 0 && (write(fd, w->buf, w->len) != (ssize_t)w->len || lseek(fd, 0, SEEK_SET) < 0)) {
    close(fd);
    return -1;
  }
  return fd;
}

/* Runs `berth node COMMAND` with the message as its input, for at most wait_ms. */
static void run(const char *berth, char *command, const struct wire_writer *w, int wait_ms) {
  char *argv[] = {(char *)berth, "node", command, NULL};
  struct child c = {.path = berth,
                    .argv = argv,
                    .env = child_root_env,
                    .fds = {message_file(w), -1, -1, -1},
                    .as_root = true,
                    .own_session = true};
  int status = 0;
  pid_t pid = child_start(&c);
  if (pid < 0)
    slurm_error("berth: cannot start %s: %s", berth, strerror(errno));
  else if (!child_end(pid, true, wait_ms, &status))
    slurm_error("berth: %s node %s did not end within %d ms", berth, command, wait_ms);
  else if (status != 0)
    slurm_error("berth: %s node %s failed (status %d)", berth, command, status);
  if (c.fds[0] >= 0)
    close(c.fds[0]);
}

static void add_job(spank_t sp, struct wire_writer *w) {
  uint32_t job = 0;
  if (spank_get_item(sp, S_JOB_ID, &job) == ESPANK_SUCCESS)
    wire_add_number(w, "job", job);
}

static void add_owner(spank_t sp, struct wire_writer *w) {
  uid_t uid = 0;
  gid_t gid = 0;
  if (spank_get_item(sp, S_JOB_UID, &uid) == ESPANK_SUCCESS)
    wire_add_number(w, "uid", uid);
  if (spank_get_item(sp, S_JOB_GID, &gid) == ESPANK_SUCCESS)
    wire_add_number(w, "gid", gid);
}

/* The prolog's environment is slurmd's. What a job's user wants to be there has
 * SPANK_ before its name, so these are Slurm's own (22.05; unset before). */
static void add_accounting(struct wire_writer *w) {
  const char *account = getenv("SLURM_JOB_ACCOUNT");
  const char *partition = getenv("SLURM_JOB_PARTITION");
  if (account != NULL)
    wire_add(w, "account", account);
  if (partition != NULL)
    wire_add(w, "partition", partition);
}

/* Slurm puts SPANK_ before names that submit_request gave to the prolog. */
void prolog_prepare(spank_t sp, const struct config *config) {
  static char buf[MESSAGE_MAX];
  struct wire_writer w;
  const char *image = getenv("SPANK_BERTH_IMAGE");
  const char *pin = getenv("SPANK_BERTH_DIGEST");
  if (image == NULL)
    image = options_prolog_image(sp);
  if (image == NULL || image[0] == '\0' || check_image_is_path(image))
    return; /* a file of the user's is opened by the user's own process */
  char *digest = pin == NULL ? NULL : request_pinned(pin, image);
  wire_start(&w, buf, sizeof(buf));
  add_job(sp, &w);
  add_owner(sp, &w);
  add_accounting(&w);
  wire_add(&w, "image", image);
  wire_add(&w, "digest", digest == NULL ? "" : digest);
  wire_add_number(&w, "wait", (unsigned long long)config->prolog_wait_ms);
  free(digest);
  if (w.failed)
    slurm_error("berth: the name of the job's image is too long to prepare it");
  else
    run(config->berth, "prepare", &w, config->prolog_wait_ms + PREPARE_SLACK_MS);
}

void prolog_cleanup(spank_t sp, const struct config *config) {
  char buf[64];
  struct wire_writer w;
  wire_start(&w, buf, sizeof(buf));
  add_job(sp, &w);
  run(config->berth, "cleanup", &w, CLEANUP_WAIT_MS);
}
