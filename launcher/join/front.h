/*
 * front: lets a Go program that is started as `berth run …` take a container
 * that stands ready before Go begins.
 */
#ifndef BERTH_FRONT_H
#define BERTH_FRONT_H

/* front_link makes sure that the constructor is linked. */
void front_link(void);

#endif
