/*
 * config: the plugin's arguments in plugstack.conf. Everything else is
 * configured in /etc/berth/berth.toml, which the plugin does not read.
 *
 *   bindir=DIR         where berth is
 *   libexec=DIR        where berth-create and slurm/berth-slurm are
 *   prolog_wait=MS     how long job_prolog waits for `berth node prepare`
 */
#ifndef BERTH_CONFIG_H
#define BERTH_CONFIG_H

#include <limits.h>
#include <stdbool.h>

struct config {
  char berth[PATH_MAX];
  char create[PATH_MAX];
  char commands[PATH_MAX];
  int prolog_wait_ms;
};

/* config_read fills c, or returns false with the reason in error. */
bool config_read(struct config *c, int argc, char **argv, char error[256]);

#endif
