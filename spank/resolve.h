/*
 * resolve: turns a reference into a digest at submit, by `berth resolve`, so
 * that all tasks, array elements and later steps run the same bits. It runs as
 * the user who submits, with the user's environment and credentials.
 */
#ifndef BERTH_RESOLVE_H
#define BERTH_RESOLVE_H

enum resolve_outcome {
  RESOLVE_PINNED,
  RESOLVE_UNREACHABLE, /* the registry may answer later: submit unpinned */
  RESOLVE_REFUSED,     /* the user's mistake: do not submit */
};

struct resolve_answer {
  char digest[72];
  char why[2048]; /* lines for the user, if there is no digest */
};

/* resolve_reference returns within four seconds. berth: the program's path. */
enum resolve_outcome resolve_reference(const char *berth, const char *reference,
                                       struct resolve_answer *answer);

#endif
