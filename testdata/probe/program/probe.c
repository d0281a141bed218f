/*
 * probe: prints what a process has from whoever started it, so that tests can
 * compare tasks in containers with tasks outside of any. Numbers that differ
 * from run to run (processes, pipes) are left out or written as relations.
 *
 *   probe facts             everything but core dumps
 *   probe core FOLDER       has a child abort there; what became of it
 *   probe abort FOLDER      aborts there itself
 *   probe strange CMD ...   becomes CMD, with something unusual of everything
 *   probe daemon CMD ...    starts CMD as daemons start: setsid and two forks
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { LINE = 4096 };

static const char *yes(bool b) {
  return b ? "yes" : "no";
}

/* Each row of digits becomes one N. */
static void print_without_numbers(const char *text) {
  for (const char *c = text; *c != '\0'; c++)
    if (strchr("0123456789", *c) == NULL)
      putchar(*c);
    else if (c == text || strchr("0123456789", c[-1]) == NULL)
      putchar('N');
}

/* Lines of a file that begin with one of some words; all without words. */
static void print_file(const char *path, const char *const words[]) {
  char line[LINE];
  FILE *f = fopen(path, "re");
  if (f == NULL) {
    printf("%s: %s\n", path, strerror(errno));
    return;
  }
  printf("%s:\n", path);
  while (fgets(line, sizeof(line), f) != NULL) {
    bool wanted = words == NULL;
    for (size_t i = 0; !wanted && words[i] != NULL; i++)
      wanted = strncmp(line, words[i], strlen(words[i])) == 0;
    if (wanted)
      fputs(line, stdout);
  }
  fclose(f);
}

static void print_files(void) {
  static const char *const status[] = {
      "Uid:",    "Gid:",     "SigPnd:",       "ShdPnd:",       "SigBlk:",      "SigIgn:",
      "SigCgt:", "CapEff:",  "CapInh:",       "CapAmb:",       "NoNewPrivs:",  "Seccomp:",
      "THP",     "Threads:", "Cpus_allowed:", "Mems_allowed:", "Speculation_", NULL};
  print_file("/proc/self/status", status);
  print_file("/proc/self/limits", NULL);
  print_file("/proc/self/oom_score_adj", NULL);
  print_file("/proc/self/coredump_filter", NULL);
  print_file("/proc/self/timerslack_ns", NULL);
}

/* Of steps' groups the numbers differ. */
static void print_cgroup(void) {
  char line[LINE];
  FILE *f = fopen("/proc/self/cgroup", "re");
  while (f != NULL && fgets(line, sizeof(line), f) != NULL)
    print_without_numbers(line);
  if (f != NULL)
    fclose(f);
}

static void print_process(void) {
  pid_t self = getpid(), parent = getppid(), group = getpgrp(), session = getsid(0);
  mode_t mask = umask(0);
  umask(mask);
  printf("umask %04o\n", (unsigned)mask);
  printf("group: own %s, parent's %s\n", yes(group == self), yes(group == getpgid(parent)));
  printf("session: own %s, group's leader %s, parent's %s\n", yes(session == self),
         yes(session == group), yes(session == getsid(parent)));
  printf("nice %d, policy %d, processors %d\n", getpriority(PRIO_PROCESS, 0), sched_getscheduler(0),
         (int)sysconf(_SC_NPROCESSORS_ONLN));
  printf("dumpable %d, no_new_privs %d, keepcaps %d, timer slack %d, "
         "securebits %d, seccomp %d\n",
         prctl(PR_GET_DUMPABLE), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), prctl(PR_GET_KEEPCAPS),
         prctl(PR_GET_TIMERSLACK), prctl(PR_GET_SECUREBITS), prctl(PR_GET_SECCOMP));
  int death = -1, reaper = -1;
  prctl(PR_GET_PDEATHSIG, &death);
  prctl(PR_GET_CHILD_SUBREAPER, &reaper);
  printf("signal of the parent's death %d, subreaper %d, personality %x\n", death, reaper,
         (unsigned)personality(0xffffffff));
}

static void print_terminal(void) {
  struct winsize size = {0};
  int tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
  printf("terminal of the session: %s", tty < 0 ? strerror(errno) : "yes");
  if (tty >= 0) {
    ioctl(tty, TIOCGWINSZ, &size);
    printf(", group in front: mine %s, session: mine %s, %dx%d", yes(tcgetpgrp(tty) == getpgrp()),
           yes(tcgetsid(tty) == getsid(0)), size.ws_col, size.ws_row);
    close(tty);
  }
  putchar('\n');
  for (int fd = 0; fd < 3; fd++) {
    struct stat named, opened;
    const char *name = ttyname(fd);
    printf("descriptor %d: ", fd);
    print_without_numbers(name == NULL ? strerror(errno) : name);
    if (name != NULL)
      printf(", the same file %s, group in front: mine %s",
             yes(stat(name, &named) == 0 && fstat(fd, &opened) == 0 &&
                 named.st_rdev == opened.st_rdev && named.st_ino == opened.st_ino),
             yes(tcgetpgrp(fd) == getpgrp()));
    putchar('\n');
  }
}

