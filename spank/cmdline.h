/*
 * cmdline: the command line of srun, sbatch or salloc, for what Slurm does not
 * tell its plugins: whether an option was given there or in a #SBATCH line,
 * and the value of an option that is not the plugin's.
 */
#ifndef BERTH_CMDLINE_H
#define BERTH_CMDLINE_H

#include <stdbool.h>

struct cmdline {
  char *data; /* arguments, each ended by a NUL */
  long len;
};

/* cmdline_read reads this process's arguments; empty where it can't. */
void cmdline_read(struct cmdline *c);
void cmdline_free(struct cmdline *c);

/* cmdline_count counts the uses of --NAME and --NAME=… */
int cmdline_count(const struct cmdline *c, const char *name);

/* cmdline_has says whether one of the arguments is word. */
bool cmdline_has(const struct cmdline *c, const char *word);

/* cmdline_value returns the last value of --NAME=VALUE or --NAME VALUE, or NULL. */
const char *cmdline_value(const struct cmdline *c, const char *name);

#endif
