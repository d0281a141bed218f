/*
 * What must happen before Go's threads exist: a process with several threads
 * can neither create nor join a user namespace (setns(2), unshare(2)). This
 * constructor runs before the Go runtime and acts only when berth-create was
 * started as `berth-create userns …`, `inside …`, `janitor …`, `keeper …` or `giveback …`; everything
 * else passes through untouched.
 *
 *   userns UID GID GID[,...] START:COUNT START:COUNT
 *                              makes N1 and N2 and sends them on descriptor 3; the
 *                              ranges are further uids and gids of the user's, which
 *                              N1 maps from 1 on (count 0 for none)
 *   inside --userns=FD         joins N1 and takes a mount namespace of its own
 *   janitor NAME, keeper -, giveback NAME   see janitor.h; never get as far as Go
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "janitor.h"

#define CHANNEL 3
#define MAX_GROUPS 65536 /* NGROUPS_MAX */
#define MAP_SIZE 4096
#define MAX_LINES 340
#define MAX_GROUPS_WITH_RANGE 60 /* each may cut the range in two, and a page is all there is */

/* Says why on descriptor 2, which the parent collects, and ends the process. */
static void die(const char *step)
{
	dprintf(2, "%s: %s\n", step, strerror(errno));
	_exit(1);
}

static void write_file(pid_t pid, const char *name, const char *text)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		die(path);
	close(fd);
}

static void sync_send(int fd)
{
	if (write(fd, "", 1) != 1)
		die("write to sync pipe");
}

static void sync_wait(int fd)
{
	char c;

	if (read(fd, &c, 1) != 1) {
		errno = EPIPE;
		die("wait for the other process");
	}
}

/* Ids of the node that are the user's beside their own. */
struct range {
	unsigned start, count;
};

struct identity {
	uid_t uid;
	gid_t gid;
	const gid_t *groups; /* ascending */
	int n;
	struct range uids, gids;
};

static bool has(struct range r, unsigned id)
{
	return id >= r.start && id - r.start < r.count;
}

/*
 * The range of gids, inside from 1 on, but for the ids that groups have there.
 */
static void range_lines(char map[MAP_SIZE], int used, int room, const struct identity *who)
{
	unsigned next = 1, end = who->gids.count;

	for (int i = 0; i <= who->n && next <= end && room > 0; i++) {
		unsigned stop = i < who->n && who->groups[i] <= end ? who->groups[i] : end + 1;
		char line[48];

		int len = snprintf(line, sizeof line, "%u %u %u\n", next, who->gids.start + next - 1, stop - next);

		if (stop > next) {
			if (used + len >= MAP_SIZE)
				return;
			memcpy(map + used, line, (size_t)len + 1);
			used += len;
			room--;
		}
		next = stop + 1;
	}
}

/*
 * "inside outside 1" lines; groups but the first are mapped to themselves. The
 * kernel takes 340 lines and less than a page in one write (user_namespaces(7),
 * Linux 4.15): further groups stay unmapped. Files of theirs belong to nobody
 * inside, and access through them goes on as the kernel checks it outside.
 */
static int gid_lines(char map[MAP_SIZE], gid_t inside, gid_t outside, const struct identity *who, int most)
{
	int used = snprintf(map, MAP_SIZE, "%u %u 1\n", inside, outside);

	for (int i = 0; i < who->n && i < most; i++) {
		char line[32];
		int len = snprintf(line, sizeof line, "%u %u 1\n", who->groups[i], who->groups[i]);

		if (used + len >= MAP_SIZE)
			break;
		memcpy(map + used, line, (size_t)len + 1);
		used += len;
	}
	return used;
}

static void send_fds(const int *fds, int n)
{
	char byte = 0, control[CMSG_SPACE(2 * sizeof(int))] = {0};
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			     .msg_controllen = CMSG_SPACE((size_t)n * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, (size_t)n * sizeof(int));
	if (sendmsg(CHANNEL, &msg, 0) < 0)
		die("send namespaces");
}

static int open_userns(pid_t pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/proc/%d/ns/user", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(path);
	return fd;
}

/* Starts a child that unshares a user namespace, tells so, and waits. */
static pid_t child_in_userns(int told[2], int go[2])
{
	pid_t pid;

	if (pipe2(told, O_CLOEXEC) || pipe2(go, O_CLOEXEC))
		die("pipe");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid > 0) {
		close(told[1]);
		close(go[0]);
		return pid;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(told[0]);
	close(go[1]);
	return 0;
}

/* Runs as root in appearance inside N1: makes N2 (uid X shown as itself). */
static void make_n2(const struct identity *who)
{
	char map[MAP_SIZE];
	int told[2], go[2], fds[2];
	pid_t pid = child_in_userns(told, go);

	if (pid == 0) {
		if (unshare(CLONE_NEWUSER))
			die("create the nested user namespace");
		sync_send(told[1]);
		sync_wait(go[0]);
		_exit(0);
	}
	sync_wait(told[0]);
	snprintf(map, sizeof map, "%u 0 1\n", who->uid);
	write_file(pid, "uid_map", map);
	gid_lines(map, who->gid, 0, who, who->gids.count > 0 ? MAX_GROUPS_WITH_RANGE : MAX_LINES - 1);
	write_file(pid, "gid_map", map);
	fds[0] = open_userns(getpid());
	fds[1] = open_userns(pid);
	send_fds(fds, 2);
	sync_send(go[1]);
	waitpid(pid, NULL, 0);
	_exit(0);
}

/* The user, with our capabilities kept: N1 is then made with CAP_SYS_ADMIN, as
 * some kernels and security modules demand. N2 is made by the user alone, so
 * where those forbid user namespaces to users it still fails. The kernel makes
 * the effective uid the owner of the new namespace (user_namespaces(7)). */
