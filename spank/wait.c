#include "wait.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <slurm/slurm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "command.h"
#include "commands.h"
#include "devices.h"
#include "entrypoint.h"
#include "failure.h"
#include "join.h"
#include "login.h"
#include "packet.h"
#include "pytorch.h"
#include "save.h"

#define REMEDY_ADMIN "this is for the cluster's admin: slurmd's log on this node says more"
#define REMEDY_RETRY "submit the job again; if it happens again, tell the cluster's admin"

#define GONE "the container helper ended before the container was ready"
#define NONSENSE "the container helper gave an answer that makes no sense"

enum { FD_MAX = 4 + JOIN_OWN_MAX + SAVE_FDS_MAX, PATH_SIZE = 4096 };

/* Our end of the socket to the helper; one per task process. */
static int reply = -1;

/* A message from the helper, with its descriptors. */
struct answer {
  char data[WIRE_MAX];
  size_t len;
  int fds[FD_MAX];
  int fd_count;
};

static int local_task(spank_t sp) {
  int id = -1;
  spank_get_item(sp, S_TASK_ID, &id);
  return id;
}

/* Local task 0 also hands over its mount namespace: the job's view of the node. */
static int offer(int control, int task, int theirs) {
  char buf[64];
  struct wire_writer w;
  int fds[2] = {theirs, -1};
  int count = 1;
  wire_start(&w, buf, sizeof(buf));
  wire_add_number(&w, "task", (unsigned long long)task);
  if (task == 0) {
    fds[count++] = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (fds[1] < 0)
      return -1;
  }
  int rc = packet_send(control, &w, fds, count);
  int why = errno;
  if (fds[1] >= 0)
    close(fds[1]);
  errno = why;
  return rc;
}

/*
 * proctrack/linuxproc sends no signal, not even SIGKILL, to a process that is
 * called as slurmstepd is (kill_tree.c): without a name of its own, a task
 * that waits could not be cancelled. exec gives it the command's name.
 */
static void make_killable(void) {
  prctl(PR_SET_NAME, "berth-wait", 0, 0, 0);
}

void wait_offer(spank_t sp, int control) {
  int pair[2];
  make_killable();
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
    failure_keep(REMEDY_ADMIN, "cannot make a socket: %s", strerror(errno));
    close(control);
    return;
  }
  reply = pair[0];
  if (offer(control, local_task(sp), pair[1]) < 0) {
    if (errno == EPIPE || errno == ECONNRESET)
      failure_keep(REMEDY_RETRY, GONE);
    else
      failure_keep(REMEDY_ADMIN, "the container helper does not answer: %s", strerror(errno));
  }
  close(pair[1]);
  close(control);
}

static void add_variable(spank_t sp, struct wire_writer *w, const char *key, const char *name) {
  char value[PATH_SIZE];
  if (spank_getenv(sp, name, value, sizeof(value)) == ESPANK_SUCCESS && value[0] != '\0')
    wire_add(w, key, value);
}

/* The batch script lies in slurmd's spool folder, which no container has. */
static void add_spool(spank_t sp, struct wire_writer *w) {
  uint32_t step = 0;
  int argc = 0;
  char **argv = NULL;
  char path[PATH_SIZE];
  if (spank_get_item(sp, S_JOB_STEPID, &step) != ESPANK_SUCCESS || step != SLURM_BATCH_SCRIPT)
    return;
  if (spank_get_item(sp, S_JOB_ARGV, &argc, &argv) != ESPANK_SUCCESS || argc < 1)
    return;
  snprintf(path, sizeof(path), "%s", argv[0]);
  if (path[0] == '/')
    wire_add(w, "spool", dirname(path));
}

/*
 * Slurm runs both task prologs after task_init, so in the container. The
 * site's is in slurmstepd's configuration, a symbol of libslurmfull whose type
 * slurm.h has; the plugin is built for this very release.
 */
static void find_prologs(const struct request *r, const char *prologs[2]) {
  const slurm_conf_t *conf = dlsym(RTLD_DEFAULT, "slurm_conf");
  bool site = conf != NULL && conf->task_prolog != NULL && conf->task_prolog[0] == '/';
  prologs[0] = site ? conf->task_prolog : NULL;
  prologs[1] = r->task_prolog;
}

/* The site's hooks may be for some commands alone. */
static void add_command(spank_t sp, struct wire_writer *w) {
  int argc = 0;
  char **argv = NULL;
  if (spank_get_item(sp, S_JOB_ARGV, &argc, &argv) == ESPANK_SUCCESS && argc > 0)
    wire_add(w, "command", argv[0]);
}

