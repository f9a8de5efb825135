/* The server of the benchmarks: one process, one thread, epoll, and as little work for each message as can be.

   server CORPUS FRAMES [CERTIFICATE KEY]

   It listens on loopback and prints its ports, plain and TLS, as one line of JSON. The path of a connection says what
   it is for; N and SIZE are numbers:

   /echo          every message comes back as it came, compressed or not
   /delay/N       as echo, N microseconds later
   /sink/N        reads; after every N messages it sends one without a payload
   /flood/N/SIZE  for every message that comes in, N binary messages of SIZE bytes
   /corpus/N      for every message that comes in, N frames of the file CORPUS, which holds FRAMES frames

   What is flooded is framed once, and a compressed message is echoed as it is: nothing is inflated, deflated or built
   while a client is measured. Linux only, for epoll. Built with -DWITH_TLS when the headers of OpenSSL are there. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
static SSL_CTX *context;
#else
typedef void SSL;
#endif

enum { FIRST_ROOM = 16 << 10, ROOM = 256 << 10, BLOCK = 256 << 10 };
enum mode { HANDSHAKE, ECHO, SINK, FLOOD };

struct bytes { uint8_t *data; size_t start, end, room; };

struct connection {
    int fd, closing, watching;
    SSL *tls;
    enum mode mode;
    struct bytes in, out;
    size_t skip;                        /* of a message to a sink, still to come */
    unsigned long every, seen, delay;   /* N, and how many of them were seen */
    const uint8_t *block;               /* what is flooded, again and again */
    size_t period, position, left, burst;
};

static int poller;
static uint8_t *corpus;
static size_t corpus_size, corpus_frames;

static void die(const char *what) { perror(what); exit(1); }

static void *memory(void *old, size_t size) {
    void *got = realloc(old, size);
    if (!got) die("memory");
    return got;
}

/* SHA-1 (RFC 3174) of less than 120 bytes, for Sec-WebSocket-Accept. */
static void sha1(const char *text, uint8_t digest[20]) {
    uint8_t padded[128] = {0};
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0}, w[80];
    size_t length = strlen(text), blocks = length > 55 ? 2 : 1;
    memcpy(padded, text, length);
    padded[length] = 0x80;
    padded[blocks * 64 - 2] = (uint8_t)(length * 8 >> 8);
    padded[blocks * 64 - 1] = (uint8_t)(length * 8);
    for (size_t block = 0; block < blocks; block++) {
        for (int i = 0; i < 16; i++) {
            uint32_t word;
            memcpy(&word, padded + block * 64 + i * 4, 4);
            w[i] = ntohl(word);
        }
        for (int i = 16; i < 80; i++) {
            uint32_t x = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16];
            w[i] = x << 1 | x >> 31;
        }
        uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
            uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
            uint32_t next = (a << 5 | a >> 27) + f + e + k + w[i];
            e = d; d = c; c = b << 30 | b >> 2; b = a; a = next;
        }
        h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e;
    }
    for (int i = 0; i < 20; i++) digest[i] = (uint8_t)(h[i / 4] >> (24 - i % 4 * 8));
}

static void base64(const uint8_t *data, size_t length, char *text) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3, text += 4) {
        uint32_t bits = data[i] << 16 | (i + 1 < length ? data[i + 1] << 8 : 0) | (i + 2 < length ? data[i + 2] : 0);
        for (int j = 0; j < 4; j++) text[j] = letters[bits >> (18 - 6 * j) & 63];
        if (i + 1 >= length) text[2] = '=';
        if (i + 2 >= length) text[3] = '=';
    }
    *text = 0;
}

static size_t header(uint8_t *to, int first, size_t length) {
    to[0] = (uint8_t)first;
    if (length < 126) { to[1] = (uint8_t)length; return 2; }
    int size = length < 65536 ? 2 : 8;
    to[1] = size == 2 ? 126 : 127;
    for (int i = 0; i < size; i++) to[2 + i] = (uint8_t)((uint64_t)length >> (8 * (size - 1 - i)));
    return 2 + size;
}

