/* Many readers of one event stream, in one thread, by epoll: a client that is not the bottleneck.
 *
 *     load_client PORT PATH READERS EVENTS SECONDS
 *
 * Opens READERS connections to 127.0.0.1:PORT, asks each for PATH, and prints "connected" once all have an answer. Then looks
 * for stamps in what comes, "@" and 16 digits: CLOCK_MONOTONIC microseconds at which the event was written, anywhere in the
 * text, so that it does not matter how a server frames, chunks or merges. Ends when each reader has EVENTS stamps, or SECONDS
 * after "connected", and prints one line of JSON: events, wanted, p50_ms, p99_ms and max_ms.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STAMP = 17, BUFFER = 1 << 18, CHECK_MS = 100 };

struct reader {
    int fd;
    int answered;          /* has sent anything at all */
    int cut;               /* bytes of a stamp that a read split */
    char rest[STAMP];
};

static uint32_t *waits;    /* microseconds, one an event */
static size_t taken, room;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void die(const char *what) {
    fprintf(stderr, "load_client: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void take(const char *stamp, uint64_t now) {
    char digits[STAMP];
    memcpy(digits, stamp + 1, STAMP - 1);
    digits[STAMP - 1] = 0;
    uint64_t at = strtoull(digits, NULL, 10);
    if (taken < room) waits[taken] = now > at ? (uint32_t)(now - at) : 0;
    taken++;
}

/* Finds the stamps in `size` bytes; the last few may be the beginning of one. */
static void scan(struct reader *r, char *data, size_t size, uint64_t now) {
    char *end = data + size, *at = data;
    while ((at = memchr(at, '@', (size_t)(end - at))) != NULL) {
        if (end - at < STAMP) {
            r->cut = (int)(end - at);
            memcpy(r->rest, at, (size_t)r->cut);
            return;
        }
        take(at, now);
        at += STAMP;
    }
}

static int connect_to(int port, const char *path) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char request[512];
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n\r\n", path, port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) die("socket");
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) die("connect");
    if (write(fd, request, (size_t)size) != size) die("write");
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) die("fcntl");
    return fd;
}

/* Reads what is there; 0 when the server has hung up. */
static int drain(struct reader *r) {
    static char buffer[STAMP + BUFFER];
    for (;;) {
        memcpy(buffer, r->rest, (size_t)r->cut);
        ssize_t got = read(r->fd, buffer + r->cut, BUFFER);
        if (got < 0) return errno == EAGAIN || errno == EINTR;
        if (got == 0) return 0;
        size_t size = (size_t)got + (size_t)r->cut;
        r->cut = 0;
        r->answered = 1;
        scan(r, buffer, size, now_us());
        if (got < BUFFER) return 1;
    }
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile_ms(double percent) {
    if (!taken) return -1;
    size_t rank = (size_t)((double)taken * percent / 100.0 + 0.999999);
    return waits[rank ? rank - 1 : 0] / 1000.0;
}

int main(int argc, char **argv) {
    if (argc != 6) return fprintf(stderr, "usage: load_client PORT PATH READERS EVENTS SECONDS\n"), 2;
    int port = atoi(argv[1]), n = atoi(argv[3]);
    room = (size_t)n * (size_t)atol(argv[4]);
    struct reader *readers = calloc((size_t)n, sizeof *readers);
    waits = malloc(room * sizeof *waits + 1);
    int poll = epoll_create1(0), answered = 0, left = 0;
    if (!readers || !waits || poll < 0) die("set-up");
    uint64_t deadline = 0;
    struct epoll_event ready[512];
    for (int i = 0; i < n || !deadline || (taken < room && left < n && now_us() < deadline);) {
        if (i < n) {  /* one more connection, and what has come on the others meanwhile */
            struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = &readers[i]};
            readers[i].fd = connect_to(port, argv[2]);
            if (epoll_ctl(poll, EPOLL_CTL_ADD, readers[i++].fd, &wanted) < 0) die("epoll_ctl");
        }
        int count = epoll_wait(poll, ready, 512, i < n ? 0 : CHECK_MS);
        for (int k = 0; k < count; k++) {
            struct reader *r = ready[k].data.ptr;
            int fresh = !r->answered;
            if (!drain(r)) {
                if (!r->answered) die("a connection was closed without an answer");
                epoll_ctl(poll, EPOLL_CTL_DEL, r->fd, NULL);
                left++;
            }
            answered += fresh && r->answered;
        }
        if (!deadline && answered == n) {
            printf("connected\n");
            fflush(stdout);
            deadline = now_us() + (uint64_t)(atof(argv[5]) * 1e6);
        }
    }
    size_t events = taken;
    if (taken > room) taken = room;
    qsort(waits, taken, sizeof *waits, by_size);
    printf("{\"events\": %zu, \"wanted\": %zu, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n", events, room,
           percentile_ms(50), percentile_ms(99), percentile_ms(100));
    return 0;
}
