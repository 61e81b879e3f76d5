/* load: many mail servers' side of the milter protocol at once, to find out what a filter can bear.
 *
 * load ADDRESS SESSIONS PARALLEL FIRST CLIENTS PAUSE_MS
 *
 * Goes through SESSIONS whole messages (negotiate, connect, HELO, MAIL, RCPT, DATA, eight headers, body, end), each in a
 * connection of its own as Sendmail does it, PARALLEL at a time. The SMTP client of session n is the IPv4 address
 * FIRST + n % CLIENTS: as many clients as sessions for a cold cache, few for a warm one. PAUSE_MS is what a real client
 * takes between two commands. Honours what was negotiated: leaves out what the filter does not want, and does not wait
 * where it owes no reply. Prints one JSON object: seconds, and what RCPT and whole sessions took, in microseconds.
 *
 * In C, and with a thread for each parallel session, so that it is not itself what is measured. That it is not is measured
 * each time: two of them at once get no more out of a filter than one, and its own CPU stands beside the filter's.
 */
#include "crowd.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { NO_CONNECT = 0x1, NO_HELO = 0x2, NO_MAIL = 0x4, NO_RCPT = 0x8, NO_BODY = 0x10, NO_HEADERS = 0x20, NO_EOH = 0x40,
       NR_HEADER = 0x80, NO_DATA = 0x200, NR_CONNECT = 0x1000, NR_HELO = 0x2000, NR_MAIL = 0x4000, NR_RCPT = 0x8000,
       NR_DATA = 0x10000, NR_EOH = 0x40000, NR_BODY = 0x80000, ALL_STEPS = 0x1fffff, ALL_ACTIONS = 0x1ff };

static struct sockaddr_storage address;
static socklen_t address_length;
static uint32_t *rcpt_us, *session_us;
static long counts[256];

struct talk { int fd; uint32_t steps; char out[8192], in[8192]; size_t filled, begin, end; };

static void fail(const char *what) { perror(what); exit(1); }

static void put(struct talk *t, char command, const void *data, size_t length) {
    uint32_t size = htonl(length + 1);
    memcpy(t->out + t->filled, &size, 4);
    t->out[t->filled + 4] = command;
    memcpy(t->out + t->filled + 5, data, length);
    t->filled += length + 5;
}

static void flush_out(struct talk *t) {
    for (size_t sent = 0; sent < t->filled;) {
        ssize_t n = send(t->fd, t->out + sent, t->filled - sent, MSG_NOSIGNAL);
        if (n < 0) fail("send");
        sent += n;
    }
    t->filled = 0;
}

/* Returns so many bytes of what the filter says; as much as is there is read at once. */
static const char *fetch(struct talk *t, size_t length) {
    if (length > sizeof t->in) { fprintf(stderr, "load: a reply of %zu bytes\n", length); exit(1); }
    if (t->begin + length > sizeof t->in) {
        memmove(t->in, t->in + t->begin, t->end - t->begin);
        t->end -= t->begin;
        t->begin = 0;
    }
    while (t->end - t->begin < length) {
        ssize_t n = recv(t->fd, t->in + t->end, sizeof t->in - t->end, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) { fprintf(stderr, "load: the filter closed the connection\n"); exit(1); }
        t->end += n;
    }
    t->begin += length;
    return t->in + t->begin - length;
}

/* Reads packets until one says what becomes of the command. */
static char answer(struct talk *t, const char **data) {
    flush_out(t);
    for (;;) {
        uint32_t size;
        memcpy(&size, fetch(t, 4), 4);
        *data = fetch(t, ntohl(size));
        if (**data == 'O' || strchr("cartdyf", **data)) return **data;
    }
}

static void pause_a_little(void) {
    if (pause_us) {
        struct timespec t = { pause_us / 1000000, pause_us % 1000000 * 1000 };
        nanosleep(&t, NULL);
    }
}

/* Sends a command; returns 0 if the session ends with its answer. */
static int command(struct talk *t, uint32_t no, uint32_t silent, char what, const char *data, size_t length) {
    const char *reply;
    char said = 'c';
    if (t->steps & no) return 1;
    put(t, what, data, length);
    if (!(t->steps & silent)) said = answer(t, &reply);
    if (what == 'R' || what == 'E') __atomic_add_fetch(&counts[(unsigned char)said], 1, __ATOMIC_RELAXED);
    return said == 'c';
}

#define WORD(text) text, sizeof(text)

