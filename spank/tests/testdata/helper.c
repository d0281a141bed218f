/*
 * A stand-in for berth-create that behaves as the name of the image says, so
 * that the plugin can be tested alone: error, error-early, error-unheard, die-at-start,
 * die-after-request, die-after-task, die-while-waiting, hang, progress, garbage, no-fds, bad-cwd,
 * and anything else for a container that works.
 *
 * Its container is the job's own view of the node, with a tmpfs on /mnt and in
 * it a program, bin/only-inside. What it was told lies in /shared/helper.JOB.STEP.NODE.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "wire.h"

enum { CONTROL = 3, TASKS_MAX = 256, LIFETIME_S = 90 };

static char request[WIRE_MAX];
static size_t request_len;
static FILE *log_file;

__attribute__((noreturn)) static void die(const char *what) {
  fprintf(log_file == NULL ? stderr : log_file, "fake: %s: %s\n", what, strerror(errno));
  exit(3);
}

static const char *asked(const char *key) {
  const char *value = wire_get(request, request_len, key);
  return value == NULL ? "" : value;
}

static bool mode(const char *name) {
  return strcmp(asked("image"), name) == 0;
}

static ssize_t receive(int socket, char *buf, int *fds, int *count, uid_t *sender) {
  char control[256];
  struct iovec data = {.iov_base = buf, .iov_len = WIRE_MAX};
  struct msghdr msg = {
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
  ssize_t n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
  *count = 0;
  *sender = (uid_t)-1;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); n > 0 && c != NULL; c = CMSG_NXTHDR(&msg, c)) {
    if (c->cmsg_type == SCM_CREDENTIALS)
      *sender = ((struct ucred *)CMSG_DATA(c))->uid;
    if (c->cmsg_type != SCM_RIGHTS)
      continue;
    *count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(fds, CMSG_DATA(c), (size_t)*count * sizeof(int));
  }
  return n;
}

static void log_message(const char *from, const char *data, size_t len) {
  struct wire_reader r;
  struct wire_record rec;
  wire_read(&r, data, len);
  while (wire_next(&r, &rec))
    fprintf(log_file, "%s %.*s=%s\n", from, (int)rec.key_len, rec.key, rec.value);
  fflush(log_file);
}

static void send_answer(int socket, struct wire_writer *w, const int *fds, int count) {
  char control[CMSG_SPACE(4 * sizeof(int))] = {0};
  struct iovec data = {.iov_base = w->buf, .iov_len = w->len};
  struct msghdr msg = {.msg_iov = &data, .msg_iovlen = 1};
  if (count > 0) {
    msg.msg_control = control;
    msg.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(c), fds, (size_t)count * sizeof(int));
  }
  sendmsg(socket, &msg, MSG_NOSIGNAL);
}

static void write_file(const char *path, const char *text) {
  int fd = open(path, O_WRONLY);
  if (fd < 0 || write(fd, text, strlen(text)) < 0)
    die(path);
  close(fd);
}

static void map_ids(pid_t pid, const char *format, int id_user, int id_group) {
  char path[64], line[64];
  snprintf(path, sizeof(path), "/proc/%d/setgroups", pid);
  write_file(path, "deny");
  snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
  snprintf(line, sizeof(line), format, id_user);
  write_file(path, line);
  snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
  snprintf(line, sizeof(line), format, id_group);
  write_file(path, line);
}

static int open_namespace(pid_t pid, const char *name) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    die(path);
  return fd;
}

static void turn(int to, int from) {
  char c = 0;
  if (write(to, &c, 1) != 1 || read(from, &c, 1) != 1)
    exit(3);
}

/* The user's side: N1, a mount namespace in it, then N2. */
static void build_as_user(int jobs_mounts, int uid, int gid, int to, int from) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (setns(jobs_mounts, CLONE_NEWNS) < 0)
    die("enter the job's mount namespace");
  if (syscall(SYS_setresgid, gid, gid, gid) < 0 || syscall(SYS_setresuid, uid, uid, uid) < 0)
    die("become the user");
  if (unshare(CLONE_NEWUSER) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0)
    die("unshare N1");
  turn(to, from); /* root writes the maps */
  if (unshare(CLONE_NEWNS) < 0 || mount("tmpfs", "/mnt", "tmpfs", 0, NULL) < 0)
    die("make the mount namespace");
  if (mkdir("/mnt/bin", 0755) < 0 || symlink("/usr/bin/id", "/mnt/bin/only-inside") < 0)
    die("fill the container");
  turn(to, from); /* root opens N1 and the mount namespace */
  if (unshare(CLONE_NEWUSER) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0)
    die("unshare N2");
  map_ids(getpid(), "%d 0 1\n", uid, gid);
  turn(to, from); /* root opens N2 */
  exit(0);
}

static int make_result(const char *cwd) {
  static char buf[WIRE_MAX];
  struct wire_writer w;
  wire_start(&w, buf, sizeof(buf));
  wire_add(&w, "cwd", cwd);
  wire_add(&w, "env", "PATH=/mnt/bin:/usr/bin:/bin");
  wire_add(&w, "env", "FROM_IMAGE=yes");
  wire_add(&w, "env", "KEPT=image");
  int fd = memfd_create("result", MFD_CLOEXEC);
  if (write(fd, w.buf, w.len) != (ssize_t)w.len)
    die("write the result");
  return fd;
}