/* As many whole frames as fit into a block, at least one. */
static const uint8_t *flood_of(size_t size, size_t *period, size_t *frame) {
    static struct { size_t size, period, frame; uint8_t *data; } made[64];
    int i = 0;
    while (made[i].data && made[i].size != size) if (++i == 64) die("too many sizes");
    if (!made[i].data) {
        uint8_t first[10];
        size_t length = header(first, 0x82, size) + size, count = BLOCK / length ? BLOCK / length : 1;
        uint8_t *data = memory(NULL, count * length);
        memset(data, 'x', count * length);
        for (size_t j = 0; j < count; j++) memcpy(data + j * length, first, length - size);
        made[i].size = size; made[i].period = count * length; made[i].frame = length; made[i].data = data;
    }
    *period = made[i].period;
    *frame = made[i].frame;
    return made[i].data;
}

static void forget(struct connection *c) {
#ifdef WITH_TLS
    if (c->tls) { SSL_shutdown(c->tls); SSL_free(c->tls); ERR_clear_error(); }
#endif
    close(c->fd);
    free(c->in.data);
    free(c->out.data);
    free(c);
}

/* How many bytes were read or written: 0 when the socket says not now, -1 at the end of the connection. */
static ssize_t receive(struct connection *c, void *to, size_t room) {
#ifdef WITH_TLS
    if (c->tls) {
        int got = SSL_read(c->tls, to, (int)room);
        if (got > 0) return got;
        int why = SSL_get_error(c->tls, got);
        ERR_clear_error();
        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
#endif
    ssize_t got = recv(c->fd, to, room, 0);
    return got > 0 ? got : got < 0 && errno == EAGAIN ? 0 : -1;
}

static ssize_t transmit(struct connection *c, const void *from, size_t size) {
#ifdef WITH_TLS
    if (c->tls) {
        int put = SSL_write(c->tls, from, (int)size);
        if (put > 0) return put;
        int why = SSL_get_error(c->tls, put);
        ERR_clear_error();
        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
#endif
    ssize_t put = send(c->fd, from, size, MSG_NOSIGNAL);
    return put >= 0 ? put : errno == EAGAIN ? 0 : -1;
}

/* Writes at once what the socket takes; the rest waits in `out`. */
static int answer(struct connection *c, const uint8_t *data, size_t size) {
    while (size && c->out.start == c->out.end && !c->left) {
        ssize_t put = transmit(c, data, size);
        if (put < 0) return -1;
        if (!put) break;
        data += put;
        size -= put;
    }
    if (!size) return 0;
    if (c->out.start == c->out.end) c->out.start = c->out.end = 0;
    if (c->out.room < c->out.end + size) c->out.data = memory(c->out.data, c->out.room = c->out.end + size);
    memcpy(c->out.data + c->out.end, data, size);
    c->out.end += size;
    return 0;
}

/* 0 when all is out, 1 when something waits for the socket, -1 at the end. */
static int flush(struct connection *c) {
    while (c->left) {
        size_t at = c->position % c->period, size = c->period - at;
        ssize_t put = transmit(c, c->block + at, size < c->left ? size : c->left);
        if (put <= 0) return put < 0 ? -1 : 1;
        c->position += put;
        c->left -= put;
    }
    while (c->out.start < c->out.end) {
        ssize_t put = transmit(c, c->out.data + c->out.start, c->out.end - c->out.start);
        if (put <= 0) return put < 0 ? -1 : 1;
        c->out.start += put;
    }
    return 0;
}

static int shake_hands(struct connection *c) {
    char *request = (char *)c->in.data, *end = memmem(request, c->in.end, "\r\n\r\n", 4);
    if (!end) return 0;
    *end = 0;
    char *key = strcasestr(request, "\r\nsec-websocket-key:"), joined[128], accept[32], reply[512];
    if (!key) return -1;
    key += strlen("\r\nsec-websocket-key:");
    key += strspn(key, " ");
    snprintf(joined, sizeof joined, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    uint8_t digest[20];
    sha1(joined, digest);
    base64(digest, 20, accept);
    unsigned long number = 0, size = 0;
    char *path = strchr(request, '/');
    if (sscanf(path, "/sink/%lu", &number) == 1) {
        c->mode = SINK;
        c->every = number;
    } else if (sscanf(path, "/flood/%lu/%lu", &number, &size) == 2) {
        c->mode = FLOOD;
        c->block = flood_of(size, &c->period, &c->burst);
        c->burst *= number;
    } else if (sscanf(path, "/corpus/%lu", &number) == 1 && number % corpus_frames == 0) {
        c->mode = FLOOD;
        c->block = corpus;
        c->period = corpus_size;
        c->burst = number / corpus_frames * corpus_size;
    } else {
        c->mode = ECHO;
        sscanf(path, "/delay/%lu", &c->delay);
    }
    int size_of_reply = snprintf(reply, sizeof reply,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%sSec-WebSocket-Accept: %s\r\n\r\n",
        strcasestr(request, "permessage-deflate") ? "Sec-WebSocket-Extensions: permessage-deflate\r\n" : "", accept);
    c->in.start = end + 4 - request;
    return answer(c, (uint8_t *)reply, size_of_reply);
}

static void unmask(uint8_t *data, size_t size, const uint8_t key[4]) {
    uint64_t wide, word;
    memcpy(&wide, key, 4);
    memcpy((uint8_t *)&wide + 4, key, 4);
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, data + i, 8);
        word ^= wide;
        memcpy(data + i, &word, 8);
    }
    for (; i < size; i++) data[i] ^= key[i % 4];
}

/* Everything that is whole in `in`. Room for the answer's header is where the header and the key of the frame stood. */
static int take_frames(struct connection *c) {
    static const uint8_t done[2] = {0x82, 0};
    for (;;) {
        uint8_t *at = c->in.data + c->in.start;
        size_t have = c->in.end - c->in.start;
        if (c->skip) {
            size_t part = c->skip < have ? c->skip : have;
            c->skip -= part;
            c->in.start += part;
            if (c->skip) return 0;
            if (++c->seen % c->every == 0 && answer(c, done, 2)) return -1;
            continue;
        }
        if (have < 2) return 0;
        size_t length = at[1] & 127, extended = length == 126 ? 2 : length == 127 ? 8 : 0, front = 2 + extended + 4;
        if (have < front) return 0;
        if (extended) for (size_t i = length = 0; i < extended; i++) length = length << 8 | at[2 + i];
        int control = at[0] & 8;
        if (c->mode == SINK && !control && at[0] & 0x80 && length) {
            c->in.start += front;
            c->skip = length;
            continue;
        }
        if (have < front + length) {
            if (c->in.room < front + length) {
                c->in.data = memory(c->in.data, c->in.room = c->in.start + front + length);
            }
            return 0;
        }
        uint8_t *payload = at + front, key[4], first = at[0];
        c->in.start += front + length;
        if (control || c->mode == ECHO) {
            memcpy(key, payload - 4, 4);
            unmask(payload, length, key);
            if (first == 0x8A) continue;
            if (first == 0x89) first = 0x8A;
            if (c->delay && !control) nanosleep(&(struct timespec){0, (long)c->delay * 1000}, NULL);
            uint8_t *from = payload - (2 + extended);
            header(from, first, length);
            if (answer(c, from, 2 + extended + length)) return -1;
            if (first == 0x88) { c->closing = 1; return 0; }
        } else if (c->mode == FLOOD) {
            c->left += c->burst;
            if (flush(c) < 0) return -1;
        } else if (first & 0x80 && ++c->seen % c->every == 0 && answer(c, done, 2)) {
            return -1;
        }
    }
}

/* One readiness: -1 when the connection is over. */
static int serve(struct connection *c) {
    int waits = flush(c);
    while (waits == 0 && !c->closing) {
        if (c->in.start == c->in.end) c->in.start = c->in.end = 0;
        if (c->in.end == c->in.room) {
            if (c->in.start) {
                memmove(c->in.data, c->in.data + c->in.start, c->in.end -= c->in.start);
                c->in.start = 0;
            } else {
                c->in.data = memory(c->in.data, c->in.room = c->in.room ? c->in.room * 2 > ROOM ? c->in.room + ROOM : c->in.room * 2 : FIRST_ROOM);
            }
        }
        size_t room = c->in.room - c->in.end;
        ssize_t got = receive(c, c->in.data + c->in.end, room);
        if (got < 0) return -1;
        if (!got) break;
        c->in.end += got;
        if ((size_t)got == room && c->in.room < ROOM) c->in.data = memory(c->in.data, c->in.room = ROOM);
        if (c->mode == HANDSHAKE && shake_hands(c)) return -1;
        if (c->mode != HANDSHAKE && take_frames(c)) return -1;
        waits = flush(c);
        /* What is inside a TLS record that was read does not show on the socket. */
        if (!c->tls && (size_t)got < room) break;
    }
    if (waits < 0 || (c->closing && !waits)) return -1;
    int watch = waits ? EPOLLOUT : EPOLLIN;
    if (watch != c->watching) {
        struct epoll_event event = {.events = c->watching = watch, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
    }
    return 0;
}

static int listener(int *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 2048)) die("listen");
    getsockname(fd, (struct sockaddr *)&address, &size);
    *port = ntohs(address.sin_port);
    return fd;
}

