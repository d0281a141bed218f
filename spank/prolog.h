/*
 * prolog: starts `berth node prepare` before a job and `berth node cleanup`
 * after it. Both run as root with a fixed environment. An error here would
 * drain the node, so there is none: it is logged, and the step says it.
 */
#ifndef BERTH_PROLOG_H
#define BERTH_PROLOG_H

#include <slurm/spank.h>

#include "config.h"

void prolog_prepare(spank_t sp, const struct config *config);
void prolog_cleanup(spank_t sp, const struct config *config);

#endif