/* Slurm has put the copy's path in place of the command's. */
static void add_bcast(spank_t sp, const struct request *r, struct wire_writer *w) {
  int argc = 0;
  char **argv = NULL;
  if (r->bcast != NULL && spank_get_item(sp, S_JOB_ARGV, &argc, &argv) == ESPANK_SUCCESS &&
      argc > 0)
    wire_add(w, "bcast", argv[0]);
}

static void add_prologs(const struct request *r, struct wire_writer *w) {
  const char *prologs[2];
  find_prologs(r, prologs);
  for (int i = 0; i < 2; i++)
    if (prologs[i] != NULL)
      wire_add(w, "prolog_file", prologs[i]);
}

/*
 * What must be at the same path in the container. All of it is the user's
 * word. exec_task (slurmstepd/task.c) has set up MPI by now, so the
 * environment has PMIX_SERVER_TMPDIR; TaskProlog and gres variables set by
 * later code are not seen here.
 */
static void tell_needs(spank_t sp, const struct request *r) {
  static char buf[WIRE_MAX];
  char cwd[PATH_SIZE];
  struct wire_writer w;
  wire_start(&w, buf, sizeof(buf));
  if (getcwd(cwd, sizeof(cwd)) != NULL)
    wire_add(&w, "cwd", cwd);
  add_variable(sp, &w, "tmpdir", "TMPDIR");
  add_variable(sp, &w, "pmix", "PMIX_SERVER_TMPDIR");
  add_variable(sp, &w, "home", "HOME");
  add_spool(sp, &w);
  add_prologs(r, &w);
  add_bcast(sp, r, &w);
  add_command(sp, &w);
  devices_tell(sp, &w);
  if (w.failed)
    failure_keep(REMEDY_ADMIN, "the job's paths are too long");
  /* A helper that has ended may have answered before: await sees that. */
  else if (send(reply, w.buf, w.len, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
    failure_keep(REMEDY_RETRY, GONE);
}

static void take_fds(struct msghdr *msg, struct answer *a) {
  a->fd_count = 0;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count && a->fd_count < FD_MAX; i++)
      memcpy(&a->fds[a->fd_count++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
  }
}

/*
 * Waits for a message. A signal kills the task meanwhile. Returns false at the
 * end, or with the failure kept.
 */
static bool receive(struct answer *a) {
  union {
    struct cmsghdr header;
    char buf[CMSG_SPACE(sizeof(int) * FD_MAX)];
  } control;
  struct iovec data = {.iov_base = a->data, .iov_len = sizeof(a->data)};
  struct msghdr msg = {.msg_iov = &data,
                       .msg_iovlen = 1,
                       .msg_control = control.buf,
                       .msg_controllen = sizeof(control.buf)};
  bool again = true;
  ssize_t n;
  while ((n = recvmsg(reply, &msg, MSG_CMSG_CLOEXEC)) < 0) {
    /* Once: it is told before what the helper has sent, if the helper ended
     * without reading what task 0 says (unix_release_sock in af_unix.c). */
    if (errno == ECONNRESET && again)
      again = false;
    else if (errno != EINTR)
      break;
  }
  a->len = n < 0 ? 0 : (size_t)n;
  take_fds(&msg, a);
  if (!wire_valid(a->data, a->len))
    failure_keep(REMEDY_ADMIN, NONSENSE);
  return n > 0 && !failure_kept();
}

static const char *get(const struct answer *a, const char *key) {
  const char *value = wire_get(a->data, a->len, key);
  return value == NULL ? "" : value;
}

/* Remarks on a container that works, once per node. */
static void print_notes(const struct answer *a) {
  struct wire_reader reader;
  struct wire_record rec;
  wire_read(&reader, a->data, a->len);
  while (wire_next(&reader, &rec))
    if (wire_key_is(&rec, "note"))
      failure_progress(rec.value);
}

/*
 * The helper asks one task of the node, and each time it does it gets an answer.
 * A helper that is gone is noticed by receive.
 */
static void tell_login(spank_t sp, const char *berth, const char *reference) {
  static struct login l;
  static char buf[WIRE_MAX];
  struct wire_writer w;
  char **env = NULL;
  wire_start(&w, buf, sizeof(buf));
  if (spank_get_item(sp, S_JOB_ENV, &env) != ESPANK_SUCCESS || env == NULL)
    wire_add(&w, "login_error", "the job's environment is not known");
  else if (login_find(berth, reference, env, LOGIN_LIMIT_MS, &l))
    wire_add(&w, "login", l.answer);
  else
    wire_add(&w, "login_error", l.why);
  send(reply, w.buf, w.len, MSG_NOSIGNAL);
  login_forget(&l);
  explicit_bzero(buf, sizeof(buf));
}

/* Waits for the answer that decides; meanwhile prints progress, and says which
 * login the user has. */
static void await(spank_t sp, const char *berth, struct answer *a) {
  while (receive(a)) {
    if (get(a, "login")[0] != '\0') {
      tell_login(sp, berth, get(a, "login"));
      continue;
    }
    if (get(a, "progress")[0] != '\0') {
      failure_progress(get(a, "progress"));
      continue;
    }
    if (get(a, "error")[0] != '\0')
      failure_keep(get(a, "remedy"), "%s", get(a, "error"));
    else if (strcmp(get(a, "ok"), "1") != 0)
      failure_keep(REMEDY_ADMIN, NONSENSE);
    return;
  }
  failure_keep(REMEDY_RETRY, GONE);
}

static bool has_variable(void *context, const char *name) {
  char one[2];
  return spank_getenv(context, name, one, sizeof(one)) != ESPANK_ENV_NOEXIST;
}

static int set_variable(void *context, const char *name, const char *value) {
  return spank_setenv(context, name, value, 1) == ESPANK_SUCCESS ? 0 : -1;
}

static void unset_variable(void *context, const char *name) {
  spank_unsetenv(context, name);
}

static const char *variable(void *context, size_t number) {
  char **all;
  return spank_get_item(context, S_JOB_ENV, &all) == ESPANK_SUCCESS ? all[number] : NULL;
}

/*
 * Takes the namespaces of the container's own, whose descriptors are those from
 * next to end, in the order of their records. Returns false if these are not as
 * many.
 */
static bool take_own(const struct answer *a, int next, int end, struct join_namespaces *ns) {
  struct wire_reader reader;
  struct wire_record rec;
  wire_read(&reader, a->data, a->len);
  while (wire_next(&reader, &rec)) {
    if (!wire_key_is(&rec, "unshare"))
      continue;
    if (next >= end || ns->own_count == JOIN_OWN_MAX)
      return false;
    ns->own[ns->own_count++] = (struct join_own){a->fds[next++], join_type(rec.value)};
  }
  return next == end;
}

/* How many descriptors are for saving the container: the last ones. */
static int count_saved(const struct answer *a) {
  struct wire_reader reader;
  struct wire_record rec;
  int count = 0;
  wire_read(&reader, a->data, a->len);
  while (wire_next(&reader, &rec))
    count += wire_key_is(&rec, "saved");
  return count;
}

/* In steps of srun alone: a batch script is no rank. */
static int set_ranks(spank_t sp, const struct join_result *result,
                     const struct join_environment *env, struct join_error *err) {
  uint32_t job = 0, step = 0;
  spank_get_item(sp, S_JOB_ID, &job);
  spank_get_item(sp, S_JOB_STEPID, &step);
  if (step > SLURM_MAX_NORMAL_STEP_ID || pytorch_set(result, env, job, step) == 0)
    return 0;
  snprintf(err->text, sizeof(err->text), "cannot set the variables that PyTorch reads");
  err->remedy = NULL;
  return -1;
}

/* Who does not want it gets no variables of one that has run either. */
static int take_entrypoint(spank_t sp, const struct request *r, const struct join_result *result,
                           const struct join_environment *env, struct join_error *err) {
  struct entrypoint_task task = {.runs = local_task(sp) == 0,
                                 .log = r->entrypoint_log != NULL && r->entrypoint_log[0] == '1'};
  if (r->entrypoint != NULL && r->entrypoint[0] == '0')
    return 0;
  spank_get_item(sp, S_JOB_ENV, &task.env);
  return entrypoint_take(result, env, &task, err);
}

static int enter(spank_t sp, const struct request *r, const struct answer *a,
                 struct join_error *err) {
  static struct join_result result;
  bool remap = strcmp(get(a, "remap"), "1") == 0;
  int expected = remap ? 3 : 4;
  const char *keep[1] = {r->env};
  struct join_environment env = {.context = sp,
                                 .has = has_variable,
                                 .set = set_variable,
                                 .unset = unset_variable,
                                 .entry = variable,
                                 .keep = keep,
                                 .keep_count = r->env == NULL ? 0 : 1};
  struct join_namespaces ns = {
      .user = a->fds[0], .mnt = a->fds[1], .user2 = remap ? -1 : a->fds[2]};
  int end = a->fd_count - count_saved(a);
  if (!take_own(a, expected, end, &ns)) {
    snprintf(err->text, sizeof(err->text), "the container helper sent %d descriptors, not %d", end,
             expected + (int)ns.own_count);
    err->remedy = NULL;
    return -1;
  }
  if (join_read_result(a->fds[expected - 1], &result, err) < 0 ||
      join_enter(&ns, get(a, "cwd")[0] != '\0' ? get(a, "cwd") : result.cwd, err) < 0)
    return -1;
  if (join_set_environment(&result, &env, err) < 0 ||
      take_entrypoint(sp, r, &result, &env, err) < 0)
    return -1;
  return set_ranks(sp, &result, &env, err);
}

/* What a user should know of a container that they are in; once per node. */
static void explain(spank_t sp, const struct request *r, const struct answer *a) {
  const char *prologs[2];
  print_notes(a);
  find_prologs(r, prologs);
  command_explain(sp, prologs);
}

/* Before the task enters the container: afterwards it can start nothing outside. */
static void serve_commands(spank_t sp, const char *program, char name[COMMANDS_NAME_SIZE]) {
  if (commands_serve(sp, program, name) < 0)
    failure_keep(REMEDY_ADMIN, "cannot start %s: %s", program, strerror(errno));
}

/* The path may be wrong on this node alone. No task starts for nothing. */
static void check_save_path(const struct request *r) {
  char why[CHECK_ERROR_SIZE];
  if (r->save != NULL && !failure_kept() && !check_save_target(r->save, why))
    failure_keep("name a file in a folder of yours that the node has", "%s", why);
}

/*
 * Local task 0 of a step that is to be saved goes on as a child of the process
 * that saves it.
 */
static void split(spank_t sp, const struct request *r, const struct config *config,
                  const struct answer *a) {
  uint32_t tasks = 0, step = 0;
  struct save s = {.berth = config->berth, .target = r->save, .mount = a->fds[1]};
  spank_get_item(sp, S_JOB_LOCAL_TASK_COUNT, &tasks);
  spank_get_item(sp, S_JOB_STEPID, &step);
  spank_get_item(sp, S_JOB_ENV, &s.env);
  s.tasks = (int)tasks;
  s.batch = step == SLURM_BATCH_SCRIPT;
  s.said = (struct save_said){a->data, a->len};
  s.fd_count = count_saved(a);
  if (s.fd_count <= SAVE_FDS_MAX && s.fd_count <= a->fd_count)
    memcpy(s.fds, a->fds + a->fd_count - s.fd_count, sizeof(int) * (size_t)s.fd_count);
  else
    failure_keep(REMEDY_ADMIN, NONSENSE);
  char pid[16];
  if (failure_kept() || !save_split(&s))
    return;
  snprintf(pid, sizeof(pid), "%d", (int)getpid());
  spank_setenv(sp, "SLURM_TASK_PID", pid, 1);
}

void wait_join(spank_t sp, const struct request *r, const struct config *config) {
  static struct answer a;
  struct join_error err;
  char name[COMMANDS_NAME_SIZE] = "";
  check_save_path(r);
  if (!failure_kept() && local_task(sp) == 0)
    tell_needs(sp, r);
  if (!failure_kept())
    await(sp, config->berth, &a);
  if (!failure_kept() && r->save != NULL && local_task(sp) == 0)
    split(sp, r, config, &a);
  bool slurm = !failure_kept() && strcmp(get(&a, "slurm"), "1") == 0;
  if (slurm)
    serve_commands(sp, config->commands, name);
  if (!failure_kept() && enter(sp, r, &a, &err) < 0)
    failure_keep(err.remedy == NULL ? REMEDY_ADMIN : err.remedy, "%s", err.text);
  if (slurm && !failure_kept() && commands_offer(sp, name) < 0)
    failure_keep(REMEDY_ADMIN, "cannot set the variables for Slurm's commands");
  if (failure_kept())
    failure_end();
  if (r->save != NULL)
    save_joined();
  if (local_task(sp) == 0)
    explain(sp, r, &a);
  for (int i = 0; i < a.fd_count; i++)
    close(a.fds[i]);
  close(reply);
}
