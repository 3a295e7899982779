/* Many readers of event streams, in one thread, by epoll: a client that is not the bottleneck.
 *
 *     load_client PORT COUNT READERS EVENTS SECONDS PATHS
 *
 * Opens READERS connections to 127.0.0.1:PORT, reader i asking for line i modulo their number of the file PATHS, and prints
 * "connected" once all have an answer. COUNT says what an event is:
 *
 *     stamped  "@" and 16 digits anywhere in a data line: CLOCK_MONOTONIC microseconds at which it was written
 *     tokens   a data line of type "token", which counts as many as its "n" says
 *
 * so that it does not matter how a server frames, chunks or merges. Ends when each reader has EVENTS of them, when none is left,
 * or SECONDS after "connected", and prints one line of JSON, then holds its connections until it is killed, lest the server's
 * work on their end be counted: events and wanted; frames; gaps, where ids are of the form of our
 * protocol (a frame's seq is not the one before plus n); span_s from the first event to the last; p50_ms, p99_ms and max_ms of the
 * stamps' age; connect_per_s, answers a second while they were opened; done, the readers that have all, and done_p50_ms,
 * done_p99_ms and done_max_ms from a reader's request to its last event.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STAMP = 17, BUFFER = 1 << 18, CHECK_MS = 100, UNANSWERED = 500, OUR_ATTEMPTS = 1000000 };

enum phase { HEAD, SIZE, CHUNK, CHUNK_END, PLAIN };

struct reader {
    int fd;
    enum phase phase;
    size_t left;              /* bytes of this chunk to come */
    char *cut;                /* the beginning of a line, or of the head, that a read split */
    size_t cut_size, cut_room;
    uint64_t asked, count;    /* microseconds; events of the kind that is counted */
    long long attempt, seq;   /* of the id before; attempt is -1 before the first */
    long long new_attempt, new_seq;
    long n;                   /* what this frame's data line counts; 0: it has had none */
    int is_token;
};