static void welcome(int listening, int tls) {
    int fd, yes = 1;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct connection *c = memory(NULL, sizeof *c);
        memset(c, 0, sizeof *c);
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
#ifdef WITH_TLS
        if (tls) {
            c->tls = SSL_new(context);
            SSL_set_fd(c->tls, fd);
            SSL_set_accept_state(c->tls);
        }
#else
        (void)tls;
#endif
        struct epoll_event event = {.events = c->watching = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int count, char **arguments) {
    static int plain, secure; /* their addresses tell the listeners from the connections */
    int port, secure_port = 0, listening[2] = {-1, -1};
    if (count < 3) return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1000);
    signal(SIGPIPE, SIG_IGN);
    FILE *file = fopen(arguments[1], "rb");
    if (!file) die(arguments[1]);
    fseek(file, 0, SEEK_END);
    corpus_size = ftell(file);
    rewind(file);
    corpus = memory(NULL, corpus_size);
    if (fread(corpus, 1, corpus_size, file) != corpus_size) die(arguments[1]);
    fclose(file);
    corpus_frames = strtoul(arguments[2], NULL, 10);
    poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &plain};
    epoll_ctl(poller, EPOLL_CTL_ADD, listening[0] = listener(&port), &event);
#ifdef WITH_TLS
    if (count > 4) {
        context = SSL_CTX_new(TLS_server_method());
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
        if (SSL_CTX_use_certificate_chain_file(context, arguments[3]) != 1 ||
            SSL_CTX_use_PrivateKey_file(context, arguments[4], SSL_FILETYPE_PEM) != 1) die("certificate");
        event.data.ptr = &secure;
        epoll_ctl(poller, EPOLL_CTL_ADD, listening[1] = listener(&secure_port), &event);
    }
#endif
    printf("{\"plain\": %d, \"tls\": %d}\n", port, secure_port);
    fflush(stdout);
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            void *what = events[i].data.ptr;
            if (what == &plain || what == &secure) welcome(listening[what == &secure], what == &secure);
            else if (serve(what)) forget(what);
        }
    }
}
