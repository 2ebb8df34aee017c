/* SPDX-License-Identifier: BSD-2-Clause */

/* Several replicas in one process: a thread for each. */

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <splitmerge/splitmerge.h>

/* The threads and whoever waits for them; freed by the last of all of these. */
struct crew {
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    sm_replica_fn *body;
    void *arg;
    unsigned running; /* threads */
    unsigned users;   /* threads, and the caller of sm_threads() */
    int result;       /* the first that is not 0 */
    char *names, *next;
};

static void leave(struct crew *crew)
{
    bool last = --crew->users == 0;

    pthread_mutex_unlock(&crew->mutex);
    if (!last)
        return;
    pthread_cond_destroy(&crew->ended);
    pthread_mutex_destroy(&crew->mutex);
    free(crew->names);
    free(crew);
}

static void *run(void *user)
{
    struct crew *crew = user;

    pthread_mutex_lock(&crew->mutex);
    const char *name = strsep(&crew->next, ",");
    pthread_mutex_unlock(&crew->mutex);
    pthread_setname_np(pthread_self(), name);
    int result = crew->body(name, crew->arg);

    pthread_mutex_lock(&crew->mutex);
    if (crew->result == 0)
        crew->result = result;
    crew->running--;
    pthread_cond_signal(&crew->ended);
    leave(crew);
    return NULL;
}

/* A thread for each name. Those that there are go on where one cannot be made: the process ends by that. */
static int begin(struct crew *crew)
{
    unsigned count = 1;
    pthread_t thread;

    for (const char *c = crew->names; *c; c++)
        count += *c == ',';
    for (; count > 0; count--) {
        if (pthread_create(&thread, NULL, run, crew) != 0)
            return SM_E_NO_MEMORY;
        pthread_detach(thread);
        crew->running++;
        crew->users++;
    }
    return 0;
}

int sm_threads(sm_replica_fn *body, void *arg)
{
    const char *names = getenv("SPLITMERGE_REPLICA");

    if (!names || !strchr(names, ','))
        return body(names, arg);
    struct crew *crew = calloc(1, sizeof *crew);
    if (!crew || !(crew->names = strdup(names))) {
        free(crew);
        return SM_E_NO_MEMORY;
    }
    crew->body = body;
    crew->arg = arg;
    crew->next = crew->names;
    crew->users = 1;
    pthread_mutex_init(&crew->mutex, NULL);
    pthread_cond_init(&crew->ended, NULL);
    pthread_mutex_lock(&crew->mutex); /* they begin when all are there */
    crew->result = begin(crew);
    while (crew->running > 0 && crew->result == 0)
        pthread_cond_wait(&crew->ended, &crew->mutex);
    int result = crew->result;
    leave(crew);
    return result;
}
