#define _GNU_SOURCE
#include "janitor.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range /* Linux 5.9 */
#define SYS_close_range 436
#endif

enum { FD_USERNS = 3, FD_FOLDER, FD_WATCH, FD_FIRST_OTHER, OPEN_FOLDERS = 32 };

static void die(const char *step)
{
	dprintf(2, "%s: %s\n", step, strerror(errno));
	_exit(1);
}

/* The file system goes, and its watch with it, when nobody has it mounted. */
static void wait_for_end(void)
{
	union {
		struct inotify_event event;
		char bytes[4096];
	} buf;

	for (;;) {
		ssize_t n = read(FD_WATCH, &buf, sizeof buf);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < (ssize_t)sizeof buf.event)
			_exit(1);
		if (buf.event.mask & (IN_UNMOUNT | IN_IGNORED))
			return;
	}
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	remove(path); /* what can't be removed keeps the folders above it */
	return 0;
}

/* 0 in N1 is the user, whose files these are again. Their groups stay. */
static int give_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)type;
	(void)where;
	return st->st_uid == 0 ? 0 : lchown(path, 0, 0);
}

static void enter(void)
{
	if (setns(FD_USERNS, CLONE_NEWUSER))
		die("join the user namespace");
}

void give_back(const char *name)
{
	enter();
	if (fchdir(FD_FOLDER) || nftw(name, give_one, OPEN_FOLDERS, FTW_PHYS))
		die("give files back to the user");
	_exit(0);
}

/* Goes on in the background until the container has ended. */
static void watch(const char *title)
{
	pid_t pid;

	enter();
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid > 0)
		_exit(0);
	setsid();
	prctl(PR_SET_NAME, title, 0, 0, 0);
	syscall(SYS_close_range, FD_FIRST_OTHER, ~0U, 0);
	for (int fd = 0; fd < FD_USERNS; fd++) /* nobody must wait for what we hold */
		dup2(open("/dev/null", O_RDWR | O_CLOEXEC), fd);
	wait_for_end();
}

void keeper(void)
{
	watch("berth-keeper");
	_exit(0); /* and so lets go of the lock */
}

void janitor(const char *name)
{
	watch("berth-janitor");
	if (fchdir(FD_FOLDER))
		_exit(1);
	nftw(name, remove_one, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS);
	_exit(0);
}
