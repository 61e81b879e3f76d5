/* slow: a name server whose lists take their time, to find out who waits for them.
 *
 * slow ADDRESS DELAY_MS SLOW_ZONE DEAD_ZONE
 *
 * Answers every question on port 53 with "no such name", negative for an hour: at once, but below SLOW_ZONE after
 * DELAY_MS, and below DEAD_ZONE never.
 */
#define _GNU_SOURCE /* ppoll */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

enum { QUEUE = 1 << 16, LARGEST = 512 };

/* The delay is the same for all, so who came first is answered first. */
static struct held { uint64_t due; struct sockaddr_in to; size_t length; unsigned char packet[LARGEST]; } queue[QUEUE];
static unsigned head, tail;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

/* Writes the question's name with dots, and where the domain of its last two labels stands; returns the name's length in
 * the packet, or 0 if there is none. */
static size_t name_of(const unsigned char *packet, size_t length, char *text, size_t *domain) {
    size_t at = 12, last = 12;
    *text = 0;
    *domain = 12;
    while (at < length && packet[at]) {
        size_t label = packet[at];
        if (label > 63 || at + 1 + label >= length) return 0;
        strncat(text, (const char *)packet + at + 1, label);
        strcat(text, ".");
        *domain = last;
        last = at;
        at += label + 1;
    }
    return at + 5 <= length ? at - 12 + 1 : 0;
}

static int below(const char *name, const char *zone) {
    size_t n = strlen(name), z = strlen(zone);
    return n > z && strcasecmp(name + n - z, zone) == 0 && (n == z || name[n - z - 1] == '.');
}

/* Turns a question into its answer, with the domain's record of authority, which says how long it holds; returns its
 * length. */
static size_t answer(unsigned char *packet, size_t name, size_t domain) {
    static const unsigned char soa[] = { 0, 6, 0, 1, 0, 0, 14, 16, 0, 22, 0, 0, 0, 0, 0, 1, 0, 0, 2, 88, 0, 0, 1, 44,
                                         0, 1, 81, 128, 0, 0, 14, 16 };
    unsigned char *authority = packet + 12 + name + 4;
    packet[2] = 0x84 | (packet[2] & 1);
    packet[3] = 3;
    memcpy(packet + 4, "\0\1\0\0\0\1\0\0", 8);
    authority[0] = 0xc0; /* the owner's name stands in the question, as every server writes it */
    authority[1] = domain;
    memcpy(authority + 2, soa, sizeof soa);
    return 12 + name + 4 + 2 + sizeof soa;
}

int main(int count, char **words) {
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(53) };
    int udp = socket(AF_INET, SOCK_DGRAM, 0), room = 1 << 22; /* a burst of many clients' questions must not be lost */
    if (count != 5 || !inet_aton(words[1], &here.sin_addr)) { fprintf(stderr, "usage: slow ADDRESS DELAY_MS SLOW_ZONE DEAD_ZONE\n"); return 2; }
    char slow[256], dead[256];
    snprintf(slow, sizeof slow, "%s.", words[3]);
    snprintf(dead, sizeof dead, "%s.", words[4]);
    uint64_t delay = atol(words[2]) * 1000;
    setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (bind(udp, (struct sockaddr *)&here, sizeof here) < 0) { perror("bind"); return 1; }
    for (;;) {
        for (; head != tail && queue[head % QUEUE].due <= now_us(); head++) {
            struct held *h = &queue[head % QUEUE];
            sendto(udp, h->packet, h->length, 0, (struct sockaddr *)&h->to, sizeof h->to);
        }
        uint64_t now = now_us(), due = head == tail ? now + 500000 : queue[head % QUEUE].due;
        struct timespec wait = { 0, due > now ? (due - now) * 1000 : 0 };
        struct pollfd readable = { .fd = udp, .events = POLLIN };
        if (ppoll(&readable, 1, &wait, NULL) < 1) continue;
        struct held came;
        socklen_t size = sizeof came.to;
        ssize_t n;
        while ((n = recvfrom(udp, came.packet, 300, MSG_DONTWAIT, (struct sockaddr *)&came.to, &size)) > 0) {
            char name[1024];
            size_t domain, length = name_of(came.packet, n, name, &domain);
            if (!length || below(name, dead)) continue;
            came.length = answer(came.packet, length, domain);
            if (!below(name, slow)) {
                sendto(udp, came.packet, came.length, 0, (struct sockaddr *)&came.to, sizeof came.to);
                continue;
            }
            if (tail - head == QUEUE) { fprintf(stderr, "slow: too many questions\n"); return 1; }
            came.due = now_us() + delay;
            queue[tail++ % QUEUE] = came;
        }
    }
}
