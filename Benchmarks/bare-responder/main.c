// The least that a server of MA Queries could do on one core: take datagrams by recvmmsg, send an answer of the right size to each message
// by sendmmsg. No look-up, no cookie, no bounds but those of memory; what `deploy/bench ims` compares imsd with.
//
//   bare-responder ADDRESS PORT ANSWER-OCTETS
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 64, DATAGRAM_MAX = 1232, MESSAGES_MAX = 16, ANSWERS_MAX = BATCH * MESSAGES_MAX };

static unsigned char in_octets[BATCH][2048], out_octets[ANSWERS_MAX][DATAGRAM_MAX];
static struct sockaddr_in6 names[BATCH];
static struct iovec in_vectors[BATCH], out_vectors[ANSWERS_MAX];
static struct mmsghdr in[BATCH], out[ANSWERS_MAX];
// The local address, which the server has to take along as imsd does: answers come from where the request went.
static char controls[BATCH][64] __attribute__((aligned(8)));

int main(int count, char **arguments) {
    if (count != 4) { fprintf(stderr, "usage: bare-responder ADDRESS PORT ANSWER-OCTETS\n"); return 64; }
    struct sockaddr_in6 own = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(arguments[2])) };
    if (inet_pton(AF_INET6, arguments[1], &own.sin6_addr) != 1) { fprintf(stderr, "bare-responder: bad address\n"); return 64; }
    size_t answer = (size_t)atoi(arguments[3]) / 4 * 4;
    if (answer < 56 || answer > 1020) { fprintf(stderr, "bare-responder: answers have 56 to 1020 octets\n"); return 64; }

    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), no = 0, yes = 1, buffer = 4 << 20;
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &yes, sizeof yes);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer)) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    if (bind(fd, (struct sockaddr *)&own, sizeof own)) { perror("bare-responder: bind"); return 1; }
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = { .events = EPOLLIN };
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);

    for (int i = 0; i < BATCH; i++) {
        in_vectors[i] = (struct iovec){ in_octets[i], sizeof in_octets[i] };
        in[i].msg_hdr = (struct msghdr){ .msg_name = &names[i], .msg_iov = &in_vectors[i], .msg_iovlen = 1, .msg_control = controls[i] };
    }
    for (int i = 0; i < ANSWERS_MAX; i++) {
        out_vectors[i].iov_base = out_octets[i];
        out[i].msg_hdr = (struct msghdr){ .msg_iov = &out_vectors[i], .msg_iovlen = 1 };
    }
    // A MA Answer: type 4, code 0, flag X, its length in words; a COOKIE with both halves; the rest is filled up with a PAD.
    static unsigned char template[1020];
    template[0] = 4; template[2] = 1; template[3] = (unsigned char)(answer / 4);
    memcpy(template + 8, "\0\2\0\30", 4);
    memset(template + 20, 1, 16);
    template[37] = 1;
    template[38] = (unsigned char)((answer - 40) >> 8); template[39] = (unsigned char)(answer - 40);

    for (;;) {
        for (int i = 0; i < BATCH; i++) { in[i].msg_hdr.msg_namelen = sizeof names[i]; in[i].msg_hdr.msg_controllen = sizeof controls[i]; }
        int received = recvmmsg(fd, in, BATCH, MSG_DONTWAIT, NULL);
        if (received <= 0) { epoll_wait(epoll, &event, 1, -1); continue; }
        int answers = 0;
        for (int i = 0; i < received; i++) {
            unsigned char *message = in_octets[i], *end = message + in[i].msg_len;
            size_t used = DATAGRAM_MAX;
            for (int n = 0; n < MESSAGES_MAX && message + 20 <= end; n++) {
                size_t length = (size_t)message[3] * 4;
                if (length < 8 || message + length > end) break;
                if (used + answer > DATAGRAM_MAX) {
                    out[answers].msg_hdr.msg_name = &names[i];
                    out[answers].msg_hdr.msg_namelen = in[i].msg_hdr.msg_namelen;
                    out[answers].msg_hdr.msg_control = controls[i];
                    out[answers].msg_hdr.msg_controllen = in[i].msg_hdr.msg_controllen;
                    answers++;
                    used = 0;
                }
                unsigned char *to = out_octets[answers - 1] + used;
                memcpy(to, template, answer);
                memcpy(to + 4, message + 4, 4);
                memcpy(to + 12, message + 12, 8);
                used += answer;
                out_vectors[answers - 1].iov_len = used;
                message += length;
            }
        }
        for (int sent = 0; sent < answers;) {
            int n = sendmmsg(fd, out + sent, (unsigned)(answers - sent), 0);
            sent += n > 0 ? n : 1;
        }
    }
}