static struct { uint32_t *at; size_t size, room; } waits, dones;  /* microseconds: one an event, one a reader */
static uint64_t frames, gaps, events, wanted_each, first_at, last_at;
static int counts_tokens;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void die(const char *what) {
    fprintf(stderr, "load_client: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void count(struct reader *r, uint64_t n, uint64_t now) {
    uint64_t before = r->count;
    r->count += n;
    events += n;
    last_at = now;
    if (!first_at) first_at = now;
    if (before < wanted_each && r->count >= wanted_each && dones.size < dones.room)
        dones.at[dones.size++] = (uint32_t)(now - r->asked);
}

static void take_stamps(struct reader *r, const char *at, const char *end, uint64_t now) {
    while ((at = memchr(at, '@', (size_t)(end - at))) != NULL && end - at >= STAMP) {
        char digits[STAMP];
        memcpy(digits, at + 1, STAMP - 1);
        digits[STAMP - 1] = 0;
        uint64_t then = strtoull(digits, NULL, 10);
        if (waits.size < waits.room) waits.at[waits.size++] = now > then ? (uint32_t)(now - then) : 0;
        if (!counts_tokens) count(r, 1, now);
        at += STAMP;
    }
}

/* A frame is complete: does it follow the one before, and what does it count? */
static void end_frame(struct reader *r, uint64_t now) {
    if (!r->n) return;
    frames++;
    if (r->new_attempt >= 0 && r->new_attempt < OUR_ATTEMPTS) {
        gaps += r->new_attempt == r->attempt && r->new_seq != r->seq + r->n;
        r->attempt = r->new_attempt;
        r->seq = r->new_seq;
    }
    if (counts_tokens && r->is_token) count(r, (uint64_t)r->n, now);
    r->n = 0;
    r->new_attempt = -1;
}

static void take_line(struct reader *r, char *line, size_t size, uint64_t now) {
    if (size && line[size - 1] == '\r') size--;
    if (!size) {
        end_frame(r, now);
    } else if (size > 5 && !memcmp(line, "data:", 5)) {
        const char *n = memrchr(line, ',', size);
        r->n = n && line + size - n > 5 && !memcmp(n, ",\"n\":", 5) ? strtol(n + 5, NULL, 10) : 1;
        r->is_token = memmem(line, size < 40 ? size : 40, "\"token\"", 7) != NULL;
        take_stamps(r, line, line + size, now);
    } else if (size > 3 && !memcmp(line, "id:", 3)) {
        char *end;
        r->new_attempt = strtoll(line + 3, &end, 10);
        if (*end == '-') r->new_seq = strtoll(end + 1, NULL, 10);
        else r->new_attempt = -1;
    }
}

static void keep(struct reader *r, const char *data, size_t size) {
    if (r->cut_size + size > r->cut_room) {
        r->cut_room = 2 * (r->cut_size + size);
        r->cut = realloc(r->cut, r->cut_room);
        if (!r->cut) die("realloc");
    }
    memcpy(r->cut + r->cut_size, data, size);
    r->cut_size += size;
}

/* A piece of the body, without the chunks' own bytes. */
static void take_body(struct reader *r, char *data, size_t size, uint64_t now) {
    char *end = data + size, *newline;
    while ((newline = memchr(data, '\n', (size_t)(end - data))) != NULL) {
        if (r->cut_size) {
            keep(r, data, (size_t)(newline + 1 - data));
            take_line(r, r->cut, r->cut_size - 1, now);
            r->cut_size = 0;
        } else {
            take_line(r, data, (size_t)(newline - data), now);
        }
        data = newline + 1;
    }
    if (data < end) keep(r, data, (size_t)(end - data));
}

/* Bytes of the head up to and with its blank line; 0 while that is not there, and all is kept. */
static size_t take_head(struct reader *r, const char *data, size_t size) {
    size_t before = r->cut_size;
    keep(r, data, size);
    char *end = memmem(r->cut, r->cut_size, "\r\n\r\n", 4);
    if (!end) return 0;
    *end = 0;
    if (strncmp(r->cut, "HTTP/1.1 200", 12)) {
        fprintf(stderr, "load_client: answered %.200s\n", r->cut);
        exit(1);
    }
    r->phase = strcasestr(r->cut, "\r\ntransfer-encoding: chunked") ? SIZE : PLAIN;
    size_t used = (size_t)(end - r->cut) + 4 - before;
    r->cut_size = r->left = 0;
    return used;
}

static void feed(struct reader *r, char *data, size_t size, uint64_t now) {
    char *end = data + size;
    while (data < end) {
        size_t rest = (size_t)(end - data), part;
        switch (r->phase) {
        case HEAD:
            if (!(part = take_head(r, data, rest))) return;
            data += part;
            break;
        case SIZE:
            if (*data == '\n') r->phase = CHUNK;
            else if (*data != '\r') r->left = r->left * 16 + (size_t)(*data <= '9' ? *data - '0' : (*data | 32) - 'a' + 10);
            data++;
            break;
        case CHUNK:
            part = rest < r->left ? rest : r->left;
            take_body(r, data, part, now);
            data += part;
            if (!(r->left -= part)) r->phase = CHUNK_END;
            break;
        case CHUNK_END:
            if (*data++ == '\n') r->phase = SIZE;
            break;
        case PLAIN:
            take_body(r, data, rest, now);
            return;
        }
    }
}

static void connect_to(struct reader *r, int port, const char *path) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char request[1024];
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n\r\n", path, port);
    r->attempt = r->new_attempt = -1;
    r->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (r->fd < 0) die("socket");
    if (connect(r->fd, (struct sockaddr *)&to, sizeof to) < 0) die("connect");
    r->asked = now_us();
    if (write(r->fd, request, (size_t)size) != size) die("write");
    if (fcntl(r->fd, F_SETFL, O_NONBLOCK) < 0) die("fcntl");
    /* Closed by a reset: thousands of sockets in TIME_WAIT would use up the ports of the crowds that follow. */
    struct linger none = {.l_onoff = 1, .l_linger = 0};
    if (setsockopt(r->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none) < 0) die("setsockopt");
}