static void make_container(int jobs_mounts, int fds[4]) {
  int to_child[2], to_parent[2];
  char c;
  int uid = atoi(asked("uid")), gid = atoi(asked("gid"));
  if (pipe2(to_child, O_CLOEXEC) < 0 || pipe2(to_parent, O_CLOEXEC) < 0)
    die("pipe");
  pid_t pid = fork();
  if (pid == 0)
    build_as_user(jobs_mounts, uid, gid, to_parent[1], to_child[0]);
  close(to_parent[1]);
  if (read(to_parent[0], &c, 1) != 1)
    die("wait for N1");
  map_ids(pid, "0 %d 1\n", uid, gid);
  fds[0] = open_namespace(pid, "user");
  turn(to_child[1], to_parent[0]);
  fds[1] = open_namespace(pid, "mnt");
  turn(to_child[1], to_parent[0]);
  fds[2] = open_namespace(pid, "user");
  fds[3] = make_result(mode("bad-cwd") ? "/no/such/folder" : "/mnt");
  if (write(to_child[1], &c, 1) != 1)
    die("end the user's side");
  waitpid(pid, NULL, 0);
}

/* Waits, for at most LIFETIME_S (alarm), until the task at socket is gone. */
static void wait_for_end(int socket) {
  struct pollfd p = {.fd = socket, .events = 0};
  while (poll(&p, 1, -1) < 0 || (p.revents & POLLHUP) == 0)
    continue;
}

static void answer(int socket, int jobs_mounts) {
  static int fds[4];
  static bool made;
  static char buf[WIRE_MAX];
  struct wire_writer w;
  int count = 0;
  wire_start(&w, buf, sizeof(buf));
  if (strncmp(asked("image"), "error", 5) == 0) {
    wire_add(&w, "error", "the fake has no such image");
    wire_add(&w, "remedy", "ask for another one");
    wire_add(&w, "blame", "user");
  } else if (mode("garbage")) {
    w.len = 5;
    memcpy(buf, "hello", 5);
  } else {
    if (!made && !mode("no-fds"))
      make_container(jobs_mounts, fds);
    made = true;
    count = mode("no-fds") ? 0 : 4;
    wire_add(&w, "ok", "1");
    wire_add(&w, "remap", "0");
    wire_add(&w, "note", "a note from the fake");
  }
  send_answer(socket, &w, fds, count);
}

static void send_progress(int socket) {
  char buf[128];
  struct wire_writer w;
  wire_start(&w, buf, sizeof(buf));
  wire_add(&w, "progress", "pulling \033[31mlayer 1 of 2");
  send_answer(socket, &w, NULL, 0);
}

static void answer_all(const int reply[], int jobs_mounts, int tasks) {
  for (int i = 0; i < tasks; i++)
    answer(reply[i], jobs_mounts);
}

/* Answers and ends without reading what task 0 says, before or after it does. */
static void answer_unheard(const int reply[], int jobs_mounts, int tasks) {
  struct pollfd p = {.fd = reply[0], .events = POLLIN};
  if (mode("error-unheard"))
    poll(&p, 1, -1);
  answer_all(reply, jobs_mounts, tasks);
  exit(0);
}

static void serve(const int reply[], int jobs_mounts, int tasks) {
  char buf[WIRE_MAX];
  int fds[8], count;
  uid_t sender;
  if (mode("error-early") || mode("error-unheard"))
    answer_unheard(reply, jobs_mounts, tasks);
  ssize_t n = receive(reply[0], buf, fds, &count, &sender);
  if (n > 0)
    log_message("task", buf, (size_t)n);
  if (mode("die-while-waiting"))
    exit(1);
  if (mode("hang"))
    wait_for_end(reply[0]);
  if (mode("progress"))
    send_progress(reply[0]);
  answer_all(reply, jobs_mounts, tasks);
}

static void read_request(void) {
  int fds[8], count;
  uid_t sender;
  ssize_t n = receive(CONTROL, request, fds, &count, &sender);
  if (n <= 0 || !wire_valid(request, (size_t)n))
    die("receive the request");
  request_len = (size_t)n;
  char path[128];
  snprintf(path, sizeof(path), "/shared/helper.%s.%s.%s", asked("job"), asked("step"),
           asked("node"));
  log_file = fopen(path, "we");
  if (log_file == NULL)
    die(path);
  fprintf(log_file, "sender uid=%u\n", sender);
  log_message("request", request, request_len);
}

static int open_descriptors(void) {
  int count = 0;
  for (int fd = 4; fd < 1024; fd++)
    count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

static int oom_score(void) {
  int score = -1;
  FILE *f = fopen("/proc/self/oom_score_adj", "re");
  if (f == NULL || fscanf(f, "%d", &score) != 1)
    die("read oom_score_adj");
  fclose(f);
  return score;
}

int main(int argc, char **argv) {
  static int reply[TASKS_MAX];
  char buf[WIRE_MAX];
  int jobs_mounts = -1, fds[8], count;
  int inherited = open_descriptors();
  uid_t sender;
  (void)argc;
  alarm(LIFETIME_S);
  signal(SIGPIPE, SIG_IGN);
  if (access("/shared/die-at-start", F_OK) == 0)
    return 1;
  read_request();
  fprintf(log_file, "self command=%s uid=%d euid=%d session=%d inherited=%d oom=%d PATH=%s\n",
          argv[1], getuid(), geteuid(), getsid(0) == getpid(), inherited, oom_score(),
          getenv("PATH"));
  fflush(log_file);
  if (mode("die-after-request"))
    return 1;
  int tasks = atoi(asked("tasks"));
  for (int i = 0; i < tasks; i++) {
    ssize_t n = receive(CONTROL, buf, fds, &count, &sender);
    if (n <= 0 || count < 1)
      die("receive a task");
    int id = atoi(wire_get(buf, (size_t)n, "task"));
    fprintf(log_file, "offer task=%d fds=%d uid=%u\n", id, count, sender);
    reply[id] = fds[0];
    if (count == 2)
      jobs_mounts = fds[1];
    if (mode("die-after-task"))
      return 1;
  }
  serve(reply, jobs_mounts, tasks);
  return 0;
}
