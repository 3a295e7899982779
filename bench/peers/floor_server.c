/* What the kernel alone asks for: an event is written to each reader's socket, and nothing else is done.
 *
 *     floor_server
 *
 * Listens on a free port of 127.0.0.1 and prints it. GET makes a reader; what is POSTed goes to all readers as one SSE frame in one
 * chunk. Streams have no names, heads are not looked at, a reader that does not read loses events: no server could be cheaper.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 65536, REQUEST = 16384 };

static const char HEAD[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
static const char TAKEN[] = "HTTP/1.1 204 No Content\r\n\r\n";

static int readers[MOST], many;

static void die(const char *what) {
    fprintf(stderr, "floor_server: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void leave(int fd) {
    for (int i = 0; i < many; i++)
        if (readers[i] == fd) readers[i] = readers[--many];
    close(fd);
}

static void publish(const char *body, size_t size) {
    char chunk[REQUEST + 64];
    int length = snprintf(chunk, sizeof chunk, "%zx\r\ndata: %.*s\n\n\r\n", size + 8, (int)size, body);
    for (int i = 0; i < many; i++) send(readers[i], chunk, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Requests come whole: they are small, and sent in one write. */
static void serve(int fd) {
    char request[REQUEST];
    ssize_t got = recv(fd, request, sizeof request - 1, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        leave(fd);
        return;
    }
    request[got] = 0;
    if (!strncmp(request, "GET ", 4) && many < MOST) {
        if (send(fd, HEAD, sizeof HEAD - 1, MSG_NOSIGNAL) > 0) readers[many++] = fd;
        return;
    }
    char *body = strstr(request, "\r\n\r\n");
    if (!body) return;
    publish(body + 4, (size_t)(request + got - body - 4));
    if (send(fd, TAKEN, sizeof TAKEN - 1, MSG_NOSIGNAL) < 0) leave(fd);
}

static int listen_somewhere(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 2048) < 0) die("listen");
    if (getsockname(fd, (struct sockaddr *)&at, &size) < 0) die("getsockname");
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

int main(void) {
    int listening = listen_somewhere(), poll = epoll_create1(0), on = 1;
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = listening}, ready[512];
    if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listening, &wanted) < 0) die("epoll");
    for (;;) {
        int n = epoll_wait(poll, ready, 512, -1);
        for (int i = 0; i < n; i++) {
            if (ready[i].data.fd != listening) {
                serve(ready[i].data.fd);
                continue;
            }
            int fd = accept(listening, NULL, NULL);
            if (fd < 0) continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            struct epoll_event came = {.events = EPOLLIN, .data.fd = fd};
            if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &came) < 0) die("epoll_ctl");
        }
    }
}