static int open_connection(void) {
    int fd = socket(address.ss_family, SOCK_STREAM, 0), one = 1;
    if (fd < 0) fail("socket");
    while (connect(fd, (struct sockaddr *)&address, address_length) < 0) {
        if (errno != EAGAIN) fail("connect");
        usleep(500); /* a unix socket whose queue is full says so at once */
    }
    if (address.ss_family != AF_UNIX) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void session(long number) {
    static const char headers[][2][64] = {
        { "Received", " from client.example by mx.acme123.com" }, { "From", " Someone <a@plain.example>" },
        { "To", " Alice <alice@acme123.com>" }, { "Subject", " hello" }, { "Date", " Sun, 22 Nov 2026 12:00:00 +0000" },
        { "Message-Id", " <1@plain.example>" }, { "MIME-Version", " 1.0" }, { "Content-Type", " text/plain" } };
    struct talk t = { .fd = open_connection() };
    char buffer[512], text[INET_ADDRSTRLEN];
    const char *reply;
    uint64_t begin = now_us(), before;
    uint32_t offer[3] = { htonl(6), htonl(ALL_ACTIONS), htonl(ALL_STEPS) };
    struct in_addr client = { htonl(first + number % clients) };
    size_t n;

    put(&t, 'O', offer, sizeof offer);
    if (answer(&t, &reply) != 'O') { fprintf(stderr, "load: no negotiation\n"); exit(1); }
    memcpy(&t.steps, reply + 9, 4);
    t.steps = ntohl(t.steps);
    inet_ntop(AF_INET, &client, text, sizeof text);

    n = snprintf(buffer, sizeof buffer, "C" "j%cmx.acme123.com%c_%c[%s]%c{daemon_name}%cMTA", 0, 0, 0, text, 0, 0) + 1;
    put(&t, 'D', buffer, n);
    n = snprintf(buffer, sizeof buffer, "[%s]%c4%c%c%s", text, 0, 2525 >> 8, 2525 & 255, text) + 1;
    if (!command(&t, NO_CONNECT, NR_CONNECT, 'C', buffer, n)) goto end;
    pause_a_little();
    if (!command(&t, NO_HELO, NR_HELO, 'H', WORD("client.example"))) goto end;
    pause_a_little();
    n = snprintf(buffer, sizeof buffer, "M" "i%c6AM%09ld%c{mail_mailer}%cesmtp%c{mail_addr}%ca@plain.example", 0, number, 0, 0, 0, 0) + 1;
    put(&t, 'D', buffer, n);
    if (!command(&t, NO_MAIL, NR_MAIL, 'M', WORD("<a@plain.example>"))) goto end;
    pause_a_little();
    n = snprintf(buffer, sizeof buffer, "R" "{rcpt_mailer}%clocal%c{rcpt_addr}%calice@acme123.com", 0, 0, 0) + 1;
    put(&t, 'D', buffer, n);
    before = now_us();
    n = command(&t, NO_RCPT, NR_RCPT, 'R', WORD("<alice@acme123.com>"));
    rcpt_us[number] = now_us() - before;
    if (!n) goto end;
    pause_a_little();
    if (!command(&t, NO_DATA, NR_DATA, 'T', "", 0)) goto end;
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        size_t name = strlen(headers[i][0]) + 1, value = strlen(headers[i][1]) + 1;
        memcpy(buffer, headers[i][0], name);
        memcpy(buffer + name, headers[i][1], value);
        if (!command(&t, NO_HEADERS, NR_HEADER, 'L', buffer, name + value)) goto end;
    }
    if (!command(&t, NO_EOH, NR_EOH, 'N', "", 0)) goto end;
    if (!command(&t, NO_BODY, NR_BODY, 'B', "Hello.\r\n", 8)) goto end;
    command(&t, 0, 0, 'E', "", 0);
end:
    put(&t, 'Q', "", 0);
    flush_out(&t);
    close(t.fd);
    session_us[number] = now_us() - begin;
}

int main(int count, char **words) {
    struct sockaddr_un *path = (struct sockaddr_un *)&address;
    struct sockaddr_in *inet = (struct sockaddr_in *)&address;
    if (count != 7) { fprintf(stderr, "usage: load ADDRESS SESSIONS PARALLEL FIRST CLIENTS PAUSE_MS\n"); return 2; }
    if (*words[1] == '/') {
        path->sun_family = AF_UNIX;
        snprintf(path->sun_path, sizeof path->sun_path, "%s", words[1]);
        address_length = sizeof *path;
    } else { /* port@127.0.0.1 is all that a bench needs */
        inet->sin_family = AF_INET;
        inet->sin_port = htons(atoi(words[1]));
        inet->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address_length = sizeof *inet;
    }
    long parallel = atol(words[3]);
    struct in_addr start;
    sessions = atol(words[2]);
    clients = atol(words[5]);
    pause_us = atof(words[6]) * 1000;
    if (sessions < 1 || parallel < 1 || clients < 1 || !inet_aton(words[4], &start)) { fprintf(stderr, "load: odd arguments\n"); return 2; }
    first = ntohl(start.s_addr);
    rcpt_us = calloc(sessions, sizeof *rcpt_us);
    session_us = calloc(sessions, sizeof *session_us);
    double seconds = run_sessions(parallel);
    printf("{\"sessions\": %ld, \"seconds\": %.6f, \"continued\": %ld, \"refused\": %ld", sessions, seconds, counts['c'] + counts['a'],
           counts['y'] + counts['t'] + counts['r'] + counts['d']);
    quantiles("rcpt_us", rcpt_us);
    quantiles("session_us", session_us);
    printf("}\n");
    return 0;
}
