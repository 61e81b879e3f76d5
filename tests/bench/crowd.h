/* What load and smtp share: many sessions, some of them at a time, and how long they took. Whoever includes it has a
 * session(number). */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static long sessions, clients, pause_us, next_session;
static uint32_t first;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void session(long number);

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

static void *run(void *unused) {
    for (;;) {
        pthread_mutex_lock(&lock);
        long number = next_session < sessions ? next_session++ : -1;
        pthread_mutex_unlock(&lock);
        if (number < 0) return unused;
        session(number);
    }
}

/* Goes through all sessions; returns the seconds that it took. */
static double run_sessions(long parallel) {
    pthread_t *threads = calloc(parallel, sizeof *threads);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 * 1024);
    uint64_t begin = now_us();
    for (long i = 0; i < parallel; i++)
        if (pthread_create(&threads[i], &small, run, NULL)) { perror("pthread_create"); exit(1); }
    for (long i = 0; i < parallel; i++) pthread_join(threads[i], NULL);
    return (now_us() - begin) / 1e6;
}

static int rising(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void quantiles(const char *name, uint32_t *us) {
    qsort(us, sessions, sizeof *us, rising);
    printf(", \"%s\": {\"p50\": %u, \"p90\": %u, \"p99\": %u, \"max\": %u}", name, us[sessions / 2], us[sessions * 9 / 10],
           us[sessions * 99 / 100], us[sessions - 1]);
}