static void print_descriptors(void) {
  for (int fd = 0; fd < 1024; fd++) {
    char link[64], target[LINE];
    struct stat st;
    if (fstat(fd, &st) < 0)
      continue;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, target, sizeof(target) - 1);
    target[n < 0 ? 0 : n] = '\0';
    printf("descriptor %d: type %o, flags %o %o, at %lld, ", fd, (unsigned)(st.st_mode & S_IFMT),
           (unsigned)fcntl(fd, F_GETFL), (unsigned)fcntl(fd, F_GETFD),
           S_ISREG(st.st_mode) && fd > 2 ? (long long)lseek(fd, 0, SEEK_CUR) : 0LL);
    print_without_numbers(target);
    putchar('\n');
  }
}

static int facts(void) {
  print_descriptors(); /* first: what is opened below is ours */
  print_terminal();
  print_process();
  print_files();
  print_cgroup();
  return 0;
}

static int abort_in(const char *folder) {
  struct rlimit most;
  getrlimit(RLIMIT_CORE, &most);
  printf("core limit %lld %lld, dumpable %d\n", (long long)most.rlim_cur, (long long)most.rlim_max,
         prctl(PR_GET_DUMPABLE));
  fflush(stdout);
  most.rlim_cur = most.rlim_max;
  setrlimit(RLIMIT_CORE, &most);
  if (chdir(folder) < 0) {
    perror(folder);
    return 1;
  }
  abort();
}

static int core(const char *folder) {
  int status = 0;
  pid_t child = fork();
  if (child == 0)
    _exit(abort_in(folder));
  waitpid(child, &status, 0);
  printf("signal %d, core dumped %s\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0,
         yes(WIFSIGNALED(status) && WCOREDUMP(status)));
  return 0;
}

static void open_strange(void) {
  int ends[2];
  if (pipe(ends) < 0)
    return;
  fcntl(ends[0], F_DUPFD, 6); /* whatever is free from there on */
  fcntl(ends[1], F_DUPFD, 8);
  int file = open("/etc/passwd", O_RDONLY | O_APPEND);
  lseek(file, 7, SEEK_SET);
  fcntl(file, F_DUPFD, 40);
  close(ends[0]);
}

static void write_file(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0)
    perror(path);
  close(fd);
}

static void be_strange(void) {
  const int ignored[] = {SIGUSR1, SIGCHLD, SIGPIPE, SIGTERM,
                         SIGURG,  SIGQUIT, SIGTSTP, SIGRTMIN + 3};
  const int blocked[] = {SIGUSR2, SIGCHLD, SIGPROF, SIGALRM, SIGSEGV, SIGWINCH, SIGRTMIN + 5};
  struct rlimit files = {.rlim_cur = 333, .rlim_max = 4000},
                core = {.rlim_cur = 1 << 20, .rlim_max = 1 << 30};
  cpu_set_t first;
  sigset_t mask;
  for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
    signal(ignored[i], SIG_IGN);
  sigemptyset(&mask);
  for (size_t i = 0; i < sizeof(blocked) / sizeof(blocked[0]); i++)
    sigaddset(&mask, blocked[i]);
  sigprocmask(SIG_SETMASK, &mask, NULL);
  kill(getpid(), SIGUSR2); /* stays pending */
  CPU_ZERO(&first);
  CPU_SET(0, &first);
  sched_setaffinity(0, sizeof(first), &first);
  setrlimit(RLIMIT_NOFILE, &files);
  setrlimit(RLIMIT_CORE, &core);
  setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + 3);
  prctl(PR_SET_TIMERSLACK, 77777);
  write_file("/proc/self/oom_score_adj", "321");
  write_file("/proc/self/coredump_filter", "0x21");
  personality(ADDR_NO_RANDOMIZE);
  umask(027);
  open_strange();
}

static int become(char **command) {
  execvp(command[0], command);
  perror(command[0]);
  return 127;
}

static int start_daemon(char **command) {
  if (fork() > 0)
    return 0;
  setsid();
  if (fork() > 0)
    return 0;
  for (int fd = 0; fd < 3; fd++)
    close(fd);
  open("/dev/null", O_RDWR);
  dup(0);
  dup(0);
  return become(command);
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  if (strcmp(mode, "facts") == 0)
    return facts();
  if (argc > 2 && strcmp(mode, "core") == 0)
    return core(argv[2]);
  if (argc > 2 && strcmp(mode, "abort") == 0)
    return abort_in(argv[2]);
  if (argc > 2 && strcmp(mode, "daemon") == 0)
    return start_daemon(argv + 2);
  if (argc < 3 || strcmp(mode, "strange") != 0)
    return 64;
  be_strange();
  return become(argv + 2);
}
