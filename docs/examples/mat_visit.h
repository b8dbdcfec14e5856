/*
 * A home address of the network that this host is in, for programs: sessions begun from it take the short path from here, and survive the
 * next moves (matd.yaml(5), `visited`; matd(8), "Control socket").
 *
 *     char home[MAT_VISIT_ADDRESS], error[MAT_VISIT_ERROR];
 *     int visit = mat_visit(NULL, AF_INET, home, error);
 *     if (visit < 0) errx(1, "%s", error);
 *     ... bind sockets to `home`, connect, talk ...
 *     mat_visit_release(visit);
 *
 * The address is the program's as long as `visit` is open: a program that dies gives it back, and a child that inherits `visit` keeps it.
 * A header and nothing else; C99, POSIX.
 */
#ifndef MAT_VISIT_H
#define MAT_VISIT_H

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define MAT_VISIT_CONTROL "/run/matd/control.sock"
/* Octets, with the zero at the end. */
#define MAT_VISIT_ADDRESS 46
#define MAT_VISIT_ERROR 256
/* How long matd may take to get an address, in seconds. */
#define MAT_VISIT_SECONDS 30

static inline int mat_visit_failed(int visit, char *error, const char *what, const char *why)
{
	if (visit >= 0)
		close(visit);
	snprintf(error, MAT_VISIT_ERROR, "%s%s%s", what, why ? ": " : "", why ? why : "");
	return -1;
}

/* The text behind "key":" in a line of JSON; without escapes but \" and \\, as matd's answers are. Returns whether it is there. */
static inline int mat_visit_field(const char *line, const char *key, char *value, size_t size)
{
	char quoted[32];
	const char *from;
	size_t count = 0;

	snprintf(quoted, sizeof quoted, "\"%s\":\"", key);
	from = strstr(line, quoted);
	if (!from)
		return 0;
	for (from += strlen(quoted); *from && *from != '"' && count + 1 < size; from++) {
		if (*from == '\\' && from[1])
			from++;
		value[count++] = *from;
	}
	value[count] = 0;
	return 1;
}

/*
 * Asks for a home address of this family (AF_INET, AF_INET6) and waits for it.
 *
 * control: matd's socket; NULL: MAT_VISIT_CONTROL.
 * home: MAT_VISIT_ADDRESS octets for the address as text. error: MAT_VISIT_ERROR octets for what went wrong, for people.
 * Returns a descriptor that holds the address; -1 if there is none.
 */
static inline int mat_visit(const char *control, int family, char *home, char *error)
{
	struct sockaddr_un path = {.sun_family = AF_UNIX};
	struct timeval wait = {.tv_sec = MAT_VISIT_SECONDS};
	char line[4096];
	size_t count = 0;
	ssize_t some;
	int visit;

	if (!control)
		control = MAT_VISIT_CONTROL;
	if (strlen(control) >= sizeof path.sun_path)
		return mat_visit_failed(-1, error, control, "the path is too long");
	strcpy(path.sun_path, control);
	visit = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (visit < 0 || connect(visit, (struct sockaddr *)&path, sizeof path))
		return mat_visit_failed(visit, error, control, strerror(errno));
	setsockopt(visit, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
	snprintf(line, sizeof line, "{\"command\":\"visit\",\"arguments\":{\"family\":\"%s\"}}\n", family == AF_INET6 ? "ipv6" : "ipv4");
	if (send(visit, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line))
		return mat_visit_failed(visit, error, control, strerror(errno));
	do {
		some = recv(visit, line + count, sizeof line - 1 - count, 0);
		if (some <= 0)
			return mat_visit_failed(visit, error, "matd does not answer", some ? strerror(errno) : NULL);
		count += (size_t)some;
	} while (!memchr(line, '\n', count) && count < sizeof line - 1);
	line[count] = 0;
	if (mat_visit_field(line, "address", home, MAT_VISIT_ADDRESS))
		return visit;
	if (!mat_visit_field(line, "error", error, MAT_VISIT_ERROR))
		mat_visit_failed(-1, error, "matd's answer can't be read", NULL);
	close(visit);
	return -1;
}

/* Gives the address back. Connections from it end. */
static inline void mat_visit_release(int visit)
{
	static const char line[] = "{\"command\":\"release\"}\n";
	char answer[256];

	if (send(visit, line, sizeof line - 1, MSG_NOSIGNAL) == (ssize_t)sizeof line - 1)
		(void)!recv(visit, answer, sizeof answer, 0);
	close(visit);
}

#endif