static void become(const struct identity *who)
{
	static gid_t all[MAX_GROUPS + 1];

	if (geteuid() == who->uid)
		return;
	all[0] = who->gid;
	memcpy(all + 1, who->groups, (size_t)who->n * sizeof(gid_t));
	if (prctl(PR_SET_SECUREBITS, 1 << 2 /* SECBIT_NO_SETUID_FIXUP */))
		die("keep capabilities");
	if (setgroups((size_t)who->n + 1, all) || setresgid(who->gid, who->gid, who->gid) ||
	    setresuid(who->uid, who->uid, who->uid))
		die("become the user");
}

/* newuidmap and newgidmap are privileged, and look the range up themselves. */
static void run_mapper(const char *program, pid_t pid, unsigned own, struct range r)
{
	char id[4][16];
	int status;
	pid_t child;

	snprintf(id[0], sizeof id[0], "%d", (int)pid);
	snprintf(id[1], sizeof id[1], "%u", own);
	snprintf(id[2], sizeof id[2], "%u", r.start);
	snprintf(id[3], sizeof id[3], "%u", r.count);
	child = fork();
	if (child < 0)
		die("fork");
	if (child == 0) {
		execlp(program, program, id[0], "0", id[1], "1", "1", id[2], id[3], (char *)NULL);
		die(program);
	}
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status))
		_exit(1);
}

/*
 * With further gids, setgroups(2) is left to the user, as newgidmap leaves it:
 * installers need it. Without, it stays shut (user_namespaces(7)).
 */
static void write_maps(pid_t pid, const struct identity *who)
{
	char map[MAP_SIZE];
	int used;

	if (who->uids.count > 0 && geteuid() != 0) {
		run_mapper("newuidmap", pid, who->uid, who->uids);
		run_mapper("newgidmap", pid, who->gid, who->gids);
		return;
	}
	used = snprintf(map, sizeof map, "0 %u 1\n", who->uid);
	if (who->uids.count > 0)
		snprintf(map + used, sizeof map - (size_t)used, "1 %u %u\n", who->uids.start, who->uids.count);
	else
		write_file(pid, "setgroups", "deny");
	write_file(pid, "uid_map", map);
	used = gid_lines(map, 0, who->gid, who, who->gids.count > 0 ? MAX_GROUPS_WITH_RANGE : MAX_LINES - 1);
	if (who->gids.count > 0)
		range_lines(map, used, MAX_LINES / 2, who);
	write_file(pid, "gid_map", map);
}

static void make_userns(struct identity who)
{
	int told[2], go[2], status;
	pid_t pid;

	/* Without privilege the kernel maps no group but the process's own. */
	if (geteuid() != 0)
		who.n = 0;
	pid = child_in_userns(told, go);
	if (pid == 0) {
		become(&who);
		if (unshare(CLONE_NEWUSER))
			die("create the user namespace");
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* changing uid cleared it */
		/* From here on it holds no more than its user may. Undumpable, its
		 * children's /proc files would belong to root, maps included. */
		prctl(PR_SET_DUMPABLE, 1);
		sync_send(told[1]);
		sync_wait(go[0]);
		make_n2(&who);
	}
	sync_wait(told[0]);
	write_maps(pid, &who);
	sync_send(go[1]);
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status))
		_exit(1);
	_exit(0);
}

static int compare(const void *a, const void *b)
{
	gid_t x = *(const gid_t *)a, y = *(const gid_t *)b;

	return (x > y) - (x < y);
}

static struct range parse_range(const char *text)
{
	struct range r = {0, 0};

	if (sscanf(text, "%u:%u", &r.start, &r.count) != 2)
		r.count = 0;
	return r;
}

/* Ascending. What has a place in the range already would be mapped twice. */
static int parse_groups(const char *list, gid_t gid, struct range taken, gid_t *groups)
{
	int n = 0;

	while (list && *list && n < MAX_GROUPS) {
		char *end;
		unsigned long g = strtoul(list, &end, 10);

		if (end == list)
			break;
		if (g != gid && g != 0 && !has(taken, (unsigned)g))
			groups[n++] = (gid_t)g;
		list = *end == ',' ? end + 1 : end;
	}
	qsort(groups, (size_t)n, sizeof(gid_t), compare);
	return n;
}

static void enter(const char *arg)
{
	const char *prefix = "--userns=";

	if (strncmp(arg, prefix, strlen(prefix)) != 0)
		return;
	if (setns(atoi(arg + strlen(prefix)), CLONE_NEWUSER))
		die("join the job's user namespace");
	if (unshare(CLONE_NEWNS))
		die("create the container's mount namespace");
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
		die("make mounts private");
	prctl(PR_SET_DUMPABLE, 1);
}

__attribute__((constructor)) static void before_go(int argc, char **argv)
{
	static gid_t groups[MAX_GROUPS];

	if (argc == 7 && !strcmp(argv[1], "userns")) {
		struct identity who = {.uid = (uid_t)strtoul(argv[2], NULL, 10),
				       .gid = (gid_t)strtoul(argv[3], NULL, 10),
				       .groups = groups,
				       .uids = parse_range(argv[5]),
				       .gids = parse_range(argv[6])};

		who.n = parse_groups(argv[4], who.gid, who.gids, groups);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		make_userns(who);
	}
	if (argc >= 3 && !strcmp(argv[1], "inside"))
		enter(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "janitor"))
		janitor(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "keeper"))
		keeper();
	if (argc == 3 && !strcmp(argv[1], "giveback"))
		give_back(argv[2]);
}
