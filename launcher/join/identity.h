/*
 * identity: which container a `berth run` would get, as far as that can be told
 * before anything is parsed: the user, the folder it is started in, the
 * namespaces, session and cgroup it is started from, and the words before the
 * command. Two runs whose identities are equal, and for which nothing else of
 * what an offer (ready.h) names has changed, get the same container.
 */
#ifndef BERTH_IDENTITY_H
#define BERTH_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>

/* The longest identity, in bytes, and the length of a socket's name. */
#define IDENTITY_MAX (16 * 1024)
#define IDENTITY_NAME 24

/* No NUL is in the first len bytes of text; one is behind them. */
struct identity {
  char text[IDENTITY_MAX];
  size_t len;
  bool failed; /* it can't be told, or is too long */
};

/* identity_of_process begins with what holds for the process. */
void identity_of_process(struct identity *id);

/* identity_add adds a word; its length goes before it. */
void identity_add(struct identity *id, const char *word);

/* identity_name writes the name of the socket for id: a hash. */
void identity_name(const struct identity *id, char name[IDENTITY_NAME]);

#endif
