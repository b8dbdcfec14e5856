/*
 * Talks to a host from a home address of the network that this host is in: what comes from the standard input goes there, and back.
 *
 *     cc -o visit visit.c
 *     ./visit [-6] [-c CONTROL] [HOST PORT]
 *
 * Without HOST and PORT it prints the address, and has it until its standard input ends: for programs that can be told what to bind, as in
 * `ping -I`, `ssh -b`, `curl --interface`.
 */
#include "mat_visit.h"

#include <err.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>

/* A TCP connection from `home`, whose port the kernel chooses. */
static int connect_from(const char *home, int family, const char *host, const char *port)
{
	struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM}, *own, *peer;
	int result, connection;

	hints.ai_flags = AI_NUMERICHOST | AI_PASSIVE;
	result = getaddrinfo(home, "0", &hints, &own);
	if (result)
		errx(1, "%s: %s", home, gai_strerror(result));
	hints.ai_flags = 0;
	result = getaddrinfo(host, port, &hints, &peer);
	if (result)
		errx(1, "%s: %s", host, gai_strerror(result));
	connection = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connection < 0 || bind(connection, own->ai_addr, own->ai_addrlen))
		err(1, "bind %s", home);
	if (connect(connection, peer->ai_addr, peer->ai_addrlen))
		err(1, "connect to %s from %s", host, home);
	freeaddrinfo(own);
	freeaddrinfo(peer);
	return connection;
}

/* Returns whether there was something. */
static int copy(int from, int to)
{
	char octets[65536], *rest = octets;
	ssize_t count = read(from, octets, sizeof octets), some;

	while (count > 0) {
		some = write(to, rest, (size_t)count);
		if (some < 0)
			err(1, "write");
		rest += some;
		count -= some;
	}
	return rest != octets;
}

int main(int argc, char **argv)
{
	char home[MAT_VISIT_ADDRESS], error[MAT_VISIT_ERROR];
	const char *control = NULL;
	int option, family = AF_INET, visit;

	while ((option = getopt(argc, argv, "6c:")) != -1) {
		switch (option) {
		case '6': family = AF_INET6; break;
		case 'c': control = optarg; break;
		default: errx(2, "usage: visit [-6] [-c CONTROL] [HOST PORT]");
		}
	}
	visit = mat_visit(control, family, home, error);
	if (visit < 0)
		errx(1, "%s", error);
	if (argc - optind == 2) {
		int connection = connect_from(home, family, argv[optind], argv[optind + 1]);
		struct pollfd ends[2] = {{.fd = 0, .events = POLLIN}, {.fd = connection, .events = POLLIN}};

		fprintf(stderr, "from %s\n", home);
		while (poll(ends, 2, -1) > 0) {
			if (ends[1].revents && !copy(connection, 1))
				break;
			if (ends[0].revents && !copy(0, connection)) {
				shutdown(connection, SHUT_WR);
				ends[0].fd = -1;
			}
		}
		close(connection);
	} else {
		puts(home);
		fflush(stdout);
		while (getchar() != EOF)
			;
	}
	mat_visit_release(visit);
	return 0;
}