/* Reads what is there; 0 when the server has hung up. */
static int drain(struct reader *r) {
    static char buffer[BUFFER];
    for (;;) {
        ssize_t got = read(r->fd, buffer, BUFFER);
        if (got < 0) return errno == EAGAIN || errno == EINTR;
        if (got == 0) return 0;
        feed(r, buffer, (size_t)got, now_us());
        if (got < BUFFER) return 1;
    }
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Of sorted microseconds, in milliseconds; -1 when there are none. */
static double percentile_ms(const uint32_t *sorted, size_t size, double percent) {
    if (!size) return -1;
    size_t rank = (size_t)((double)size * percent / 100.0 + 0.999999);
    return sorted[rank ? rank - 1 : 0] / 1000.0;
}

static void tell(double connect_s, int readers) {
    qsort(waits.at, waits.size, sizeof *waits.at, by_size);
    qsort(dones.at, dones.size, sizeof *dones.at, by_size);
    printf("{\"events\": %lu, \"wanted\": %lu, \"frames\": %lu, \"gaps\": %lu, ", events, wanted_each * (uint64_t)readers, frames,
           gaps);
    printf("\"span_s\": %.3f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, ", (double)(last_at - first_at) / 1e6,
           percentile_ms(waits.at, waits.size, 50), percentile_ms(waits.at, waits.size, 99),
           percentile_ms(waits.at, waits.size, 100));
    printf("\"connect_per_s\": %.1f, \"done\": %zu, ", readers / connect_s, dones.size);
    printf("\"done_p50_ms\": %.3f, \"done_p99_ms\": %.3f, \"done_max_ms\": %.3f}\n",
           percentile_ms(dones.at, dones.size, 50), percentile_ms(dones.at, dones.size, 99),
           percentile_ms(dones.at, dones.size, 100));
}

/* The lines of a file, zero-terminated where they lay; their number in `many`. */
static char **read_lines(const char *name, int *many) {
    FILE *file = fopen(name, "r");
    char **lines = NULL, *line = NULL;
    size_t room = 0;
    ssize_t size;
    if (!file) die(name);
    for (*many = 0; (size = getline(&line, &room, file)) > 0; line = NULL, room = 0) {
        if (line[size - 1] == '\n') line[size - 1] = 0;
        lines = realloc(lines, (size_t)(*many + 1) * sizeof *lines);
        if (!lines) die("realloc");
        lines[(*many)++] = line;
    }
    fclose(file);
    if (!*many) die("no paths");
    return lines;
}

int main(int argc, char **argv) {
    if (argc != 7) return fprintf(stderr, "usage: load_client PORT stamped|tokens READERS EVENTS SECONDS PATHS\n"), 2;
    int port = atoi(argv[1]), n = atoi(argv[3]), paths, opened = 0, answered = 0, left = 0;
    counts_tokens = !strcmp(argv[2], "tokens");
    wanted_each = (uint64_t)atol(argv[4]);
    char **path = read_lines(argv[6], &paths);
    struct reader *readers = calloc((size_t)n, sizeof *readers);
    waits.room = counts_tokens ? 1 : (size_t)n * wanted_each + 1;
    dones.room = (size_t)n;
    waits.at = malloc(waits.room * sizeof *waits.at);
    dones.at = malloc((dones.room + 1) * sizeof *dones.at);
    int poll = epoll_create1(0);
    if (!readers || !waits.at || !dones.at || poll < 0) die("set-up");
    uint64_t begun = now_us(), deadline = 0;
    double connect_s = 1;
    struct epoll_event ready[512];
    while (!deadline || (dones.size < (size_t)n && left < n && now_us() < deadline)) {
        if (opened < n && opened - answered < UNANSWERED) {  /* one more, and what has come on the others meanwhile */
            connect_to(&readers[opened], port, path[opened % paths]);
            struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = &readers[opened]};
            if (epoll_ctl(poll, EPOLL_CTL_ADD, readers[opened++].fd, &wanted) < 0) die("epoll_ctl");
        }
        int many = epoll_wait(poll, ready, 512, opened < n && opened - answered < UNANSWERED ? 0 : CHECK_MS);
        for (int k = 0; k < many; k++) {
            struct reader *r = ready[k].data.ptr;
            int fresh = r->phase == HEAD, lives = drain(r);
            answered += fresh && r->phase != HEAD;
            if (lives) continue;
            if (r->phase == HEAD) die("a connection was closed without an answer");
            epoll_ctl(poll, EPOLL_CTL_DEL, r->fd, NULL);
            left++;
        }
        if (!deadline && answered == n) {
            connect_s = (double)(now_us() - begun) / 1e6;
            printf("connected\n");
            fflush(stdout);
            deadline = now_us() + (uint64_t)(atof(argv[5]) * 1e6);
        }
    }
    tell(connect_s, n);
    fflush(stdout);
    pause();
    return 0;
}
