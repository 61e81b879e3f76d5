/* smtp: many SMTP clients at once, to find out what a mail host can bear, and what its clients wait for.
 *
 * smtp HOST PORT SESSIONS PARALLEL FIRST CLIENTS PAUSE_MS
 *
 * Sends SESSIONS small messages, each in a connection of its own, PARALLEL at a time, from the address
 * FIRST + n % CLIENTS. PAUSE_MS is what a client takes between a reply and its next command. Prints one JSON object:
 * seconds, how many messages were taken, and for how long clients waited for replies, in microseconds.
 */
#include "crowd.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in host;
static long taken;
static uint32_t *greeting_us, *rcpt_us, *waited_us;

/* Reads one reply, of one line or many; returns its code, or 0 when the host has gone. */
static int reply(int fd) {
    char line[4096];
    for (size_t filled = 0;;) {
        ssize_t n = recv(fd, line + filled, sizeof line - 1 - filled, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return 0;
        filled += n;
        line[filled] = 0;
        if (line[filled - 1] != '\n') continue;
        /* The last line of a reply has a space after its code. */
        char *last = line;
        for (char *p = line; p < line + filled - 1; p++)
            if (*p == '\n') last = p + 1;
        if (strlen(last) > 3 && last[3] == ' ') return atoi(last);
    }
}

/* Sends a text if there is one, reads the reply, and adds the wait; returns whether the host goes along. */
static int step(int fd, const char *text, uint64_t *waited, uint32_t *alone) {
    uint64_t begin = now_us();
    if (text && send(fd, text, strlen(text), MSG_NOSIGNAL) < 0) return 0;
    int code = reply(fd);
    uint32_t took = now_us() - begin;
    *waited += took;
    if (alone) *alone = took;
    if (pause_us) {
        struct timespec t = { pause_us / 1000000, pause_us % 1000000 * 1000 };
        nanosleep(&t, NULL);
    }
    return code >= 200 && code < 400;
}

static int talk(int fd, long number, uint64_t *waited) {
    return step(fd, NULL, waited, &greeting_us[number]) && step(fd, "EHLO client.example\r\n", waited, NULL) &&
           step(fd, "MAIL FROM:<a@plain.example>\r\n", waited, NULL) &&
           step(fd, "RCPT TO:<alice@acme123.com>\r\n", waited, &rcpt_us[number]) && step(fd, "DATA\r\n", waited, NULL) &&
           step(fd,
                "Received: from elsewhere.example by client.example\r\nFrom: Someone <a@plain.example>\r\n"
                "To: Alice <alice@acme123.com>\r\nSubject: hello\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n"
                "Message-Id: <1@plain.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nHello.\r\n.\r\n",
                waited, NULL);
}

static void session(long number) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(first + number % clients) };
    uint64_t waited = 0, begin = now_us();
    /* The port is chosen at connect, so that all of them can be used for each address. */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof from) < 0) { perror("bind"); exit(1); }
    if (connect(fd, (struct sockaddr *)&host, sizeof host) < 0) { perror("connect"); exit(1); }
    waited = now_us() - begin;
    if (talk(fd, number, &waited)) __atomic_add_fetch(&taken, 1, __ATOMIC_RELAXED);
    waited_us[number] = waited;
    if (send(fd, "QUIT\r\n", 6, MSG_NOSIGNAL) > 0) reply(fd);
    close(fd);
}

int main(int count, char **words) {
    struct in_addr start;
    if (count != 8) { fprintf(stderr, "usage: smtp HOST PORT SESSIONS PARALLEL FIRST CLIENTS PAUSE_MS\n"); return 2; }
    host.sin_family = AF_INET;
    host.sin_port = htons(atoi(words[2]));
    sessions = atol(words[3]);
    long parallel = atol(words[4]);
    clients = atol(words[6]);
    pause_us = atof(words[7]) * 1000;
    if (!inet_aton(words[1], &host.sin_addr) || !inet_aton(words[5], &start) || sessions < 1 || parallel < 1 || clients < 1) {
        fprintf(stderr, "smtp: odd arguments\n");
        return 2;
    }
    first = ntohl(start.s_addr);
    greeting_us = calloc(sessions, sizeof *greeting_us);
    rcpt_us = calloc(sessions, sizeof *rcpt_us);
    waited_us = calloc(sessions, sizeof *waited_us);
    double seconds = run_sessions(parallel);
    printf("{\"sessions\": %ld, \"seconds\": %.6f, \"taken\": %ld", sessions, seconds, taken);
    quantiles("greeting_us", greeting_us);
    quantiles("rcpt_us", rcpt_us);
    quantiles("waited_us", waited_us);
    printf("}\n");
    return 0;
}
